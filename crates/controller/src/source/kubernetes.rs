//! Objects from a Kubernetes API server: one watch for each kind.
//!
//! A watch that is lost changes nothing: kube lists again with backoff, and the list replaces what was known as a whole. One
//! object that cannot be decoded is left out by itself (`DeserializeGuard`), instead of ending the watch.

use crate::metrics::Metrics;
use crate::source::Change;
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use translate::{Kind, Object, ObjectKey};

/// The server ends an idle watch after this many seconds, so that a dead connection is noticed soon after.
const WATCH_SECONDS: u32 = 60;
/// An error that lasts is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(60);

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
pub async fn client(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Client, ClientError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = match kubeconfig {
        Some(path) => {
            let error = |source| ClientError::Kubeconfig { path: path.display().to_string(), source };
            let file = Kubeconfig::read_from(path).map_err(error)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(error)?
        }
        None => match context {
            Some(_) => {
                let error = |source| ClientError::Kubeconfig { path: "from KUBECONFIG or ~/.kube/config".into(), source };
                Config::from_kubeconfig(&options).await.map_err(error)?
            }
            None => Config::infer().await?,
        },
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Namespace of everything that has one; `None` is all namespaces.
    pub namespace: Option<String>,
    /// Namespaces whose Secrets may be read; empty is the same as `namespace`.
    pub secret_namespaces: Vec<String>,
}

/// Watches every kind until `shutdown`.
pub async fn watch(client: Client, scope: Scope, changes: mpsc::Sender<Change>, metrics: Metrics, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let usual = watcher::Config::default().timeout(WATCH_SECONDS);
    let sink = |kind| Sink { kind, changes: changes.clone(), metrics: metrics.clone(), shutdown: shutdown.clone() };
    tasks.spawn(sink(Kind::Ingress).watch(namespaced::<Ingress>(&client, scope.namespace.as_deref()), usual.clone(), Object::Ingress));
    tasks.spawn(sink(Kind::IngressClass).watch(Api::<DeserializeGuard<IngressClass>>::all(client.clone()), usual.clone(), Object::IngressClass));
    tasks.spawn(sink(Kind::Service).watch(namespaced::<Service>(&client, scope.namespace.as_deref()), usual.clone(), Object::Service));
    let slices = namespaced::<EndpointSlice>(&client, scope.namespace.as_deref());
    tasks.spawn(sink(Kind::EndpointSlice).watch(slices, usual.clone(), Object::EndpointSlice));
    let tls = usual.fields("type=kubernetes.io/tls");
    match scope.secret_namespaces.as_slice() {
        [] => drop(tasks.spawn(sink(Kind::Secret).watch(namespaced::<Secret>(&client, scope.namespace.as_deref()), tls, Object::Secret))),
        [one] => drop(tasks.spawn(sink(Kind::Secret).watch(namespaced::<Secret>(&client, Some(one)), tls, Object::Secret))),
        several => {
            let apis = several.iter().map(|namespace| namespaced::<Secret>(&client, Some(namespace))).collect();
            tasks.spawn(sink(Kind::Secret).watch_several(apis, tls, Object::Secret));
        }
    }
    while tasks.join_next().await.is_some() {}
}

fn namespaced<K>(client: &Client, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Where the objects of one kind go.
struct Sink {
    kind: Kind,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Sink {
    async fn watch<K>(self, api: Api<DeserializeGuard<K>>, config: watcher::Config, wrap: fn(Arc<K>) -> Object)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        self.watch_several(vec![api], config, wrap).await;
    }

    /// Watches one kind in several places; it is known when all of them were listed once.
    async fn watch_several<K>(self, apis: Vec<Api<DeserializeGuard<K>>>, config: watcher::Config, wrap: fn(Arc<K>) -> Object)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        DeserializeGuard<K>: Resource<DynamicType = ()>,
    {
        // Per place: its objects as last listed and changed, for the list of all of them; `None` until listed.
        let mut known: Vec<Option<BTreeMap<ObjectKey, Object>>> = vec![None; apis.len()];
        let mut listing: Vec<Vec<(ObjectKey, Object)>> = vec![Vec::new(); apis.len()];
        let streams = apis.into_iter().enumerate().map(|(place, api)| {
            let stream = watcher(api, config.clone()).default_backoff();
            stream.map(move |event| (place, event)).boxed()
        });
        let mut events = futures_util::stream::select_all(streams);
        let several = known.len() > 1;
        let mut logged: Option<Instant> = None;
        loop {
            let next = tokio::select! {
                () = self.shutdown.cancelled() => return,
                next = events.next() => next,
            };
            let Some((place, event)) = next else { return };
            let change = match event {
                Ok(Event::Init) => {
                    listing[place].clear();
                    None
                }
                Ok(Event::InitApply(object)) => {
                    listing[place].extend(self.decode(object, wrap).map(|object| (object.key(), object)));
                    None
                }
                Ok(Event::InitDone) => {
                    let listed = std::mem::take(&mut listing[place]);
                    if several {
                        known[place] = Some(listed.into_iter().collect());
                        let all: Option<Vec<Object>> = known.iter().map(|place| Some(place.as_ref()?.values().cloned().collect::<Vec<_>>()))
                            .collect::<Option<Vec<_>>>()
                            .map(|places| places.concat());
                        all.map(|objects| Change::Replace(self.kind, objects))
                    } else {
                        Some(Change::Replace(self.kind, listed.into_iter().map(|(_, object)| object).collect()))
                    }
                }
                Ok(Event::Apply(object)) => {
                    let key = ObjectKey::of(object.meta());
                    match self.decode(object, wrap) {
                        Some(object) => {
                            if let Some(known) = &mut known[place] {
                                known.insert(key, object.clone());
                            }
                            Some(Change::Upsert(object))
                        }
                        None => Some(Change::Delete(self.kind, key)),
                    }
                }
                Ok(Event::Delete(object)) => {
                    let key = ObjectKey::of(object.meta());
                    if let Some(known) = &mut known[place] {
                        known.remove(&key);
                    }
                    Some(Change::Delete(self.kind, key))
                }
                Err(error) => {
                    self.metrics.watch_errors.with_label_values(&[self.kind.as_str()]).inc();
                    if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                        logged = Some(Instant::now());
                        tracing::warn!(kind = %self.kind, %error, "watch failed; what is known is kept");
                    }
                    None
                }
            };
            if let Some(change) = change
                && self.changes.send(change).await.is_err()
            {
                return;
            }
        }
    }

    fn decode<K>(&self, object: DeserializeGuard<K>, wrap: fn(Arc<K>) -> Object) -> Option<Object> {
        match object.0 {
            Ok(object) => Some(wrap(Arc::new(object))),
            Err(invalid) => {
                self.metrics.undecodable.with_label_values(&[self.kind.as_str()]).inc();
                let key = ObjectKey::of(&invalid.metadata);
                tracing::warn!(kind = %self.kind, object = %key, error = invalid.error, "object cannot be decoded and was left out");
                None
            }
        }
    }
}
