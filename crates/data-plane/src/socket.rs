//! What every TCP socket of ours is set to, whoever is at the other end.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;

/// A peer that says nothing is asked whether it is still there after this, and again this often.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PROBES: u32 = 4;
/// An endpoint that acknowledges nothing of what was sent to it is given up after this. Not for clients: a reader of a relay
/// may rest longer, and the deadlines of HTTP are shorter.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends small pieces at once, and notices a peer at rest that is gone without a word within 90 seconds. Sockets that are
/// accepted from a listening one inherit that, so a connection of a client costs no system call for it.
pub(crate) fn tune(socket: SockRef<'_>) -> io::Result<()> {
    // Without it a small message may wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEP_ALIVE_IDLE)
            .with_interval(KEEP_ALIVE_INTERVAL)
            .with_retries(KEEP_ALIVE_PROBES),
    )
}

/// As [`tune`], for a connection of HTTP to an endpoint.
pub(crate) fn tune_upstream(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    tune(socket)
}
