//! `tidegate serve`: manifests from files, no cluster.

use crate::args::ProxyArgs;
use crate::{proxy, telemetry};
use controller::source::directory;
use std::path::PathBuf;
use std::time::Duration;

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
        let mut report = context.report.clone();
        let say = tokio::spawn(async move {
            let mut said = Vec::new();
            while report.changed().await.is_ok() {
                let Some(current) = report.borrow_and_update().clone() else {
                    continue;
                };
                for diagnostic in current
                    .diagnostics
                    .iter()
                    .filter(|diagnostic| !said.contains(*diagnostic))
                {
                    tracing::warn!("{diagnostic}");
                }
                said = current.diagnostics.to_vec();
            }
        });
        let watched =
            directory::watch(path, context.changes, context.metrics, context.shutdown).await;
        say.abort();
        Ok(watched?)
    }))
}
