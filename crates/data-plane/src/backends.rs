//! Shows every cluster and endpoint as requests see them at this moment, and does what an operator wants of an endpoint.
//!
//! Knows no HTTP and no JSON: the admin port makes them of this. What an operator wants is kept with what else is known of the
//! endpoint, by its address, for as long as some table has it; it is gone with the process.

use crate::clock::Clock;
use crate::forward::PASSED_OVER;
use crate::metrics::exposition::{family, label, number};
use crate::publish::Current;
use crate::upstream::Upstream;
use balance::{Bar, Check, EndpointState, LastCheck, Voice};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use routing_table::{ClusterId, Endpoint, Serving};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Reads what is published now. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    current: Current,
    clock: Clock,
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backends")
    }
}

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterStatus {
    /// Its name.
    pub id: ClusterId,
    /// How an endpoint is chosen.
    pub balancing: String,
    /// So few endpoints are available that those that are out get requests too.
    pub ignores_health: bool,
    /// All of them.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointStatus {
    /// Where to connect to.
    pub addr: SocketAddr,
    /// What its source calls it.
    pub name: Option<Arc<str>>,
    /// How it is.
    pub state: State,
    /// Whether a request can go there at this moment: in spite of its state where health is ignored, and not in spite of it in
    /// a cluster that uses a subset.
    pub gets_requests: bool,
    /// Why it is not available.
    pub reasons: Vec<ReasonStatus>,
    /// As declared.
    pub weight: u32,
    /// What is left of that now, by what its agent and an operator want, while it starts slowly, and while it wants less.
    pub effective_weight: f64,
    /// The share of its declared weight that an operator wants it to have, in percent.
    pub weight_percent: u32,
    /// The same for its agent.
    pub agent_weight_percent: u32,
    /// As declared.
    pub priority: u16,
    /// Requests in progress.
    pub in_flight: u32,
    /// Most requests in progress: the least of what is declared, what its agent and what an operator want. A route may have a
    /// limit besides.
    pub max_requests: Option<u32>,
    /// The average time to an answer, where the policy looks at it.
    pub latency: Option<Duration>,
    /// The last probe.
    pub last_check: Option<CheckStatus>,
    /// The last question to its agent.
    pub last_agent_check: Option<CheckStatus>,
}

/// How an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It gets its share of the requests.
    Available,
    /// Something is wrong with it.
    Out,
    /// Nothing is wrong, but it is to get nothing new: its source, its agent or an operator says so.
    Draining,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Available, Self::Out, Self::Draining];

    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Out => "out",
            Self::Draining => "draining",
        }
    }
}

/// Why an endpoint is not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonStatus {
    /// Who says so: `active`, `agent`, `passive`, `breaker`, `operator`, `connect`, `source`.
    pub check: &'static str,
    /// In words.
    pub why: String,
    /// For how long; `None` where that is not known.
    pub since: Option<Duration>,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckStatus {
    /// What was asked: `http`, `tcp`, `tls`, `grpc`, `bytes`, `agent`.
    pub kind: &'static str,
    /// Whether the answer was good.
    pub passed: bool,
    /// In words.
    pub why: String,
    /// How long ago that was.
    pub ago: Duration,
}

/// What an operator wants of an endpoint; `None`: as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its share of its declared weight, in percent, times what its agent wants.
    pub weight_percent: Option<u32>,
    /// Whether it gets nothing new.
    pub drain: Option<bool>,
    /// Most requests in progress, of those that begin from now on; `Some(None)` takes the limit back.
    pub max_requests: Option<Option<u32>>,
}

/// What is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownBackend {
    /// No such cluster.
    #[error("no route leads to the service {0}")]
    Cluster(String),
    /// No such endpoint in it.
    #[error("{1} is no endpoint of the service {0}")]
    Endpoint(String, SocketAddr),
}

impl Backends {
    pub(crate) fn new(current: Current, clock: Clock) -> Self {
        Self { current, clock }
    }

