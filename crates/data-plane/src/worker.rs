//! One worker: a thread with its own runtime, sockets, pool, log buffer and metric slots. A request never leaves it.

use crate::access_log::{AccessLog, AccessLogSink};
use crate::client::ClientConnection;
use crate::clock::Clock;
use crate::connection;
use crate::endpoint_slots::{EndpointSlot, EndpointSlots};
use crate::forwarded_headers::RequestIds;
use crate::l4;
use crate::listener::{ListenerSet, ListeningSocket, OpenListener, WorkerSocket};
use crate::metrics::{Metrics, RouteStats, WorkerStats};
use crate::pool::Pool;
use crate::publish::{Current, Reader};
use crate::turns::Turns;
use crate::{Phase, Settings};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// How often resting connections are looked at, the log is flushed and gauges are set.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// A connection that has rested this long may have to go when others come.
const REST: Duration = Duration::from_secs(1);
/// Connections that are looked at for one that comes.
const LOOKED_AT: usize = 64;
/// Connections beyond the limit while others are on their way out.
const LEAVING: u64 = 16;

/// Requests in progress of one client connection that are few.
const FEW: u32 = 8;

/// Length of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
const DATE_LENGTH: usize = 29;

#[allow(clippy::disallowed_methods, reason = "a Date field is the time of day")]
fn date_now() -> [u8; DATE_LENGTH] {
    let text = httpdate::fmt_http_date(std::time::SystemTime::now());
    text.as_bytes().try_into().unwrap_or([b' '; DATE_LENGTH])
}

/// What every request on this thread can reach.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) settings: Arc<Settings>,
    pub(crate) reader: Reader,
    pub(crate) pool: Rc<Pool>,
    endpoint_slots: Rc<EndpointSlots>,
    pub(crate) log: AccessLog,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) ids: RequestIds,
    /// Buffers for relays to move bytes with.
    pub(crate) buffers: l4::flow::Buffers,
    /// Handshakes that are computed at once are bounded, so that a flood of them cannot starve requests.
    pub(crate) handshakes: Semaphore,
    pub(crate) turns: Rc<Turns>,
    unrouted: Arc<RouteStats>,
    /// The time of day as HTTP writes it, a housekeeping interval old at most.
    date: Cell<[u8; DATE_LENGTH]>,
    clock: Clock,
    now: Cell<Duration>,
    phase: Cell<Phase>,
    connections: RefCell<Slab<Rc<ClientConnection>>>,
    /// Where among them one at rest is looked for next.
    next_to_go: Cell<usize>,
}

/// What a worker is started with.
pub(crate) struct Setup {
    pub(crate) index: usize,
    pub(crate) settings: Arc<Settings>,
    pub(crate) current: Current,
    pub(crate) listeners: watch::Receiver<ListenerSet>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) log: Option<AccessLogSink>,
    pub(crate) metrics: Arc<Metrics>,
    /// Random, for request ids.
    pub(crate) seed: u64,
    /// By which endpoints are judged.
    pub(crate) clock: Clock,
}

impl Worker {
    fn new(setup: &Setup) -> Rc<Self> {
        let stats = setup.metrics.worker(setup.index);
        let handshakes = setup
            .settings
            .handshakes
            .div_ceil(setup.settings.workers)
            .max(1);
        Rc::new(Self {
            index: setup.index,
            settings: Arc::clone(&setup.settings),
            reader: Reader::new(Arc::clone(&setup.current)),
            pool: Rc::new(Pool::new(setup.settings.pool)),
            endpoint_slots: EndpointSlots::new(setup.settings.endpoint_connections_per_worker()),
            log: AccessLog::new(setup.log.clone(), Arc::clone(&stats)),
            stats,
            ids: RequestIds::new(setup.seed),
            buffers: l4::flow::Buffers::default(),
            handshakes: Semaphore::new(handshakes),
            turns: Rc::default(),
            unrouted: Arc::clone(setup.metrics.unrouted()),
            date: Cell::new(date_now()),
            clock: setup.clock.clone(),
            now: Cell::new(setup.clock.now()),
            phase: Cell::new(Phase::Serving),
            connections: RefCell::default(),
            next_to_go: Cell::new(0),
        })
    }

