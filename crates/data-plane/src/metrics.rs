//! All metrics of the data plane: their names, and slots that cost a request no lock and no shared cache line.
//!
//! Every worker has slots of its own and is their only writer, so counting is a plain load and store. They are added up when
//! somebody asks. Labels come from objects, never from a request, and series go when their route goes.

mod certificates;
pub(crate) mod exposition;
mod listening;
mod runtimes;

use crate::health::{Transitions, Watched};
use balance::RetryBudget;
use certificates::Certificates;
use exposition::{family, label, number};
use listening::Listening;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use routing_table::{ClusterId, RouteId};
use runtimes::Runtimes;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Statuses that are counted apart; any other is counted as `other`.
const CODES: [u16; 39] = [
    0, 200, 201, 202, 203, 204, 206, 207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404,
    405, 406, 408, 409, 410, 412, 413, 414, 415, 416, 421, 422, 429, 431, 499, 500, 501, 502, 503,
    504,
];

/// Upper bounds of the duration buckets, in seconds; those of ingress-nginx.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const BUCKET_MICROS: [u64; 11] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// Retries a second that a route may have whatever the number of its requests, over all workers.
const RETRIES_A_SECOND: f64 = 10.0;

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds; only the worker that owns the slot may call it.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Subtracts; only the worker that owns the slot may call it.
    pub(crate) fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Replaces; only the worker that owns the slot may call it.
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client went away, or said that it does not want any more.
    Closed,
    /// What came is not TLS, or breaks its rules.
    Malformed,
    /// No version in common.
    Version,
    /// No cipher, curve or signature in common.
    NothingInCommon,
    /// The client speaks none of our protocols (ALPN).
    Protocol,
    /// The client's certificate cannot be read, is too long a chain, or it has not the key.
    ClientCertificate,
    /// The client does not believe our certificate.
    RefusedOurs,
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    /// In the order of their numbers.
    const ALL: [Self; 9] = [
        Self::Timeout,
        Self::Closed,
        Self::Malformed,
        Self::Version,
        Self::NothingInCommon,
        Self::Protocol,
        Self::ClientCertificate,
        Self::RefusedOurs,
        Self::Other,
    ];

    /// In one word, as label and for the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::NothingInCommon => "nothing_in_common",
            Self::Protocol => "alpn",
            Self::ClientCertificate => "client_certificate",
            Self::RefusedOurs => "certificate_refused",
            Self::Other => "other",
        }
    }
}

/// How often handshakes failed, by reason.
#[derive(Debug, Default)]
pub(crate) struct HandshakeFailures([Count; HandshakeFailure::ALL.len()]);

impl HandshakeFailures {
    /// Counts one; only the worker that owns the slot may call it.
    pub(crate) fn count(&self, reason: HandshakeFailure) {
        self.0[reason as usize].add(1);
    }
}

fn handshake_failures(workers: &[Arc<WorkerStats>]) -> MetricFamily {
    let series = HandshakeFailure::ALL.iter().map(|reason| {
        let slots = workers.iter();
        let count = slots.map(|worker| worker.handshake_failures.0[*reason as usize].get());
        let labels = vec![label("reason", reason.as_str())];
        number(
            MetricType::COUNTER,
            labels,
            count.fold(0, u64::wrapping_add),
        )
    });
    family(
        "tidegate_tls_handshakes_failed_total",
        "TLS handshakes that failed or took too long, by reason.",
        MetricType::COUNTER,
        series.collect(),
    )
}