    /// Every cluster of the published table, in the order of their names.
    pub fn read(&self) -> Vec<ClusterStatus> {
        let (snapshot, now) = (self.current.load_full(), self.clock.now());
        let clusters = snapshot.clusters();
        let mut all: Vec<_> = clusters
            .map(|(_, upstream, _)| status(upstream, now))
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Does what an operator wants, at once and for whatever comes: requests in progress go on. A port that is spoken to in
    /// several ways is several clusters; all of them that have the endpoint are meant.
    ///
    /// # Errors
    /// When there is no such cluster or endpoint.
    pub fn wish(
        &self,
        namespace: &str,
        service: &str,
        port: u16,
        addr: SocketAddr,
        wish: Wish,
    ) -> Result<(), UnknownBackend> {
        let (snapshot, now) = (self.current.load_full(), self.clock.now());
        let (mut has_cluster, mut has_endpoint) = (false, false);
        for (cluster, upstream, _) in snapshot.clusters() {
            let id = &cluster.id;
            if (&*id.namespace, &*id.service, id.port) != (namespace, service, port) {
                continue;
            }
            has_cluster = true;
            let set = upstream.endpoints();
            if let Some(state) = set.all().iter().find(|state| state.addr() == addr) {
                has_endpoint = true;
                fulfil(upstream, state, wish, now);
            }
        }
        let name = || format!("{namespace}/{service}:{port}");
        match (has_cluster, has_endpoint) {
            (false, _) => Err(UnknownBackend::Cluster(name())),
            (true, false) => Err(UnknownBackend::Endpoint(name(), addr)),
            (true, true) => Ok(()),
        }
    }
}

fn fulfil(upstream: &Upstream, state: &EndpointState, wish: Wish, now: Duration) {
    let (cluster, addr) = (upstream.id(), state.addr());
    let mut changed = false;
    if let Some(percent) = wish.weight_percent {
        changed |= state.set_weight_percent(Voice::Operator, percent);
    }
    if let Some(most) = wish.max_requests {
        changed |= state.set_most(Voice::Operator, most);
    }
    if changed {
        let percent = state.weight_percent_of(Voice::Operator);
        let most = state.most_of(Voice::Operator);
        tracing::info!(%cluster, endpoint = %addr, percent, ?most, "an operator set the share and the limit of an endpoint");
        upstream.refresh(now);
    }
    match wish.drain {
        Some(true) => {
            upstream.take_out(state, Bar::Drained, "drained by an operator", now);
        }
        Some(false) => {
            let why = "no longer drained by an operator";
            upstream.bring_back(state, Bar::Drained, why, now);
        }
        None => {}
    }
}

fn status(upstream: &Upstream, now: Duration) -> ClusterStatus {
    let set = upstream.endpoints();
    let shares: HashMap<SocketAddr, u64> = set
        .members()
        .map(|member| (member.endpoint.addr, member.weight))
        .collect();
    let shown = |endpoint: &Endpoint, state: &EndpointState| {
        let share = shares.get(&endpoint.addr);
        let declared = endpoint.max_requests.unwrap_or(u32::MAX);
        let latency = state.latency(now);
        let last = |check| state.last_check(check).map(|last| checked(last, now));
        EndpointStatus {
            addr: endpoint.addr,
            name: endpoint.name.clone(),
            state: how_it_is(endpoint, state, now),
            gets_requests: share.is_some(),
            reasons: reasons(endpoint, state, now),
            weight: endpoint.weight,
            effective_weight: share.map_or(0.0, |share| *share as f64 / 100.0),
            weight_percent: state.weight_percent_of(Voice::Operator),
            agent_weight_percent: state.weight_percent_of(Voice::Agent),
            priority: endpoint.priority,
            in_flight: state.in_flight(),
            max_requests: Some(declared.min(state.most())).filter(|most| *most < u32::MAX),
            latency: (latency >= 1.0).then(|| Duration::from_nanos(latency as u64)),
            last_check: last(Check::Active),
            last_agent_check: last(Check::Agent),
        }
    };
    let there = set.known().map(|(endpoint, state)| shown(endpoint, state));
    let leaving = upstream.leaving();
    let leaving = leaving.iter().map(|(endpoint, state)| {
        let mut status = shown(endpoint, state);
        (status.state, status.gets_requests) = (State::Draining, false);
        status.effective_weight = 0.0;
        status.reasons.push(ReasonStatus {
            check: "source",
            why: "it is gone from its source, and requests are still at it".to_owned(),
            since: None,
        });
        status
    });
    ClusterStatus {
        id: upstream.id().clone(),
        balancing: set.policy().balancing.to_string(),
        ignores_health: set.is_in_panic(),
        endpoints: there.chain(leaving).collect(),
    }
}

fn how_it_is(endpoint: &Endpoint, state: &EndpointState, now: Duration) -> State {
    if state.is_drained() || endpoint.serving == Serving::Draining {
        State::Draining
    } else if state.is_available(now) {
        State::Available
    } else {
        State::Out
    }
}

fn reasons(endpoint: &Endpoint, state: &EndpointState, now: Duration) -> Vec<ReasonStatus> {
    let word = |bar: Bar| {
        let row = Bar::ALL.iter().find(|(known, _)| *known == bar);
        row.map_or("", |(_, word)| word)
    };
    let noted = state.reasons().into_iter();
    let mut all: Vec<ReasonStatus> = noted
        .map(|reason| ReasonStatus {
            check: word(reason.bar),
            why: reason.why,
            since: Some(now.saturating_sub(reason.since)),
        })
        .collect();
    if state.is_passed_over(now) {
        let began = state.passed_over_until().saturating_sub(PASSED_OVER);
        all.push(ReasonStatus {
            check: "connect",
            why: "it could not be connected to".to_owned(),
            since: Some(now.saturating_sub(began)),
        });
    }
    if endpoint.serving == Serving::Draining {
        all.push(ReasonStatus {
            check: "source",
            why: "it terminates".to_owned(),
            since: None,
        });
    }
    all
}

fn checked(last: LastCheck, now: Duration) -> CheckStatus {
    CheckStatus {
        kind: last.kind,
        passed: last.passed,
        why: last.why.into_owned(),
        ago: now.saturating_sub(last.at),
    }
}

/// Counts endpoints by their state, when somebody asks.
pub(crate) struct EndpointCounts {
    backends: Backends,
    endpoints: Desc,
}

impl EndpointCounts {
    pub(crate) fn new(backends: Backends) -> prometheus::Result<Self> {
        let labels = ["namespace", "service", "port", "state"];
        let endpoints = Desc::new(
            "tidegate_endpoints".into(),
            "Endpoints by state; of a port that is spoken to in several ways, those of each."
                .into(),
            labels.map(str::to_owned).to_vec(),
            HashMap::new(),
        )?;
        Ok(Self {
            backends,
            endpoints,
        })
    }
}

impl Collector for EndpointCounts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.endpoints]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.backends.current.load_full();
        let now = self.backends.clock.now();
        let mut counts: BTreeMap<(&str, &str, u16), BTreeMap<State, u64>> = BTreeMap::new();
        for (cluster, upstream, _) in snapshot.clusters() {
            let id = &cluster.id;
            let of_port = counts
                .entry((&id.namespace, &id.service, id.port))
                .or_insert_with(|| State::ALL.map(|state| (state, 0)).into());
            for (endpoint, state) in upstream.endpoints().known() {
                *of_port.entry(how_it_is(endpoint, state, now)).or_default() += 1;
            }
        }
        let mut series = Vec::new();
        for ((namespace, service, port), by_state) in &counts {
            for (state, count) in by_state {
                let labels = vec![
                    label("namespace", namespace),
                    label("port", &port.to_string()),
                    label("service", service),
                    label("state", state.as_str()),
                ];
                series.push(number(MetricType::GAUGE, labels, *count));
            }
        }
        if series.is_empty() {
            return Vec::new();
        }
        let (name, help) = (&self.endpoints.fq_name, &self.endpoints.help);
        vec![family(name, help, MetricType::GAUGE, series)]
    }
}
