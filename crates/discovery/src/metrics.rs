//! All metrics of DNS discovery.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use routing_table::DnsSource;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// `tidegate_dns_lookups_total{result}`: `answer`, `empty` or `failure`.
    pub(crate) lookups: IntCounterVec,
    /// `tidegate_dns_records_left_out_total`: records beyond the most that are used, or that name what is no endpoint.
    pub(crate) cut: IntCounter,
    /// `tidegate_dns_sources`: names that are asked for.
    pub(crate) sources: IntGauge,
    /// `tidegate_dns_endpoints{source}`: endpoints that are in use.
    pub(crate) endpoints: IntGaugeVec,
    /// `tidegate_dns_answer_age_seconds{source}`: since the answer in use was last confirmed.
    ages: Ages,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            lookups: IntCounterVec::new(
                Opts::new("tidegate_dns_lookups_total", "DNS lookups by their result"),
                &["result"],
            )?,
            cut: IntCounter::new(
                "tidegate_dns_records_left_out_total",
                "DNS records that are not used: too many, or of addresses that cannot be endpoints",
            )?,
            sources: IntGauge::new("tidegate_dns_sources", "Names that the DNS is asked for")?,
            endpoints: IntGaugeVec::new(
                Opts::new("tidegate_dns_endpoints", "Endpoints that a name gives"),
                &["source"],
            )?,
            ages: Ages::new()?,
        };
        registry.register(Box::new(metrics.lookups.clone()))?;
        registry.register(Box::new(metrics.cut.clone()))?;
        registry.register(Box::new(metrics.sources.clone()))?;
        registry.register(Box::new(metrics.endpoints.clone()))?;
        registry.register(Box::new(metrics.ages.clone()))?;
        Ok(metrics)
    }

    /// The answer of a source was confirmed at this time; until then, it is as old as the first question.
    pub(crate) fn confirmed(&self, source: &DnsSource, at: Instant) {
        self.ages.known().insert(source.to_string(), at);
    }

    /// Forgets a source.
    pub(crate) fn forget(&self, source: &DnsSource) {
        let name = source.to_string();
        let _ = self.endpoints.remove_label_values(&[&name]);
        self.ages.known().remove(&name);
    }
}

/// Ages as of the moment somebody asks: they grow while nothing is heard.
#[derive(Debug, Clone)]
struct Ages {
    gauge: IntGaugeVec,
    confirmed: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Ages {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            gauge: IntGaugeVec::new(
                Opts::new(
                    "tidegate_dns_answer_age_seconds",
                    "Seconds since the answer that is in use was last confirmed",
                ),
                &["source"],
            )?,
            confirmed: Arc::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Ages {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.reset();
        for (source, at) in self.known().iter() {
            let age = self.gauge.with_label_values(&[source]);
            age.set(at.elapsed().as_secs() as i64);
        }
        self.gauge.collect()
    }
}
