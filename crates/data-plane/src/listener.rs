//! Listening sockets: opened and closed as tables come and go, one socket per worker and listener (`SO_REUSEPORT`).
//!
//! The publisher opens them, so that "port in use" is an error of the update that asked for it; workers take their own.

mod holder;

use crate::socket;
use routing_table::{Listener, ListenerId, ListenerProtocol};
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections the kernel queues before we accept them, per socket.
const BACKLOG: i32 = 4096;

/// Listeners that cannot listen; the others do.
#[derive(Debug, thiserror::Error)]
pub struct BindError(Vec<Closed>);

impl BindError {
    /// Whether all of them are relays, which a cluster may do without for a while.
    pub fn is_of_relays(&self) -> bool {
        self.0.iter().all(|closed| closed.speaks != Speaks::Http)
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, closed) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{closed}")?;
        }
        Ok(())
    }
}

/// A listener that cannot listen.
#[derive(Debug, Clone)]
struct Closed {
    id: ListenerId,
    addr: SocketAddr,
    speaks: Speaks,
    why: String,
}

impl Closed {
    fn new(listener: &Listener, speaks: Speaks, error: &io::Error) -> Self {
        let mut why = error.to_string();
        if error.kind() == io::ErrorKind::AddrInUse
            && let Some(holder) = holder::holder(listener.addr, speaks)
        {
            why.push_str(&format!(", by {holder}"));
        }
        if error.kind() == io::ErrorKind::PermissionDenied && listener.addr.port() < 1024 {
            why.push_str("; a port below 1024 takes the capability CAP_NET_BIND_SERVICE");
        }
        Self {
            id: listener.id.clone(),
            addr: listener.addr,
            speaks,
            why,
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, addr, why, .. } = self;
        write!(f, "cannot listen on {addr} (listener {id}): {why}")
    }
}

/// The sockets that should be open now. Cheap to clone.
pub(crate) type ListenerSet = Arc<Vec<OpenListener>>;

/// One open listener.
#[derive(Debug, Clone)]
pub(crate) struct OpenListener {
    pub(crate) id: ListenerId,
    /// What is spoken, apart from TLS.
    pub(crate) speaks: Speaks,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
    /// Connections begin with a header of the PROXY protocol.
    pub(crate) proxy_header: bool,
    /// As configured; port 0 here is some port in `sockets`.
    configured: SocketAddr,
    pub(crate) addr: SocketAddr,
    /// One for each worker. The same `Arc` for as long as the listener stays as it is.
    pub(crate) sockets: Arc<Vec<WorkerSocket>>,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP, perhaps inside TLS, and perhaps not for us to understand.
    Http,
    /// Whatever the endpoints understand, over TCP.
    Tcp,
    /// The same over UDP.
    Udp,
}

impl Speaks {
    fn of(protocol: &ListenerProtocol) -> Self {
        match protocol {
            ListenerProtocol::Http | ListenerProtocol::Https(_) => Self::Http,
            ListenerProtocol::Tcp(_) => Self::Tcp,
            ListenerProtocol::Udp(_) => Self::Udp,
        }
    }
}

/// A socket of either kind.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    /// Accepts connections.
    Tcp(TcpListener),
    /// Receives datagrams.
    Udp(UdpSocket),
}

/// A worker's socket, until it takes it. Then nobody else has it, so that it is closed when the worker closes it.
#[derive(Debug)]
pub(crate) struct WorkerSocket(Mutex<Option<ListeningSocket>>);

impl WorkerSocket {
    /// The socket, the first time.
    pub(crate) fn take(&self) -> Option<ListeningSocket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Opens and closes listening sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    workers: usize,
    open: ListenerSet,
    /// Listeners of the last table that cannot listen.
    closed: Vec<Closed>,
}

