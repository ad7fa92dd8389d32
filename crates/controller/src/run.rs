//! The one loop: changes in, tables out.

use crate::batch::Batch;
use crate::metrics::Metrics;
use crate::source::Change;
use crate::store::{Effect, Store};
use k8s_openapi::api::networking::v1::IngressLoadBalancerIngress;
use routing_table::{ClusterId, EndpointSets, Update};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use translate::{Diagnostic, Kind, Object, ObjectKey, Settings, Severity, Translation};

/// Most changes taken from the channel before anything else is done.
const BURST: usize = 1024;

/// What the loop is started with.
pub struct Options {
    /// Settings of the translation.
    pub settings: Settings,
    /// When to translate.
    pub batch: Batch,
    /// Where to count.
    pub metrics: Metrics,
    /// The Service whose address is published in Ingress status, if any.
    pub publish_service: Option<ObjectKey>,
}

/// What the last translation said, for those who write to the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// What is wrong.
    pub diagnostics: Arc<Vec<Diagnostic>>,
    /// The Ingresses that are ours, with the addresses their status has.
    pub claimed: BTreeMap<ObjectKey, Vec<IngressLoadBalancerIngress>>,
    /// What the published Service has as its address.
    pub service_addresses: Vec<IngressLoadBalancerIngress>,
}

/// Runs until `shutdown` or until every sender of `changes` is gone. Calls `publish` from this task only; an error it
/// returns is logged and counted. `report` gets its first value when the first table has been published.
pub async fn run<E: std::fmt::Display>(
    options: Options,
    mut changes: mpsc::Receiver<Change>,
    mut publish: impl FnMut(Update) -> Result<(), E>,
    report: watch::Sender<Option<Report>>,
    shutdown: CancellationToken,
) {
    let Options { settings, mut batch, metrics, publish_service } = options;
    let mut store = Store::default();
    let mut last: Option<Translation> = None;
    let mut publish = |update: Update| {
        if let Err(error) = publish(update) {
            tracing::error!(%error, "table was not published as a whole");
            metrics.publish_errors.inc();
        }
    };
    loop {
        let due = batch.due().filter(|_| store.is_synced());
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            change = changes.recv() => match change {
                Some(change) => Some(change),
                None => return,
            },
            () = wait => None,
        };
        let mut services = BTreeSet::new();
        let mut next = first;
        let mut taken = 0;
        let mut stale = false;
        while let Some(change) = next {
            // Ingress status and Service addresses are part of the report without being part of the table.
            stale |= !matches!(&change, Change::Upsert(Object::EndpointSlice(_)) | Change::Delete(Kind::EndpointSlice, _));
            for effect in store.apply(change) {
                match effect {
                    Effect::Nothing => {}
                    Effect::Endpoints(service) => drop(services.insert(service)),
                    Effect::Table => batch.changed(std::time::Instant::now()),
                }
            }
            taken += 1;
            next = if taken < BURST { changes.try_recv().ok() } else { None };
        }
        if !store.is_synced() {
            continue;
        }
        if let Some(last) = &mut last
            && !services.is_empty()
        {
            batch.changed_aside(std::time::Instant::now());
            let sets = changed_endpoints(&store, &settings, last, &services);
            if !sets.is_empty() {
                metrics.endpoint_updates.inc();
                last.endpoints.extend(sets.clone());
                publish(Update::Endpoints(sets));
            }
        }
        if batch.due().is_some_and(|due| due <= std::time::Instant::now()) {
            let started = std::time::Instant::now();
            let translation = translate::translate(store.snapshot(), &settings);
            batch.built(std::time::Instant::now());
            metrics.translations.inc();
            metrics.translation_seconds.observe(started.elapsed().as_secs_f64());
            count(&metrics, &store, &translation.diagnostics);
            let same = last.as_ref().is_some_and(|last| last.table == translation.table && last.endpoints == translation.endpoints);
            if !same {
                metrics.table_updates.inc();
                publish(Update::Table(Arc::clone(&translation.table), translation.endpoints.clone()));
            }
            last = Some(translation);
            stale = true;
        }
        if let Some(last) = &last
            && stale
        {
            let now = make_report(&store, last, publish_service.as_ref());
            report.send_if_modified(|known| {
                let changed = known.as_ref() != Some(&now);
                if changed {
                    *known = Some(now);
                }
                changed
            });
        }
    }
}

/// New endpoints of the clusters of these Services, where they differ.
fn changed_endpoints(store: &Store, settings: &Settings, last: &Translation, services: &BTreeSet<ObjectKey>) -> EndpointSets {
    let mut sets = EndpointSets::new();
    for service in services {
        let from = ClusterId::new(&service.namespace, &service.name, 0);
        let clusters = last.endpoints.range(from..).take_while(|(id, _)| *id.namespace == *service.namespace && *id.service == *service.name);
        for (id, before) in clusters {
            let now = translate::endpoints(store.snapshot(), settings, id);
            if now != *before {
                sets.insert(id.clone(), now);
            }
        }
    }
    sets
}

fn make_report(store: &Store, last: &Translation, publish_service: Option<&ObjectKey>) -> Report {
    Report {
        diagnostics: Arc::new(last.diagnostics.clone()),
        claimed: last.claimed.iter().map(|key| (key.clone(), store.status(key).to_vec())).collect(),
        service_addresses: publish_service.map(|service| store.service_addresses(service).to_vec()).unwrap_or_default(),
    }
}

fn count(metrics: &Metrics, store: &Store, diagnostics: &[Diagnostic]) {
    for (kind, count) in store.counts() {
        metrics.objects.with_label_values(&[kind.as_str()]).set(count as i64);
    }
    metrics.diagnostics.reset();
    for diagnostic in diagnostics {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        metrics.diagnostics.with_label_values(&[severity, diagnostic.reason]).inc();
    }
}
