//! Starts the two halves and the admin port, and stops them in order. The only place that sees both halves.

use crate::admin::{self, Access, Admin};
use crate::args::ProxyArgs;
use crate::expiry;
use crate::open_files;
use crate::telemetry;
use crate::ticket_keys;
use anyhow::{Context, anyhow};
use controller::{Batch, Change, Metrics, Options, Report};
use data_plane::{DataPlane, Publisher};
use discovery::Discovery;
use prometheus::Registry;
use routing_table::{ListenerId, RoutingTable, Update};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use translate::ObjectKey;

/// Changes that may wait for the controller.
const CHANGES: usize = 4096;
/// How long the last lines of the access log may take to be written.
const LOG_WRITTEN: Duration = Duration::from_secs(1);

/// What a source of objects gets.
pub(crate) struct SourceContext {
    pub(crate) changes: mpsc::Sender<Change>,
    pub(crate) report: watch::Receiver<Option<Report>>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

/// Told of the addresses when the first table is served.
pub(crate) type Started = Box<dyn FnOnce(&[(ListenerId, SocketAddr)]) + Send>;

/// What is decided before anything starts.
pub(crate) struct Plan {
    pub(crate) settings: translate::Settings,
    pub(crate) publish_service: Option<ObjectKey>,
    pub(crate) lameduck: Duration,
    /// Where the access log goes that is for standard output.
    pub(crate) stdout: Box<dyn Write + Send>,
    /// Called with the addresses when the first table is served.
    pub(crate) started: Started,
}

/// What makes tables gets to publish them.
pub(crate) struct Publishing {
    /// To be called from one task only. An error of the first table ends the process, so it is told here as none.
    pub(crate) publish: Publish,
    pub(crate) registry: Registry,
    pub(crate) discovery: Discovery,
    pub(crate) shutdown: CancellationToken,
}

/// Publishes an update.
pub(crate) type Publish = Box<dyn FnMut(Update) -> Result<(), data_plane::PublishError> + Send>;

/// Runs until a signal, or until `source` fails. `source` starts what sends objects and returns when it has ended.
///
/// # Errors
/// Whatever keeps it from starting: a port in use, a source that cannot be read.
pub(crate) async fn run<F>(
    args: &ProxyArgs,
    plan: Plan,
    source: impl FnOnce(SourceContext) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let Plan {
        settings,
        publish_service,
        lameduck,
        stdout,
        started,
    } = plan;
    args.check_addresses(&args.served())?;
    serve(
        args,
        lameduck,
        stdout,
        Missing::Relays,
        started,
        |publishing| {
            let metrics = Metrics::new(&publishing.registry).context("cannot register metrics")?;
            let (changes, received) = mpsc::channel(CHANGES);
            let (report, reported) = watch::channel(None);
            let options = Options {
                settings,
                batch: Batch::default(),
                metrics: metrics.clone(),
                discovery: publishing.discovery,
                publish_service,
            };
            let controller = tokio::spawn(controller::run(
                options,
                received,
                publishing.publish,
                report,
                publishing.shutdown.clone(),
            ));
            let source = source(SourceContext {
                changes,
                report: reported,
                metrics,
                shutdown: publishing.shutdown,
            });
            Ok(async move {
                let ended = source.await;
                // Without a source it ends too.
                join(controller).await;
                ended
            })
        },
    )
    .await
}

/// Runs until a signal, or until what `begin` gives has ended: that makes tables and publishes them.
///
/// # Errors
/// Whatever keeps it from starting: a port in use, or an error of `begin` or of what it gives.
pub(crate) async fn serve<F>(
    args: &ProxyArgs,
    lameduck: Duration,
    stdout: Box<dyn Write + Send>,
    missing: Missing,
    started: Started,
    begin: impl FnOnce(Publishing) -> anyhow::Result<F>,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    args.check()?;
    let registry = Registry::new();
    telemetry::build_info(&registry).context("cannot register metrics")?;
    let shutdown = CancellationToken::new();
    let access = Access::new(&args.admin, &shutdown)?;
    let admin = Arc::new(Admin::new(registry.clone(), &args.admin, access));
    let admin_listener = admin::bind(args.admin.addr).await?;
    let admin_task = tokio::spawn(admin::serve(admin_listener, Arc::clone(&admin)));
    let access_log = telemetry::access_log(&args.access_log, args.access_log_format, stdout)?;
    let (log_sink, log_thread) = access_log.unzip();
    let keys = args.tls_ticket_keys.as_deref();
    let keys = keys.map(|file| ticket_keys::follow(file, shutdown.clone()));
    let mut settings = args.data_plane(keys.transpose()?);
    if let Some(left) = open_files::raise_limit(args.max_connections)
        && args.limits.max_endpoint_connections.is_none()
    {
        settings.endpoint_connections = left;
    }
    let suites = settings.cipher_suites.as_ref();
    if let Some(warning) = suites.and_then(|suites| suites.warning(settings.min_tls_version)) {
        tracing::warn!("{warning}");
    }
    let (data_plane, publisher) = DataPlane::start(settings, log_sink, &registry)?;
    // There is one data plane, so it is set once.
    let _ = admin.backends.set(data_plane.backends());
    let (first_table, mut first_served) = oneshot::channel();
    let (tables, published) = watch::channel(Arc::default());
    let expiry = tokio::spawn(expiry::warn(published));
    let publish = publish_with(publisher, tables, first_table, missing, started);
    let publishing = Publishing {
        publish: Box::new(publish),
        discovery: Discovery::new(args.routing.dns_timing(), &registry)
            .context("cannot register metrics")?,
        registry,
        shutdown: shutdown.clone(),
    };
    let mut source = tokio::spawn(begin(publishing)?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let mut waiting = true;
    let outcome = loop {
        tokio::select! {
            served = &mut first_served, if waiting => match served {
                Ok(Ok(())) => {
                    waiting = false;
                    admin.ready.store(true, Ordering::Relaxed);
                }
                Ok(Err(error)) => break Err(anyhow!(error)),
                // The source ended first and took the publisher with it; its error is the one to tell.
                Err(_) => break ended_early((&mut source).await),
            },
            ended = &mut source => break ended_early(ended),
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
        }
    };
    // Until the data plane has drained, the controller goes on: endpoints still change.
    admin.stopping.store(true, Ordering::Relaxed);
    admin.ready.store(false, Ordering::Relaxed);
    if outcome.is_ok() {
        tracing::info!(lameduck = ?lameduck, drain = ?args.drain_timeout, "stopping; a second signal stops at once");
        let why_early = tokio::select! {
            finished = data_plane.stop(lameduck, args.drain_timeout) => (!finished).then_some("--drain-timeout was over"),
            _ = terminate.recv() => Some("a second signal came"),
            _ = interrupt.recv() => Some("a second signal came"),
        };
        if let Some(why) = why_early {
            tracing::warn!("stopped before everything had ended: {why}");
        }
    } else {
        data_plane.stop(Duration::ZERO, Duration::ZERO).await;
    }
    shutdown.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(10), async {
        if !source.is_finished() {
            let _ = source.await;
        }
    })
    .await;
    admin_task.abort();
    expiry.abort();
    if let Some(thread) = log_thread {
        // Whoever should read it may never do so.
        let written = async {
            while !thread.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(LOG_WRITTEN, written).await.is_err() {
            tracing::warn!("stopped before all of the access log was written");
        }
    }
    outcome
}

fn ended_early(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok(Ok(())) => Err(anyhow!("the source of objects ended")),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(anyhow!("the source of objects failed: {error}")),
    }
}

/// Which listeners of the first table may be missing, until they can listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// None: whoever wrote the table started the process too, and is looking.
    Nothing,
    /// Ports that are relayed: one entry of a ConfigMap, say, is no reason to refuse to start.
    Relays,
}

