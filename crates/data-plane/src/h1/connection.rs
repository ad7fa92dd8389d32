//! One connection to an endpoint: socket, read buffer, deadline.

use super::deadline::Deadline;
use super::incoming;
use super::outgoing::Outgoing;
use crate::upstream_io::UpstreamIo;
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Bytes asked for in one read of a body whose length nobody knows, and at most of one that is known to be long.
pub(super) const READ_BODY: usize = 16 * 1024;
pub(super) const READ_LONG_BODY: usize = 32 * 1024;

/// A connection to an endpoint, used by one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    io: UpstreamIo,
    addr: SocketAddr,
    /// How it leads there: [`crate::upstream_tls::transport`].
    transport: u64,
    /// Read and not yet understood.
    pub(super) buffer: BytesMut,
    pub(super) deadline: Deadline,
    /// Requests it has carried, the current one included.
    requests: u32,
    /// It began with the name of one client, and is of no use to others.
    introduced: bool,
    rests_until: Instant,
    /// From then on it does not rest any more; `None`: it may become as old as it likes.
    end_of_life: Option<Instant>,
}

impl Connection {
    /// Takes a connected socket.
    pub(crate) fn new(io: UpstreamIo, addr: SocketAddr, transport: u64) -> Self {
        Self {
            io,
            addr,
            transport,
            buffer: BytesMut::new(),
            deadline: Deadline::default(),
            requests: 0,
            introduced: false,
            rests_until: Instant::now(),
            end_of_life: None,
        }
    }

    /// Says how long it may be used.
    pub(crate) fn living_until(mut self, end: Option<Instant>) -> Self {
        self.end_of_life = end;
        self
    }

    /// How long it may be used.
    pub(crate) fn end_of_life(&self) -> Option<Instant> {
        self.end_of_life
    }

    /// The endpoint it leads to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How it leads there.
    pub(crate) fn transport(&self) -> u64 {
        self.transport
    }

    /// Whether it has carried a request before the current one.
    pub(crate) fn is_reused(&self) -> bool {
        self.requests > 1
    }

    /// Requests it has carried.
    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    /// Counts one more request.
    pub(crate) fn begin(&mut self) {
        self.requests += 1;
    }

    /// The socket and what was read from it, for another protocol.
    pub(crate) fn into_parts(self) -> (UpstreamIo, BytesMut) {
        (self.io, self.buffer)
    }

    /// Notes that it begins with the name of one client.
    pub(crate) fn introduce(&mut self) {
        self.introduced = true;
    }

    /// Whether it began with the name of one client.
    pub(crate) fn is_introduced(&self) -> bool {
        self.introduced
    }

    /// Until when it may wait in the pool.
    pub(crate) fn rests_until(&self) -> Instant {
        self.rests_until
    }

    /// Makes it ready to wait: no deadline, and no buffer unless the upstream sent what nobody asked for.
    pub(crate) fn rest(&mut self, until: Instant) {
        self.deadline.clear();
        self.rests_until = until;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Whether it can carry a request: still open, with nothing unasked-for in it.
    pub(crate) fn is_usable(&mut self) -> bool {
        self.buffer.is_empty() && self.io.is_quiet()
    }

    /// Reads some bytes behind what the buffer holds, with room for as many as are wanted. `Ok(0)`: the upstream has closed.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        want: usize,
    ) -> Poll<io::Result<usize>> {
        incoming::poll_fill(&mut self.io, cx, &mut self.buffer, want)
    }

    /// Writes some of it.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
    ) -> Poll<io::Result<usize>> {
        out.poll_write(cx, &mut self.io)
    }
}
