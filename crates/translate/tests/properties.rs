//! Whatever is written into an Ingress, translating it does not panic, and gives a closed table.
#![allow(
    clippy::unwrap_used,
    reason = "test code: a failed unwrap is a failed test"
)]

use proptest::prelude::*;
use serde_json::{Value, json};
use translate::{Kind, Settings, Snapshot, manifest, translate};

/// Text that is close to what such fields hold, and text that is not.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9.*-]{0,40}",
        "/[a-zA-Z0-9./%*()$-]{0,40}",
        prop::sample::select(vec![
            "", "*", "*.a.test", "a.test", "/", "Exact", "Prefix", "1s", "0", "1m", "true"
        ])
        .prop_map(str::to_owned),
    ]
}

prop_compose! {
    fn ingress()(
        host in text(), path in text(), kind in text(), service in text(), port_name in text(), number in any::<i32>(),
        key in text(), value in text(), secret in text(), tls_host in text(), namespace in "[ab]", name in "[a-c]",
        ours in prop::sample::select(translate::annotation::ANNOTATIONS.iter().map(|a| a.name).collect::<Vec<_>>()),
    ) -> Value {
        json!({
            "metadata": {"name": name, "namespace": namespace, "annotations": {
                format!("tidegate.dev/{ours}"): value, format!("nginx.ingress.kubernetes.io/{key}"): value, key: value,
            }},
            "spec": {
                "rules": [{"host": host, "http": {"paths": [
                    {"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": number}}}},
                    {"path": path, "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": port_name}}}},
                ]}}],
                "tls": [{"secretName": secret, "hosts": [tls_host]}],
            },
        })
    }
}

prop_compose! {
    fn slice()(address in text(), kind in prop::sample::select(vec!["IPv4", "IPv6", "FQDN", "?"]), port in any::<i32>(),
               ready in any::<Option<bool>>(), serving in any::<Option<bool>>(), terminating in any::<Option<bool>>()) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "a", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": kind, "ports": [{"port": port}],
            "endpoints": [{"addresses": [address, "10.0.0.1", "::1"], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}}],
        })
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_the_table_is_closed(ingresses in prop::collection::vec(ingress(), 1..6), slice in slice()) {
        let mut snapshot = Snapshot::default();
        for ingress in ingresses {
            snapshot.upsert(manifest::object(Kind::Ingress, ingress).unwrap());
        }
        let service = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"ports": [{"port": 80}]}});
        snapshot.upsert(manifest::object(Kind::Service, service).unwrap());
        snapshot.upsert(manifest::object(Kind::EndpointSlice, slice).unwrap());
        let translation = translate(&snapshot, &Settings { serve_classless: true, ..Settings::default() });
        for route in translation.table.routes() {
            if let routing_table::Action::Forward(cluster) = route.action {
                let cluster = translation.table.cluster(cluster).unwrap();
                prop_assert!(translation.endpoints.contains_key(&cluster.id));
            }
        }
        for diagnostic in &translation.diagnostics {
            prop_assert!(diagnostic.message.chars().count() <= 515 && !diagnostic.message.chars().any(char::is_control), "{diagnostic}");
        }
        let again = translate(&snapshot, &Settings { serve_classless: true, ..Settings::default() });
        prop_assert_eq!(translation, again);
    }

    #[test]
    fn manifests_never_panic(text in any::<String>(), yaml in "[a-z:{}\\[\\]\\n -]{0,200}") {
        manifest::parse(&text, false);
        manifest::parse(&yaml, true);
    }
}