macro_rules! worker_stats {
    ($($(#[doc = $doc:literal])* $field:ident: $kind:ident $name:literal,)*) => {
        /// What one worker counts apart from routes.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct WorkerStats {
            $($(#[doc = $doc])* pub(crate) $field: Count,)*
            /// TLS handshakes that came to nothing.
            pub(crate) handshake_failures: HandshakeFailures,
        }

        fn worker_families(workers: &[Arc<WorkerStats>]) -> Vec<MetricFamily> {
            vec![$(family($name, concat!($($doc,)*), MetricType::$kind, vec![
                number(MetricType::$kind, vec![], workers.iter().map(|w| w.$field.get()).fold(0, u64::wrapping_add)),
            ]),)*]
        }
    };
}

worker_stats! {
    /// Client connections accepted.
    accepted: COUNTER "tidegate_connections_accepted_total",
    /// Client connections open now.
    open: GAUGE "tidegate_connections_open",
    /// Retries that were not made because there had been too many.
    retries_denied: COUNTER "tidegate_retries_denied_total",
    /// Requests that waited because all endpoints had as many as they may.
    queued: COUNTER "tidegate_requests_queued_total",
    /// Requests that were sent on connections of HTTP/2 to endpoints.
    upstream_streams: COUNTER "tidegate_upstream_http2_requests_total",
    /// TLS handshakes whose answer is being computed now.
    handshakes_active: GAUGE "tidegate_tls_handshakes_active",
    /// Most TLS handshakes whose answers were computed at once since the start, added up over workers.
    handshakes_peak: GAUGE "tidegate_tls_handshakes_active_max",
    /// Client connections closed at once because the limit was reached.
    shed: COUNTER "tidegate_connections_shed_total",
    /// Client connections at rest that were ended because the limit was reached and others came.
    evicted: COUNTER "tidegate_connections_evicted_total",
    /// Connections closed because a header of the PROXY protocol was asked for and the peer may not send one.
    proxy_untrusted: COUNTER "tidegate_proxy_protocol_untrusted_total",
    /// Connections closed because there was no header of the PROXY protocol, not a good one, or none in time.
    proxy_invalid: COUNTER "tidegate_proxy_protocol_invalid_total",
    /// TCP connections relayed, accepted or not.
    relays: COUNTER "tidegate_tcp_connections_total",
    /// TCP connections relayed now.
    relays_open: GAUGE "tidegate_tcp_connections_open",
    /// TCP connections closed at once because their listener had as many as it may have.
    relays_shed: COUNTER "tidegate_tcp_connections_shed_total",
    /// TCP connections closed at once because of where their client is.
    relays_forbidden: COUNTER "tidegate_tcp_connections_forbidden_total",
    /// TCP connections closed because no endpoint could be connected to.
    relays_unconnected: COUNTER "tidegate_tcp_connections_unconnected_total",
    /// TLS connections that ended, or said nothing, before it was known whether to pass them on.
    passthrough_silent: COUNTER "tidegate_tls_passthrough_silent_total",
    /// TCP connections closed because nothing was sent for too long.
    relays_idle: COUNTER "tidegate_tcp_connections_idle_total",
    /// TCP connections that ended with an error of a socket.
    relays_reset: COUNTER "tidegate_tcp_connections_reset_total",
    /// TCP connections closed because their endpoint went away.
    relays_abandoned: COUNTER "tidegate_tcp_connections_abandoned_total",
    /// Bytes that clients sent over relayed TCP connections.
    relays_received: COUNTER "tidegate_tcp_received_bytes_total",
    /// Bytes that were sent to clients over relayed TCP connections.
    relays_sent: COUNTER "tidegate_tcp_sent_bytes_total",
    /// UDP sessions begun.
    sessions: COUNTER "tidegate_udp_sessions_total",
    /// UDP sessions now.
    sessions_open: GAUGE "tidegate_udp_sessions_open",
    /// Datagrams of new clients dropped because there were as many sessions as there may be.
    sessions_shed: COUNTER "tidegate_udp_sessions_shed_total",
    /// Datagrams dropped for any other reason: no endpoint, or a full or closed socket.
    datagrams_dropped: COUNTER "tidegate_udp_datagrams_dropped_total",
    /// Bytes that clients sent in datagrams of sessions.
    sessions_received: COUNTER "tidegate_udp_received_bytes_total",
    /// Bytes that were sent to clients in datagrams of sessions.
    sessions_sent: COUNTER "tidegate_udp_sent_bytes_total",
    /// Requests that no HTTP parser could read.
    unreadable: COUNTER "tidegate_unreadable_requests_total",
    /// Requests in progress now.
    requests_active: GAUGE "tidegate_requests_active",
    /// Connections opened to endpoints.
    upstream_connects: COUNTER "tidegate_upstream_connects_total",
    /// Connections to endpoints that were not made, at `--max-endpoint-connections`.
    upstream_shed: COUNTER "tidegate_upstream_connections_shed_total",
    /// Connections to endpoints that failed or took too long.
    upstream_connect_errors: COUNTER "tidegate_upstream_connect_errors_total",
    /// Attempts sent on a connection that was at rest.
    upstream_reused: COUNTER "tidegate_upstream_reused_total",
    /// Connections to endpoints at rest now.
    upstream_idle: GAUGE "tidegate_upstream_idle",
    /// Attempts after the first.
    retries: COUNTER "tidegate_upstream_retries_total",
    /// Access log lines dropped because the writer was behind.
    log_dropped: COUNTER "tidegate_access_log_dropped_total",
}

/// What is counted for one route's object and cluster.
#[derive(Debug)]
pub(crate) struct RouteStats {
    key: RouteKey,
    workers: Vec<OnceLock<Box<RouteSlot>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct RouteKey {
    namespace: Arc<str>,
    ingress: Arc<str>,
    service: Arc<str>,
}

/// The numbers of one route on one worker.
#[derive(Debug)]
struct RouteSlot {
    codes: [Count; CODES.len()],
    buckets: [Count; BUCKETS.len() + 1],
    micros: Count,
    request_bytes: Count,
    response_bytes: Count,
    retries: RetryBudget,
}

impl RouteSlot {
    /// The slot of one of so many workers.
    fn new(workers: usize) -> Box<Self> {
        Box::new(Self {
            codes: std::array::from_fn(|_| Count::default()),
            buckets: Default::default(),
            micros: Count::default(),
            request_bytes: Count::default(),
            response_bytes: Count::default(),
            retries: RetryBudget::new(RETRIES_A_SECOND / workers.max(1) as f64),
        })
    }
}

impl RouteStats {
    /// Counts one finished request; only worker `worker` may call it with its number.
    pub(crate) fn record(
        &self,
        worker: usize,
        status: u16,
        duration: Duration,
        request_bytes: u64,
        response_bytes: u64,
    ) {
        let Some(slot) = self.slot(worker) else {
            return;
        };
        slot.codes[CODES.binary_search(&status).unwrap_or(0)].add(1);
        let micros = duration.as_micros() as u64;
        slot.buckets[BUCKET_MICROS
            .iter()
            .position(|bound| micros <= *bound)
            .unwrap_or(BUCKETS.len())]
        .add(1);
        slot.micros.add(micros);
        slot.request_bytes.add(request_bytes);
        slot.response_bytes.add(response_bytes);
    }

    /// What retries there may be; only worker `worker` may use it.
    pub(crate) fn retries(&self, worker: usize) -> Option<&RetryBudget> {
        self.slot(worker).map(|slot| &slot.retries)
    }

    fn slot(&self, worker: usize) -> Option<&RouteSlot> {
        let slot = self.workers.get(worker)?;
        Some(slot.get_or_init(|| RouteSlot::new(self.workers.len())))
    }

    fn sum(&self, number: impl Fn(&RouteSlot) -> u64) -> u64 {
        self.workers
            .iter()
            .filter_map(OnceLock::get)
            .map(|slot| number(slot))
            .sum()
    }

    fn is_used(&self) -> bool {
        self.workers.iter().any(|slot| slot.get().is_some())
    }

    fn labels(&self) -> Vec<LabelPair> {
        vec![
            label("ingress", &self.key.ingress),
            label("namespace", &self.key.namespace),
            label("service", &self.key.service),
        ]
    }
}

/// Every slot, and the collector over them.
#[derive(Debug)]
pub(crate) struct Metrics {
    workers: Vec<Arc<WorkerStats>>,
    routes: Mutex<HashMap<RouteKey, Arc<RouteStats>>>,
    unrouted: Arc<RouteStats>,
    /// Of endpoints.
    pub(crate) transitions: Arc<Transitions>,
    pub(crate) watched: Watched,
    pub(crate) certificates: Certificates,
    pub(crate) listening: Listening,
    pub(crate) runtimes: Runtimes,
    generation: AtomicU64,
}

impl Metrics {
    /// Slots for this many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let key = RouteKey {
            namespace: "".into(),
            ingress: "".into(),
            service: "".into(),
        };
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            routes: Mutex::default(),
            unrouted: Arc::new(RouteStats {
                key,
                workers: (0..workers).map(|_| OnceLock::new()).collect(),
            }),
            transitions: Arc::default(),
            watched: Watched::default(),
            certificates: Certificates::default(),
            listening: Listening::default(),
            runtimes: Runtimes::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// The slots of one worker.
    pub(crate) fn worker(&self, index: usize) -> Arc<WorkerStats> {
        Arc::clone(&self.workers[index])
    }

    /// For requests that found no route.
    pub(crate) fn unrouted(&self) -> &Arc<RouteStats> {
        &self.unrouted
    }

    /// The slots of a route: the same for all routes of an object that forward to one cluster, and kept over tables.
    pub(crate) fn route(&self, id: &RouteId, cluster: Option<&ClusterId>) -> Arc<RouteStats> {
        let service = cluster.map_or_else(|| "".into(), |cluster| Arc::clone(&cluster.service));
        let key = RouteKey {
            namespace: Arc::clone(&id.namespace),
            ingress: Arc::clone(&id.name),
            service,
        };
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let workers = self.workers.iter().map(|_| OnceLock::new()).collect();
            Arc::new(RouteStats {
                key: key.clone(),
                workers,
            })
        };
        Arc::clone(routes.entry(key.clone()).or_insert_with(new))
    }

    /// Forgets the series of routes that the published table does not have.
    pub(crate) fn published<'a>(
        &self,
        generation: u64,
        wanted: impl Iterator<Item = &'a Arc<RouteStats>>,
    ) {
        self.generation.store(generation, Ordering::Relaxed);
        let wanted: std::collections::HashSet<*const RouteStats> =
            wanted.map(Arc::as_ptr).collect();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, stats| wanted.contains(&Arc::as_ptr(stats)));
    }

    fn route_families(&self) -> Vec<MetricFamily> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<RouteStats>> = routes.values().cloned().collect();
        drop(routes);
        all.push(Arc::clone(&self.unrouted));
        all.retain(|stats| stats.is_used());
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let (mut requests, mut durations) = (Vec::new(), Vec::new());
        let (mut request_bytes, mut response_bytes) = (Vec::new(), Vec::new());
        for stats in &all {
            let mut by_code = BTreeMap::new();
            for (position, code) in CODES.iter().enumerate() {
                by_code.insert(code, stats.sum(|slot| slot.codes[position].get()));
            }
            for (code, count) in by_code.into_iter().filter(|(_, count)| *count > 0) {
                let code = if *code == 0 {
                    "other".to_owned()
                } else {
                    code.to_string()
                };
                let mut labels = stats.labels();
                labels.insert(0, label("code", &code));
                requests.push(number(MetricType::COUNTER, labels, count));
            }
            durations.push(duration_histogram(stats));
            request_bytes.push(number(
                MetricType::COUNTER,
                stats.labels(),
                stats.sum(|slot| slot.request_bytes.get()),
            ));
            response_bytes.push(number(
                MetricType::COUNTER,
                stats.labels(),
                stats.sum(|slot| slot.response_bytes.get()),
            ));
        }
        let counter = MetricType::COUNTER;
        let named = [
            family(
                "tidegate_requests_total",
                "Requests answered; no labels but code where no route was found.",
                counter,
                requests,
            ),
            family(
                "tidegate_request_duration_seconds",
                "From the first byte of a request to the last byte of its answer.",
                MetricType::HISTOGRAM,
                durations,
            ),
            family(
                "tidegate_request_body_bytes_total",
                "Bytes of request bodies received.",
                counter,
                request_bytes,
            ),
            family(
                "tidegate_response_body_bytes_total",
                "Bytes of response bodies sent.",
                counter,
                response_bytes,
            ),
        ];
        named
            .into_iter()
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

fn duration_histogram(stats: &RouteStats) -> Metric {
    let mut histogram = Histogram::default();
    let mut total = 0;
    let mut buckets = Vec::with_capacity(BUCKETS.len());
    for (position, bound) in BUCKETS.iter().enumerate() {
        total += stats.sum(|slot| slot.buckets[position].get());
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(total);
        buckets.push(bucket);
    }
    total += stats.sum(|slot| slot.buckets[BUCKETS.len()].get());
    histogram.set_bucket(buckets);
    histogram.set_sample_count(total);
    histogram.set_sample_sum(stats.sum(|slot| slot.micros.get()) as f64 / 1e6);
    let mut metric = Metric::default();
    metric.set_label(stats.labels());
    metric.set_histogram(histogram);
    metric
}

/// Registers the slots with a Prometheus registry.
pub(crate) struct Collected {
    metrics: Arc<Metrics>,
    /// One description is enough for the registry to tell this collector from others.
    generation: Desc,
}

impl Collected {
    pub(crate) fn new(metrics: Arc<Metrics>) -> prometheus::Result<Self> {
        let help = "How many tables have been published.".to_owned();
        let generation = Desc::new(
            "tidegate_table_generation".into(),
            help,
            vec![],
            HashMap::new(),
        )?;
        Ok(Self {
            metrics,
            generation,
        })
    }
}

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.generation]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let generation = self.metrics.generation.load(Ordering::Relaxed);
        let generation = number(MetricType::GAUGE, vec![], generation);
        let mut all = vec![family(
            &self.generation.fq_name,
            &self.generation.help,
            MetricType::GAUGE,
            vec![generation],
        )];
        all.extend(worker_families(&self.metrics.workers));
        all.push(handshake_failures(&self.metrics.workers));
        all.extend(self.metrics.transitions.families());
        all.extend(self.metrics.watched.families());
        all.extend(self.metrics.certificates.family());
        all.extend(self.metrics.listening.family());
        all.push(self.metrics.runtimes.family());
        all.extend(self.metrics.route_families());
        all
    }
}

#[cfg(test)]
#[path = "tests/metrics.rs"]
mod tests;
