//! Endpoints that are taken out and brought back: written down, counted and made to take effect in one way, whoever found out.
//!
//! Who finds out is not here. Each [`Bar`] has one owner: see [`Bar`].

use crate::metrics::exposition::{family, label, number};
use crate::upstream::Upstream;
use balance::{Bar, Check, EndpointState};
use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often endpoints were taken out and brought back, by reason, in the order of [`Bar::ALL`]; and what led to it.
#[derive(Debug, Default)]
pub(crate) struct Transitions {
    out: [AtomicU64; Bar::ALL.len()],
    back: [AtomicU64; Bar::ALL.len()],
    pub(crate) probes: Probes,
}

/// What helps where a handshake with an endpoint fails with an error that has this word.
const TLS_HINTS: [(&str, &str); 2] = [
    (
        "UnknownIssuer",
        "; whoever issued its certificate is not believed: name that authority \
         (tls.ca in the file, --backend-ca, ca.crt of upstream-tls-secret)",
    ),
    (
        "CaUsedAsEndEntity",
        "; its certificate is that of an authority (CA:TRUE, as \"openssl req -x509\" makes them), and a server needs one that is not: \
         make it with -addext basicConstraints=critical,CA:FALSE",
    ),
];

impl Transitions {
    /// What the metrics tell of the health of endpoints.
    pub(crate) fn families(&self) -> [MetricFamily; 2] {
        [self.family(), self.probes.family()]
    }

    /// `tidegate_endpoint_transitions_total`.
    fn family(&self) -> MetricFamily {
        let counted = [("out", &self.out), ("back", &self.back)];
        // One series for each word: an agent has two bars.
        let series = counted.iter().flat_map(|(to, counts)| {
            let mut by_check: Vec<(&str, u64)> = Vec::new();
            for ((_, check), count) in Bar::ALL.iter().zip(counts.iter()) {
                let count = count.load(Ordering::Relaxed);
                match by_check.iter_mut().find(|(known, _)| known == check) {
                    Some((_, sum)) => *sum += count,
                    None => by_check.push((check, count)),
                }
            }
            by_check.into_iter().map(|(check, count)| {
                let labels = vec![label("check", check), label("to", to)];
                number(MetricType::COUNTER, labels, count)
            })
        });
        family(
            "tidegate_endpoint_transitions_total",
            "How often an endpoint was taken out, or brought back, by what found out.",
            MetricType::COUNTER,
            series.collect(),
        )
    }
}

/// The clusters of the published table, of whose endpoints metrics tell.
#[derive(Debug, Default)]
pub(crate) struct Watched(Mutex<Vec<Arc<Upstream>>>);

impl Watched {
    /// Those of a table that is published.
    pub(crate) fn set(&self, upstreams: &[Arc<Upstream>]) {
        let now = upstreams.to_vec();
        let before = std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        );
        drop(before);
    }

    /// `tidegate_circuit_breaker_state` and `tidegate_cluster_in_panic`. No series where the policy asks for none.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        let all = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (mut breakers, mut panics) = (Vec::new(), Vec::new());
        for upstream in &all {
            let set = upstream.endpoints();
            let policy = set.policy();
            if policy.breaker.is_some() {
                breakers.extend(set.all().iter().map(|endpoint| {
                    let mut labels = labels(upstream);
                    labels.insert(0, label("endpoint", &endpoint.addr().to_string()));
                    let phase = endpoint.conduct().breaker.phase();
                    number(MetricType::GAUGE, labels, phase as u64)
                }));
            }
            if policy.judges_traffic()
                || policy.active_check.is_some()
                || policy.agent_check.is_some()
            {
                let is_in_panic = u64::from(set.is_in_panic());
                panics.push(number(MetricType::GAUGE, labels(upstream), is_in_panic));
            }
        }
        let named = [
            family(
                "tidegate_circuit_breaker_state",
                "What the breaker of an endpoint does: 0 closed, 1 half-open, 2 open.",
                MetricType::GAUGE,
                breakers,
            ),
            family(
                "tidegate_cluster_in_panic",
                "1 where so few endpoints are available that their health is ignored.",
                MetricType::GAUGE,
                panics,
            ),
        ];
        named
            .into_iter()
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

