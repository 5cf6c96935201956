//! Secrets: files on a tmpfs of their own, which only the instance sees and only its user may read.
//!
//! The tmpfs is never swapped out and is read-only once it is filled. Nothing of it outlives the mount namespace,
//! which goes with the instance.

use std::ffi::{CStr, CString, NulError};

use kiln_model::{InstanceOrder, SecretValue};

use super::ids::AppIds;
use super::raw::{self, Errno};

/// Where secrets are, inside. It must be possible to make it: `/run` is volatile in every instance.
const DIRECTORY: &str = "/run/secrets";
/// What the kernel charges for a file beside its content.
const PAGE: u64 = 4096;

/// The files to make.
pub(super) struct SecretFiles {
    options: CString,
    files: Vec<(CString, SecretValue)>,
    owner: (u32, u32),
}

impl SecretFiles {
    /// None if the order has no secrets.
    pub(super) fn of(order: &InstanceOrder, ids: AppIds) -> Result<Option<Self>, NulError> {
        if order.secrets.is_empty() {
            return Ok(None);
        }
        let (uid, gid) = (ids.outside(order.run.uid), ids.outside(order.run.gid));
        let pages = |bytes: usize| (bytes as u64).div_ceil(PAGE) * PAGE;
        let size: u64 = order.secrets.iter().map(|s| pages(s.value.reveal().len())).sum();
        let inodes = order.secrets.len() + 1;
        let options = format!("mode=0500,uid={uid},gid={gid},size={size},nr_inodes={inodes},noswap");
        let file = |s: &kiln_model::SecretOrder| {
            Ok((CString::new(format!("{DIRECTORY}/{}", s.name))?, s.value.clone()))
        };
        let files = order.secrets.iter().map(file).collect::<Result<_, NulError>>()?;
        Ok(Some(Self { options: CString::new(options)?, files, owner: (uid, gid) }))
    }

    /// Makes them. Runs in the child, before it has a user namespace: no allocation.
    pub(super) fn give(&self) -> Result<(), Errno> {
        const PATH: &CStr = c"/run/secrets";
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        match raw::make_dir(PATH, 0o500) {
            Ok(()) | Err(libc::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        raw::mount(c"tmpfs", PATH, c"tmpfs", flags, &self.options)?;
        for (path, value) in &self.files {
            raw::new_file(path, value.reveal(), 0o400, self.owner)?;
        }
        raw::mount(c"", PATH, c"", flags | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, c"")
    }
}
