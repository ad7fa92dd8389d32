//! The snapshot as changes are applied to it. Only fields we read count as a change.

use crate::source::Change;
use crate::trim::trim;
use k8s_openapi::api::networking::v1::IngressLoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use translate::snapshot::service_of;
use translate::{Kind, Object, ObjectKey, Snapshot};

/// What a change made necessary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Only the endpoints of this Service.
    Endpoints(ObjectKey),
    /// Everything.
    Table,
}

/// Everything known.
#[derive(Debug, Default)]
pub struct Store {
    snapshot: Snapshot,
    synced: BTreeSet<Kind>,
    /// The Service of each EndpointSlice of the snapshot. The snapshot would search for it.
    slices: BTreeMap<ObjectKey, ObjectKey>,
    /// Addresses in the status of Ingresses, where there are any: for the status writer, not part of the snapshot.
    status: BTreeMap<ObjectKey, Vec<IngressLoadBalancerIngress>>,
    /// Conditions of BackendPolicies: for whoever writes them, not part of the snapshot.
    conditions: BTreeMap<ObjectKey, Vec<Condition>>,
    /// What each Service publishes as its address, for Ingress status.
    service_addresses: BTreeMap<ObjectKey, Vec<IngressLoadBalancerIngress>>,
}

impl Store {
    /// What is known.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether every kind was listed once.
    pub fn is_synced(&self) -> bool {
        self.synced.len() == Kind::ALL.len()
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> [(Kind, usize); 7] {
        let s = &self.snapshot;
        [
            (Kind::Ingress, s.ingresses.len()),
            (Kind::IngressClass, s.ingress_classes.len()),
            (Kind::Service, s.services.len()),
            (Kind::EndpointSlice, self.slices.len()),
            (Kind::Secret, s.secrets.len()),
            (Kind::ConfigMap, s.config_maps.len()),
            (Kind::BackendPolicy, s.backend_policies.len()),
        ]
    }

    /// The addresses in an Ingress's status.
    pub fn status(&self, ingress: &ObjectKey) -> &[IngressLoadBalancerIngress] {
        self.status
            .get(ingress)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The Ingresses that have addresses in their status, with them.
    pub fn statuses(&self) -> &BTreeMap<ObjectKey, Vec<IngressLoadBalancerIngress>> {
        &self.status
    }

    /// The conditions of a BackendPolicy.
    pub fn conditions(&self, policy: &ObjectKey) -> &[Condition] {
        self.conditions
            .get(policy)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// What a Service publishes as its address.
    pub fn service_addresses(&self, service: &ObjectKey) -> &[IngressLoadBalancerIngress] {
        self.service_addresses
            .get(service)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Applies a change; says what it made necessary.
    pub fn apply(&mut self, change: Change) -> Vec<Effect> {
        match change {
            Change::Upsert(object) => vec![self.upsert(object)],
            Change::Delete(kind, key) => vec![self.delete(kind, &key)],
            Change::Replace(kind, objects) => {
                let first = self.synced.insert(kind);
                let kept: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
                let gone: Vec<_> = self
                    .keys(kind)
                    .into_iter()
                    .filter(|key| !kept.contains(key))
                    .collect();
                let mut effects: Vec<_> = gone.iter().map(|key| self.delete(kind, key)).collect();
                effects.extend(objects.into_iter().map(|object| self.upsert(object)));
                if first {
                    effects.push(Effect::Table);
                }
                effects
            }
        }
    }

    fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        let s = &self.snapshot;
        match kind {
            Kind::Ingress => s.ingresses.keys().cloned().collect(),
            Kind::IngressClass => s
                .ingress_classes
                .keys()
                .map(|name| ObjectKey::new("", name))
                .collect(),
            Kind::Service => s.services.keys().cloned().collect(),
            Kind::Secret => s.secrets.keys().cloned().collect(),
            Kind::ConfigMap => s.config_maps.keys().cloned().collect(),
            Kind::BackendPolicy => s.backend_policies.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
        }
    }

    fn upsert(&mut self, object: Object) -> Effect {
        let key = object.key();
        // The source did that on arrival, if it could; then it costs nothing here.
        match trim(object) {
            Object::Ingress(ingress) => {
                let mut ingress = Arc::unwrap_or_clone(ingress);
                ingress.metadata.resource_version = None;
                let status = ingress
                    .status
                    .take()
                    .and_then(|status| status.load_balancer)
                    .and_then(|lb| lb.ingress);
                match status.filter(|addresses| !addresses.is_empty()) {
                    Some(addresses) => drop(self.status.insert(key.clone(), addresses)),
                    None => drop(self.status.remove(&key)),
                }
                let same = self
                    .snapshot
                    .ingresses
                    .get(&key)
                    .is_some_and(|known| **known == ingress);
                self.put(same, Object::Ingress(Arc::new(ingress)))
            }
            Object::IngressClass(class) => {
                let mut class = Arc::unwrap_or_clone(class);
                class.metadata.resource_version = None;
                let same = self
                    .snapshot
                    .ingress_classes
                    .get(&key.name)
                    .is_some_and(|known| **known == class);
                self.put(same, Object::IngressClass(Arc::new(class)))
            }
            Object::Service(service) => {
                let mut service = Arc::unwrap_or_clone(service);
                self.service_addresses
                    .insert(key.clone(), crate::addresses::of_service(&service));
                service.status = None;
                service.metadata.resource_version = None;
                let same = self
                    .snapshot
                    .services
                    .get(&key)
                    .is_some_and(|known| **known == service);
                self.put(same, Object::Service(Arc::new(service)))
            }
            Object::Secret(secret) => {
                let mut secret = Arc::unwrap_or_clone(secret);
                secret.metadata.resource_version = None;
                let same = self
                    .snapshot
                    .secrets
                    .get(&key)
                    .is_some_and(|known| **known == secret);
                self.put(same, Object::Secret(Arc::new(secret)))
            }
            Object::ConfigMap(config_map) => {
                let mut config_map = Arc::unwrap_or_clone(config_map);
                config_map.metadata.resource_version = None;
                let same = self
                    .snapshot
                    .config_maps
                    .get(&key)
                    .is_some_and(|known| **known == config_map);
                self.put(same, Object::ConfigMap(Arc::new(config_map)))
            }
            Object::BackendPolicy(policy) => {
                let mut policy = Arc::unwrap_or_clone(policy);
                policy.metadata.resource_version = None;
                let conditions = policy.status.take().unwrap_or_default().conditions;
                self.conditions.insert(key.clone(), conditions);
                let same = self
                    .snapshot
                    .backend_policies
                    .get(&key)
                    .is_some_and(|known| **known == policy);
                self.put(same, Object::BackendPolicy(Arc::new(policy)))
            }
            Object::EndpointSlice(slice) => {
                let mut slice = Arc::unwrap_or_clone(slice);
                slice.metadata.resource_version = None;
                let before = self.slices.get(&key).cloned();
                let after = service_of(&slice);
                if let (Some(service), true) = (&before, before == after) {
                    let slices = self
                        .snapshot
                        .endpoint_slices
                        .entry(service.clone())
                        .or_default();
                    if slices.get(&key.name).is_some_and(|known| **known == slice) {
                        return Effect::Nothing;
                    }
                    slices.insert(key.name, Arc::new(slice));
                    return Effect::Endpoints(service.clone());
                }
                self.take_slice(&key);
                if let Some(service) = &after {
                    let slices = self
                        .snapshot
                        .endpoint_slices
                        .entry(service.clone())
                        .or_default();
                    slices.insert(key.name.clone(), Arc::new(slice));
                    self.slices.insert(key, service.clone());
                }
                match (before, after) {
                    (None, None) => Effect::Nothing,
                    (None, Some(service)) | (Some(service), None) => Effect::Endpoints(service),
                    (Some(_), Some(_)) => Effect::Table,
                }
            }
        }
    }

    fn put(&mut self, same: bool, object: Object) -> Effect {
        if same {
            return Effect::Nothing;
        }
        self.snapshot.upsert(object);
        Effect::Table
    }

    fn delete(&mut self, kind: Kind, key: &ObjectKey) -> Effect {
        let s = &mut self.snapshot;
        let known = match kind {
            Kind::Ingress => {
                self.status.remove(key);
                s.ingresses.remove(key).is_some()
            }
            Kind::IngressClass => s.ingress_classes.remove(&key.name).is_some(),
            Kind::Service => {
                self.service_addresses.remove(key);
                s.services.remove(key).is_some()
            }
            Kind::Secret => s.secrets.remove(key).is_some(),
            Kind::ConfigMap => s.config_maps.remove(key).is_some(),
            Kind::BackendPolicy => {
                self.conditions.remove(key);
                s.backend_policies.remove(key).is_some()
            }
            Kind::EndpointSlice => {
                return self
                    .take_slice(key)
                    .map_or(Effect::Nothing, Effect::Endpoints);
            }
        };
        if known {
            Effect::Table
        } else {
            Effect::Nothing
        }
    }

    /// Takes a slice out of the snapshot; gives the Service it belonged to.
    fn take_slice(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        let service = self.slices.remove(key)?;
        if let Some(slices) = self.snapshot.endpoint_slices.get_mut(&service) {
            slices.remove(&key.name);
            if slices.is_empty() {
                self.snapshot.endpoint_slices.remove(&service);
            }
        }
        Some(service)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| value["kind"] == kind.as_str())
            .unwrap();
        translate::manifest::object(kind, value).unwrap()
    }

    fn ingress(spec: Value, version: &str, address: &str) -> Change {
        Change::Upsert(object(json!({
            "kind": "Ingress", "metadata": {"name": "web", "namespace": "shop", "resourceVersion": version}, "spec": spec,
            "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
        })))
    }

    fn slice(name: &str, service: &str, address: &str) -> Change {
        Change::Upsert(object(json!({
            "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [{"addresses": [address]}],
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
        })))
    }

    #[test]
    fn only_what_we_read_is_a_change() {
        let mut store = Store::default();
        assert_eq!(
            store.apply(ingress(json!({}), "1", "192.0.2.1")),
            [Effect::Table]
        );
        assert_eq!(
            store.apply(ingress(json!({}), "2", "192.0.2.2")),
            [Effect::Nothing]
        );
        assert_eq!(
            store.status(&ObjectKey::new("shop", "web"))[0]
                .ip
                .as_deref(),
            Some("192.0.2.2")
        );
        assert_eq!(
            store.apply(ingress(json!({"ingressClassName": "x"}), "3", "192.0.2.2")),
            [Effect::Table]
        );
        assert_eq!(
            store.apply(Change::Delete(Kind::Ingress, ObjectKey::new("shop", "web"))),
            [Effect::Table]
        );
        assert_eq!(
            store.apply(Change::Delete(Kind::Ingress, ObjectKey::new("shop", "web"))),
            [Effect::Nothing]
        );
    }

    #[test]
    fn the_status_of_an_ingress_outlives_a_service_of_its_name() {
        let mut store = Store::default();
        store.apply(ingress(json!({}), "1", "192.0.2.1"));
        let web = ObjectKey::new("shop", "web");
        store.apply(Change::Upsert(object(
            json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}}),
        )));
        assert_eq!(
            store.apply(Change::Delete(Kind::Service, web.clone())),
            [Effect::Table]
        );
        assert_eq!(store.status(&web).len(), 1);
        assert_eq!(
            store.apply(Change::Delete(Kind::Ingress, web.clone())),
            [Effect::Table]
        );
        assert_eq!(store.status(&web).len(), 0);
    }

    #[test]
    fn slices_have_a_path_of_their_own() {
        let mut store = Store::default();
        let api = ObjectKey::new("shop", "api");
        assert_eq!(
            store.apply(slice("api-1", "api", "10.0.0.1")),
            [Effect::Endpoints(api.clone())]
        );
        assert_eq!(
            store.apply(slice("api-1", "api", "10.0.0.1")),
            [Effect::Nothing]
        );
        assert_eq!(
            store.apply(slice("api-1", "api", "10.0.0.2")),
            [Effect::Endpoints(api.clone())]
        );
        assert_eq!(
            store.apply(slice("api-1", "web", "10.0.0.2")),
            [Effect::Table],
            "it moved to another Service"
        );
        let gone = Change::Delete(Kind::EndpointSlice, ObjectKey::new("shop", "api-1"));
        assert_eq!(
            store.apply(gone.clone()),
            [Effect::Endpoints(ObjectKey::new("shop", "web"))]
        );
        assert_eq!(store.apply(gone), [Effect::Nothing]);
        assert!(store.snapshot().endpoint_slices.is_empty());
    }

    #[test]
    fn a_list_replaces_what_was_known_and_says_that_the_kind_is() {
        let mut store = Store::default();
        for kind in Kind::ALL {
            assert!(!store.is_synced());
            store.apply(Change::Replace(kind, vec![]));
        }
        assert!(store.is_synced());
        store.apply(ingress(json!({}), "1", ""));
        let effects = store.apply(Change::Replace(Kind::Ingress, vec![]));
        assert_eq!(effects, [Effect::Table]);
        assert!(store.snapshot().ingresses.is_empty());
    }
}
