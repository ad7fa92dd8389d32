//! Everything a request or a relayed connection meets: accept, TLS, HTTP, routing, upstream connections, access log, metrics.
//!
//! [`DataPlane::start`] starts the workers and gives out the one [`Publisher`] that puts routing tables in. Nothing here
//! knows where tables come from.
//!
//! To follow a request: `worker` owns a thread, `connection` accepts and speaks HTTP, **`proxy` is a request's whole life**,
//! `forward` tries endpoints, `h1` speaks to them, `record` writes down what happened.
//!
//! # A proxy of one's own
//!
//! ```
//! use data_plane::{DataPlane, Settings};
//! use routing_table::*;
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Something to forward to.
//! let backend = TcpListener::bind("127.0.0.1:0")?;
//! let endpoint = backend.local_addr()?;
//! std::thread::spawn(move || {
//!     for mut stream in backend.incoming().flatten() {
//!         let _ = stream.read(&mut [0; 1024]);
//!         let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
//!     }
//! });
//!
//! // Everything for every host goes there.
//! let id = ClusterId::new("mine", "hello", 80);
//! let mut clusters = ClusterSet::default();
//! let cluster = clusters.add(Cluster {
//!     id: id.clone(),
//!     protocol: UpstreamProtocol::Http1,
//!     tls: None,
//!     discovery: Discovery::Static,
//!     policy: Arc::default(),
//!     proxy_header: None,
//! });
//! let route = Route {
//!     id: RouteId {
//!         kind: "Example",
//!         namespace: "mine".into(),
//!         name: "all".into(),
//!         rule: "1".into(),
//!     },
//!     path: PathMatch::prefix("/"),
//!     conditions: Default::default(),
//!     filters: Default::default(),
//!     timeouts: Timeouts::default(),
//!     limits: Limits::default(),
//!     retry: RetryPolicy::default(),
//!     client_certificates: None,
//!     action: Action::Forward(cluster),
//! };
//! let listener = Listener {
//!     id: ListenerId::new("http"),
//!     addr: "127.0.0.1:0".parse()?,
//!     protocol: ListenerProtocol::Http,
//!     proxy_header: false,
//!     virtual_hosts: Arc::new(VirtualHosts::new(Vec::new(), Some(route))),
//! };
//! let table = RoutingTable::new(vec![listener], clusters)?;
//! let endpoints = EndpointSets::from([(id, vec![Endpoint::ready(endpoint)])]);
//!
//! let registry = prometheus::Registry::new();
//! let (_running, mut publisher) = DataPlane::start(Settings::default(), None, &registry)?;
//! publisher.apply(Update::Table(Arc::new(table), endpoints))?;
//!
//! let mut client = TcpStream::connect(publisher.addresses()[0].1)?;
//! client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"));
//! # Ok(())
//! # }
//! ```

mod access_log;
mod admission;
mod answer_fields;
mod backends;
mod body;
mod certificate_chain;
mod cipher_suites;
mod client;
mod client_certificate;
mod client_io;
mod clock;
mod connection;
mod distinguished_name;
mod endpoint_slots;
mod error;
mod filters;
mod forward;
mod forwarded_headers;
#[doc(hidden)]
pub mod fuzz;
mod grpc;
mod h1;
mod h2;
mod h2_guard;
mod handshake;
mod health;
mod health_probe;
pub mod hooks;
mod judge;
mod l4;
mod listener;
mod metrics;
mod outstanding;
mod pool;
mod proxy;
mod proxy_header;
mod proxy_protocol;
mod publish;
mod rate_limiter;
mod record;
mod request_body;
mod request_head;
mod socket;
mod stream_stall;
mod tickets;
mod tls;
mod turns;
mod upgrade;
mod upstream;
mod upstream_io;
mod upstream_tls;
mod wishes;
mod worker;

#[cfg(test)]
mod tests;

