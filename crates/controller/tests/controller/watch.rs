//! What changes in the cluster changes in the table, and what does not, does not.

use crate::harness::{PATIENCE, Plan, Replica, ingress, put_shop, service, skip, slice, until};
use controller::source::kubernetes::Scope;
use serde_json::json;
use std::time::Duration;
use test_support::ApiServer;
use test_support::api_server::{CONFIG_MAPS, ENDPOINT_SLICES, INGRESSES, SECRETS, Verb};
use translate::ObjectKey;

#[tokio::test]
async fn an_ingress_is_added_changed_and_taken_away() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut replica = Replica::watching(&server).await;
    let first = replica.inner.until(|published| published.tables == 1).await;
    assert!(
        first.has("host web.test") && first.has("10.0.0.1:8080"),
        "the first table is whole:\n{}",
        first.text()
    );
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    server.put(ingress("other", "changed.test"));
    let changed = replica.inner.until_shows("host changed.test").await;
    assert!(!changed.has("other.test"));
    server.delete(INGRESSES, "shop", "other");
    let deleted = replica
        .inner
        .until(|published| !published.has("changed.test"))
        .await;
    assert!(deleted.has("host web.test"));
    replica.stop().await;
}

#[tokio::test]
async fn nothing_is_published_before_every_kind_was_listed() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let secrets = test_support::api_server::Fault {
        verb: Verb::List,
        resource: SECRETS,
        status: 403,
        times: usize::MAX,
    };
    server.fail(secrets);
    let mut replica = Replica::watching(&server).await;
    replica.inner.until_failed("Secret", 1).await;
    until(|| server.count(Verb::List, SECRETS) > 1).await;
    until(|| server.count(Verb::Watch, INGRESSES) > 0).await;
    assert_eq!(replica.inner.now().tables, 0);
    server.heal();
    skip(Duration::from_secs(30)).await;
    replica.inner.until_shows("host web.test").await;
    replica.stop().await;
}

#[tokio::test]
async fn many_objects_come_in_pages() {
    let server = ApiServer::start().await;
    put_shop(&server);
    for n in 0..250 {
        server.put(ingress(
            &format!("many-{n:03}"),
            &format!("many-{n:03}.test"),
        ));
    }
    let mut replica = Replica::watching(&server).await;
    let first = replica.inner.until(|published| published.tables > 0).await;
    assert_eq!(
        (first.text().matches("host many-").count(), first.tables),
        (250, 1),
        "all in the first table"
    );
    assert_eq!(server.count(Verb::List, INGRESSES), 3);
    replica.stop().await;
}

#[tokio::test]
async fn changed_endpoints_are_published_by_themselves() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut replica = Replica::watching(&server).await;
    replica.inner.until_shows("10.0.0.1:8080").await;
    server.put(slice("web", "10.0.0.2"));
    let changed = replica.inner.until_shows("10.0.0.2:8080").await;
    assert!(!changed.has("10.0.0.1"));
    server.delete(ENDPOINT_SLICES, "shop", "web-1");
    let empty = replica
        .inner
        .until(|published| !published.has("10.0.0.2"))
        .await;
    assert_eq!((empty.tables, empty.endpoint_updates), (1, 2));
    replica.stop().await;
}

#[tokio::test]
async fn what_is_not_read_changes_nothing() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut replica = Replica::watching(&server).await;
    replica.inner.until_shows("host web.test").await;
    let before = replica.inner.metrics.translations.get();
    let mut same = ingress("web", "web.test");
    same["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "example.com/seen": "yes"});
    same["metadata"]["labels"] = json!({"app": "web"});
    same["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Update"}]);
    server.put(same.clone());
    let mut service = service("web");
    service["metadata"]["annotations"] = json!({"example.com/seen": "yes"});
    server.put(service);
    // Comes after the others, and shows in the report.
    same["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    server.put(same);
    let heard = replica.inner.report.wait_for(|report| {
        report
            .iter()
            .any(|report| !report.claimed.values().all(Vec::is_empty))
    });
    tokio::time::timeout(PATIENCE, heard)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(replica.inner.metrics.translations.get(), before);
    assert_eq!(
        (
            replica.inner.now().tables,
            replica.inner.now().endpoint_updates
        ),
        (1, 0)
    );
    replica.stop().await;
}

