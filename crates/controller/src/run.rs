//! The one loop: changes in, tables out.

use crate::batch::Batch;
use crate::metrics::Metrics;
use crate::source::Change;
use crate::store::{Effect, Store};
use discovery::Discovery;
use k8s_openapi::api::networking::v1::IngressLoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use routing_table::{ClusterId, EndpointSets, RoutingTable, Unpublished, Update};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use translate::{
    Acceptance, Diagnostic, Kind, Object, ObjectKey, PassedOver, Settings, Severity, Translation,
};

/// Most changes taken from the channel before anything else is done.
const BURST: usize = 1024;
/// Least time between two reports. Each status that is written comes back as a change, and a report costs all of them.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The first table waits so long at most for the first answers of the DNS.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// What the loop is started with.
pub struct Options {
    /// Settings of the translation.
    pub settings: Settings,
    /// When to translate.
    pub batch: Batch,
    /// Where to count.
    pub metrics: Metrics,
    /// Who asks the DNS for endpoints.
    pub discovery: Discovery,
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
    /// The Ingresses that are not ours.
    pub passed_over: Arc<Vec<PassedOver>>,
    /// The Ingresses that are not ours but have addresses in their status, with them.
    pub unclaimed: BTreeMap<ObjectKey, Vec<IngressLoadBalancerIngress>>,
    /// What became of each BackendPolicy, with the conditions it has.
    pub policies: BTreeMap<ObjectKey, (Acceptance, Vec<Condition>)>,
    /// What the published Service has as its address.
    pub service_addresses: Vec<IngressLoadBalancerIngress>,
}

/// Runs until `shutdown` or until every sender of `changes` is gone. Calls `publish` from this task only; an error it
/// returns is logged and counted. `report` gets its first value when the first table has been published, and later ones
/// ten times a second at most.
pub async fn run<E: std::fmt::Display>(
    options: Options,
    mut changes: mpsc::Receiver<Change>,
    mut publish: impl FnMut(Update) -> Result<(), E>,
    report: watch::Sender<Option<Report>>,
    shutdown: CancellationToken,
) {
    let Options {
        settings,
        mut batch,
        metrics,
        mut discovery,
        publish_service,
    } = options;
    let mut store = Store::default();
    let mut last: Option<Last> = None;
    // Whether there is something to report, and when there was last.
    let (mut stale, mut reported): (bool, Option<Instant>) = (false, None);
    let mut unpublished = Unpublished::default();
    let mut publish = |update: Update, unpublished: &mut Unpublished| {
        if matches!(update, Update::Endpoints(_)) {
            // They cannot fail, and say nothing of the table.
            drop(publish(update));
            return;
        }
        let attempt = matches!(update, Update::Listeners);
        let result = publish(update).map_err(|error| error.to_string());
        if result.is_err() && !attempt {
            metrics.publish_errors.inc();
        }
        if let Some(error) = unpublished.note(result, now()) {
            tracing::error!(error, "table was not published as a whole; trying again");
        }
    };
    loop {
        let report_due =
            (stale && last.is_some()).then(|| reported.map_or_else(now, |at| at + REPORT_EVERY));
        let due = batch
            .due()
            .filter(|_| store.is_synced())
            .into_iter()
            .chain(report_due)
            .chain(unpublished.due())
            .min();
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
            sets = discovery.changed() => {
                // Tables leave these clusters alone, so they are not part of `last`.
                metrics.endpoint_updates.inc();
                publish(Update::Endpoints(sets), &mut unpublished);
                continue;
            }
            () = wait => None,
        };
        let mut services = BTreeSet::new();
        let mut next = first;
        let mut taken = 0;
        while let Some(change) = next {
            // Ingress status and Service addresses are part of the report without being part of the table.
            stale |= !matches!(
                &change,
                Change::Upsert(Object::EndpointSlice(_)) | Change::Delete(Kind::EndpointSlice, _)
            );
            for effect in store.apply(change) {
                match effect {
                    Effect::Nothing => {}
                    Effect::Endpoints(service) => drop(services.insert(service)),
                    Effect::Table => batch.changed(now()),
                }
            }
            taken += 1;
            next = if taken < BURST {
                changes.try_recv().ok()
            } else {
                None
            };
        }
        if !store.is_synced() {
            continue;
        }
        if let Some(last) = &mut last
            && !services.is_empty()
        {
            batch.changed_aside(now());
            let sets = changed_endpoints(&store, &settings, last, &services);
            if !sets.is_empty() {
                metrics.endpoint_updates.inc();
                last.endpoints.extend(sets.clone());
                publish(Update::Endpoints(sets), &mut unpublished);
            }
        }
        if unpublished.due().is_some_and(|due| due <= now()) {
            publish(Update::Listeners, &mut unpublished);
        }
        if batch.due().is_some_and(|due| due <= now()) {
            let started = std::time::Instant::now();
            let made = translate::translate(store.snapshot(), &settings);
            metrics.translations.inc();
            metrics
                .translation_seconds
                .observe(started.elapsed().as_secs_f64());
            batch.built(now());
            count(
                &metrics,
                &store,
                last.as_ref()
                    .map(|last| &**last.diagnostics)
                    .unwrap_or_default(),
                &made.diagnostics,
            );
            let same = last
                .as_ref()
                .is_some_and(|last| last.table == made.table && last.endpoints == made.endpoints);
            if !same {
                metrics.table_updates.inc();
                let mut endpoints = made.endpoints.clone();
                endpoints.extend(discovery.apply(&made.table));
                if last.is_none() {
                    // Nobody is served yet, so nobody waits: better late than with 503s.
                    tokio::select! {
                        sets = discovery.settled(FIRST_ANSWERS) => endpoints.extend(sets),
                        () = shutdown.cancelled() => return,
                    }
                }
                let update = Update::Table(Arc::clone(&made.table), endpoints);
                publish(update, &mut unpublished);
            }
            let Translation {
                table,
                endpoints,
                diagnostics,
                claimed,
                passed_over,
                policies,
            } = made;
            last = Some(Last {
                table,
                endpoints,
                diagnostics: Arc::new(diagnostics),
                claimed,
                passed_over: Arc::new(passed_over),
                policies,
            });
            stale = true;
        }
        if let Some(last) = &last
            && stale
            && reported.is_none_or(|at| now() >= at + REPORT_EVERY)
        {
            (stale, reported) = (false, Some(now()));
            let made = make_report(&store, last, publish_service.as_ref());
            report.send_if_modified(|known| {
                let changed = known.as_ref() != Some(&made);
                if changed {
                    *known = Some(made);
                }
                changed
            });
        }
    }
}

