//! Starts a controller, and waits for what it publishes.

use controller::event_writer;
use controller::lease::{self, LeaseName};
use controller::source::kubernetes::{self, Scope};
use controller::status_writer::{self, Settings};
use controller::{Batch, Change, Metrics, Options, Report, run};
use discovery::{Discovery, Timing};
use prometheus::Registry;
use routing_table::{EndpointSets, RoutingTable, Update, text};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use test_support::ApiServer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use translate::ObjectKey;

/// Longest time for anything; only a failing test takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What was published so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    table: Arc<RoutingTable>,
    endpoints: EndpointSets,
    /// Whole tables.
    pub(crate) tables: usize,
    /// Endpoints alone.
    pub(crate) endpoint_updates: usize,
}

impl Published {
    /// The table as text.
    pub(crate) fn text(&self) -> String {
        text::render(&self.table, &self.endpoints)
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.text().contains(text)
    }
}

/// The loop alone, to be fed by hand or by a source.
pub(crate) struct Loop {
    pub(crate) changes: mpsc::Sender<Change>,
    pub(crate) published: watch::Receiver<Published>,
    pub(crate) report: watch::Receiver<Option<Report>>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Loop {
    pub(crate) fn start(publish_service: Option<ObjectKey>) -> Self {
        Self::start_with(publish_service, translate::Settings::default())
    }

    pub(crate) fn start_with(
        publish_service: Option<ObjectKey>,
        settings: translate::Settings,
    ) -> Self {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let options = Options {
            settings,
            batch: Batch::default(),
            metrics: metrics.clone(),
            discovery: Discovery::new(Timing::default(), &Registry::new()).unwrap(),
            publish_service,
        };
        let (changes, received) = mpsc::channel(4096);
        let (sender, published) = watch::channel(Published::default());
        let (report_sender, report) = watch::channel(None);
        let shutdown = CancellationToken::new();
        let publish = move |update: Update| {
            sender.send_modify(|published| match update {
                Update::Table(table, endpoints) => {
                    (published.table, published.endpoints) = (table, endpoints);
                    published.tables += 1;
                }
                Update::Endpoints(endpoints) => {
                    published.endpoints.extend(endpoints);
                    published.endpoint_updates += 1;
                }
                Update::Listeners => {}
            });
            Ok::<_, Infallible>(())
        };
        let task = tokio::spawn(run(
            options,
            received,
            publish,
            report_sender,
            shutdown.clone(),
        ));
        Self {
            changes,
            published,
            report,
            metrics,
            shutdown,
            tasks: vec![task],
        }
    }

    /// Waits until something is published that is as wished; gives it back.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        wish: impl Fn(&Published) -> bool,
    ) -> impl Future<Output = Published> {
        let caller = std::panic::Location::caller();
        async move {
            let found = tokio::time::timeout(
                PATIENCE,
                self.published.wait_for(|published| wish(published)),
            )
            .await
            .map(|found| found.unwrap().clone());
            found.unwrap_or_else(|_| {
                panic!(
                    "{caller}: still not published, but this:\n{}",
                    self.published.borrow().text()
                )
            })
        }
    }

    /// Waits until the table shows this text.
    #[track_caller]
    pub(crate) fn until_shows(&mut self, text: &str) -> impl Future<Output = Published> {
        self.until(move |published| published.has(text))
    }

    /// What is published now.
    pub(crate) fn now(&self) -> Published {
        self.published.borrow().clone()
    }

    /// Waits until a watch has failed for the `times`th time, and lets the longest time pass until it is taken up again.
    pub(crate) async fn until_failed(&self, kind: &str, times: u64) {
        let errors = self.metrics.watch_errors.with_label_values(&[kind]);
        until(|| errors.get() >= times).await;
        skip(Duration::from_secs(5)).await;
    }

    /// Ends it, and waits for its end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        }
    }
}

/// What a replica writes, and from where it watches.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) scope: Scope,
    pub(crate) publish_service: Option<ObjectKey>,
    pub(crate) status: Option<Settings>,
    /// Take part in the election, and write Events.
    pub(crate) elect: bool,
}