pub use access_log::{AccessLogFormat, AccessLogSink};
pub use backends::{
    Backends, CheckStatus, ClusterStatus, EndpointStatus, ReasonStatus, State, UnknownBackend, Wish,
};
pub use cipher_suites::{BadCipherSuites, CipherSuites};
pub use client::ClientTimeouts;
pub use listener::BindError;
pub use pool::PoolLimits;
pub use publish::{PublishError, Publisher};
pub use tickets::{TicketKeyError, TicketKeys};
pub use tls::{MinTlsVersion, TlsError};

use backends::EndpointCounts;
use balance::Here;
use balance::order::custom::CustomOrder;
use hooks::Hook;
use ipnet::IpNet;
use metrics::{Collected, Metrics};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// Settings of the data plane that hold for its whole life.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Worker threads. Default: the number of processors this process may use.
    pub workers: usize,
    /// How long clients may take.
    pub client_timeouts: ClientTimeouts,
    /// Most client connections, over all workers; more are closed at once. Default 10,000.
    pub connections: u64,
    /// Most connections to endpoints, over all workers, relays included. One at rest is closed for another; where there is none, a
    /// request is answered with 503 and a relay ends. The last quarter is not for client connections with more than eight requests
    /// in progress. Default: no limit but that of open files.
    pub endpoint_connections: u64,
    /// Most requests on one HTTP/1.1 connection. Default 10,000.
    pub requests_per_connection: u64,
    /// Most TLS handshakes that are computed before requests get their turn, over all workers. Default 64.
    pub handshakes: usize,
    /// The oldest version of TLS that clients may use. Default 1.2.
    pub min_tls_version: MinTlsVersion,
    /// The cipher suites that clients may use. Default: all there are.
    pub cipher_suites: Option<CipherSuites>,
    /// Keys of session tickets. Default: generated, and replaced every six hours.
    pub ticket_keys: Option<Arc<TicketKeys>>,
    /// Networks of proxies in front of us whose `X-Forwarded-*` fields are believed. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks of proxies in front of us whose header of the PROXY protocol is believed, on listeners that ask for one.
    /// Default: none.
    pub proxy_header_from: Vec<IpNet>,
    /// The zone we are in, for preference of what is near. Default: not known.
    pub zone: Option<Arc<str>>,
    /// Orders of endpoints that policies may name beside the built-in ones (`docs/extending.md`). Default: none.
    pub orders: Vec<Arc<dyn CustomOrder>>,
    /// What is done with every request besides (`docs/extending.md`). Default: nothing.
    pub hooks: Vec<Arc<dyn Hook>>,
    /// Limits of upstream connections at rest.
    pub pool: PoolLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            client_timeouts: ClientTimeouts::default(),
            connections: 10_000,
            endpoint_connections: u64::MAX,
            requests_per_connection: 10_000,
            handshakes: 64,
            min_tls_version: MinTlsVersion::default(),
            cipher_suites: None,
            ticket_keys: None,
            trusted_proxies: Vec::new(),
            proxy_header_from: Vec::new(),
            zone: None,
            orders: Vec::new(),
            hooks: Vec::new(),
            pool: PoolLimits::default(),
        }
    }
}

impl Settings {
    fn connections_per_worker(&self) -> u64 {
        self.connections.div_ceil(self.workers as u64).max(1)
    }

    fn endpoint_connections_per_worker(&self) -> u64 {
        self.endpoint_connections
            .div_ceil(self.workers as u64)
            .max(1)
    }
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Still serving everything, and asking clients to go elsewhere with their next request.
    Lameduck,
    /// Accepting nothing new, finishing what is in progress.
    Draining,
    Stopped,
}

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread could be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[from] std::io::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The metrics are registered already.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The running workers.
#[derive(Debug)]
pub struct DataPlane {
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
    /// Ends when all is stopped, not before.
    probes: JoinHandle<()>,
    backends: Backends,
}

