//! No request fails while endpoints roll, or while the proxy itself does.

use crate::cluster::{Cluster, ingress, ready, service, slice, terminating};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use std::net::SocketAddr;
use std::time::Duration;
use test_support::client::wait_for;
use test_support::load::Plan;
use test_support::{Backend, Load};

#[tokio::test(flavor = "multi_thread")]
async fn cluster_endpoints_and_the_proxy_roll_under_load() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let ns = "rolling";
    cluster.namespace(ns).await;
    cluster.put::<Service>(ns, service("web")).await;
    cluster
        .put::<Ingress>(
            ns,
            ingress("web", &[("web.rolling.test", "/", "Prefix", "web")]),
        )
        .await;
    let address = |n: usize| format!("10.244.128.{}", 40 + n);
    let backend = async |n: usize| {
        let addr: SocketAddr = format!("{}:8000", address(n)).parse().unwrap();
        Backend::start_at(&format!("web-{n}"), addr, Duration::from_millis(5)).await
    };
    let mut running = vec![backend(0).await, backend(1).await];
    cluster
        .put::<EndpointSlice>(
            ns,
            slice(
                "web",
                8000,
                &[(&address(0), ready()), (&address(1), ready())],
            ),
        )
        .await;
    let old = cluster
        .tidegate(
            "rolling-old",
            &["--no-update-status", "--lameduck=2s", "--drain-timeout=20s"],
        )
        .await;
    let new = cluster
        .tidegate("rolling-new", &["--no-update-status"])
        .await;
    wait_for(old.http, "web.rolling.test", "/", |answer| {
        answer.status == 200
    })
    .await;

    let plan = |addrs, limit| Plan {
        addrs,
        host: "web.rolling.test".into(),
        path: "/".into(),
        posts: true,
        clients: 32,
        rate: 500,
        limit,
    };
    let load = Load::start(plan(vec![old.http], 20_000));
    let rolls = 10;
    for roll in 0..rolls {
        // As a Deployment does it: a new pod becomes ready, an old one terminates while it still serves, then it is gone.
        let (leaving, staying, coming) = (roll, roll + 1, roll + 2);
        running.push(backend(coming).await);
        let both = [
            (&*address(leaving), terminating()),
            (&*address(staying), ready()),
            (&*address(coming), ready()),
        ];
        cluster
            .put::<EndpointSlice>(ns, slice("web", 8000, &both))
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        running[leaving].shut_down();
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster
            .put::<EndpointSlice>(ns, slice("web", 8000, &both[1..]))
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let outcome = load.stop().await;
    println!(
        "{rolls} rolls under load: {} requests, {} failed {:?}",
        outcome.total(),
        outcome.failures(),
        outcome.failed
    );
    assert_eq!(outcome.failures(), 0, "{:?}", outcome.failed);
    assert!(
        outcome.total() > 3_000,
        "{} requests are too few to tell",
        outcome.total()
    );

    // Now the proxy: clients that are asked to close find the new one, as a load balancer that follows readiness would.
    let load = Load::start(plan(vec![old.http, new.http], 20_000));
    load.reach(500).await;
    let mut old = old;
    old.terminate();
    let status = old.wait(Duration::from_secs(30)).await;
    load.reach(3_000).await;
    let outcome = load.stop().await;
    println!(
        "the proxy stopped under load ({status}): {} requests, {} failed {:?}",
        outcome.total(),
        outcome.failures(),
        outcome.failed
    );
    assert_eq!(outcome.failures(), 0, "{:?}", outcome.failed);
    assert!(status.success());
}
