//! Until when the certificates of the published table are valid.

use super::exposition::{family, label, number};
use prometheus::proto::{MetricFamily, MetricType};
use routing_table::{ListenerProtocol, RoutingTable};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// By where they came from: the end of validity in seconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Certificates(Mutex<BTreeMap<Arc<str>, i64>>);

impl Certificates {
    /// Those of a table that is published.
    pub(crate) fn set(&self, table: &RoutingTable) {
        let mut all = BTreeMap::new();
        for listener in table.listeners() {
            if let ListenerProtocol::Https(tls) = &listener.protocol {
                let named = tls.certificates.iter().map(|(_, certificate)| certificate);
                for certificate in named.chain(&tls.default_certificate) {
                    all.insert(Arc::clone(&certificate.source), certificate.not_after);
                }
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// `tidegate_certificate_expiry_timestamp_seconds`; none without certificates.
    pub(super) fn family(&self) -> Option<MetricFamily> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series: Vec<_> = all
            .iter()
            .map(|(source, not_after)| {
                let not_after = u64::try_from(*not_after).unwrap_or_default();
                number(MetricType::GAUGE, vec![label("source", source)], not_after)
            })
            .collect();
        (!series.is_empty()).then(|| {
            family(
                "tidegate_certificate_expiry_timestamp_seconds",
                "End of validity of each certificate that is served, in seconds since 1970.",
                MetricType::GAUGE,
                series,
            )
        })
    }
}
