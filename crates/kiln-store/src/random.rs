//! Random numbers, from the system.

use std::io;

use crate::Result;
use crate::error::on;

pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    filled.map_err(|_| {
        let source = io::Error::other("the system's source of random numbers failed");
        on("read", std::path::Path::new("/dev/urandom"))(source)
    })?;
    Ok(bytes)
}
