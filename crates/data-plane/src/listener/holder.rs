//! Who has a port that we cannot have, as Linux shows it in `/proc`. A guess for a message: nothing depends on it.

use super::Speaks;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// Processes that are looked at; on a machine with more the holder may stay unknown.
const MOST_PROCESSES: usize = 10_000;
/// State of a socket that listens, `TCP_LISTEN`; one for datagrams without a peer is `TCP_CLOSE` (include/net/tcp_states.h).
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// The process that listens on the port of this address: `process 123 (nginx)`. `None` where that cannot be seen, as for
/// processes of other users.
pub(super) fn holder(addr: SocketAddr, speaks: Speaks) -> Option<String> {
    let (tables, state) = match speaks {
        Speaks::Udp => (["/proc/net/udp", "/proc/net/udp6"], UNCONNECTED),
        Speaks::Http | Speaks::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], LISTENING),
    };
    let tables = tables.iter();
    let tables = tables.filter_map(|table| fs::read_to_string(table).ok());
    let sockets: Vec<String> = tables
        .flat_map(|table| inodes(&table, addr.port(), state))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let entries = fs::read_dir("/proc").ok()?.flatten();
    // Not `self` and whatever else is there.
    let is_process = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let mut processes = entries
        .filter(|entry| is_process(&entry.file_name()))
        .take(MOST_PROCESSES);
    let found = processes.find(|process| has_one_of(&process.path(), &sockets))?;
    let number = found.file_name().to_string_lossy().into_owned();
    if number == std::process::id().to_string() {
        return Some("this process itself: another listener, or the admin port".to_owned());
    }
    let name = fs::read_to_string(found.path().join("comm")).unwrap_or_default();
    Some(format!("process {number} ({})", name.trim().escape_debug()))
}

/// Inodes of the sockets of a table of `/proc/net` that have this local port and state (proc_net_tcp(5)).
fn inodes(table: &str, port: u16, state: &str) -> Vec<String> {
    let port = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let fits = fields.get(1)?.ends_with(&port) && *fields.get(3)? == state;
        fits.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// Whether a process has one of these open.
fn has_one_of(process: &Path, sockets: &[String]) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    open.flatten().any(|descriptor| {
        let target = fs::read_link(descriptor.path());
        target.is_ok_and(|target| sockets.iter().any(|socket| target == Path::new(socket)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_socket_of_our_own_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (addr, speaks) in [
            (tcp.local_addr().unwrap(), Speaks::Http),
            (udp.local_addr().unwrap(), Speaks::Udp),
        ] {
            let found = holder(addr, speaks);
            let is_us = found
                .as_ref()
                .is_some_and(|found| found.starts_with("this process itself"));
            assert!(is_us, "{found:?}");
        }
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0\n   \
            1: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0\n   \
            2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0\n   3:\n";
        assert_eq!(inodes(table, 8080, LISTENING), ["11"]);
    }
}
