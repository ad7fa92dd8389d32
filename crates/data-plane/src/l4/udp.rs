//! UDP sessions: each client address gets an endpoint, and a socket of its own towards it, for as long as they talk.
//!
//! The kernel gives all datagrams of a client to one worker's socket, so a session belongs to one worker. Replies go back
//! from the socket that the client sent to. What is received goes out at once or is lost, as datagrams may be; nothing queues
//! here, and one buffer serves all sessions of a listener on a worker.

use super::record::RelayRecord;
use super::target::{Admitted, RelayTarget};
use crate::client::ClientConnection;
use crate::listener::OpenListener;
use crate::upstream::Entered;
use crate::wishes::Wishes;
use crate::worker::Worker;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The largest datagram there is.
const LARGEST: usize = 65_535;
/// How often sessions are looked at, at most: for idle ones, and for endpoints that are gone.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a session may be silent once the worker drains.
const DRAIN_IDLE: Duration = Duration::from_secs(2);
/// Datagrams taken from the listening socket before others have their turn.
const BURST: usize = 64;

/// Serves a UDP listener until `stopped` resolves; then until its sessions have fallen silent.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    open: OpenListener,
    socket: UdpSocket,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = Rc::new(Listener {
        worker,
        open,
        socket,
        buffer: RefCell::new(vec![0; LARGEST]),
    });
    let mut sessions = Sessions::new();
    let mut draining = false;
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !(draining && sessions.is_empty()) {
        tokio::select! {
            ready = listener.socket.readable() => {
                if let Err(error) = ready {
                    tracing::error!(listener = %listener.open.id, %error, "UDP listener ended");
                    return;
                }
                if listener.receive(&mut sessions, draining) {
                    tokio::task::yield_now().await;
                }
            }
            _ = &mut stopped, if !draining => draining = true,
            _ = sweep.tick() => {
                let (now, current) = (Instant::now(), listener.target());
                sessions.retain(|_, session| {
                    session.goes_on(now, current.as_deref(), draining)
                });
            }
        }
    }
}

type Sessions = HashMap<SocketAddr, Session>;

/// One listener on one worker.
struct Listener {
    worker: Rc<Worker>,
    open: OpenListener,
    socket: UdpSocket,
    /// For whoever receives: what is received is sent on before anything else happens.
    buffer: RefCell<Vec<u8>>,
}

/// One client and its endpoint. Dropping it closes its socket and logs it.
struct Session {
    shared: Rc<Shared>,
    replies: tokio::task::JoinHandle<()>,
    _admitted: Admitted,
}

/// What both directions of a session share.
struct Shared {
    upstream: UdpSocket,
    endpoint: SocketAddr,
    client: SocketAddr,
    last: Cell<Instant>,
    /// The endpoint does not listen.
    refused: Cell<bool>,
    /// Answers that are still to come, where they are counted.
    due: Cell<u64>,
    /// They have come.
    is_done: Cell<bool>,
    record: RefCell<RelayRecord>,
}

impl Listener {
    /// Where to, as the current table has it.
    fn target(&self) -> Option<Arc<RelayTarget>> {
        let reader = &self.worker.reader;
        reader.read(|table| table.relays(&self.open.id)?.all().cloned())
    }

    /// Takes what has come; says whether there may be more.
    fn receive(self: &Rc<Self>, sessions: &mut Sessions, draining: bool) -> bool {
        let mut buffer = self.buffer.borrow_mut();
        for _ in 0..BURST {
            let (length, client) = match self.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An answer to a datagram that some client did not want.
                Err(_) => continue,
            };
            let stats = &self.worker.stats;
            if sessions
                .get(&client)
                .is_some_and(|session| session.shared.is_over())
            {
                // It begins anew, with the next endpoint.
                sessions.remove(&client);
            }
            let session = match sessions.entry(client) {
                Entry::Occupied(session) => session.into_mut(),
                Entry::Vacant(_) if draining => {
                    stats.datagrams_dropped.add(1);
                    continue;
                }
                Entry::Vacant(free) => match self.begin(client) {
                    Some(session) => free.insert(session),
                    None => continue,
                },
            };
            session.shared.send(&buffer[..length], &self.worker);
        }
        true
    }

    /// A session for a new client; `None` if there can be none, which was counted.
    fn begin(self: &Rc<Self>, client: SocketAddr) -> Option<Session> {
        let (worker, id) = (&self.worker, &self.open.id);
        let dropped = || worker.stats.datagrams_dropped.add(1);
        let Some(target) = self.target() else {
            dropped();
            return None;
        };
        let port = self.open.addr.port();
        let trusted = &worker.settings.trusted_proxies;
        let connection = ClientConnection::new(id.clone(), client, None, port, false, trusted);
        if !target.lets_in(&connection) {
            dropped();
            return None;
        }
        let Some(admitted) = target.admit() else {
            worker.stats.sessions_shed.add(1);
            return None;
        };
        let (entered, upstream) = match connect(&target, client.ip(), worker) {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(listener = %id, %client, %error, "no session");
                dropped();
                return None;
            }
        };
        let mut record = RelayRecord::new(worker, &connection, &target, "UDP");
        let endpoint = entered.addr();
        (record.upstream, record.attempts) = (Some(endpoint), 1);
        record.entered = Some(entered);
        worker.stats.sessions.add(1);
        worker.stats.sessions_open.add(1);
        let shared = Rc::new(Shared {
            upstream,
            endpoint,
            client,
            last: Cell::new(Instant::now()),
            refused: Cell::new(false),
            due: Cell::new(0),
            is_done: Cell::new(false),
            record: RefCell::new(record),
        });
        let replies = replies(Rc::clone(self), Rc::clone(&shared));
        Some(Session {
            shared,
            replies: tokio::task::spawn_local(replies),
            _admitted: admitted,
        })
    }
}

