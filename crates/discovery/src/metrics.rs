//! All metrics of DNS discovery.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use routing_table::DnsSource;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// `tidegate_dns_lookups_total{result}`: `answer`, `empty` or `failure`.
    pub(crate) lookups: IntCounterVec,
    /// `tidegate_dns_records_left_out_total`: records beyond the most that are used, or that name what is no endpoint.
    pub(crate) cut: IntCounter,
    /// `tidegate_dns_sources`: names that are asked for.
    pub(crate) sources: IntGauge,
    /// `tidegate_dns_answer_age_seconds{source}`: since the answer in use was last confirmed.
    ages: IntGaugeVec,
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
            ages: IntGaugeVec::new(
                Opts::new(
                    "tidegate_dns_answer_age_seconds",
                    "Seconds since the answer that is in use was last confirmed",
                ),
                &["source"],
            )?,
        };
        registry.register(Box::new(metrics.lookups.clone()))?;
        registry.register(Box::new(metrics.cut.clone()))?;
        registry.register(Box::new(metrics.sources.clone()))?;
        registry.register(Box::new(metrics.ages.clone()))?;
        Ok(metrics)
    }

    /// The age of a source's answer, in seconds.
    pub(crate) fn age(&self, source: &DnsSource) -> IntGauge {
        self.ages.with_label_values(&[&source.to_string()])
    }

    /// Forgets a source.
    pub(crate) fn forget(&self, source: &DnsSource) {
        let _ = self.ages.remove_label_values(&[&source.to_string()]);
    }
}
