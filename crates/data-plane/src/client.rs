//! One client connection: who is at the other end, what it is doing, and how long it may take over it.
//!
//! Its socket with the deadlines is in `client_io`.

use crate::client_certificate::TlsSession;
use crate::forwarded_headers::{addr_text, client_addr, is_trusted};
use crate::h1;
use crate::proxy_header::Ends;
use crate::stream_stall::StreamProgress;
use http::HeaderMap;
use ipnet::IpNet;
use routing_table::{ClientAddress, ClusterId, ListenerId};
use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For the TLS handshake. Default 5 s.
    pub handshake: Duration,
    /// From accept to the first byte of the first request. Default 15 s.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head. Default 10 s.
    pub head: Duration,
    /// Between two requests. Default 75 s.
    pub idle: Duration,
    /// For the client to send the next piece of a request's body. Default 30 s.
    pub body_idle: Duration,
    /// Bytes a second that a request's body must come to on average, after twice [`ClientTimeouts::body_idle`]; else a byte
    /// now and then would keep it open for ever. At least 1. Default 128.
    pub body_min_rate: u64,
    /// For the client to take something of what we write. Default 30 s.
    pub write_stall: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            first_byte: Duration::from_secs(15),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_idle: Duration::from_secs(30),
            body_min_rate: 128,
            write_stall: Duration::from_secs(30),
        }
    }
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub(crate) listener: ListenerId,
    /// The client's address.
    pub(crate) addr: SocketAddr,
    /// The address it connected to, where that was asked for.
    destination: Option<SocketAddr>,
    /// The client's address as fields and logs show it.
    pub(crate) addr_text: String,
    /// Whether its word about earlier hops counts.
    pub(crate) trusted: bool,
    /// Where it counts: the networks whose word does. Else empty.
    trusted_networks: Box<[IpNet]>,
    pub(crate) scheme: &'static str,
    /// What the TLS handshake came to; set before the first request.
    pub(crate) tls: OnceCell<TlsSession>,
    /// The port it connected to.
    pub(crate) port: u16,
    /// Requests begun.
    requests: Cell<u64>,
    /// Requests in progress.
    active: Cell<u32>,
    /// When the first byte of the request that is being read came.
    reading_since: Cell<Option<Instant>>,
    /// When the last request ended, or the connection was accepted.
    idle_since: Cell<Instant>,
    /// Asked to end after what is in progress.
    draining: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// It sends nothing more (HTTP/1.1): it may be done, or gone.
    pub(crate) has_ended: Cell<bool>,
    /// Its socket broke, or was shut by us.
    pub(crate) is_over: Cell<bool>,
    /// Its request waits for an endpoint.
    pub(crate) is_queued: Cell<bool>,
    /// For the streams of HTTP/2.
    pub(crate) streams: StreamProgress,
    /// The endpoint's connection that was authenticated for this client.
    pinned: RefCell<Option<Pinned>>,
}

/// A connection to an endpoint that no other client may use: what is authenticated by NTLM or Negotiate is the connection, not
/// the request.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) cluster: ClusterId,
    pub(crate) connection: h1::connection::Connection,
}

impl ClientConnection {
    /// A connection that was accepted just now.
    pub(crate) fn new(
        listener: ListenerId,
        peer: SocketAddr,
        destination: Option<SocketAddr>,
        port: u16,
        tls: bool,
        trusted: &[IpNet],
    ) -> Rc<Self> {
        let is_trusted = is_trusted(peer.ip(), trusted);
        Rc::new(Self {
            listener,
            addr: peer,
            destination,
            addr_text: addr_text(peer.ip()),
            trusted: is_trusted,
            trusted_networks: if is_trusted {
                trusted.into()
            } else {
                [].into()
            },
            scheme: if tls { "https" } else { "http" },
            tls: OnceCell::new(),
            port,
            requests: Cell::new(0),
            active: Cell::new(0),
            reading_since: Cell::new(None),
            idle_since: Cell::new(Instant::now()),
            draining: Cell::new(false),
            waker: RefCell::new(None),
            has_ended: Cell::new(false),
            is_over: Cell::new(false),
            is_queued: Cell::new(false),
            streams: StreamProgress::default(),
            pinned: RefCell::new(None),
        })
    }

    /// Both ends of its connection. Where nobody asked for the address it connected to, that is the unspecified one.
    pub(crate) fn ends(&self) -> Ends {
        let unspecified = match self.addr {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Ends {
            source: self.addr,
            destination: self
                .destination
                .unwrap_or(SocketAddr::new(unspecified, self.port)),
        }
    }

    /// Counts a request; gives when its first byte came.
    pub(crate) fn begin_request(&self) -> Instant {
        self.requests.set(self.requests.get() + 1);
        self.active.set(self.active.get() + 1);
        self.reading_since.take().unwrap_or_else(Instant::now)
    }

    /// Counts the end of a request.
    pub(crate) fn end_request(&self, now: Instant) {
        self.active.set(self.active.get().saturating_sub(1));
        self.idle_since.set(now);
    }

    /// Requests in progress.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// Requests begun so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Notes that the first byte of the next request is here.
    pub(crate) fn begin_reading(&self) {
        if self.active.get() == 0 && self.reading_since.get().is_none() {
            self.reading_since.set(Some(Instant::now()));
        }
    }

    /// When the client must have sent something; `None` while a request is in progress, whose own deadlines rule.
    pub(crate) fn read_until(&self, timeouts: &ClientTimeouts) -> Option<Instant> {
        if self.active.get() > 0 {
            return None;
        }
        Some(match (self.reading_since.get(), self.requests.get()) {
            (Some(since), _) => since + timeouts.head,
            (None, 0) => self.idle_since.get() + timeouts.first_byte,
            (None, _) => self.idle_since.get() + timeouts.idle,
        })
    }

    /// Whether it has made a request and nothing has been heard of it for so long.
    pub(crate) fn has_rested_for(&self, time: Duration, now: Instant) -> bool {
        self.active.get() == 0
            && self.requests.get() > 0
            && self.reading_since.get().is_none()
            && !self.draining.get()
            && now.saturating_duration_since(self.idle_since.get()) >= time
    }

    /// Whether part of a request has come.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading_since.get().is_some()
    }

    /// Keeps a connection for this client alone.
    pub(crate) fn pin(&self, pinned: Pinned) {
        self.pinned.replace(Some(pinned));
    }

    /// The connection to this cluster that is kept for this client, if it still can be used.
    pub(crate) fn take_pinned(&self, cluster: &ClusterId) -> Option<h1::connection::Connection> {
        let mut place = self.pinned.borrow_mut();
        place.as_ref().filter(|pinned| pinned.cluster == *cluster)?;
        let mut connection = place.take()?.connection;
        connection.is_usable().then_some(connection)
    }

    /// Asks it to end after what is in progress, and wakes it up.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether it was asked to end; else the task is woken when it is.
    pub(crate) fn is_draining(&self, cx: &Context<'_>) -> bool {
        if !self.draining.get() {
            let mut waker = self.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
        }
        self.draining.get()
    }
}

impl ClientAddress for ClientConnection {
    fn address(&self, headers: &HeaderMap) -> Option<IpAddr> {
        Some(client_addr(headers, self, &self.trusted_networks))
    }
}
