//! Which listeners of the published table listen.

use super::exposition::{family, label, number};
use prometheus::proto::{MetricFamily, MetricType};
use routing_table::ListenerId;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// By listener: whether it listens.
#[derive(Debug, Default)]
pub(crate) struct Listening(Mutex<BTreeMap<ListenerId, bool>>);

impl Listening {
    /// Those of the table that is published.
    pub(crate) fn set<'a>(&self, states: impl Iterator<Item = (&'a ListenerId, bool)>) {
        let states = states.map(|(id, listens)| (id.clone(), listens));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = states.collect();
    }

    /// `tidegate_listener_up`; none without listeners.
    pub(super) fn family(&self) -> Option<MetricFamily> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series: Vec<_> = all
            .iter()
            .map(|(id, listens)| {
                let labels = vec![label("listener", &id.to_string())];
                number(MetricType::GAUGE, labels, u64::from(*listens))
            })
            .collect();
        (!series.is_empty()).then(|| {
            family(
                "tidegate_listener_up",
                "1 for each listener that listens, 0 while it cannot, because its port is taken, say.",
                MetricType::GAUGE,
                series,
            )
        })
    }
}