/// A socket towards the endpoint in turn.
fn connect(
    target: &RelayTarget,
    client: IpAddr,
    worker: &Worker,
) -> io::Result<(Entered, UdpSocket)> {
    let wishes = Wishes::of_client(&target.upstream.policy(), client);
    let entered = target.upstream.pick(&wishes.ask(&[], u32::MAX, worker));
    let entered = entered.map_err(|_| io::ErrorKind::AddrNotAvailable)?;
    let endpoint = entered.addr();
    if target.leads_back(endpoint) {
        return Err(io::Error::other("the endpoint is a listener of ours"));
    }
    let any = match endpoint {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(endpoint)?;
    socket.set_nonblocking(true)?;
    Ok((entered, UdpSocket::from_std(socket)?))
}

/// Sends back what the endpoint answers.
async fn replies(listener: Rc<Listener>, shared: Rc<Shared>) {
    let wanted = Interest::READABLE | Interest::ERROR;
    while let Ok(ready) = shared.upstream.ready(wanted).await {
        if ready.is_error() {
            // "Port unreachable": nobody listens there.
            shared.refused.set(true);
            return;
        }
        // Never held while something is awaited.
        let mut buffer = listener.buffer.borrow_mut();
        let length = match shared.upstream.try_recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => {
                shared.refused.set(true);
                return;
            }
        };
        shared.last.set(Instant::now());
        let stats = &listener.worker.stats;
        match listener
            .socket
            .try_send_to(&buffer[..length], shared.client)
        {
            Ok(_) => {
                stats.sessions_sent.add(length as u64);
                shared.record.borrow_mut().sent += length as u64;
            }
            Err(_) => stats.datagrams_dropped.add(1),
        }
        if shared.answered() {
            return;
        }
    }
}

impl Shared {
    /// Whether the client's next datagram begins another session.
    fn is_over(&self) -> bool {
        self.refused.get() || self.is_done.get()
    }

    /// Notes an answer; says whether it was the last.
    fn answered(&self) -> bool {
        let mut record = self.record.borrow_mut();
        if record.target.relay.limits.responses.is_none() {
            return false;
        }
        self.due.set(self.due.get().saturating_sub(1));
        let is_done = self.due.get() == 0;
        if is_done {
            record.flag = "";
            self.is_done.set(true);
        }
        is_done
    }

    /// Sends a datagram of the client's.
    fn send(&self, datagram: &[u8], worker: &Worker) {
        self.last.set(Instant::now());
        // Straight to the kernel: tokio does not know yet that a new socket can be written to.
        match SockRef::from(&self.upstream).send(datagram) {
            Ok(_) => {
                worker.stats.sessions_received.add(datagram.len() as u64);
                let mut record = self.record.borrow_mut();
                record.received += datagram.len() as u64;
                let expected = record.target.relay.limits.responses.unwrap_or(0);
                self.due.set(self.due.get() + u64::from(expected));
            }
            Err(error) => {
                worker.stats.datagrams_dropped.add(1);
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    self.refused.set(true);
                }
            }
        }
    }
}

impl Session {
    /// Whether it may live on. Notes why not.
    fn goes_on(&self, now: Instant, current: Option<&RelayTarget>, draining: bool) -> bool {
        let shared = &self.shared;
        let mut record = shared.record.borrow_mut();
        let target: &Arc<RelayTarget> = &record.target;
        let mut patience = target.relay.limits.idle;
        if draining {
            patience = patience.min(DRAIN_IDLE);
        }
        let endpoints = target.upstream.endpoints();
        // Without a current target the listener is gone, and what it had ends in silence.
        let known = current.is_none_or(|now| Arc::ptr_eq(&now.upstream, &target.upstream))
            && endpoints
                .all()
                .iter()
                .any(|one| one.addr() == shared.endpoint);
        let idle = now.saturating_duration_since(shared.last.get());
        record.flag = match () {
            () if shared.refused.get() => "refused",
            () if shared.is_done.get() => "",
            () if !known => "endpoint_gone",
            // How every session ends.
            () if idle >= patience => "",
            () => return true,
        };
        false
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.replies.abort();
        let record = self.shared.record.borrow();
        record.worker.stats.sessions_open.sub(1);
    }
}
