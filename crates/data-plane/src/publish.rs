//! The one swap: the controller's side puts a new table in, every request reads it lock-free.
//!
//! - [`Publisher`] is the only writer and cannot be cloned.
//! - A [`Snapshot`] holds the table and everything found by its indices, so one load gives a request all it needs; there is
//!   no second lookup that could disagree with the first.
//! - Tables that were replaced are dropped here, by the writer, never on a worker.

use crate::access_log::RouteLine;
use crate::admission::Connection;
use crate::client::ClientConnection;
use crate::clock::Clock;
use crate::error::ProxyError;
use crate::filters::Limiters;
use crate::l4::target::RelayTargets;
use crate::listener::{BindError, ListenerSet, Sockets};
use crate::metrics::{Metrics, RouteStats};
use crate::rate_limiter::RateLimiter;
use crate::tls::{ListenerTls, ServerTls};
use crate::upstream::Upstream;
use crate::upstream_tls::{Connectors, Reach};
use arc_swap::ArcSwap;
use balance::Here;
use routing_table::policy::Balancing;
use routing_table::{
    Action, Cluster, ClusterId, EndpointSets, Listener, ListenerId, ListenerProtocol, Policy,
    ProxyVersion, RequestFields, Route, RoutingTable, Update, UpstreamProtocol,
};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// One table with everything its indices lead to.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) table: Arc<RoutingTable>,
    /// By [`routing_table::RouteIndex`].
    routes: Vec<Arc<RouteTarget>>,
    /// By [`routing_table::ClusterIndex`].
    upstreams: Vec<Arc<Upstream>>,
    /// The same: how their endpoints are reached.
    reaches: Vec<Reach>,
    /// By position of the listener; `None` where it has no TLS.
    tls: Vec<Option<Arc<ListenerTls>>>,
    /// By position of the listener.
    relays: Vec<RelayTargets>,
    sends_proxy_headers: bool,
}

/// What a request needs to know once its route is found.
#[derive(Debug)]
pub(crate) struct RouteTarget {
    pub(crate) route: Arc<Route>,
    /// `None` where the route answers by itself.
    pub(crate) upstream: Option<Arc<Upstream>>,
    /// What is spoken to the upstream.
    pub(crate) protocol: UpstreamProtocol,
    /// What each connection to the upstream begins with.
    pub(crate) proxy_header: Option<ProxyVersion>,
    /// How its endpoints are chosen and judged.
    pub(crate) policy: Arc<Policy>,
    /// How its endpoints are reached.
    pub(crate) reach: Reach,
    /// What its rate limits remember, in the order of its filters.
    pub(crate) limiters: Box<[Arc<RateLimiter>]>,
    pub(crate) stats: Arc<RouteStats>,
    /// The part of an access-log line that names the route.
    pub(crate) log_fields: Box<[u8]>,
}

impl Snapshot {
    /// The position of a listener in this table.
    fn listener(&self, id: &ListenerId) -> Option<usize> {
        self.table
            .listeners()
            .iter()
            .position(|listener| listener.id == *id)
    }

    /// The route for a host and path in normal form, and whether the client's connection may use it.
    pub(crate) fn find(
        &self,
        client: &ClientConnection,
        host: &str,
        path: &str,
        fields: &RequestFields<'_>,
    ) -> (Option<Arc<RouteTarget>>, Result<(), ProxyError>) {
        let Some(listener) = self.listener(&client.listener) else {
            return (None, Ok(()));
        };
        let found = self.table.find(listener, host, path, fields);
        let found = found.and_then(|index| self.routes.get(index.get()));
        let connection = Connection {
            virtual_hosts: &self.table.listeners()[listener].virtual_hosts,
            tls: self.tls[listener].as_deref(),
            session: client.tls.get(),
        };
        let route = found.map(|found| &found.route);
        let admitted = connection.admits(host, path, route);
        (found.cloned(), admitted)
    }

    /// What a listener needs for a handshake; `None` where it has no TLS.
    pub(crate) fn tls(&self, listener: &ListenerId) -> Option<&Arc<ListenerTls>> {
        self.tls.get(self.listener(listener)?)?.as_ref()
    }

    /// What a listener passes on without understanding it.
    pub(crate) fn relays(&self, listener: &ListenerId) -> Option<&RelayTargets> {
        self.relays.get(self.listener(listener)?)
    }

    /// Whether some cluster is told whose connection a request came on.
    pub(crate) fn sends_proxy_headers(&self) -> bool {
        self.sends_proxy_headers
    }

    /// Looks again at clusters where somebody's time is up.
    pub(crate) fn refresh(&self, now: Duration) {
        for upstream in &self.upstreams {
            upstream.refresh_if_due(now);
        }
    }