#[tokio::test]
async fn only_the_namespaces_of_the_scope_are_read() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut elsewhere = ingress("elsewhere", "elsewhere.test");
    elsewhere["metadata"]["namespace"] = json!("other");
    server.put(elsewhere.clone());
    let scope = Scope {
        namespace: Some("shop".into()),
        secret_namespaces: vec!["certs".into(), "shop".into()],
        ..Scope::default()
    };
    let mut replica = Replica::start(
        &server,
        "watcher",
        Plan {
            scope,
            ..Plan::default()
        },
    )
    .await;
    replica.inner.until_shows("host web.test").await;
    elsewhere["spec"]["rules"][0]["host"] = json!("changed.test");
    server.put(elsewhere);
    server.put(ingress("later", "later.test"));
    let later = replica.inner.until_shows("host later.test").await;
    assert!(!later.has("elsewhere.test") && !later.has("changed.test"));
    let mut places: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|seen| seen.resource == SECRETS && seen.verb == Verb::List)
        .map(|seen| seen.namespace)
        .collect();
    places.sort();
    assert_eq!(places, ["certs", "shop"]);
    replica.stop().await;
}

#[tokio::test]
async fn all_namespaces_are_served_where_none_is_named() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut elsewhere = ingress("elsewhere", "elsewhere.test");
    elsewhere["metadata"]["namespace"] = json!("other");
    server.put(elsewhere);
    let mut replica = Replica::watching(&server).await;
    let shown = replica.inner.until(|published| published.tables > 0).await;
    assert!(shown.has("host web.test") && shown.has("host elsewhere.test"));
    replica.stop().await;
}

#[tokio::test]
async fn only_config_maps_that_are_named_are_read() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let config_map = |name: &str, port: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "edge"},
            "data": {port: "shop/web:80"},
        })
    };
    server.put(config_map("tcp", "9000"));
    server.put(config_map("other", "9001"));
    let without = Replica::watching(&server).await;
    let mut replica = Replica::start(
        &server,
        "named",
        Plan {
            scope: Scope {
                config_maps: vec![ObjectKey::new("edge", "tcp")],
                ..Scope::default()
            },
            ..Plan::default()
        },
    )
    .await;
    replica.inner.until_shows("listener tcp-9000").await;
    server.put(config_map("other", "9002"));
    server.put(config_map("tcp", "9003"));
    let later = replica.inner.until_shows("listener tcp-9003").await;
    assert!(!later.has("9000") && !later.has("9001") && !later.has("9002"));
    let known = replica
        .inner
        .metrics
        .objects
        .with_label_values(&["ConfigMap"]);
    assert_eq!(known.get(), 1);
    server.delete(CONFIG_MAPS, "edge", "tcp");
    until(|| known.get() == 0).await;
    let listed = server.seen().into_iter();
    let listed = listed.filter(|seen| seen.resource == CONFIG_MAPS && seen.verb == Verb::List);
    let listed: Vec<_> = listed.map(|seen| seen.namespace).collect();
    assert_eq!(listed, ["edge"], "nobody else asked for any");
    replica.stop().await;
    without.stop().await;
}

#[tokio::test]
async fn certificates_of_several_namespaces_come_and_go() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let (chain, key) = test_support::certificate::self_signed(&["web.test"]);
    let secret = |namespace: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "web", "namespace": namespace},
            // A fake keeps what it is given, so this is base64 as a real one would answer with.
            "data": {"tls.crt": base64(&chain), "tls.key": base64(&key)},
        })
    };
    let mut release = secret("shop");
    release["metadata"]["name"] = json!("release");
    release["type"] = json!("helm.sh/release.v1");
    server.put(release);
    server.put(secret("certs"));
    let scope = Scope {
        namespace: None,
        secret_namespaces: vec!["certs".into(), "shop".into()],
        ..Scope::default()
    };
    let mut replica = Replica::start(
        &server,
        "watcher",
        Plan {
            scope,
            ..Plan::default()
        },
    )
    .await;
    replica.inner.until_shows("host web.test").await;
    let secrets = replica.inner.metrics.objects.with_label_values(&["Secret"]);
    assert_eq!(
        secrets.get(),
        1,
        "only those that may hold certificates, from everywhere"
    );
    server.put(secret("shop"));
    until(|| secrets.get() == 2).await;
    server.delete(SECRETS, "certs", "web");
    until(|| secrets.get() == 1).await;
    server.expire_watches(SECRETS);
    replica.inner.until_failed("Secret", 2).await;
    until(|| server.count(Verb::List, SECRETS) == 4).await;
    server.put(secret("certs"));
    until(|| secrets.get() == 2).await;
    replica.stop().await;
}

fn base64(text: &str) -> String {
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec()))
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}
