//! The idle connections of one worker, by endpoint: last in, first out, so that few stay in use and the rest grow old.
//!
//! A worker owns its pool; nothing here is shared between threads.

use crate::h1::connection::Connection;
use crate::h2::SharedConnection;
use crate::random_number;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Room for most heads of requests.
const HEAD: usize = 1024;
/// Buffers for heads that are kept, and how large one of them may have grown: 128 KiB a worker.
const HEADS_KEPT: usize = 32;
const LARGEST_HEAD_KEPT: usize = 4 * 1024;

/// Idle connections by endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    /// By address and transport: a plain connection never stands in for one with TLS, nor one TLS for another.
    idle: RefCell<foldhash::HashMap<(SocketAddr, u64), Vec<Connection>>>,
    /// Connections of HTTP/2, which are in use and in here at the same time.
    shared: RefCell<foldhash::HashMap<(SocketAddr, u64), Shared>>,
    limits: PoolLimits,
    /// The time of the last sweep: near enough for limits of seconds, and not read from the clock for each request.
    now: Cell<Instant>,
    /// Buffers for heads on their way out, so that a message need not allocate one.
    heads: RefCell<Vec<Vec<u8>>>,
}

/// The connections of HTTP/2 to one endpoint.
#[derive(Debug, Default)]
struct Shared {
    connections: Vec<SharedConnection>,
    connecting: Rc<Mutex<()>>,
}

/// Limits of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// How long a connection may rest. Default 20 s, shorter when the upstream says so.
    pub idle: Duration,
    /// Most connections at rest for each endpoint and worker. Default 1024.
    pub idle_per_endpoint: usize,
    /// Most requests on one connection. Default 10,000.
    pub requests: u32,
    /// How old a connection may become; up to a fifth less, so that those that were made together do not end together. What it
    /// carries then ends in peace. Default: as old as it likes.
    pub life: Option<Duration>,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(20),
            idle_per_endpoint: 1024,
            requests: 10_000,
            life: None,
        }
    }
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(limits: PoolLimits) -> Self {
        Self {
            idle: RefCell::default(),
            shared: RefCell::default(),
            limits,
            now: Cell::new(Instant::now()),
            heads: RefCell::default(),
        }
    }

    /// When a connection that is made now has been used for long enough. The time is that of the last sweep: it is seconds or
    /// more that are counted.
    pub(crate) fn end_of_life(&self) -> Option<Instant> {
        let life = self.limits.life?;
        let share = 0.8 + 0.2 * (random_number() as f64 / u64::MAX as f64);
        Some(self.now.get() + life.mul_f64(share))
    }

    /// A connection to this endpoint, by this transport, that is ready for a request.
    pub(crate) fn take(&self, addr: SocketAddr, transport: u64) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&(addr, transport))?;
        while let Some(mut connection) = connections.pop() {
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// A connection of HTTP/2 to this endpoint that takes one more request.
    pub(crate) fn take_shared(&self, addr: SocketAddr, transport: u64) -> Option<SharedConnection> {
        let shared = self.shared.borrow();
        let connections = &shared.get(&(addr, transport))?.connections;
        connections
            .iter()
            .find(|connection| connection.has_room(self.limits.requests, self.now.get()))
            .cloned()
    }

    /// Makes a connection of HTTP/2 known.
    pub(crate) fn share(&self, addr: SocketAddr, transport: u64, connection: SharedConnection) {
        let mut shared = self.shared.borrow_mut();
        let connections = &mut shared.entry((addr, transport)).or_default().connections;
        connections.push(connection);
    }

    /// Held while a connection of HTTP/2 is made, so that many requests do not make as many connections.
    pub(crate) fn connecting(&self, addr: SocketAddr, transport: u64) -> Rc<Mutex<()>> {
        let mut shared = self.shared.borrow_mut();
        Rc::clone(&shared.entry((addr, transport)).or_default().connecting)
    }

    /// Takes back a connection whose response has ended. `idle_seconds` is what the upstream said of its own limit.
    pub(crate) fn give(&self, mut connection: Connection, idle_seconds: Option<u64>) {
        if connection.requests() >= self.limits.requests || connection.is_introduced() {
            return;
        }
        // A second less than the upstream's own limit, so that it is us who close.
        let theirs = idle_seconds.map(|seconds| Duration::from_secs(seconds.saturating_sub(1)));
        let rest = theirs.map_or(self.limits.idle, |theirs| theirs.min(self.limits.idle));
        if rest.is_zero() {
            return;
        }
        let mut until = self.now.get() + rest;
        if let Some(end) = connection.end_of_life() {
            until = until.min(end);
            if until <= self.now.get() {
                return;
            }
        }
        connection.rest(until);
        let mut idle = self.idle.borrow_mut();
        let key = (connection.addr(), connection.transport());
        let connections = idle.entry(key).or_default();
        if connections.len() < self.limits.idle_per_endpoint {
            connections.push(connection);
        }
    }

    /// Closes what has rested too long, was closed by the upstream, or leads to an endpoint that is gone.
    pub(crate) fn sweep(&self, now: Instant, is_wanted: impl Fn(SocketAddr) -> bool) {
        self.now.set(now);
        self.idle.borrow_mut().retain(|(addr, _), connections| {
            if is_wanted(*addr) {
                connections.retain_mut(|connection| {
                    connection.rests_until() > now && connection.is_usable()
                });
            } else {
                connections.clear();
            }
            !connections.is_empty()
        });
        // Dropping the last handle of a connection closes it once its streams have ended.
        self.shared.borrow_mut().retain(|(addr, _), shared| {
            shared.connections.retain(|connection| {
                is_wanted(*addr)
                    && connection.is_open()
                    && !connection.has_rested(now, self.limits.idle)
                    && !connection.has_lived(now)
            });
            !shared.connections.is_empty() || Rc::strong_count(&shared.connecting) > 1
        });
    }

    /// Closes one that rests; says whether there was one.
    pub(crate) fn close_one(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let closed = idle.values_mut().find(|of_one| !of_one.is_empty());
        // The first has rested longest.
        closed.is_some_and(|of_one| of_one.drain(..1).count() == 1)
    }

    /// How many connections rest.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// An empty buffer for a head.
    pub(crate) fn head_buffer(&self) -> Vec<u8> {
        let kept = self.heads.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(HEAD))
    }

    /// Takes a head buffer back.
    pub(crate) fn give_head_buffer(&self, mut buffer: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < HEADS_KEPT && (HEAD..=LARGEST_HEAD_KEPT).contains(&buffer.capacity()) {
            buffer.clear();
            heads.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_end_apart() {
        let pool = Pool::new(PoolLimits {
            life: Some(Duration::from_secs(1000)),
            ..PoolLimits::default()
        });
        let ends = || pool.end_of_life().map(|at| (at - pool.now.get()).as_secs());
        let all: Vec<u64> = (0..1000).filter_map(|_| ends()).collect();
        assert!(all.iter().all(|end| (800..=1000).contains(end)), "{all:?}");
        for tenth in (800..1000).step_by(20) {
            let of_it = all.iter().filter(|end| (tenth..tenth + 20).contains(*end));
            assert!((40..200).contains(&of_it.count()), "{tenth}: {all:?}");
        }
        assert_eq!(Pool::new(PoolLimits::default()).end_of_life(), None);
    }
}
