//! Memory that was freed, on its way back.

/// To be called when much has been freed in small pieces, as by a look through the whole log. The allocator puts such
/// pieces together when somebody asks for a large one: here, and not in the middle of the next deploy. What is whole again
/// goes back to the system.
pub(super) fn settle() {
    // SAFETY: it reads and changes nothing but the allocator's own state, under its locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
