//! What is wrong with an object is said on the object.

use crate::harness::{Plan, Replica, ingress, put_shop, skip, until};
use serde_json::{Value, json};
use std::time::Duration;
use test_support::ApiServer;
use test_support::api_server::{EVENTS, Fault, SERVICES, Verb};

fn plan() -> Plan {
    Plan {
        elect: true,
        ..Plan::default()
    }
}

/// An Ingress whose Service does not exist.
fn broken(name: &str) -> Value {
    let mut broken = ingress(name, &format!("{name}.test"));
    broken["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("missing");
    broken
}

fn reasons(server: &ApiServer, name: &str) -> Vec<String> {
    let of_it = server
        .list(EVENTS)
        .into_iter()
        .filter(|event| event["regarding"]["name"] == name);
    of_it
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_event_says_what_is_wrong_and_says_it_once() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let stored = server.put(broken("broken"));
    let first = Replica::start(&server, "first", plan()).await;
    until(|| !server.list(EVENTS).is_empty()).await;
    let event = server.list(EVENTS).remove(0);
    let regarding = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "broken", "namespace": "shop", "uid": stored["metadata"]["uid"]});
    assert_eq!(event["regarding"], regarding);
    assert_eq!(
        (
            &event["type"],
            &event["reason"],
            &event["reportingInstance"]
        ),
        (
            &json!("Warning"),
            &json!("BackendNotFound"),
            &json!("first")
        )
    );
    assert!(
        event["note"].as_str().unwrap().contains("shop/missing"),
        "{event}"
    );
    // Another translation, and another leader, have nothing new to say of it.
    server.put(broken("other"));
    until(|| reasons(&server, "other") == ["BackendNotFound"]).await;
    let mut second = Replica::start(&server, "second", plan()).await;
    first.stop().await;
    second.until_leader().await;
    server.put(broken("last"));
    until(|| reasons(&server, "last") == ["BackendNotFound"]).await;
    assert_eq!(server.list(EVENTS).len(), 3);
    second.stop().await;
}

#[tokio::test]
async fn a_flapping_object_is_spoken_of_once_a_minute() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut replica = Replica::start(&server, "first", plan()).await;
    for n in 0..10 {
        server.put(broken("flapping"));
        replica
            .inner
            .until(|published| !published.has("flapping.test/ ->") && published.has("flapping"))
            .await;
        if n == 0 {
            until(|| server.count(Verb::Create, EVENTS) == 1).await;
        }
        server.put(ingress("flapping", "mended.test"));
        replica.inner.until_shows("host mended.test").await;
    }
    server.put(broken("flapping"));
    replica
        .inner
        .until(|published| !published.has("mended.test"))
        .await;
    let written =
        |server: &ApiServer| server.count(Verb::Create, EVENTS) + server.count(Verb::Patch, EVENTS);
    server.put(broken("last"));
    until(|| reasons(&server, "last").len() == 1).await;
    assert_eq!(written(&server), 2, "one of each");
    // It still is broken, and a minute has passed: the same Event again.
    skip(Duration::from_secs(66)).await;
    until(|| server.count(Verb::Patch, EVENTS) == 1).await;
    let event = server
        .list(EVENTS)
        .into_iter()
        .find(|event| event["regarding"]["name"] == "flapping")
        .unwrap();
    assert_eq!(event["series"]["count"], 2);
    replica.stop().await;
}

#[tokio::test]
async fn an_event_that_was_refused_is_written_later() {
    let server = ApiServer::start().await;
    put_shop(&server);
    server.put(broken("broken"));
    server.fail(Fault {
        verb: Verb::Create,
        resource: EVENTS,
        status: 403,
        times: 1,
    });
    let replica = Replica::start(&server, "first", plan()).await;
    until(|| server.count(Verb::Create, EVENTS) == 1).await;
    assert!(server.list(EVENTS).is_empty());
    skip(Duration::from_secs(66)).await;
    until(|| reasons(&server, "broken") == ["BackendNotFound"]).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_missing_service_is_said_soon_and_forgotten_when_it_comes() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let replica = Replica::start(&server, "first", plan()).await;
    let missing = replica
        .inner
        .metrics
        .diagnostics
        .with_label_values(&["error", "BackendNotFound"]);
    let web = server.get(SERVICES, "shop", "web").unwrap();
    server.delete(SERVICES, "shop", "web");
    until(|| missing.get() == 1).await;
    server.put(web);
    until(|| missing.get() == 0).await;
    replica.stop().await;
}