    /// The time by [`Clock`], as near as housekeeping has it. The same for all workers but for that.
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    /// As [`Worker::now`], read from the clock.
    pub(crate) fn clock(&self) -> Duration {
        self.clock.now()
    }

    /// The time of day, for a `Date` field.
    pub(crate) fn date(&self) -> [u8; DATE_LENGTH] {
        self.date.get()
    }

    /// Where requests without a route are counted.
    pub(crate) fn unrouted_stats(&self) -> &Arc<RouteStats> {
        &self.unrouted
    }

    /// Whether clients should go elsewhere with their next request.
    pub(crate) fn is_leaving(&self) -> bool {
        self.phase.get() != Phase::Serving
    }

    /// Takes note of a connection, for as long as the returned guard lives.
    pub(crate) fn enter(self: &Rc<Self>, client: &Rc<ClientConnection>) -> Entered {
        let key = self.connections.borrow_mut().insert(Rc::clone(client));
        self.stats.open.add(1);
        if self.phase.get() == Phase::Draining {
            client.drain();
        }
        Entered {
            worker: Rc::clone(self),
            key,
        }
    }

    /// Whether one more connection may be had. At the limit one at rest has to go for it; none of those is looked for longer
    /// than a moment.
    pub(crate) fn has_room(&self) -> bool {
        let (open, most) = (
            self.stats.open.get(),
            self.settings.connections_per_worker(),
        );
        if open < most {
            return true;
        }
        // Those that were asked to end take a moment.
        if open >= most + LEAVING {
            return false;
        }
        let connections = self.connections.borrow();
        let places = connections.capacity();
        let now = Instant::now();
        for _ in 0..places.min(LOOKED_AT) {
            let place = self.next_to_go.get() % places;
            self.next_to_go.set(place + 1);
            let at_rest = connections
                .get(place)
                .filter(|client| client.has_rested_for(REST, now));
            if let Some(client) = at_rest.cloned() {
                drop(connections);
                client.drain();
                self.stats.evicted.add(1);
                return true;
            }
        }
        false
    }

    /// Room for one more connection to an endpoint, for this client. Where there is none, one that rests has to go for it.
    pub(crate) fn endpoint_slot(&self, client: &ClientConnection) -> Option<EndpointSlot> {
        let take = || self.endpoint_slots.take(client.active() > FEW);
        let instead = || self.pool.close_one().then(take).flatten();
        let slot = take().or_else(instead);
        if slot.is_none() {
            self.stats.upstream_shed.add(1);
        }
        slot
    }

    /// Whether it has stopped, and what is still in progress is cut.
    pub(crate) fn has_stopped(&self) -> bool {
        self.phase.get() == Phase::Stopped
    }

    fn drain(&self) {
        // Collected first: a woken task may leave at once.
        let all: Vec<_> = self
            .connections
            .borrow()
            .iter()
            .map(|(_, client)| Rc::clone(client))
            .collect();
        all.iter().for_each(|client| client.drain());
    }

    fn housekeeping(&self) {
        let wanted = self.reader.read(|table| table.endpoint_addresses());
        self.pool
            .sweep(Instant::now(), |addr| wanted.contains(&addr));
        self.stats.upstream_idle.set(self.pool.len() as u64);
        self.log.flush();
    }
}

/// A connection that is open.
pub(crate) struct Entered {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(self.key);
        self.worker.stats.open.sub(1);
    }
}