/// The last translation, with the endpoints as they were last published.
struct Last {
    table: Arc<RoutingTable>,
    endpoints: EndpointSets,
    diagnostics: Arc<Vec<Diagnostic>>,
    claimed: Vec<ObjectKey>,
    passed_over: Arc<Vec<PassedOver>>,
    policies: BTreeMap<ObjectKey, Acceptance>,
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// New endpoints of the clusters of these Services, where they differ.
fn changed_endpoints(
    store: &Store,
    settings: &Settings,
    last: &Last,
    services: &BTreeSet<ObjectKey>,
) -> EndpointSets {
    let mut sets = EndpointSets::new();
    for service in services {
        let from = ClusterId::new(&service.namespace, &service.name, 0);
        let clusters = last.endpoints.range(from..).take_while(|(id, _)| {
            *id.namespace == *service.namespace && *id.service == *service.name
        });
        for (id, before) in clusters {
            let now = translate::endpoints(store.snapshot(), settings, id);
            if now != *before {
                sets.insert(id.clone(), now);
            }
        }
    }
    sets
}

fn make_report(store: &Store, last: &Last, publish_service: Option<&ObjectKey>) -> Report {
    let claimed: BTreeMap<_, _> = last
        .claimed
        .iter()
        .map(|key| (key.clone(), store.status(key).to_vec()))
        .collect();
    let others = store
        .statuses()
        .iter()
        .filter(|(key, _)| !claimed.contains_key(*key));
    let policies = last.policies.iter().map(|(key, acceptance)| {
        let conditions = store.conditions(key).to_vec();
        (key.clone(), (acceptance.clone(), conditions))
    });
    Report {
        policies: policies.collect(),
        diagnostics: Arc::clone(&last.diagnostics),
        passed_over: Arc::clone(&last.passed_over),
        unclaimed: others
            .map(|(key, addresses)| (key.clone(), addresses.clone()))
            .collect(),
        claimed,
        service_addresses: publish_service
            .map(|service| store.service_addresses(service).to_vec())
            .unwrap_or_default(),
    }
}

fn count(metrics: &Metrics, store: &Store, before: &[Diagnostic], diagnostics: &[Diagnostic]) {
    for (kind, count) in store.counts() {
        metrics
            .objects
            .with_label_values(&[kind.as_str()])
            .set(count as i64);
    }
    let mut counts: BTreeMap<[&str; 2], i64> = before
        .iter()
        .map(|diagnostic| (labels(diagnostic), 0))
        .collect();
    for diagnostic in diagnostics {
        *counts.entry(labels(diagnostic)).or_default() += 1;
    }
    for (labels, count) in counts {
        metrics.diagnostics.with_label_values(&labels).set(count);
    }
}

fn labels(diagnostic: &Diagnostic) -> [&'static str; 2] {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    [severity, diagnostic.reason]
}
