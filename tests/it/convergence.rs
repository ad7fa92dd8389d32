//! How soon a change is served, with 1,000 other Ingresses present. The figures are printed; the bounds are the promise.

use crate::cluster::{Cluster, ingress, ready, service, slice};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::wait_for;

const OTHERS: usize = 1000;
const SAMPLES: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn cluster_changes_are_served_soon() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let ns = "convergence";
    cluster.namespace(ns).await;
    let first = Backend::start_at(
        "first",
        "10.244.128.20:8000".parse().unwrap(),
        Duration::ZERO,
    )
    .await;
    let second = Backend::start_at(
        "second",
        "10.244.128.21:8000".parse().unwrap(),
        Duration::ZERO,
    )
    .await;
    cluster.put::<Service>(ns, service("web")).await;
    cluster
        .put::<EndpointSlice>(ns, slice("web", 8000, &[("10.244.128.20", ready())]))
        .await;
    let created = Instant::now();
    for n in 0..OTHERS {
        cluster
            .put::<Ingress>(
                ns,
                ingress(
                    &format!("other-{n}"),
                    &[(&format!("o{n}.convergence.test"), "/", "Prefix", "web")],
                ),
            )
            .await;
    }
    println!("{OTHERS} Ingresses written in {:?}", created.elapsed());
    let tidegate = cluster
        .tidegate("convergence", &["--no-update-status"])
        .await;
    wait_for(
        tidegate.http,
        &format!("o{}.convergence.test", OTHERS - 1),
        "/",
        |answer| answer.text() == "first",
    )
    .await;

    let mut new_ingress = Vec::new();
    for n in 0..SAMPLES {
        let host = format!("n{n}.convergence.test");
        let object = ingress(&format!("new-{n}"), &[(&host, "/", "Prefix", "web")]);
        cluster.put::<Ingress>(ns, object).await;
        let written = Instant::now();
        wait_for(tidegate.http, &host, "/", |answer| answer.text() == "first").await;
        new_ingress.push(written.elapsed());
    }
    let mut endpoints = Vec::new();
    for n in 0..SAMPLES {
        let (address, name) = if n % 2 == 0 {
            ("10.244.128.21", "second")
        } else {
            ("10.244.128.20", "first")
        };
        cluster
            .put::<EndpointSlice>(ns, slice("web", 8000, &[(address, ready())]))
            .await;
        let written = Instant::now();
        wait_for(tidegate.http, "o0.convergence.test", "/", |answer| {
            answer.text() == name
        })
        .await;
        endpoints.push(written.elapsed());
    }
    let (p50, p99) = percentiles(&mut new_ingress);
    println!("new Ingress served after the write: p50 {p50:?}, p99 {p99:?} of {SAMPLES}");
    assert!(
        p99 <= Duration::from_secs(1),
        "a new Ingress is served within 1 s"
    );
    let (p50, p99) = percentiles(&mut endpoints);
    println!("changed EndpointSlice served after the write: p50 {p50:?}, p99 {p99:?} of {SAMPLES}");
    assert!(
        p99 <= Duration::from_millis(500),
        "an endpoint change is served within 500 ms"
    );
    let fast = tidegate.metric("tidegate_endpoint_updates_total").await;
    assert!(
        fast >= SAMPLES as f64,
        "endpoint changes take their own path ({fast} of {SAMPLES})"
    );
    assert!(first.requests() > 0 && second.requests() > 0);
    cluster.kubectl(&[
        "delete",
        "ingress",
        "--all",
        "--namespace",
        ns,
        "--wait=false",
    ]);
}

fn percentiles(samples: &mut [Duration]) -> (Duration, Duration) {
    samples.sort();
    (
        samples[samples.len() / 2],
        samples[samples.len() * 99 / 100],
    )
}
