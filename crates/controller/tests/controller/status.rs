//! The addresses in the status of Ingresses: who writes them, when, and how often.

use crate::harness::{Plan, Replica, ingress, put_shop, service, skip, until};
use controller::status_writer::{Addresses, Settings};
use serde_json::{Value, json};
use std::time::Duration;
use test_support::ApiServer;
use test_support::api_server::{Fault, INGRESSES, Seen, Verb};
use tokio::time::Instant;
use translate::ObjectKey;

const STATUS: &str = "networking.k8s.io/v1/ingresses/status";

fn plan(addresses: Addresses) -> Plan {
    Plan {
        status: Some(Settings {
            addresses,
            clear_on_shutdown: false,
        }),
        elect: true,
        ..Plan::default()
    }
}

fn given() -> Plan {
    plan(Addresses::Given(vec!["192.0.2.1".into()]))
}

fn status(server: &ApiServer, name: &str) -> Value {
    server
        .get(INGRESSES, "shop", name)
        .map(|ingress| ingress["status"]["loadBalancer"]["ingress"].clone())
        .unwrap_or_default()
}

fn ours() -> Value {
    json!([{"ip": "192.0.2.1"}])
}

fn writes(server: &ApiServer) -> Vec<Seen> {
    server
        .seen()
        .into_iter()
        .filter(|seen| seen.verb == Verb::Patch && seen.resource == STATUS)
        .collect()
}

#[tokio::test]
async fn only_the_leader_writes() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut first = Replica::start(&server, "first", given()).await;
    first.until_leader().await;
    let mut second = Replica::start(&server, "second", given()).await;
    second.inner.until_shows("host web.test").await;
    server.put(ingress("other", "other.test"));
    until(|| status(&server, "web") == ours() && status(&server, "other") == ours()).await;
    first.stop().await;
    second.until_leader().await;
    server.put(ingress("last", "last.test"));
    until(|| status(&server, "last") == ours()).await;
    let writes: Vec<_> = writes(&server)
        .into_iter()
        .map(|seen| (seen.user, seen.name))
        .collect();
    let expected = [("first", "web"), ("first", "other"), ("second", "last")];
    assert_eq!(
        writes,
        expected.map(|(user, name)| (user.to_owned(), name.to_owned())),
        "each once, and nothing that was right"
    );
    second.stop().await;
}

#[tokio::test]
async fn the_address_of_the_published_service_is_followed() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut front = service("front");
    front["spec"]["type"] = json!("LoadBalancer");
    server.put(front.clone());
    let published = Plan {
        publish_service: Some(ObjectKey::new("shop", "front")),
        ..plan(Addresses::Service)
    };
    let mut replica = Replica::start(&server, "first", published).await;
    replica.until_leader().await;
    replica.inner.until_shows("host web.test").await;
    front["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
    server.put(front.clone());
    until(|| status(&server, "web") == json!([{"ip": "192.0.2.7"}])).await;
    front["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.test"}]}});
    server.put(front.clone());
    until(|| status(&server, "web") == json!([{"hostname": "lb.test"}])).await;
    // Without an address, what stands there stays.
    front["status"] = json!({"loadBalancer": {}});
    server.put(front);
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    assert_eq!(writes(&server).len(), 2);
    replica.stop().await;
}

#[tokio::test]
async fn the_address_of_the_node_is_read() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let addresses = json!([{"type": "InternalIP", "address": "10.0.0.9"}, {"type": "ExternalIP", "address": "192.0.2.9"}]);
    server.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "status": {"addresses": addresses}}));
    let replica = Replica::start(&server, "first", plan(Addresses::Node("node-1".into()))).await;
    until(|| status(&server, "web") == json!([{"ip": "192.0.2.9"}])).await;
    replica.stop().await;
}

#[tokio::test]
async fn what_is_not_ours_any_more_is_cleared_once() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let mut foreign = ingress("foreign", "foreign.test");
    foreign["spec"]["ingressClassName"] = json!("other");
    foreign["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    server.put(foreign);
    server.put(ingress("gone", "gone.test"));
    let replica = Replica::start(&server, "first", given()).await;
    until(|| status(&server, "web") == ours() && status(&server, "gone") == ours()).await;
    let mut web = server.get(INGRESSES, "shop", "web").unwrap();
    web["spec"]["ingressClassName"] = json!("other");
    server.put(web);
    server.delete(INGRESSES, "shop", "gone");
    until(|| status(&server, "web") == Value::Null).await;
    server.put(ingress("last", "last.test"));
    until(|| status(&server, "last") == ours()).await;
    assert_eq!(status(&server, "foreign"), ours(), "it was never ours");
    let names: Vec<_> = writes(&server).into_iter().map(|seen| seen.name).collect();
    assert_eq!(
        names,
        ["gone", "web", "web", "last"],
        "what was deleted was left alone"
    );
    replica.stop().await;
}

#[tokio::test]
async fn what_somebody_writes_over_is_written_again_but_not_in_a_race() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let replica = Replica::start(&server, "first", given()).await;
    until(|| status(&server, "web") == ours()).await;
    let mut web = server.get(INGRESSES, "shop", "web").unwrap();
    for n in 0..3 {
        web["status"]["loadBalancer"]["ingress"] = json!([{"ip": format!("192.0.2.{}", 100 + n)}]);
        let version = server.put(web.clone());
        let heard = |report: &Option<controller::Report>| {
            let report = report.as_ref().unwrap();
            serde_json::to_value(&report.claimed[&ObjectKey::new("shop", "web")]).unwrap()
                == version["status"]["loadBalancer"]["ingress"]
        };
        tokio::time::timeout(
            crate::harness::PATIENCE,
            replica.inner.report.clone().wait_for(heard),
        )
        .await
        .unwrap()
        .unwrap();
        assert_eq!(writes(&server).len(), 1 + n);
        skip(Duration::from_secs(20)).await;
        until(|| status(&server, "web") == ours()).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn refused_writes_are_made_once_a_second_at_most() {
    let server = ApiServer::start().await;
    put_shop(&server);
    for n in 0..50 {
        server.put(ingress(&format!("many-{n}"), "many.test"));
    }
    server.fail(Fault {
        verb: Verb::Patch,
        resource: STATUS,
        status: 403,
        times: usize::MAX,
    });
    let mut replica = Replica::start(&server, "first", given()).await;
    until(|| writes(&server).len() == 1).await;
    let start = Instant::now();
    while writes(&server).len() < 6 {
        skip(Duration::from_millis(100)).await;
    }
    assert!(
        start.elapsed() >= Duration::from_secs(4),
        "five more in {:?}",
        start.elapsed()
    );
    // Nothing else suffers.
    server.put(ingress("other", "other.test"));
    replica.inner.until_shows("host other.test").await;
    server.heal();
    skip(Duration::from_secs(2)).await;
    until(|| status(&server, "many-49") == ours()).await;
    replica.stop().await;
}

#[tokio::test]
async fn the_leader_clears_at_its_end_if_told_so() {
    let server = ApiServer::start().await;
    put_shop(&server);
    let clearing = || {
        let mut plan = given();
        plan.status
            .iter_mut()
            .for_each(|status| status.clear_on_shutdown = true);
        plan
    };
    let mut first = Replica::start(&server, "first", clearing()).await;
    first.until_leader().await;
    let mut second = Replica::start(&server, "second", clearing()).await;
    second.inner.until_shows("host web.test").await;
    until(|| status(&server, "web") == ours()).await;
    second.stop().await;
    assert_eq!(status(&server, "web"), ours(), "it was not the leader");
    first.stop().await;
    assert_eq!(status(&server, "web"), Value::Null);
}
