//! Connections inside an instance's network, as /proc tells of them.

use std::fs;
use std::io;

/// The state of a connection that is open.
const ESTABLISHED: &str = "01";

/// How many connections to `port` are open in the network of process `pid`.
pub(super) fn open_to(pid: u32, port: u16) -> io::Result<u32> {
    let mut count = 0;
    for file in ["tcp", "tcp6"] {
        count += count_in(&fs::read_to_string(format!("/proc/{pid}/net/{file}"))?, port);
    }
    Ok(count)
}

/// `  0: 0100007F:1F90 0100007F:B1C6 01 …`: address and port of this side and the other, and the state, in hex.
fn count_in(table: &str, port: u16) -> u32 {
    let is_ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.rsplit_once(':'));
        let is_port = local.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
        is_port && fields.nth(1) == Some(ESTABLISHED)
    };
    u32::try_from(table.lines().skip(1).filter(is_ours).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_open_ones_to_the_port_count() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:1F90 0100007F:B1C6 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 0100007F:B1C6 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0
   3: 0100007F:1F90 0100007F:B1C8 06 00000000:00000000 00:00000000 00000000     0        0 4 1 0
";
        assert_eq!(count_in(table, 8080), 1);
        assert_eq!(count_in(table, 80), 0);
        assert_eq!(count_in("", 80), 0);
    }

    #[test]
    fn the_kernel_tells_of_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let pid = std::process::id();
        assert_eq!(open_to(pid, port).unwrap(), 0);
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(open_to(pid, port).unwrap(), 1);
    }
}
