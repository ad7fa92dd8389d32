//! `tidegate controller`: Ingresses of a cluster.

use crate::args::ControllerArgs;
use crate::{proxy, telemetry};
use controller::Report;
use controller::event_writer;
use controller::lease::{self, LeaseName};
use controller::policy_status;
use controller::source::kubernetes::{self, Scope};
use controller::status_writer::{self, Addresses};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translate::PassedOver;

/// Serves a cluster until a signal.
pub(crate) fn run(args: ControllerArgs) -> anyhow::Result<()> {
    if let (Some(service), Some(namespace)) = (&args.publish_service, &args.watch_namespace)
        && service.namespace != *namespace
    {
        anyhow::bail!(
            "--publish-service {service} is outside of --watch-namespace {namespace}, so it could not be read; \
             use --publish-address"
        );
    }
    telemetry::init(&args.proxy.log, args.proxy.log_format)?;
    let plan = proxy::Plan {
        settings: args.proxy.translation(false),
        publish_service: args.publish_service.clone(),
        lameduck: args.proxy.lameduck.unwrap_or(Duration::from_secs(10)),
        stdout: Box::new(std::io::stdout()),
        started: Box::new(|_| tracing::info!("ready")),
    };
    let proxy_args = args.proxy.clone();
    proxy::block_on(async move {
        let client =
            kubernetes::client(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
        proxy::run(&proxy_args, plan, |context| source(args, client, context)).await
    })
}

async fn source(
    args: ControllerArgs,
    client: kube::Client,
    context: proxy::SourceContext,
) -> anyhow::Result<()> {
    let proxy::SourceContext {
        changes,
        report,
        metrics,
        shutdown,
    } = context;
    let identity = args.identity.clone().unwrap_or_else(default_identity);
    let lease = LeaseName {
        namespace: args.lease_namespace.clone(),
        name: args.lease_name.clone(),
        identity: identity.clone(),
    };
    let passed_over = tokio::spawn(tell_other_classes(report.clone()));
    let (leader, is_leader) = watch::channel(false);
    let resigned = CancellationToken::new();
    let election = tokio::spawn(lease::elect(
        client.clone(),
        lease,
        leader,
        metrics.clone(),
        shutdown.clone(),
        resigned.clone(),
    ));
    let events = event_writer::run(
        client.clone(),
        identity,
        report.clone(),
        is_leader.clone(),
        metrics.clone(),
        shutdown.clone(),
    );
    let events = tokio::spawn(events);
    let policies = policy_status::run(
        client.clone(),
        report.clone(),
        is_leader.clone(),
        metrics.clone(),
        shutdown.clone(),
    );
    let policies = (!args.no_update_status).then(|| tokio::spawn(policies));
    let status = addresses(&args).map(|addresses| {
        let settings = status_writer::Settings {
            addresses,
            clear_on_shutdown: args.clear_status_on_shutdown,
        };
        tokio::spawn(status_writer::run(
            client.clone(),
            settings,
            report,
            is_leader,
            metrics.clone(),
            shutdown.clone(),
        ))
    });
    let scope = Scope {
        namespace: args.watch_namespace,
        secret_namespaces: args.secret_namespaces,
        config_maps: args.proxy.routing.config_maps(),
    };
    kubernetes::watch(client, scope, changes, metrics, shutdown).await;
    // What the leader writes last, it still writes as leader.
    if let Some(status) = status {
        proxy::join(status).await;
    }
    if let Some(policies) = policies {
        proxy::join(policies).await;
    }
    proxy::join(events).await;
    passed_over.abort();
    resigned.cancel();
    proxy::join(election).await;
    Ok(())
}

/// Where the addresses in Ingress status come from; `None`: nobody said, so none is written.
fn addresses(args: &ControllerArgs) -> Option<Addresses> {
    if args.no_update_status {
        None
    } else if args.publish_service.is_some() {
        Some(Addresses::Service)
    } else if !args.publish_addresses.is_empty() {
        Some(Addresses::Given(args.publish_addresses.clone()))
    } else {
        args.node_name.clone().map(Addresses::Node)
    }
}

/// Says which classes of Ingresses are left to others, at first and when there are others. That there are some is usual in a
/// cluster, so it is one line for all of them.
async fn tell_other_classes(mut report: watch::Receiver<Option<Report>>) {
    let mut said = String::new();
    while report.changed().await.is_ok() {
        let Some(current) = report.borrow_and_update().clone() else {
            continue;
        };
        let classes = other_classes(&current.passed_over);
        if classes != said && !classes.is_empty() {
            tracing::info!(
                "{} Ingress(es) are left to other controllers, by class: {classes}",
                current.passed_over.len()
            );
        }
        said = classes;
    }
}

/// The classes of Ingresses that are not ours.
fn other_classes(passed_over: &[PassedOver]) -> String {
    let classes: BTreeSet<_> = passed_over.iter().map(|one| &one.class).collect();
    let shown = classes.into_iter().map(|class| match class {
        Some(class) => format!("{class:?}"),
        None => "none".to_owned(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_others_are_named_once() {
        let one = |name: &str, class: Option<&str>| PassedOver {
            key: translate::ObjectKey::new("shop", name),
            class: class.map(str::to_owned),
            controller: None,
        };
        let all = [
            one("a", Some("nginx")),
            one("b", None),
            one("c", Some("nginx")),
            one("d", Some("x\ny")),
        ];
        assert_eq!(other_classes(&all), r#"none, "nginx", "x\ny""#);
    }
}
