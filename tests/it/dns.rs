//! Endpoints from the DNS, through the whole binary: a headless Service by SRV, and a name server that goes away.

use crate::cluster::{Cluster, ingress, ready, service, slice};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use test_support::client::{Client, wait_for};
use test_support::dns::{NameServer, Reply, address, srv};
use test_support::{Backend, Tidegate};

const SRV: &str = "_http._tcp.web.shop.svc.cluster.local";

const MANIFESTS: &str = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web, namespace: shop}\nspec:\n  rules:\n  - host: a.test\n    \
     http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}\n---\n\
     apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop, annotations: {tidegate.dev/discovery: srv}}\n\
     spec: {clusterIP: None, ports: [{name: http, port: 80}]}\n";

/// What each backend got of so many requests on one connection.
async fn shares(tidegate: &Tidegate, requests: usize) -> BTreeMap<String, usize> {
    let mut client = Client::connect(tidegate.http).await.unwrap();
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = client.get("a.test", "/").await.unwrap();
        assert_eq!(answer.status, 200);
        *shares.entry(answer.text()).or_insert(0) += 1;
    }
    shares
}

fn expected(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn a_headless_service_is_found_by_srv() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let spare = Backend::start("spare").await;
    let server = NameServer::start().await;
    let record = |priority, weight, backend: &Backend| {
        srv(SRV, priority, weight, backend.addr.port(), "pod.test")
    };
    let records = vec![
        record(0, 30, &one),
        record(0, 10, &two),
        record(5, 100, &spare),
    ];
    let along = vec![address("pod.test", "127.0.0.1")];
    server.answer(
        SRV,
        "SRV".parse().unwrap(),
        Reply::Records(records, along.clone()),
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("web.yaml"), MANIFESTS).unwrap();
    let manifests = format!("--manifests={}", directory.path().display());
    let resolver = format!("--dns-resolver={}", server.addr);
    let tidegate = Tidegate::start("dns", &["serve", &manifests, &resolver, "--access-log=off"])
        .ready()
        .await;
    wait_for(tidegate.http, "a.test", "/", |answer| answer.status == 200).await;
    assert_eq!(
        shares(&tidegate, 40).await,
        expected(&[("one", 30), ("two", 10)])
    );

    // A record goes, and with it its endpoint, within the TTL of a second.
    let records = vec![record(0, 10, &two), record(5, 100, &spare)];
    server.answer(SRV, "SRV".parse().unwrap(), Reply::Records(records, along));
    let start = std::time::Instant::now();
    while shares(&tidegate, 4).await != expected(&[("two", 4)]) {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Without a name server the last answer stays in use.
    drop(server);
    while tidegate
        .metric("tidegate_dns_lookups_total{result=\"failure\"}")
        .await
        < 1.0
    {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shares(&tidegate, 10).await, expected(&[("two", 10)]));

    // An endpoint that is gone leaves its place to the next priority.
    drop(two);
    assert_eq!(shares(&tidegate, 10).await, expected(&[("spare", 10)]));
}

/// The endpoints that answer, as [`shares`] has them, once they are these.
async fn wait_for_names(tidegate: &Tidegate, host: &str, expected: &[&str]) {
    let start = std::time::Instant::now();
    loop {
        let mut client = Client::connect(tidegate.http).await.unwrap();
        let mut names = BTreeMap::new();
        for _ in 0..8 {
            let answer = client.get(host, "/").await.unwrap();
            *names.entry(answer.text()).or_insert(0) += 1;
        }
        if names.keys().eq(expected) {
            return;
        }
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(20), "{names:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// CoreDNS answers for the endpoints of a headless Service; nobody asks for slices.
#[tokio::test(flavor = "multi_thread")]
async fn cluster_a_headless_service_is_found_in_the_dns_of_a_cluster() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let (ns, host) = ("headless", "headless.test");
    cluster.namespace(ns).await;
    let at = |n: u8| format!("10.244.142.{n}:8000").parse().unwrap();
    let _one = Backend::start_at("one", at(1), Duration::ZERO).await;
    let _two = Backend::start_at("two", at(2), Duration::ZERO).await;
    let mut headless = service("web");
    headless["metadata"]["annotations"] = json!({"tidegate.dev/discovery": "srv"});
    headless["spec"]["clusterIP"] = "None".into();
    cluster.put::<Service>(ns, headless).await;
    let both = [("10.244.142.1", ready()), ("10.244.142.2", ready())];
    let put = |endpoints: Vec<(&'static str, serde_json::Value)>| {
        let slice = slice("web", 8000, &endpoints);
        cluster.put::<EndpointSlice>(ns, slice)
    };
    put(both.to_vec()).await;
    let rule = (host, "/", "Prefix", "web");
    cluster.put::<Ingress>(ns, ingress("web", &[rule])).await;

    let tidegate = cluster
        .tidegate("headless", &["--dns-resolver=127.0.0.1:53"])
        .await;
    wait_for_names(&tidegate, host, &["one", "two"]).await;
    tidegate
        .until_logged("by SRV _http._tcp.web.headless.svc.cluster.local")
        .await;
    put(both[..1].to_vec()).await;
    wait_for_names(&tidegate, host, &["one"]).await;

    // Without the DNS there is the last answer; with it again, the next.
    cluster.stop("coredns");
    put(both[1..].to_vec()).await;
    let failures = "tidegate_dns_lookups_total{result=\"failure\"}";
    let start = std::time::Instant::now();
    while tidegate.metric(failures).await < 1.0 {
        assert!(start.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for_names(&tidegate, host, &["one"]).await;
    cluster.start("coredns");
    wait_for_names(&tidegate, host, &["two"]).await;
}