/// The publish function: a first table that cannot be served ends the process, a later one is only an error.
fn publish_with(
    mut publisher: Publisher,
    tables: watch::Sender<Arc<RoutingTable>>,
    first: oneshot::Sender<Result<(), data_plane::PublishError>>,
    missing: Missing,
    started: Started,
) -> impl FnMut(Update) -> Result<(), data_plane::PublishError> {
    let mut first = Some((first, started));
    move |update| {
        if let Update::Table(table, _) = &update {
            tables.send_replace(Arc::clone(table));
        }
        let result = publisher.apply(update);
        let Some((first, started)) = first.take() else {
            return result;
        };
        let may_be_missing = matches!(
            &result,
            Err(data_plane::PublishError::Bind(error))
                if missing == Missing::Relays && error.is_of_relays()
        );
        let (first_result, told) = match may_be_missing {
            true => (Ok(()), result),
            false => (result, Ok(())),
        };
        if first_result.is_ok() {
            started(&publisher.addresses());
        }
        let _ = first.send(first_result);
        told
    }
}

/// Runs a future on the control runtime.
///
/// # Errors
/// Those of the future.
pub(crate) fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start the control runtime")?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Waits for a task of the controller that must not fail.
pub(crate) async fn join(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(%error, "a task failed");
    }
}