/// A whole controller, as the binary puts it together.
pub(crate) struct Replica {
    pub(crate) inner: Loop,
    pub(crate) leader: watch::Receiver<bool>,
}

impl Replica {
    /// One that only watches.
    pub(crate) async fn watching(server: &ApiServer) -> Self {
        Self::start(server, "watcher", Plan::default()).await
    }

    pub(crate) async fn start(server: &ApiServer, name: &str, plan: Plan) -> Self {
        let client = client(server, name).await;
        let settings = translate::Settings {
            tcp_services: plan.scope.config_maps.first().cloned(),
            ..translate::Settings::default()
        };
        let mut inner = Loop::start_with(plan.publish_service, settings);
        let (metrics, shutdown, report) = (
            inner.metrics.clone(),
            inner.shutdown.clone(),
            inner.report.clone(),
        );
        let (leader, is_leader) = watch::channel(false);
        let watching = kubernetes::watch(
            client.clone(),
            plan.scope,
            inner.changes.clone(),
            metrics.clone(),
            shutdown.clone(),
        );
        inner.tasks.push(tokio::spawn(watching));
        if plan.elect {
            let lease = LeaseName {
                namespace: "system".into(),
                name: "tidegate".into(),
                identity: name.into(),
            };
            let resigned = CancellationToken::new();
            let election = lease::elect(
                client.clone(),
                lease,
                leader,
                metrics.clone(),
                shutdown.clone(),
                resigned.clone(),
            );
            let events = event_writer::run(
                client.clone(),
                name.into(),
                report.clone(),
                is_leader.clone(),
                metrics.clone(),
                shutdown.clone(),
            );
            let status = plan.status.map(|settings| {
                status_writer::run(
                    client,
                    settings,
                    report,
                    is_leader.clone(),
                    metrics,
                    shutdown,
                )
            });
            let writers = async move {
                let status = async {
                    if let Some(status) = status {
                        status.await;
                    }
                };
                tokio::join!(events, status);
                resigned.cancel();
            };
            inner.tasks.push(tokio::spawn(async move {
                tokio::join!(election, writers);
            }));
        }
        Self {
            inner,
            leader: is_leader,
        }
    }

    pub(crate) async fn until_leader(&mut self) {
        tokio::time::timeout(PATIENCE, self.leader.wait_for(|leader| *leader))
            .await
            .unwrap()
            .unwrap();
    }

    /// Ends at once, without a word to the API server.
    pub(crate) fn kill(self) {
        self.inner.tasks.iter().for_each(JoinHandle::abort);
    }

    pub(crate) async fn stop(self) {
        self.inner.stop().await;
    }
}

/// A client made as the binary makes it, from a kubeconfig file.
pub(crate) async fn client(server: &ApiServer, user: &str) -> kube::Client {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.kubeconfig(user)).unwrap();
    kubernetes::client(Some(file.path()), None).await.unwrap()
}

/// Waits until something outside the controller is as wished.
#[track_caller]
pub(crate) fn until(wish: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let wait = async {
            while !wish() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{caller}: still not so"));
    }
}

/// Lets time pass at once, for timers. Everything else should be at rest.
pub(crate) async fn skip(time: Duration) {
    // Not in one step: a writer takes that for a process that was stopped.
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(Duration::from_secs(2));
        left -= step;
        tokio::time::pause();
        tokio::time::advance(step).await;
        tokio::time::resume();
        // Whoever was waked has its turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Puts a class, a Service, its endpoints, and an Ingress for `web.test` there.
pub(crate) fn put_shop(server: &ApiServer) {
    for object in [
        class(),
        service("web"),
        slice("web", "10.0.0.1"),
        ingress("web", "web.test"),
    ] {
        server.put(object);
    }
}

pub(crate) fn class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "tidegate"},
        "spec": {"controller": "tidegate.dev/ingress-controller"},
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    })
}

/// The slice of a Service, with one address.
pub(crate) fn slice(service: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": 8080, "name": ""}],
        "metadata": {"name": format!("{service}-1"), "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

/// An Ingress of all paths of a host to the Service `web`.
pub(crate) fn ingress(name: &str, host: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ingressClassName": "tidegate", "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]},
    })
}
