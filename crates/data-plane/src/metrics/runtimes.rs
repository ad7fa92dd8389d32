//! How many tasks live on each of the process's runtimes: a task that is never finished is a leak that shows nowhere else.

use super::exposition::{family, label, number};
use prometheus::proto::{MetricFamily, MetricType};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::{Handle, RuntimeMetrics};

/// The runtimes, by name. They are asked when somebody wants to know, so they count nothing that they would not anyway.
#[derive(Debug, Default)]
pub(crate) struct Runtimes(Mutex<Vec<(Arc<str>, RuntimeMetrics)>>);

impl Runtimes {
    /// Adds one. Names must differ.
    pub(crate) fn add(&self, name: impl Into<Arc<str>>, runtime: &Handle) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((name.into(), runtime.metrics()));
    }

    /// `tidegate_tasks`.
    pub(super) fn family(&self) -> MetricFamily {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let series = all.iter().map(|(name, runtime)| {
            let tasks = runtime.num_alive_tasks() as u64;
            number(MetricType::GAUGE, vec![label("runtime", name)], tasks)
        });
        family(
            "tidegate_tasks",
            "Tasks alive now, by runtime: one a client connection and what it has begun, beside those that always run.",
            MetricType::GAUGE,
            series.collect(),
        )
    }
}