    /// Every cluster, as the table has it and as it runs, and how its endpoints are reached.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = (&Cluster, &Arc<Upstream>, &Reach)> {
        let clusters = self.table.clusters().as_slice().iter();
        let running = clusters.zip(&self.upstreams).zip(&self.reaches);
        running.map(|((cluster, upstream), reach)| (cluster, upstream, reach))
    }

    /// Every address that some cluster can send to.
    pub(crate) fn endpoint_addresses(&self) -> HashSet<SocketAddr> {
        let sets = self.upstreams.iter().map(|upstream| upstream.endpoints());
        sets.flat_map(|set| {
            set.all()
                .iter()
                .map(|endpoint| endpoint.addr())
                .collect::<Vec<_>>()
        })
        .collect()
    }
}

/// Where the current snapshot is.
pub(crate) type Current = Arc<ArcSwap<Snapshot>>;

/// Reads the current snapshot on one thread, for the price of one atomic load.
pub(crate) struct Reader {
    cache: RefCell<arc_swap::Cache<Current, Arc<Snapshot>>>,
}

impl Reader {
    pub(crate) fn new(current: Current) -> Self {
        Self {
            cache: RefCell::new(arc_swap::Cache::new(current)),
        }
    }

    /// Looks something up in the current snapshot. What is found must own itself, so that no request holds a table.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(self.cache.borrow_mut().load())
    }
}

/// Puts tables in. There is one, and it is not `Clone`: two writers could not agree.
pub struct Publisher {
    current: Current,
    upstreams: HashMap<routing_table::ClusterId, Arc<Upstream>>,
    sockets: Sockets,
    tls: ServerTls,
    connectors: Connectors,
    limiters: Limiters,
    listeners: watch::Sender<ListenerSet>,
    /// Told of every update, once it is in effect.
    updated: watch::Sender<()>,
    metrics: Arc<Metrics>,
    /// Replaced snapshots that some worker may still be reading.
    retired: Vec<Arc<Snapshot>>,
    generation: u64,
    replica: Replica,
}

/// What is true of this data plane as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    /// What [`crate::worker::Worker::now`] is read from.
    pub(crate) clock: Clock,
    /// What endpoint sets need to know of us.
    pub(crate) here: Arc<Here>,
    pub(crate) workers: usize,
}

/// Why an update could not be published as a whole. The rest of it was.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Listeners cannot listen; the others do.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A cluster is to be balanced by an order that nobody added; its endpoints get requests in turn.
    #[error("cluster {cluster} is balanced by {name:?}, an order that this build does not have")]
    UnknownOrder {
        /// The first such cluster.
        cluster: ClusterId,
        /// What it names.
        name: Arc<str>,
    },
}

impl Publisher {
    pub(crate) fn new(
        current: Current,
        sockets: Sockets,
        tls: ServerTls,
        listeners: watch::Sender<ListenerSet>,
        updated: watch::Sender<()>,
        metrics: Arc<Metrics>,
        replica: Replica,
    ) -> Self {
        Self {
            current,
            upstreams: HashMap::new(),
            sockets,
            tls,
            connectors: Connectors::default(),
            limiters: Limiters::default(),
            listeners,
            updated,
            metrics,
            retired: Vec::new(),
            generation: 0,
            replica,
        }
    }

    /// Makes an update take effect for every request that starts from now on.
    ///
    /// # Errors
    /// When a new listener cannot listen; everything else is published all the same.
    pub fn apply(&mut self, update: Update) -> Result<(), PublishError> {
        let result = match update {
            Update::Endpoints(sets) => {
                self.set_endpoints(&sets);
                Ok(())
            }
            Update::Table(table, sets) => self.set_table(table, &sets),
            Update::Listeners => self.listen_again(),
        };
        self.updated.send_replace(());
        result
    }

    /// Where each listener listens: tells the port that port 0 became.
    pub fn addresses(&self) -> Vec<(ListenerId, SocketAddr)> {
        self.sockets.addresses()
    }

    fn set_endpoints(&self, sets: &EndpointSets) {
        let now = self.replica.clock.now();
        for (id, endpoints) in sets {
            if let Some(upstream) = self.upstreams.get(id) {
                upstream.set_endpoints(endpoints, now);
            }
        }
    }

    /// Tries again to open what the table wants open and is not.
    fn listen_again(&mut self) -> Result<(), PublishError> {
        let current = self.current.load_full();
        let bound = self.sockets.bind(current.table.listeners());
        self.listeners.send_replace(self.sockets.set());
        self.metrics.listening.set(self.sockets.states());
        bound?;
        self.unknown_order(&current.table).map_or(Ok(()), Err)
    }

    /// The first order that is named and not there.
    fn unknown_order(&self, table: &RoutingTable) -> Option<PublishError> {
        let mut clusters = table.clusters().as_slice().iter();
        clusters.find_map(|cluster| match &cluster.policy.balancing {
            Balancing::Custom(name) if self.replica.here.order(name).is_none() => {
                Some(PublishError::UnknownOrder {
                    cluster: cluster.id.clone(),
                    name: Arc::clone(name),
                })
            }
            _ => None,
        })
    }

