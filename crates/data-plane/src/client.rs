//! One client connection: who is at the other end, what it is doing, and how long it may take over it.
//!
//! Deadlines wrap the socket from `accept` on ([`ClientIo`]), so there is no code path without one: a client that has sent
//! nothing, half a head, or rests between requests is cut by the socket itself. While a request is in progress its own
//! deadlines rule (see `h1/exchange.rs`), and only a stalled write is watched here.

use crate::forwarded_headers::{addr_text, is_trusted};
use crate::h1::deadline::Deadline;
use crate::proxy_header::Ends;
use ipnet::IpNet;
use routing_table::ListenerId;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Answers up to this many bytes are written in one piece.
const SMALL_WRITE: usize = 1024;

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
    pub(crate) scheme: &'static str,
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
        Rc::new(Self {
            listener,
            addr: peer,
            destination,
            addr_text: addr_text(peer.ip()),
            trusted: is_trusted(peer.ip(), trusted),
            scheme: if tls { "https" } else { "http" },
            port,
            requests: Cell::new(0),
            active: Cell::new(0),
            reading_since: Cell::new(None),
            idle_since: Cell::new(Instant::now()),
            draining: Cell::new(false),
            waker: RefCell::new(None),
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

    /// Requests begun so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
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

/// A client's socket with its deadlines.
pub(crate) struct ClientIo<S> {
    io: S,
    client: Rc<ClientConnection>,
    timeouts: ClientTimeouts,
    /// Frames of HTTP/2 come between requests too, so there a byte does not begin a head.
    http2: bool,
    read: Deadline,
    write: Deadline,
}

impl<S> ClientIo<S> {
    pub(crate) fn new(
        io: S,
        client: Rc<ClientConnection>,
        timeouts: ClientTimeouts,
        http2: bool,
    ) -> Self {
        Self {
            io,
            client,
            timeouts,
            http2,
            read: Deadline::default(),
            write: Deadline::default(),
        }
    }

    /// When the client must have sent something; `None` while a request is in progress.
    fn read_until(&self) -> Option<Instant> {
        let client = &self.client;
        if client.active.get() > 0 {
            return None;
        }
        Some(match (client.reading_since.get(), client.requests.get()) {
            (Some(since), _) => since + self.timeouts.head,
            (None, 0) => client.idle_since.get() + self.timeouts.first_byte,
            (None, _) => client.idle_since.get() + self.timeouts.idle,
        })
    }

    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write.clear();
            return written;
        }
        if !self.write.is_set() {
            self.write.set(Instant::now() + self.timeouts.write_stall);
        }
        match self.write.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.io).poll_read(cx, buffer) {
            let begins = !this.http2
                && this.client.active.get() == 0
                && this.client.reading_since.get().is_none();
            if begins && buffer.filled().len() > before {
                this.client.reading_since.set(Some(Instant::now()));
            }
            return Poll::Ready(result);
        }
        let Some(until) = this.read_until() else {
            return Poll::Pending;
        };
        this.read.set(until);
        match this.read.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let written = if total <= SMALL_WRITE {
            // Copying a small answer costs less than the kernel takes to look at a list of pieces.
            let mut whole = [0; SMALL_WRITE];
            let mut end = 0;
            for piece in pieces {
                whole[end..end + piece.len()].copy_from_slice(piece);
                end += piece.len();
            }
            Pin::new(&mut self.io).poll_write(cx, &whole[..end])
        } else {
            Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
        };
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch_write(cx, shut)
    }
}