impl Sockets {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            open: ListenerSet::default(),
            closed: Vec::new(),
        }
    }

    /// Every listener of the last table, and whether it listens.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&ListenerId, bool)> {
        let open = self.open.iter().map(|open| (&open.id, true));
        open.chain(self.closed.iter().map(|closed| (&closed.id, false)))
    }

    /// What is open.
    pub(crate) fn set(&self) -> ListenerSet {
        Arc::clone(&self.open)
    }

    pub(crate) fn addresses(&self) -> Vec<(ListenerId, SocketAddr)> {
        self.open
            .iter()
            .map(|open| (open.id.clone(), open.addr))
            .collect()
    }

    /// Where we listen, or will as soon as we can: for TCP, and for UDP.
    pub(crate) fn listening(&self) -> [Arc<Vec<SocketAddr>>; 2] {
        [false, true].map(|udp| {
            let open = self.open.iter();
            let open = open.map(|open| (open.speaks, open.addr));
            let closed = self.closed.iter();
            let all = open.chain(closed.map(|closed| (closed.speaks, closed.addr)));
            let of_kind = all.filter(|(speaks, _)| (*speaks == Speaks::Udp) == udp);
            Arc::new(of_kind.map(|(_, addr)| addr).collect())
        })
    }

    /// Opens what is new, keeps what stays, closes the rest. An error is returned after everything was tried.
    pub(crate) fn bind(&mut self, listeners: &[Listener]) -> Result<(), BindError> {
        let mut closed = Vec::new();
        let mut open = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let tls = matches!(listener.protocol, ListenerProtocol::Https(_));
            let speaks = Speaks::of(&listener.protocol);
            let kept = self.open.iter().find(|o| {
                o.id == listener.id
                    && o.configured == listener.addr
                    && o.tls == tls
                    && o.speaks == speaks
                    && o.proxy_header == listener.proxy_header
            });
            if let Some(kept) = kept {
                open.push(kept.clone());
                continue;
            }
            match self.open(listener, speaks, tls) {
                Ok(listener) => {
                    tracing::info!(listener = %listener.id, addr = %listener.addr, tls, "listening");
                    open.push(listener);
                }
                Err(error) => closed.push(Closed::new(listener, speaks, &error)),
            }
        }
        self.open = Arc::new(open);
        self.closed.clone_from(&closed);
        match closed.is_empty() {
            true => Ok(()),
            false => Err(BindError(closed)),
        }
    }

    fn open(&self, listener: &Listener, speaks: Speaks, tls: bool) -> io::Result<OpenListener> {
        let (id, configured) = (listener.id.clone(), listener.addr);
        let (addr, sockets) = self.open_sockets(configured, speaks)?;
        let sockets = sockets
            .into_iter()
            .map(|socket| WorkerSocket(Mutex::new(Some(socket))))
            .collect();
        Ok(OpenListener {
            id,
            speaks,
            tls,
            proxy_header: listener.proxy_header,
            configured,
            addr,
            sockets: Arc::new(sockets),
        })
    }

    fn open_sockets(
        &self,
        addr: SocketAddr,
        speaks: Speaks,
    ) -> io::Result<(SocketAddr, Vec<ListeningSocket>)> {
        let ours = |open: &OpenListener| {
            open.addr == addr && (open.speaks == Speaks::Udp) == (speaks == Speaks::Udp)
        };
        if addr.port() != 0 && !self.open.iter().any(ours) {
            // With SO_REUSEPORT alone a second process of the same user would silently share the port with us.
            // A listener of ours that changes its protocol shares it with what it was for a moment.
            open_socket(addr, speaks, false)?;
        }
        let first = open_socket(addr, speaks, true)?;
        let addr = first
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let rest = (1..self.workers).map(|_| open_socket(addr, speaks, true));
        let sockets = std::iter::once(Ok(first)).chain(rest);
        let sockets = sockets
            .map(|socket| {
                socket.map(|socket| match speaks {
                    Speaks::Udp => ListeningSocket::Udp(socket.into()),
                    Speaks::Http | Speaks::Tcp => ListeningSocket::Tcp(socket.into()),
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok((addr, sockets))
    }
}

fn open_socket(addr: SocketAddr, speaks: Speaks, reuse_port: bool) -> io::Result<Socket> {
    let (kind, protocol) = match speaks {
        Speaks::Udp => (Type::DGRAM, Protocol::UDP),
        Speaks::Http | Speaks::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    // For datagrams it would let two sockets have one port.
    socket.set_reuse_address(speaks != Speaks::Udp)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    if reuse_port && speaks != Speaks::Udp {
        socket::tune((&socket).into())?;
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
