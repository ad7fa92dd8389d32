//! Certificates that are served and not valid any more.

use routing_table::{ListenerProtocol, RoutingTable};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// A certificate may expire while nothing else changes.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Warns of certificates of the tables that are published: each once, with the days it had been expired then.
pub(crate) async fn warn(mut tables: watch::Receiver<Arc<RoutingTable>>) {
    let mut said: BTreeSet<Arc<str>> = BTreeSet::new();
    loop {
        let table = Arc::clone(&tables.borrow_and_update());
        let mut now = BTreeSet::new();
        for (source, days) in sources(&table) {
            if !said.contains(&source) {
                tracing::warn!("{}", sentence(&source, days));
            }
            now.insert(source);
        }
        said = now;
        tokio::select! {
            changed = tables.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// What there is to say of certificates that are not valid any more.
pub(crate) fn expired(table: &RoutingTable) -> Vec<String> {
    let all = sources(table).into_iter();
    all.map(|(source, days)| sentence(&source, days)).collect()
}

fn sentence(source: &str, days: i64) -> String {
    format!("{source}: the certificate expired {days} day(s) ago")
}

/// Where certificates came from that have expired, and so many days ago.
#[allow(
    clippy::disallowed_methods,
    reason = "validity ends by the time of day"
)]
fn sources(table: &RoutingTable) -> BTreeSet<(Arc<str>, i64)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs() as i64);
    let https = table.listeners().iter();
    let https = https.filter_map(|listener| match &listener.protocol {
        ListenerProtocol::Https(tls) => Some(tls),
        _ => None,
    });
    let served = https.flat_map(|tls| {
        let named = tls.certificates.iter().map(|(_, certificate)| certificate);
        named.chain(&tls.default_certificate)
    });
    served
        .filter(|certificate| certificate.not_after < now)
        .map(|certificate| {
            let days = (now - certificate.not_after) / (24 * 3600);
            (Arc::clone(&certificate.source), days)
        })
        .collect()
}
