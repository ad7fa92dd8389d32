//! The main job on a real API server: an Ingress becomes traffic, its status says where, and deleting it ends it.

use crate::cluster::{Cluster, ingress, ready, service, slice};
use crate::tls::https_get;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::json;
use std::time::{Duration, Instant};
use test_support::client::{get, wait_for};
use test_support::{Backend, certificate};

#[tokio::test(flavor = "multi_thread")]
async fn cluster_an_ingress_becomes_traffic() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let ns = "main-job";
    cluster.namespace(ns).await;
    let web = Backend::start_at("web", "10.244.128.10:8000".parse().unwrap(), Duration::ZERO).await;
    let api = Backend::start_at("api", "10.244.128.11:8000".parse().unwrap(), Duration::ZERO).await;
    for (name, address) in [("web", "10.244.128.10"), ("api", "10.244.128.11")] {
        cluster.put::<Service>(ns, service(name)).await;
        cluster
            .put::<EndpointSlice>(ns, slice(name, 8000, &[(address, ready())]))
            .await;
    }
    let (pem, key) = certificate::self_signed(&["shop.main-job.test"]);
    cluster
        .put::<Secret>(ns, json!({"metadata": {"name": "tls"}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": pem, "tls.key": key}}))
        .await;
    let mut wanted = ingress(
        "shop",
        &[
            ("shop.main-job.test", "/", "Prefix", "web"),
            ("shop.main-job.test", "/exact", "Exact", "api"),
            ("api.main-job.test", "/v1", "Prefix", "api"),
        ],
    );
    wanted["spec"]["tls"] = json!([{"hosts": ["shop.main-job.test"], "secretName": "tls"}]);
    // It is asked both ways.
    wanted["metadata"]["annotations"] = json!({"tidegate.dev/ssl-redirect": "false"});
    cluster.put::<Ingress>(ns, wanted).await;

    let tidegate = cluster
        .tidegate(
            "main-job-a",
            &[
                "--publish-address=192.0.2.1",
                "--clear-status-on-shutdown",
                "--lameduck=0s",
            ],
        )
        .await;
    let other = cluster
        .tidegate("main-job-b", &["--publish-address=192.0.2.2"])
        .await;
    for (host, path, status, body) in [
        ("shop.main-job.test", "/", 200, "web"),
        ("shop.main-job.test", "/exact", 200, "api"),
        ("shop.main-job.test", "/exact/below", 200, "web"),
        ("api.main-job.test", "/v1/things", 200, "api"),
        ("api.main-job.test", "/v2", 404, "404 Not Found\n"),
        ("nobody.main-job.test", "/", 404, "404 Not Found\n"),
    ] {
        for replica in [&tidegate, &other] {
            let answer = get(replica.http, host, path).await.unwrap();
            assert_eq!(
                (answer.status.as_u16(), answer.text().as_str()),
                (status, body),
                "{host}{path}"
            );
        }
    }
    for (alpn, version) in [("h2", "HTTP/2"), ("http/1.1", "HTTP/1.1")] {
        let (answer, names, negotiated) =
            https_get(tidegate.https, "shop.main-job.test", "/", alpn).await;
        assert_eq!(
            (answer.as_str(), negotiated.as_str()),
            ("web", alpn),
            "over {version}"
        );
        assert!(names.contains("shop.main-job.test"), "{names}");
    }
    let (_, names, _) = https_get(tidegate.https, "nobody.main-job.test", "/", "http/1.1").await;
    assert!(
        names.contains("tidegate.invalid"),
        "an unknown name gets the default certificate, not a tenant's: {names}"
    );

    // One of the two holds the lease, and only it writes.
    let status = eventually("a status address", async || {
        Some(cluster.status(ns, "shop").await).filter(|s| !s.is_empty())
    })
    .await;
    let (leader, follower) = match status[0].as_str() {
        "192.0.2.1" => (&tidegate, &other),
        _ => (&other, &tidegate),
    };
    assert_eq!(
        (
            leader.metric("tidegate_leader").await,
            follower.metric("tidegate_leader").await
        ),
        (1.0, 0.0)
    );
    assert_eq!(
        follower.metric("tidegate_status_writes_total").await,
        0.0,
        "the other replica does not write"
    );
    println!("status address {status:?}, written by the leader only");

    // The leader goes; the other takes over at once and puts its own address there.
    let successor = if leader.pid() == tidegate.pid() {
        "192.0.2.2"
    } else {
        "192.0.2.1"
    };
    leader.terminate();
    let from = Instant::now();
    eventually("the successor's address", async || {
        (cluster.status(ns, "shop").await == [successor]).then_some(())
    })
    .await;
    println!(
        "the other replica wrote its address {:?} after the leader's SIGTERM",
        from.elapsed()
    );

    cluster.delete::<Ingress>(ns, "shop").await;
    let deleted = Instant::now();
    wait_for(follower.http, "shop.main-job.test", "/", |answer| {
        answer.status == 404
    })
    .await;
    println!("404 {:?} after the Ingress was deleted", deleted.elapsed());
    assert!(web.requests() > 0 && api.requests() > 0);
}

/// Asks again and again until there is an answer; panics after 30 s.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "still no {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
