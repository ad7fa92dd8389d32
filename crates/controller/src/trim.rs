//! What of an object is read. The rest is dropped on arrival, so that it neither costs memory nor counts as a change.

use k8s_openapi::api::networking::v1::IngressStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;
use translate::Object;
use translate::annotation::{NGINX_PREFIX, PREFIX};
use translate::certificate::SECRET_KEYS;
use translate::snapshot::SERVICE_NAME_LABEL;

/// Prefixes of the annotations that are read. Others change for reasons of their own: what `kubectl apply` keeps for itself,
/// what other controllers note down.
const ANNOTATIONS: [&str; 4] = [
    PREFIX,
    NGINX_PREFIX,
    "kubernetes.io/",
    "ingressclass.kubernetes.io/",
];

/// The object with only what is read: by a translation, by whoever writes status, and the resource version, by the source.
pub(crate) fn trim(object: Object) -> Object {
    match object {
        Object::Ingress(ingress) => {
            let mut ingress = Arc::unwrap_or_clone(ingress);
            trim_metadata(&mut ingress.metadata, &ANNOTATIONS, &[]);
            let balancer = ingress.status.and_then(|status| status.load_balancer);
            ingress.status = balancer.map(|balancer| IngressStatus {
                load_balancer: Some(balancer),
            });
            Object::Ingress(Arc::new(ingress))
        }
        Object::IngressClass(class) => {
            let mut class = Arc::unwrap_or_clone(class);
            trim_metadata(&mut class.metadata, &ANNOTATIONS, &[]);
            Object::IngressClass(Arc::new(class))
        }
        Object::Service(service) => {
            let mut service = Arc::unwrap_or_clone(service);
            trim_metadata(&mut service.metadata, &[PREFIX], &[]);
            if let Some(status) = &mut service.status {
                status.conditions = None;
            }
            Object::Service(Arc::new(service))
        }
        Object::Secret(secret) => {
            let mut secret = Arc::unwrap_or_clone(secret);
            trim_metadata(&mut secret.metadata, &[], &[]);
            if let Some(data) = &mut secret.data {
                data.retain(|name, _| SECRET_KEYS.contains(&name.as_str()));
            }
            Object::Secret(Arc::new(secret))
        }
        Object::ConfigMap(config_map) => {
            let mut config_map = Arc::unwrap_or_clone(config_map);
            trim_metadata(&mut config_map.metadata, &[], &[]);
            config_map.binary_data = None;
            Object::ConfigMap(Arc::new(config_map))
        }
        Object::BackendPolicy(policy) => {
            let mut policy = Arc::unwrap_or_clone(policy);
            let generation = policy.metadata.generation;
            trim_metadata(&mut policy.metadata, &[], &[]);
            policy.metadata.generation = generation;
            Object::BackendPolicy(Arc::new(policy))
        }
        Object::EndpointSlice(slice) => {
            let mut slice = Arc::unwrap_or_clone(slice);
            trim_metadata(&mut slice.metadata, &[], &[SERVICE_NAME_LABEL]);
            for endpoint in &mut slice.endpoints {
                endpoint.deprecated_topology = None;
                if let Some(hints) = &mut endpoint.hints {
                    hints.for_nodes = None;
                }
                endpoint.hostname = None;
                endpoint.node_name = None;
                endpoint.target_ref = None;
            }
            Object::EndpointSlice(Arc::new(slice))
        }
    }
}

fn trim_metadata(metadata: &mut ObjectMeta, annotations: &[&str], labels: &[&str]) {
    let kept = |all: Option<BTreeMap<String, String>>, prefixes: &[&str]| {
        let mut all = all?;
        all.retain(|name, _| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        Some(all).filter(|all| !all.is_empty())
    };
    *metadata = ObjectMeta {
        name: metadata.name.take(),
        namespace: metadata.namespace.take(),
        uid: metadata.uid.take(),
        resource_version: metadata.resource_version.take(),
        creation_timestamp: metadata.creation_timestamp.take(),
        annotations: kept(metadata.annotations.take(), annotations),
        labels: kept(metadata.labels.take(), labels),
        ..ObjectMeta::default()
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use serde_json::{Value, json};
    use translate::Kind;

    #[track_caller]
    fn check(kind: Kind, object: Value, expected: Value) {
        let shown = match trim(translate::manifest::object(kind, object).unwrap()) {
            Object::Ingress(object) => serde_json::to_value(&*object),
            Object::IngressClass(object) => serde_json::to_value(&*object),
            Object::Service(object) => serde_json::to_value(&*object),
            Object::EndpointSlice(object) => serde_json::to_value(&*object),
            Object::Secret(object) => serde_json::to_value(&*object),
            Object::ConfigMap(object) => serde_json::to_value(&*object),
            Object::BackendPolicy(object) => serde_json::to_value(&*object),
        };
        let mut shown = shown.unwrap();
        shown
            .as_object_mut()
            .unwrap()
            .retain(|field, _| field != "apiVersion" && field != "kind");
        assert_eq!(shown, expected);
    }

    #[test]
    fn annotations_that_are_read_stay() {
        let all = json!({
            "tidegate.dev/attempts": "2", "nginx.ingress.kubernetes.io/proxy-read-timeout": "5", "kubernetes.io/ingress.class": "x",
            "kubectl.kubernetes.io/last-applied-configuration": "{}", "cert-manager.io/issuer": "y",
        });
        let read = json!({
            "tidegate.dev/attempts": "2", "nginx.ingress.kubernetes.io/proxy-read-timeout": "5", "kubernetes.io/ingress.class": "x",
        });
        let metadata = json!({
            "name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "7", "generation": 3, "labels": {"app": "web"},
            "managedFields": [{"manager": "kubectl"}], "annotations": all, "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        let kept = json!({
            "name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "7", "annotations": read, "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        check(
            Kind::Ingress,
            json!({"metadata": metadata}),
            json!({"metadata": kept}),
        );
    }

    #[test]
    fn a_slice_keeps_addresses_conditions_zones_and_its_service() {
        let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "a", "zone": "z",
            "hints": {"forZones": [{"name": "z"}]}, "targetRef": {"kind": "Pod", "name": "p"}, "hostname": "h"});
        let labels = json!({"kubernetes.io/service-name": "web", "app": "web"});
        let metadata = json!({"name": "s", "namespace": "shop", "labels": labels, "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "t"}});
        check(
            Kind::EndpointSlice,
            json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [endpoint]}),
            json!({
                "metadata": {"name": "s", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "zone": "z", "hints": {"forZones": [{"name": "z"}]}}],
            }),
        );
    }

    #[test]
    fn a_secret_keeps_certificates_and_keys() {
        let kept = json!({"tls.crt": "YQ==", "tls.key": "Yg==", "ca.crt": "YQ==", "ca.crl": "YQ==", "tls.ocsp-staple": "YQ=="});
        let mut data = kept.clone();
        data["other"] = json!("Yw==");
        let metadata = json!({"name": "s", "namespace": "shop"});
        check(
            Kind::Secret,
            json!({"metadata": metadata, "data": data}),
            json!({"metadata": metadata, "data": kept}),
        );
    }
}