/// Runs a worker until it is told to stop, or has drained.
pub(crate) fn run(mut setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    let worker = Worker::new(&setup);
    let runtimes = &setup.metrics.runtimes;
    runtimes.add(format!("worker-{}", setup.index), runtime.handle());
    runtime.block_on(async {
        let turns = Rc::clone(&worker.turns);
        tokio::task::spawn_local(async move { turns.run().await });
        let mut accepting = Accepting::default();
        let mut ticks = tokio::time::interval(HOUSEKEEPING);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let listeners = setup.listeners.borrow_and_update().clone();
        accepting.apply(&worker, &listeners);
        let mut sweeps = 0u32;
        loop {
            tokio::select! {
                changed = setup.listeners.changed() => {
                    if changed.is_err() {
                        break; // The publisher is gone: the process is ending.
                    }
                    // Refreshes this worker's copy, so that an idle worker does not keep an old table alive.
                    worker.reader.read(|_| ());
                    if !worker.is_leaving() || worker.phase.get() == Phase::Lameduck {
                        let listeners = setup.listeners.borrow_and_update().clone();
                        accepting.apply(&worker, &listeners);
                    }
                }
                changed = setup.phase.changed() => {
                    let phase = match changed {
                        Ok(()) => *setup.phase.borrow_and_update(),
                        Err(_) => Phase::Stopped,
                    };
                    worker.phase.set(phase);
                    if phase == Phase::Stopped {
                        break;
                    }
                    if phase == Phase::Draining {
                        accepting.stop();
                        worker.drain();
                    }
                }
                _ = ticks.tick() => {
                    worker.date.set(date_now());
                    worker.clock.tick();
                    worker.now.set(worker.clock());
                    if worker.index == 0 {
                        worker.reader.read(|table| table.refresh(worker.now()));
                    }
                    sweeps = sweeps.wrapping_add(1);
                    if sweeps.is_multiple_of(4) {
                        worker.housekeeping();
                    } else {
                        worker.log.flush();
                    }
                }
            }
            if worker.phase.get() == Phase::Draining
                && accepting.is_stopped()
                && worker.connections.borrow().is_empty()
            {
                break;
            }
        }
        worker.log.flush();
    });
    // Connections that are still open are dropped with the runtime, their records are written on the way.
    drop(runtime);
    worker.log.flush();
    Ok(())
}

/// The accept loops that run, by the sockets they accept from.
#[derive(Default)]
struct Accepting {
    loops: HashMap<*const Vec<WorkerSocket>, AcceptLoop>,
}

struct AcceptLoop {
    /// Dropped to stop the loop.
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
    /// Keeps the address that is the key from being used again.
    _sockets: Arc<Vec<WorkerSocket>>,
}

impl Accepting {
    /// Starts loops for listeners that are new, stops those of listeners that are gone.
    fn apply(&mut self, worker: &Rc<Worker>, listeners: &ListenerSet) {
        self.loops.retain(|sockets, _| {
            listeners
                .iter()
                .any(|open| Arc::as_ptr(&open.sockets) == *sockets)
        });
        for open in listeners.iter() {
            let key = Arc::as_ptr(&open.sockets);
            if self.loops.contains_key(&key) {
                continue;
            }
            match start_accepting(worker, open) {
                Ok(accept_loop) => drop(self.loops.insert(key, accept_loop)),
                Err(error) => {
                    tracing::error!(listener = %open.id, %error, "cannot accept connections")
                }
            }
        }
    }

    fn stop(&mut self) {
        self.loops
            .values_mut()
            .for_each(|accept_loop| accept_loop.stop = None);
    }

    fn is_stopped(&self) -> bool {
        self.loops
            .values()
            .all(|accept_loop| accept_loop.task.is_finished())
    }
}

fn start_accepting(worker: &Rc<Worker>, open: &OpenListener) -> io::Result<AcceptLoop> {
    let socket = open.sockets[worker.index]
        .take()
        .ok_or(io::ErrorKind::NotConnected)?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (worker, open_here) = (Rc::clone(worker), open.clone());
    let task = match socket {
        ListeningSocket::Tcp(socket) => {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            tokio::task::spawn_local(connection::accept_loop(worker, open_here, socket, stopped))
        }
        ListeningSocket::Udp(socket) => {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            tokio::task::spawn_local(l4::udp::serve(worker, open_here, socket, stopped))
        }
    };
    Ok(AcceptLoop {
        stop: Some(stop),
        task,
        _sockets: Arc::clone(&open.sockets),
    })
}
