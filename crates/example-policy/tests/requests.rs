//! Requests through a data plane that has the policy, and through one that has not.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use data_plane::{DataPlane, PublishError, Publisher, Settings};
use example_policy::FirstOfName;
use routing_table::policy::Balancing;
use routing_table::{
    Action, Cluster, ClusterId, ClusterSet, Discovery, Endpoint, EndpointSets, Limits, Listener,
    ListenerId, ListenerProtocol, PathMatch, Policy, RetryPolicy, Route, RouteId, RoutingTable,
    Timeouts, Update, UpstreamProtocol, VirtualHosts,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use test_support::Backend;
use test_support::client::get;

/// Everything goes to these endpoints, by the policy of this name.
fn table(policy: &str, endpoints: Vec<Endpoint>) -> Update {
    let id = ClusterId::new("test", "db", 80);
    let mut clusters = ClusterSet::default();
    let cluster = clusters.add(Cluster {
        id: id.clone(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        discovery: Discovery::Static,
        policy: Arc::new(Policy {
            balancing: Balancing::Custom(policy.into()),
            ..Policy::default()
        }),
        proxy_header: None,
    });
    let route = Route {
        id: RouteId {
            kind: "Test",
            namespace: "test".into(),
            name: "all".into(),
            rule: "1".into(),
        },
        path: PathMatch::prefix("/"),
        conditions: Default::default(),
        filters: Default::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        retry: RetryPolicy::default(),
        client_certificates: None,
        action: Action::Forward(cluster),
    };
    let listener = Listener {
        id: ListenerId::new("http"),
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        protocol: ListenerProtocol::Http,
        proxy_header: false,
        virtual_hosts: Arc::new(VirtualHosts::new(Vec::new(), Some(route))),
    };
    let table = RoutingTable::new(vec![listener], clusters).unwrap();
    Update::Table(Arc::new(table), EndpointSets::from([(id, endpoints)]))
}

fn start() -> (DataPlane, Publisher) {
    let settings = Settings {
        workers: 2,
        orders: vec![Arc::new(FirstOfName)],
        ..Settings::default()
    };
    DataPlane::start(settings, None, &prometheus::Registry::new()).unwrap()
}

/// Backends by the names of their endpoints.
async fn backends(names: &[&str]) -> (Vec<Backend>, Vec<Endpoint>) {
    let (mut backends, mut endpoints) = (Vec::new(), Vec::new());
    for name in names {
        let backend = Backend::start(name).await;
        endpoints.push(Endpoint {
            name: Some((*name).into()),
            ..Endpoint::ready(backend.addr)
        });
        backends.push(backend);
    }
    (backends, endpoints)
}

async fn shares(publisher: &Publisher) -> BTreeMap<String, u32> {
    let addr = publisher.addresses()[0].1;
    let mut shares = BTreeMap::new();
    for _ in 0..30 {
        let answer = get(addr, "a.test", "/").await.unwrap();
        *shares.entry(answer.text()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn the_first_by_name_has_everything_and_then_the_next() {
    let (mut backends, endpoints) = backends(&["c", "a", "b"]).await;
    let (_running, mut publisher) = start();
    publisher.apply(table("first_of_name", endpoints)).unwrap();
    assert_eq!(shares(&publisher).await, [("a".to_owned(), 30)].into());
    backends.remove(1);
    assert_eq!(shares(&publisher).await, [("b".to_owned(), 30)].into());
}

#[tokio::test]
async fn an_endpoint_that_is_full_helps_nobody() {
    let (_backends, mut endpoints) = backends(&["b", "a"]).await;
    let at = SocketAddr::from(([127, 0, 0, 1], 0));
    let slow = Backend::start_at("slow", at, std::time::Duration::from_millis(300)).await;
    endpoints[1].addr = slow.addr;
    endpoints[1].max_requests = Some(1);
    let (_running, mut publisher) = start();
    publisher.apply(table("first_of_name", endpoints)).unwrap();
    let addr = publisher.addresses()[0].1;
    let asked: Vec<_> = (0..3)
        .map(|_| tokio::spawn(get(addr, "a.test", "/")))
        .collect();
    let mut shares = BTreeMap::<String, u32>::new();
    for answer in asked {
        *shares
            .entry(answer.await.unwrap().unwrap().text())
            .or_default() += 1;
    }
    assert_eq!(shares, [("b".to_owned(), 2), ("slow".to_owned(), 1)].into());
}

#[tokio::test]
async fn a_name_that_nobody_added_is_an_error_and_serves_in_turn() {
    let (_backends, endpoints) = backends(&["a", "b"]).await;
    let (_running, mut publisher) = start();
    let error = publisher.apply(table("first_of_nam", endpoints));
    let Err(error @ PublishError::UnknownOrder { .. }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        error.to_string(),
        "cluster test/db:80 is balanced by \"first_of_nam\", an order that this build does not have"
    );
    let expected = [("a".to_owned(), 15), ("b".to_owned(), 15)];
    assert_eq!(shares(&publisher).await, expected.into());
}
