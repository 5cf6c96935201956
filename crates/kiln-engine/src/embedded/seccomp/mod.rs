//! The system calls instances may make: those listed, and no others.
//!
//! Tighter than the default profiles of container engines where nothing that serves users needs more: no new
//! namespaces, no debugging of others, no key rings, no raw access to files by handle, and of the socket families
//! only those that stay within the instance's own network namespace.
//!
//! | module | noun |
//! |---|---|
//! | `allowed` | the list |
//! | `program` | a filter program for the kernel, made from such a list |

mod allowed;
mod program;

/// The filter of instances that ask for nothing special.
pub(super) fn filter() -> Vec<libc::sock_filter> {
    program::assemble(&allowed::calls(), &allowed::conditions())
}

/// The filter of those that asked to call `chroot` as well.
pub(super) fn filter_with_chroot() -> Vec<libc::sock_filter> {
    let calls = [allowed::calls(), vec![libc::SYS_chroot]].concat();
    program::assemble(&calls, &allowed::conditions())
}
