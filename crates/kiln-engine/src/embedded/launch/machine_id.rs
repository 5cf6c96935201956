//! The identity of an instance, as machine-id(5) has it: made when it starts, and gone with it. Images have a link to it
//! where programs look for it.

use std::io;

use kiln_model::{InstanceOrder, hex_pair};

use super::ids::AppIds;
use super::raw::{self, Errno};

/// Where it is: in a directory that is volatile in every instance of a spec.
const DIRECTORY: &str = "/run";
const DIGITS: usize = 32;

/// What is to be written.
pub(super) struct MachineId {
    text: [u8; DIGITS + 1],
    owner: (u32, u32),
}

impl MachineId {
    /// A new one; none if there is no place for it.
    pub(super) fn of(order: &InstanceOrder, ids: AppIds) -> io::Result<Option<Self>> {
        if !order.volatile.iter().any(|volatile| volatile.path == DIRECTORY) {
            return Ok(None);
        }
        let owner = (ids.outside(order.run.uid), ids.outside(order.run.gid));
        Ok(Some(Self { text: text(random()?), owner }))
    }

    /// Writes it. Runs in the child: no allocation.
    pub(super) fn give(&self) -> Result<(), Errno> {
        raw::new_file(c"/run/machine-id", &self.text, 0o444, self.owner)
    }
}

fn random() -> io::Result<[u8; DIGITS / 2]> {
    let mut bytes = [0; DIGITS / 2];
    // SAFETY: the kernel writes as many bytes as there is room for.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if filled == bytes.len() as isize { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// Hexadecimal, and marked as a random UUID, as other tools make it.
fn text(mut bytes: [u8; DIGITS / 2]) -> [u8; DIGITS + 1] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'\n'; DIGITS + 1];
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits.copy_from_slice(&hex_pair(byte));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_random_uuid_without_dashes() {
        assert_eq!(&text([0xff; 16]), b"ffffffffffff4fffbfffffffffffffff\n");
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
