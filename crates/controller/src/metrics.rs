//! All metrics of the controller.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The controller's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `tidegate_translations_total`: translations made.
    pub translations: IntCounter,
    /// `tidegate_translation_seconds`: time a translation took.
    pub translation_seconds: Histogram,
    /// `tidegate_table_updates_total`: tables published.
    pub table_updates: IntCounter,
    /// `tidegate_endpoint_updates_total`: updates of endpoints alone.
    pub endpoint_updates: IntCounter,
    /// `tidegate_publish_errors_total`: tables that could not be published as a whole.
    pub publish_errors: IntCounter,
    /// `tidegate_diagnostics{severity,reason}`: what is wrong with objects now.
    pub diagnostics: IntGaugeVec,
    /// `tidegate_objects{kind}`: objects known.
    pub objects: IntGaugeVec,
    /// `tidegate_watch_errors_total{kind}`: failed lists and watches.
    pub watch_errors: IntCounterVec,
    /// `tidegate_synced{kind}`: 1 once every object of the kind was listed.
    pub synced: IntGaugeVec,
    /// `tidegate_doubtful_lists_total{kind}`: lists that were not believed at first, because most objects were missing.
    pub doubtful_lists: IntCounterVec,
    /// `tidegate_undecodable_objects_total{kind}`: objects left out because a field has the wrong type.
    pub undecodable: IntCounterVec,
    /// `tidegate_leader`: 1 while this replica writes status and Events.
    pub leader: IntGauge,
    /// `tidegate_status_writes_total{result}`: writes of Ingress status.
    pub status_writes: IntCounterVec,
    /// `tidegate_events_total{result}`: Events written, or dropped by the rate limit.
    pub events: IntCounterVec,
    /// `tidegate_manifest_problems`: documents of the manifest directory that cannot be read.
    pub manifest_problems: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        fn add<C: prometheus::core::Collector + Clone + 'static>(
            registry: &Registry,
            metric: prometheus::Result<C>,
        ) -> prometheus::Result<C> {
            let metric = metric?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        }
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help));
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let seconds =
            HistogramOpts::new("tidegate_translation_seconds", "Time a translation took.")
                .buckets(vec![0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]);
        Ok(Self {
            translations: counter("tidegate_translations_total", "Translations made.")?,
            translation_seconds: add(registry, Histogram::with_opts(seconds))?,
            table_updates: counter("tidegate_table_updates_total", "Tables published.")?,
            endpoint_updates: counter(
                "tidegate_endpoint_updates_total",
                "Updates of endpoints alone.",
            )?,
            publish_errors: counter(
                "tidegate_publish_errors_total",
                "Tables that could not be published as a whole.",
            )?,
            diagnostics: gauges(
                "tidegate_diagnostics",
                "What is wrong with objects now.",
                &["severity", "reason"],
            )?,
            objects: gauges("tidegate_objects", "Objects known.", &["kind"])?,
            watch_errors: counters(
                "tidegate_watch_errors_total",
                "Failed lists and watches.",
                &["kind"],
            )?,
            synced: gauges(
                "tidegate_synced",
                "1 once every object of the kind was listed.",
                &["kind"],
            )?,
            doubtful_lists: counters(
                "tidegate_doubtful_lists_total",
                "Lists not believed at first: most objects were missing.",
                &["kind"],
            )?,
            undecodable: counters(
                "tidegate_undecodable_objects_total",
                "Objects left out because a field has the wrong type.",
                &["kind"],
            )?,
            leader: gauge(
                "tidegate_leader",
                "1 while this replica writes status and Events.",
            )?,
            status_writes: counters(
                "tidegate_status_writes_total",
                "Writes of Ingress status.",
                &["result"],
            )?,
            events: counters(
                "tidegate_events_total",
                "Events written or dropped.",
                &["result"],
            )?,
            manifest_problems: gauge(
                "tidegate_manifest_problems",
                "Manifest documents that cannot be read.",
            )?,
        })
    }
}
