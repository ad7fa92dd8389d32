//! What is counted of reloads.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// Metrics of the configuration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `tidegate_config_reloads_total{result}`: times the configuration was read again because it had changed, or because
    /// of SIGHUP: `success` or `failure`.
    pub reloads: IntCounterVec,
    /// `tidegate_config_stale`: 1 while not all of the file is served: it cannot be used, or a port of it is taken.
    pub stale: IntGauge,
    /// `tidegate_publish_errors_total`: tables that could not be published as a whole.
    pub publish_errors: prometheus::IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let reloads = Opts::new(
            "tidegate_config_reloads_total",
            "Times the configuration was read again.",
        );
        let this = Self {
            reloads: IntCounterVec::new(reloads, &["result"])?,
            stale: IntGauge::new(
                "tidegate_config_stale",
                "1 while not all of the configuration is served.",
            )?,
            publish_errors: prometheus::IntCounter::new(
                "tidegate_publish_errors_total",
                "Tables that could not be published as a whole.",
            )?,
        };
        registry.register(Box::new(this.reloads.clone()))?;
        registry.register(Box::new(this.stale.clone()))?;
        registry.register(Box::new(this.publish_errors.clone()))?;
        for result in ["success", "failure"] {
            this.reloads.with_label_values(&[result]);
        }
        Ok(this)
    }
}
