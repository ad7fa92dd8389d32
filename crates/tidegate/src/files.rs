//! `tidegate serve`: manifests from files, no cluster.

use crate::args::ProxyArgs;
use crate::{proxy, telemetry};
use controller::Report;
use controller::source::directory::{self, Origins};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use translate::{Diagnostic, Kind, ObjectKey, PassedOver, Severity};

/// Serves manifests until a signal.
pub(crate) fn run(path: PathBuf, args: &ProxyArgs) -> anyhow::Result<()> {
    telemetry::init(&args.log, args.log_format)?;
    let plan = proxy::Plan {
        settings: args.translation(true),
        publish_service: None,
        lameduck: args.lameduck.unwrap_or(Duration::ZERO),
        stdout: Box::new(std::io::stdout()),
        started: Box::new(|_| tracing::info!("ready")),
    };
    proxy::block_on(proxy::run(args, plan, |context| async move {
        let (origins, known) = watch::channel(Origins::default());
        let say = tokio::spawn(say(context.report.clone(), known));
        let watched = directory::watch(
            path,
            context.changes,
            origins,
            context.metrics,
            context.shutdown,
        )
        .await;
        say.abort();
        Ok(watched?)
    }))
}

/// Logs what a translation has to say, each thing once for as long as it stays.
async fn say(mut report: watch::Receiver<Option<Report>>, origins: watch::Receiver<Origins>) {
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    let mut passed_over: BTreeSet<PassedOver> = BTreeSet::new();
    let mut idle = false;
    while report.changed().await.is_ok() {
        let Some(current) = report.borrow_and_update().clone() else {
            continue;
        };
        // Before the object, the file and line where it stands.
        let place = |kind, key: &ObjectKey| {
            let origins = origins.borrow();
            let origin = origins.get(&(kind, key.clone()));
            origin.map_or_else(String::new, |origin| format!("{origin}: "))
        };
        for new in current.diagnostics.iter() {
            if diagnostics.contains(new) {
                continue;
            }
            let (place, sentence) = (place(new.object.kind, &new.object.key), new.sentence());
            match new.severity {
                Severity::Error => tracing::error!("{place}{sentence}"),
                Severity::Warning => tracing::warn!("{place}{sentence}"),
            }
        }
        for new in current.passed_over.iter() {
            if !passed_over.contains(new) {
                tracing::warn!("{}{new}", place(Kind::Ingress, &new.key));
            }
        }
        if current.claimed.is_empty() && !idle {
            tracing::warn!("no Ingress is served: there is none, or none of the classes that are");
        }
        idle = current.claimed.is_empty();
        diagnostics.clone_from(&current.diagnostics);
        passed_over = current.passed_over.iter().cloned().collect();
    }
}
