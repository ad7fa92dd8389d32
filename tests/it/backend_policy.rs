//! `BackendPolicy` on a real API server: what it refuses, what a policy does, what its status says, and life without the kind.

use crate::cluster::{Cluster, ingress, ready, service, slice};
use api::BackendPolicy;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::{Client, wait_for};

/// Which backends answer requests of one user.
async fn seen(http: SocketAddr, host: &str) -> BTreeSet<String> {
    let mut client = Client::connect(http).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        let answer = client.get(host, "/?user=7").await.unwrap();
        assert_eq!(answer.status, 200);
        seen.insert(answer.text());
    }
    seen
}

/// Waits until so many backends answer one user.
async fn wait_for_spread(http: SocketAddr, host: &str, backends: usize, within: Duration) {
    let start = Instant::now();
    loop {
        let seen = seen(http, host).await;
        if seen.len() == backends {
            return;
        }
        assert!(start.elapsed() < within, "{backends} wanted, {seen:?} seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for the condition of a policy: status, reason and the generation it is of.
async fn wait_for_condition(api: &Api<BackendPolicy>, name: &str, expected: (&str, &str, i64)) {
    let start = Instant::now();
    loop {
        let policy = api.get(name).await.unwrap();
        let conditions = policy.status.unwrap_or_default().conditions;
        let found: Vec<_> = conditions
            .iter()
            .map(|one| {
                let generation = one.observed_generation.unwrap_or_default();
                (one.status.as_str(), one.reason.as_str(), generation)
            })
            .collect();
        if found == [expected] {
            return;
        }
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(20), "{name}: {conditions:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Two backends behind `web`, which answers at this host.
async fn two_backends(cluster: &Cluster, ns: &str, host: &str, octet: u8) -> [Backend; 2] {
    cluster.namespace(ns).await;
    let addresses = [1, 2].map(|n| format!("10.244.{octet}.{n}"));
    let at = |n: usize| format!("{}:8000", addresses[n]).parse().unwrap();
    let one = Backend::start_at("one", at(0), Duration::ZERO).await;
    let two = Backend::start_at("two", at(1), Duration::ZERO).await;
    cluster.put::<Service>(ns, service("web")).await;
    let both = [(&*addresses[0], ready()), (&*addresses[1], ready())];
    cluster
        .put::<EndpointSlice>(ns, slice("web", 8000, &both))
        .await;
    cluster
        .put::<Ingress>(ns, ingress("web", &[(host, "/", "Prefix", "web")]))
        .await;
    [one, two]
}

fn sticky(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"targetRefs": [{"name": "web"}], "hashBy": "query:user"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_a_backend_policy_decides_and_says_so() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let (ns, host) = ("backend-policy", "backend-policy.test");
    let _backends = two_backends(&cluster, ns, host, 140).await;
    let tidegate = cluster.tidegate("policies", &[]).await;
    wait_for(tidegate.http, host, "/", |answer| answer.status == 200).await;
    assert_eq!(seen(tidegate.http, host).await.len(), 2);

    let policies: Api<BackendPolicy> = Api::namespaced(cluster.client.clone(), ns);
    cluster.put::<BackendPolicy>(ns, sticky("web")).await;
    wait_for_spread(tidegate.http, host, 1, Duration::from_secs(5)).await;
    wait_for_condition(&policies, "web", ("True", "Accepted", 1)).await;

    // A change is told of with its generation; a second policy for the same Service has no effect and says why.
    let mut changed = sticky("web");
    changed["spec"]["subset"] = 2.into();
    cluster.put::<BackendPolicy>(ns, changed).await;
    wait_for_condition(&policies, "web", ("True", "Accepted", 2)).await;
    let second = json!({"metadata": {"name": "young"}, "spec": {"targetRefs": [{"name": "web"}], "balancing": "random"}});
    cluster.put::<BackendPolicy>(ns, second).await;
    wait_for_condition(&policies, "young", ("False", "Conflicted", 1)).await;
    let table = cluster.kubectl(&["get", "backendpolicies", "--namespace", ns]);
    assert!(
        table.contains("Conflicted") && table.contains("ACCEPTED"),
        "{table}"
    );
    assert_eq!(seen(tidegate.http, host).await.len(), 1);

    cluster.delete::<BackendPolicy>(ns, "young").await;
    cluster.delete::<BackendPolicy>(ns, "web").await;
    wait_for_spread(tidegate.http, host, 2, Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_an_api_server_refuses_what_does_not_go_together() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let ns = "backend-policy-refused";
    cluster.namespace(ns).await;
    let api: Api<BackendPolicy> = Api::namespaced(cluster.client.clone(), ns);
    let target = json!([{"group": "", "kind": "Service", "name": "web"}]);
    for (fields, reason) in [
        (json!({"balancing": "best"}), "Unsupported value"),
        (json!({"subset": 0}), "should be greater than or equal to 1"),
        (json!({"slowStart": "soon"}), "should match"),
        (
            json!({"balancing": "maglev"}),
            "ring_hash and maglev need hashBy",
        ),
        (
            json!({"balancing": "random", "hashBy": "path"}),
            "hashBy is for",
        ),
        (json!({"cost": {"base": 2}}), "cost is for balancing cost"),
        (json!({"maxQueue": 2}), "need maxInFlight"),
        (
            json!({"balancing": "cost", "cost": {"base": 2, "header": "x"}}),
            "are for costs by length",
        ),
        (
            json!({"activeCheck": {"kind": "tcp", "path": "/"}}),
            "are for kind http",
        ),
        (
            json!({"activeCheck": {"method": "GET"}}),
            "are for kind http",
        ),
        (json!({"activeCheck": {"service": "a"}}), "is for kind grpc"),
        (json!({"activeCheck": {"send": "a"}}), "are for kind bytes"),
        (json!({"agentCheck": {"send": "a"}}), "port is needed"),
        (
            json!({"circuitBreaker": {"open": "1s"}}),
            "latency or errorRatio",
        ),
        (
            json!({"targetRefs": [{"group": "apps", "kind": "Deployment", "name": "web"}]}),
            "only a Service can be a target",
        ),
        (
            json!({"targetRefs": [{"name": "web"}, {"name": "web"}]}),
            "each target may be named once",
        ),
        (json!({"targetRefs": []}), "at least 1 item"),
    ] {
        let mut spec = json!({ "targetRefs": target });
        for (name, value) in fields.as_object().unwrap() {
            spec[name] = value.clone();
        }
        // What the API server refuses, we would not take either; but for the rules of targets, which files have no need of.
        let ours = api::BackendPolicySpec::read(&spec);
        assert!(ours.is_err() || reason.contains("named once"), "{spec}");
        let object = json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": "BackendPolicy",
            "metadata": {"name": "bad"}, "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        let refused = api.patch("bad", &params, &Patch::Apply(object)).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(reason), "{fields}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_life_goes_on_without_the_kind() {
    let Some(cluster) = Cluster::enter().await else {
        return;
    };
    let (ns, host) = ("backend-policy-none", "backend-policy-none.test");
    let _backends = two_backends(&cluster, ns, host, 141).await;
    cluster.kubectl(&["delete", "crd", "backendpolicies.tidegate.dev"]);
    let tidegate = cluster.tidegate("kindless", &[]).await;
    wait_for(tidegate.http, host, "/", |answer| answer.status == 200).await;
    let said = "kind cannot be read: taken for empty until it can";
    tidegate.until_logged(said).await;

    let definition = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/backendpolicies.yaml");
    cluster.kubectl(&["apply", "--server-side", "-f", definition]);
    let established = "condition=Established";
    cluster.kubectl(&[
        "wait",
        "--for",
        established,
        "--timeout=30s",
        "-f",
        definition,
    ]);
    cluster.put::<BackendPolicy>(ns, sticky("web")).await;
    wait_for_spread(tidegate.http, host, 1, Duration::from_secs(45)).await;
}
