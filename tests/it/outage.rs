//! The data plane lives without the control plane.

use crate::cluster::{Cluster, ingress, ready, service, slice};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::client::{get, wait_for};
use test_support::load::Plan;
use test_support::{Backend, Load};

#[tokio::test(flavor = "multi_thread")]
async fn cluster_the_api_server_is_killed_for_a_minute() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let ns = "outage";
    cluster.namespace(ns).await;
    let web = Backend::start_at("web", "10.244.128.30:8000".parse().unwrap(), Duration::ZERO).await;
    cluster.put::<Service>(ns, service("web")).await;
    cluster
        .put::<EndpointSlice>(ns, slice("web", 8000, &[("10.244.128.30", ready())]))
        .await;
    cluster
        .put::<Ingress>(
            ns,
            ingress("web", &[("web.outage.test", "/", "Prefix", "web")]),
        )
        .await;
    let tidegate = cluster.tidegate("outage", &["--no-update-status"]).await;
    wait_for(tidegate.http, "web.outage.test", "/", |answer| {
        answer.status == 200
    })
    .await;

    let plan = Plan {
        addrs: vec![tidegate.http],
        host: "web.outage.test".into(),
        path: "/".into(),
        posts: true,
        clients: 16,
        rate: 166,
        limit: 10_000,
    };
    let killed = Instant::now();
    cluster.stop("apiserver");
    let load = Load::start(plan);
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(killed.elapsed())).await;
    assert_eq!(
        get(tidegate.admin, "admin", "/readyz")
            .await
            .unwrap()
            .status,
        200,
        "it stays ready"
    );
    cluster.start("apiserver");
    let outcome = load.finish().await;
    println!(
        "API server down for 60 s: {} requests, {} failed {:?}",
        outcome.total(),
        outcome.failures(),
        outcome.failed
    );
    assert_eq!((outcome.total(), outcome.failures()), (10_000, 0));

    // A change made as soon as the API server answers again.
    let back = Instant::now();
    while !Command::new("kubectl")
        .args(["get", "--raw", "/readyz"])
        .output()
        .unwrap()
        .status
        .success()
    {
        assert!(
            back.elapsed() < Duration::from_secs(60),
            "the API server does not come back"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster
        .put::<Ingress>(
            ns,
            ingress("late", &[("late.outage.test", "/", "Prefix", "web")]),
        )
        .await;
    let written = Instant::now();
    wait_for(tidegate.http, "late.outage.test", "/", |answer| {
        answer.status == 200
    })
    .await;
    println!(
        "a change made after its return is live after {:?}",
        written.elapsed()
    );
    assert!(
        written.elapsed() <= Duration::from_secs(5),
        "changes are live within 5 s of the write"
    );
    assert!(web.requests() >= 10_000);
}
