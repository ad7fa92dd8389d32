//! What the controller knows: every object we read, by kind and name. Cheap to clone (`Arc`s), plain data.

use api::BackendPolicy;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The kinds of objects we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.k8s.io/v1` Ingress.
    Ingress,
    /// `networking.k8s.io/v1` IngressClass.
    IngressClass,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Secret.
    Secret,
    /// `v1` ConfigMap. Only those that a flag names are read.
    ConfigMap,
    /// `tidegate.dev/v1alpha1` BackendPolicy. A cluster may not have the kind.
    BackendPolicy,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 7] = [
        Kind::Ingress,
        Kind::IngressClass,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::BackendPolicy,
    ];

    /// As written in a manifest's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Ingress => "Ingress",
            Kind::IngressClass => "IngressClass",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Secret => "Secret",
            Kind::ConfigMap => "ConfigMap",
            Kind::BackendPolicy => "BackendPolicy",
        }
    }

    /// As written in a manifest's `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Ingress | Kind::IngressClass => "networking.k8s.io/v1",
            Kind::Service | Kind::Secret | Kind::ConfigMap => "v1",
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::BackendPolicy => "tidegate.dev/v1alpha1",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Namespace and name. The namespace of a cluster-scoped object is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One object, whatever its kind.
#[derive(Debug, Clone)]
pub enum Object {
    /// An Ingress.
    Ingress(Arc<Ingress>),
    /// An IngressClass.
    IngressClass(Arc<IngressClass>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// A ConfigMap.
    ConfigMap(Arc<ConfigMap>),
    /// A BackendPolicy.
    BackendPolicy(Arc<BackendPolicy>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Ingress(_) => Kind::Ingress,
            Object::IngressClass(_) => Kind::IngressClass,
            Object::Service(_) => Kind::Service,
            Object::EndpointSlice(_) => Kind::EndpointSlice,
            Object::Secret(_) => Kind::Secret,
            Object::ConfigMap(_) => Kind::ConfigMap,
            Object::BackendPolicy(_) => Kind::BackendPolicy,
        }
    }

    /// Its metadata.
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Object::Ingress(object) => &object.metadata,
            Object::IngressClass(object) => &object.metadata,
            Object::Service(object) => &object.metadata,
            Object::EndpointSlice(object) => &object.metadata,
            Object::Secret(object) => &object.metadata,
            Object::ConfigMap(object) => &object.metadata,
            Object::BackendPolicy(object) => &object.metadata,
        }
    }

    /// Its namespace and name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self.meta())
    }
}

/// Points at one object, for a diagnostic, an Event or a log line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its `metadata.uid`; empty where there is none, as in files.
    pub uid: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// Everything watched.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Ingresses.
    pub ingresses: BTreeMap<ObjectKey, Arc<Ingress>>,
    /// IngressClasses by name.
    pub ingress_classes: BTreeMap<String, Arc<IngressClass>>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Arc<Service>>,
    /// EndpointSlices by the Service they belong to, then by their own name.
    pub endpoint_slices: BTreeMap<ObjectKey, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Secrets.
    pub secrets: BTreeMap<ObjectKey, Arc<Secret>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectKey, Arc<ConfigMap>>,
    /// BackendPolicies.
    pub backend_policies: BTreeMap<ObjectKey, Arc<BackendPolicy>>,
}

impl Snapshot {
    /// Adds or replaces an object.
    pub fn upsert(&mut self, object: Object) {
        let key = object.key();
        match object {
            Object::Ingress(object) => drop(self.ingresses.insert(key, object)),
            Object::IngressClass(object) => drop(self.ingress_classes.insert(key.name, object)),
            Object::Service(object) => drop(self.services.insert(key, object)),
            Object::Secret(object) => drop(self.secrets.insert(key, object)),
            Object::ConfigMap(object) => drop(self.config_maps.insert(key, object)),
            Object::BackendPolicy(object) => drop(self.backend_policies.insert(key, object)),
            Object::EndpointSlice(object) => {
                // The label may have moved the slice to another Service.
                self.remove(Kind::EndpointSlice, &key);
                if let Some(service) = service_of(&object) {
                    self.endpoint_slices
                        .entry(service)
                        .or_default()
                        .insert(key.name, object);
                }
            }
        }
    }

    /// Removes an object, if it is there.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::Ingress => drop(self.ingresses.remove(key)),
            Kind::IngressClass => drop(self.ingress_classes.remove(&key.name)),
            Kind::Service => drop(self.services.remove(key)),
            Kind::Secret => drop(self.secrets.remove(key)),
            Kind::ConfigMap => drop(self.config_maps.remove(key)),
            Kind::BackendPolicy => drop(self.backend_policies.remove(key)),
            Kind::EndpointSlice => {
                let service = self.service_of_slice(key).cloned();
                if let Some(service) = service
                    && let Some(slices) = self.endpoint_slices.get_mut(&service)
                {
                    slices.remove(&key.name);
                    if slices.is_empty() {
                        self.endpoint_slices.remove(&service);
                    }
                }
            }
        }
    }

    /// The Service that an EndpointSlice of the snapshot belongs to.
    pub fn service_of_slice(&self, slice: &ObjectKey) -> Option<&ObjectKey> {
        // Slices are named after their Service, so the search is short; a hand-made slice may be anywhere in its namespace.
        let from = ObjectKey {
            namespace: slice.namespace.clone(),
            name: String::new(),
        };
        self.endpoint_slices
            .range(from..)
            .take_while(|(service, _)| service.namespace == slice.namespace)
            .find(|(_, slices)| slices.contains_key(&slice.name))
            .map(|(service, _)| service)
    }
}

/// The Service an EndpointSlice belongs to, by its label.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(
        slice.metadata.namespace.as_deref().unwrap_or_default(),
        name,
    ))
}
