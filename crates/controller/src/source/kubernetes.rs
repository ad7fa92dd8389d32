//! Objects from a Kubernetes API server: one watch for each kind.
//!
//! A watch that is lost changes nothing: it is taken up again, or everything is listed again, and a list replaces what was
//! known as a whole. One object that cannot be decoded is left out by itself (`DeserializeGuard`), instead of ending the
//! watch. `place` watches one kind in one place, `known` judges what it hears, `pacing` says how long to wait after a
//! failure, `revision` notices a restored server, and `sink` makes changes of what the places of a kind found.

mod known;
mod pacing;
mod place;
mod revision;
mod sink;

use crate::metrics::Metrics;
use crate::source::Change;
use k8s_openapi::NamespaceResourceScope;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client, Config, Resource};
use place::Place;
use revision::Highest;
use serde::de::DeserializeOwned;
use sink::Sink;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::timeout::TimeoutLayer;
use translate::{Kind, Object, ObjectKey};

/// The server ends an idle watch after this many seconds, so that a dead connection is noticed soon after.
const WATCH_SECONDS: u32 = 60;
/// Objects in one answer to a list. They are in memory three times while they are decoded, and may have 1 MiB each.
const PAGE: u32 = 100;
/// Longest time until an answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest silence in an answer: a watch says something, or ends, before that.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("cannot use kubeconfig {path}: {source}")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// Neither a kubeconfig nor a service account.
    #[error("no cluster: not running in a pod, and no kubeconfig was found ({0})")]
    Infer(#[from] kube::config::InferConfigError),
    /// The settings make no client.
    #[error("cannot make a Kubernetes client: {0}")]
    Client(#[from] kube::Error),
}

/// A client from a kubeconfig file, or from `KUBECONFIG`, `~/.kube/config` or the pod's service account.
///
/// # Errors
/// See [`ClientError`]; each names the file.
pub async fn client(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
) -> Result<Client, ClientError> {
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = match kubeconfig {
        Some(path) => {
            let error = |source| ClientError::Kubeconfig {
                path: path.display().to_string(),
                source,
            };
            let file = Kubeconfig::read_from(path).map_err(error)?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(error)?
        }
        None => match context {
            Some(_) => {
                let error = |source| ClientError::Kubeconfig {
                    path: "from KUBECONFIG or ~/.kube/config".into(),
                    source,
                };
                Config::from_kubeconfig(&options).await.map_err(error)?
            }
            None => Config::infer().await?,
        },
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(READ_TIMEOUT);
    // It would wait up to minutes by itself, and hide every failure until then.
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&TimeoutLayer::new(ANSWER_TIMEOUT))
        .build())
}

/// Secrets that may hold certificates or authorities, which often are `Opaque`. What others are for is known, and they are
/// many; of those that come, only what we read is kept.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
     type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,type!=kubernetes.io/basic-auth,\
     type!=kubernetes.io/ssh-auth,type!=bootstrap.kubernetes.io/token";

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Namespace of everything that has one; `None` is all namespaces.
    pub namespace: Option<String>,
    /// Namespaces whose Secrets may be read; empty is the same as `namespace`.
    pub secret_namespaces: Vec<String>,
    /// The ConfigMaps that are read; no other is.
    pub config_maps: Vec<ObjectKey>,
}

/// Watches every kind until `shutdown`.
pub async fn watch(
    client: Client,
    scope: Scope,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let (restart, restarted) = watch::channel(());
    let mut watches = Watches {
        changes,
        metrics,
        restarted,
        highest: Highest::default(),
        tasks: JoinSet::new(),
    };
    let namespace = scope.namespace.as_deref();
    let all = watcher::Config::default()
        .timeout(WATCH_SECONDS)
        .page_size(PAGE);
    let secrets_read = all.clone().fields(SECRETS);
    watches.add(
        Kind::Ingress,
        vec![namespaced(&client, namespace)],
        &all,
        Object::Ingress,
    );
    watches.add(
        Kind::IngressClass,
        vec![Api::all(client.clone())],
        &all,
        Object::IngressClass,
    );
    watches.add(
        Kind::Service,
        vec![namespaced(&client, namespace)],
        &all,
        Object::Service,
    );
    watches.add(
        Kind::EndpointSlice,
        vec![namespaced(&client, namespace)],
        &all,
        Object::EndpointSlice,
    );
    let secrets = match scope.secret_namespaces.as_slice() {
        [] => vec![namespaced(&client, namespace)],
        several => several
            .iter()
            .map(|namespace| namespaced(&client, Some(namespace)))
            .collect(),
    };
    watches.add(Kind::Secret, secrets, &secrets_read, Object::Secret);
    if scope.config_maps.is_empty() {
        // So the kind is known, and costs neither a watch nor a right.
        let none = Change::Replace(Kind::ConfigMap, Vec::new());
        let _ = watches.changes.send(none).await;
    } else {
        let config_maps = scope.config_maps.iter().map(|key| {
            // A right to one name covers lists and watches of that name alone.
            let named = all.clone().fields(&format!("metadata.name={}", key.name));
            (namespaced(&client, Some(&key.namespace)), named)
        });
        watches.add_each(Kind::ConfigMap, config_maps.collect(), Object::ConfigMap);
    }
    watches.add(
        Kind::BackendPolicy,
        vec![namespaced(&client, namespace)],
        &all,
        Object::BackendPolicy,
    );
    let revision = revision::watch(
        namespaced(&client, namespace),
        watches.highest.clone(),
        restart,
    );
    watches.tasks.spawn(revision);
    tokio::select! {
        () = shutdown.cancelled() => {}
        // None ends by itself but when nobody receives changes any more. Stale for ever is worse than a restart.
        ended = watches.tasks.join_next() => if let Some(Err(error)) = ended {
            tracing::error!(%error, "a watch failed for good");
        },
    }
}

fn namespaced<K>(client: &Client, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// What all watches share, and their tasks.
struct Watches {
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
    restarted: watch::Receiver<()>,
    highest: Highest,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Watches a kind in some places.
    fn add<K>(
        &mut self,
        kind: Kind,
        apis: Vec<Api<DeserializeGuard<K>>>,
        config: &watcher::Config,
        wrap: fn(Arc<K>) -> Object,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        let places = apis.into_iter().map(|api| (api, config.clone()));
        self.add_each(kind, places.collect(), wrap);
    }

    /// Watches a kind in some places, in each of them in its own way.
    fn add_each<K>(
        &mut self,
        kind: Kind,
        places: Vec<(Api<DeserializeGuard<K>>, watcher::Config)>,
        wrap: fn(Arc<K>) -> Object,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        let (found, received) = mpsc::channel(64);
        let sink = Sink::new(
            kind,
            places.len(),
            self.changes.clone(),
            self.metrics.clone(),
        );
        self.tasks.spawn(sink.run(received));
        for (number, (api, config)) in places.into_iter().enumerate() {
            let (restart, highest) = (self.restarted.clone(), self.highest.clone());
            let place = Place {
                number,
                api,
                config,
                wrap,
                restart,
                highest,
            };
            self.tasks.spawn(place.watch(found.clone()));
        }
    }
}