    fn set_table(
        &mut self,
        table: Arc<RoutingTable>,
        sets: &EndpointSets,
    ) -> Result<(), PublishError> {
        let now = self.replica.clock.now();
        let unknown_order = self.unknown_order(&table);
        // An upstream of the table before is kept: its place in the round and what is known of its endpoints live on.
        let upstreams: Vec<Arc<Upstream>> = table
            .clusters()
            .as_slice()
            .iter()
            .map(|cluster| match self.upstreams.get(&cluster.id) {
                Some(upstream) => {
                    upstream.set_policy(&cluster.policy, now);
                    Arc::clone(upstream)
                }
                None => {
                    let (id, policy) = (cluster.id.clone(), Arc::clone(&cluster.policy));
                    let transitions = Arc::clone(&self.metrics.transitions);
                    Arc::new(Upstream::new(id, policy, &self.replica, transitions))
                }
            })
            .collect();
        self.upstreams = upstreams
            .iter()
            .map(|upstream| (upstream.id().clone(), Arc::clone(upstream)))
            .collect();
        self.set_endpoints(sets);
        let reach = self.connectors.prepare(&table);
        let mut limiters = self.limiters.next();
        let routes = table
            .routes()
            .iter()
            .map(|route| {
                let (cluster, upstream, reach) = match route.action {
                    Action::Forward(cluster) => (
                        table.cluster(cluster),
                        upstreams.get(cluster.get()).cloned(),
                        reach.get(cluster.get()).cloned().unwrap_or(Reach::Closed),
                    ),
                    Action::Respond(_) => (None, None, Reach::Closed),
                };
                let stats = self
                    .metrics
                    .route(&route.id, upstream.as_deref().map(Upstream::id));
                let log_fields = RouteLine {
                    namespace: &route.id.namespace,
                    ingress: &route.id.name,
                    rule: &route.id.rule,
                    service: upstream
                        .as_ref()
                        .map_or("", |upstream| &upstream.id().service),
                }
                .format();
                Arc::new(RouteTarget {
                    route: Arc::clone(route),
                    upstream,
                    protocol: cluster.map_or(UpstreamProtocol::Http1, |cluster| cluster.protocol),
                    proxy_header: cluster.and_then(|cluster| cluster.proxy_header),
                    policy: cluster
                        .map(|cluster| Arc::clone(&cluster.policy))
                        .unwrap_or_default(),
                    reach,
                    limiters: limiters.of(route),
                    stats,
                    log_fields,
                })
            })
            .collect();
        let previous = self.current.load_full();
        let tls: Vec<Option<Arc<ListenerTls>>> = table
            .listeners()
            .iter()
            .map(|listener| match &listener.protocol {
                ListenerProtocol::Http | ListenerProtocol::Tcp(_) | ListenerProtocol::Udp(_) => {
                    None
                }
                ListenerProtocol::Https(settings) => Some(self.tls.listener(
                    settings,
                    &listener.virtual_hosts,
                    previous.tls(&listener.id),
                )),
            })
            .collect();
        self.tls.warn_of_suites(tls.iter().flatten());
        let bound = self.sockets.bind(table.listeners());
        let [tcp, udp] = self.sockets.listening();
        let relays = table
            .listeners()
            .iter()
            .map(|listener| {
                let listening = match listener.protocol {
                    ListenerProtocol::Udp(_) => &udp,
                    _ => &tcp,
                };
                let before = previous.relays(&listener.id);
                RelayTargets::new(listener, &upstreams, listening, before)
            })
            .collect();
        let mut clusters = table.clusters().as_slice().iter();
        let mut relayed = table.listeners().iter().flat_map(Listener::relays);
        let snapshot = Arc::new(Snapshot {
            sends_proxy_headers: clusters.any(|cluster| cluster.proxy_header.is_some())
                || relayed.any(|relay| relay.proxy_header.is_some()),
            relays,
            table,
            routes,
            upstreams,
            reaches: reach,
            tls,
        });
        self.metrics.watched.set(&snapshot.upstreams);
        self.metrics.certificates.set(&snapshot.table);
        self.current.store(Arc::clone(&snapshot));
        self.listeners.send_replace(self.sockets.set());
        self.metrics.listening.set(self.sockets.states());
        self.generation += 1;
        self.metrics.published(
            self.generation,
            snapshot.routes.iter().map(|target| &target.stats),
        );
        self.retired.push(previous);
        // Whoever holds one of these is a worker that has not looked yet; it is dropped here next time.
        self.retired
            .retain(|snapshot| Arc::strong_count(snapshot) > 1);
        bound?;
        unknown_order.map_or(Ok(()), Err)
    }
}