fn labels(upstream: &Upstream) -> Vec<LabelPair> {
    let id = upstream.id();
    vec![
        label("namespace", &id.namespace),
        label("port", &id.port.to_string()),
        label("service", &id.service),
    ]
}

/// How many probes and questions to agents have been answered, and how.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// By [`Check`], failures first.
    counts: [[AtomicU64; 2]; 2],
}

impl Probes {
    /// Counts one.
    pub(crate) fn count(&self, check: Check, passed: bool) {
        let count = &self.counts[check as usize][usize::from(passed)];
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// `tidegate_health_probes_total`.
    fn family(&self) -> MetricFamily {
        let mut series = Vec::new();
        for (check, counts) in ["active", "agent"].iter().zip(&self.counts) {
            for (result, count) in ["fail", "pass"].iter().zip(counts) {
                let labels = vec![label("check", check), label("result", result)];
                let count = count.load(Ordering::Relaxed);
                series.push(number(MetricType::COUNTER, labels, count));
            }
        }
        family(
            "tidegate_health_probes_total",
            "Probes of endpoints, and questions to their agents, by what came of them.",
            MetricType::COUNTER,
            series,
        )
    }
}

fn count(counts: &[AtomicU64; Bar::ALL.len()], bar: Bar) -> &'static str {
    let of_bar = Bar::ALL
        .iter()
        .zip(counts)
        .find(|((known, _), _)| *known == bar);
    of_bar.map_or("", |((_, check), count)| {
        count.fetch_add(1, Ordering::Relaxed);
        check
    })
}

impl Upstream {
    /// Takes an endpoint out; nothing happens when this reason holds already. `why` is for the log and `/backends`. `now` is
    /// [`crate::worker::Worker::now`]. Whether it was new.
    pub(crate) fn take_out(
        &self,
        endpoint: &EndpointState,
        bar: Bar,
        why: impl Display,
        now: Duration,
    ) -> bool {
        if !endpoint.bar_because(bar, &why, now) {
            return false;
        }
        let check = count(&self.transitions().out, bar);
        let (cluster, addr) = (self.id(), endpoint.addr());
        tracing::warn!(%cluster, endpoint = %addr, check, %why, "endpoint taken out");
        self.refresh(now);
        true
    }

    /// Lifts a reason for an endpoint to be out; nothing happens when it did not hold. Whether it did.
    pub(crate) fn bring_back(
        &self,
        endpoint: &EndpointState,
        bar: Bar,
        why: impl Display,
        now: Duration,
    ) -> bool {
        if !endpoint.lift(bar, now) {
            return false;
        }
        let check = count(&self.transitions().back, bar);
        let (cluster, addr) = (self.id(), endpoint.addr());
        tracing::info!(%cluster, endpoint = %addr, check, %why, "endpoint brought back");
        self.refresh(now);
        true
    }

    /// Takes note that TLS to an endpoint has failed. It is told once, as long as it goes on.
    pub(crate) fn tls_failed(&self, addr: SocketAddr, error: &io::Error, now: Duration) {
        let is_news = self
            .endpoint(addr)
            .is_some_and(|endpoint| endpoint.tls_failed(now));
        if !is_news {
            return;
        }
        let (cluster, error) = (self.id(), error.to_string());
        let hint = TLS_HINTS.iter().find(|(of, _)| error.contains(of));
        let hint = hint.map_or("", |(_, hint)| hint);
        tracing::warn!(%cluster, endpoint = %addr, "no TLS to the endpoint, so it serves nothing: {error}{hint}");
    }

    /// Takes note of TLS to an endpoint that came about.
    pub(crate) fn tls_succeeded(&self, addr: SocketAddr, now: Duration) {
        if self
            .endpoint(addr)
            .is_some_and(|endpoint| endpoint.tls_succeeded(now))
        {
            tracing::info!(cluster = %self.id(), endpoint = %addr, "TLS to the endpoint again");
        }
    }

    fn endpoint(&self, addr: SocketAddr) -> Option<Arc<EndpointState>> {
        let set = self.endpoints();
        let mut all = set.all().iter();
        all.find(|endpoint| endpoint.addr() == addr).cloned()
    }
}