impl DataPlane {
    /// Starts the workers. They serve nothing until the [`Publisher`] has been given a table. Must be called inside a tokio
    /// runtime no more than anything else here: workers have their own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        settings: Settings,
        log: Option<AccessLogSink>,
        registry: &prometheus::Registry,
    ) -> Result<(Self, Publisher), StartError> {
        let settings = Arc::new(Settings {
            workers: settings.workers.max(1),
            ..settings
        });
        let metrics = Arc::new(Metrics::new(settings.workers));
        registry.register(Box::new(Collected::new(Arc::clone(&metrics))?))?;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            metrics.runtimes.add("main", &runtime);
        }
        let current = publish::Current::default();
        let clock = clock::Clock::start();
        let backends = Backends::new(Arc::clone(&current), clock.clone());
        registry.register(Box::new(EndpointCounts::new(backends.clone())?))?;
        let sockets = listener::Sockets::new(settings.workers);
        let tls = tls::ServerTls::new(&settings)?;
        let (listeners, listeners_seen) = watch::channel(sockets.set());
        let (phase, phase_seen) = watch::channel(Phase::Serving);
        let replica = publish::Replica {
            clock: clock.clone(),
            here: Arc::new(Here {
                number: random_seed(usize::MAX),
                zone: settings.zone.clone(),
                orders: settings.orders.clone(),
            }),
            workers: settings.workers,
        };
        let mut threads = Vec::with_capacity(settings.workers);
        for index in 0..settings.workers {
            let setup = worker::Setup {
                index,
                settings: Arc::clone(&settings),
                current: Arc::clone(&current),
                listeners: listeners_seen.clone(),
                phase: phase_seen.clone(),
                log: log.clone(),
                metrics: Arc::clone(&metrics),
                seed: random_seed(index),
                clock: clock.clone(),
            };
            let run = move || {
                if let Err(error) = worker::run(setup) {
                    tracing::error!(worker = index, %error, "worker cannot run");
                }
            };
            threads.push(
                std::thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(run)?,
            );
        }
        let (updated, updates) = watch::channel(());
        let probes = health_probe::Setup {
            current: Arc::clone(&current),
            updates,
            phase: phase_seen,
            metrics: Arc::clone(&metrics),
            clock,
        };
        let probes = std::thread::Builder::new()
            .name("probes".into())
            .spawn(move || {
                if let Err(error) = health_probe::run(probes) {
                    tracing::error!(%error, "endpoints cannot be checked");
                }
            })?;
        let this = Self {
            phase,
            threads,
            probes,
            backends,
        };
        let publisher = Publisher::new(current, sockets, tls, listeners, updated, metrics, replica);
        Ok((this, publisher))
    }

    /// What shows and controls endpoints.
    pub fn backends(&self) -> Backends {
        self.backends.clone()
    }

    /// Stops gracefully: for `lameduck` everything is still served while HTTP/1.1 clients are asked to close; then listeners
    /// close, connections at rest close, HTTP/2 clients get GOAWAY, and requests in progress have until `drain` is over.
    /// Returns whether all of them finished.
    pub async fn stop(self, lameduck: Duration, drain: Duration) -> bool {
        self.phase.send_replace(Phase::Lameduck);
        tokio::time::sleep(lameduck).await;
        self.phase.send_replace(Phase::Draining);
        let deadline = tokio::time::Instant::now() + drain;
        let mut finished = true;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if tokio::time::Instant::now() >= deadline {
                finished = false;
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.phase.send_replace(Phase::Stopped);
        let join = move || {
            let threads = self.threads.into_iter().chain([self.probes]);
            threads.for_each(|thread| drop(thread.join()))
        };
        let _ = tokio::task::spawn_blocking(join).await;
        finished
    }
}

/// From the operating system, by way of the standard library's seeded hasher.
fn random_seed(index: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(index)
}

/// Any number.
fn random_number() -> u64 {
    random_seed(0)
}
