//! `/backends` of the admin port: it shows what requests meet, and changes it without a failed one. Checks through the whole
//! binary, also while it is stopped.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::client::{Answer, Client, get, request, wait_for};
use test_support::load::{Load, Plan};
use test_support::process::free_port;
use test_support::{Backend, Tidegate};

fn manifests(hosts: &[&str], endpoints: &[SocketAddr]) -> String {
    let mut text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"
            .to_owned();
    for (n, host) in hosts.iter().enumerate() {
        text += &format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web-{n}}}\nspec:\n  rules:\n  - host: {host}\n    \
             http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n"
        );
    }
    for (n, addr) in endpoints.iter().enumerate() {
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{n}, labels: \
             {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n",
            addr.port(),
            addr.ip()
        );
    }
    text
}

async fn serve(name: &str, directory: &Path, more: &[&str]) -> Tidegate {
    let path = format!("--manifests={}", directory.display());
    let args = [&["serve", &path, "--access-log=off"], more].concat();
    Tidegate::start(name, &args).ready().await
}

/// The one cluster there is.
async fn cluster(tidegate: &Tidegate) -> Value {
    let answer = get(tidegate.admin, "admin", "/backends").await.unwrap();
    assert_eq!(answer.headers["content-type"], "application/json");
    let mut all: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(all["clusters"].as_array().unwrap().len(), 1, "{all}");
    all["clusters"][0].take()
}

async fn endpoint(tidegate: &Tidegate, addr: SocketAddr) -> Value {
    let cluster = cluster(tidegate).await;
    let endpoints = cluster["endpoints"].as_array().unwrap();
    let one = endpoints.iter().find(|one| one["addr"] == addr.to_string());
    one.unwrap_or_else(|| panic!("{addr} is not in {cluster}"))
        .clone()
}

async fn post(tidegate: &Tidegate, place: &str, body: impl Into<Bytes>) -> Answer {
    let path = format!("/backends/{place}");
    let mut client = Client::connect(tidegate.admin).await.unwrap();
    let asked = request(Method::POST, "admin", &path, body.into());
    client.send(asked).await.unwrap()
}

async fn who_answers(tidegate: &Tidegate) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for _ in 0..8 {
        names.insert(get(tidegate.http, "a.test", "/").await.unwrap().text());
    }
    names
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn endpoints_are_shown_as_requests_meet_them_and_not_changed_without_leave() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let file = directory.path().join("web.yaml");
    std::fs::write(&file, manifests(&["a.test"], &[one.addr, two.addr])).unwrap();
    let tidegate = serve("backends", directory.path(), &[]).await;
    let shown = cluster(&tidegate).await;
    assert_eq!(shown["name"], "default/web:80");
    assert_eq!(shown["balancing"], "round_robin");
    assert_eq!(shown["ignores_health"], false);
    let usual = json!({
        "addr": one.addr.to_string(),
        "name": null,
        "state": "available",
        "gets_requests": true,
        "reasons": [],
        "weight": 1,
        "effective_weight": 1.0,
        "weight_percent": 100,
        "agent_weight_percent": 100,
        "priority": 0,
        "in_flight": 0,
        "max_requests": null,
        "latency_ms": null,
        "last_check": null,
        "last_agent_check": null,
    });
    assert_eq!(endpoint(&tidegate, one.addr).await, usual);
    assert_eq!(who_answers(&tidegate).await, names(&["one", "two"]));
    assert_eq!(tidegate.metric("tidegate_endpoints").await, 2.0);

    let place = format!("default/web:80/{}", one.addr);
    let refused = post(&tidegate, &place, r#"{"drain": true}"#).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("--admin-writes"),
        "{}",
        refused.text()
    );
    assert_eq!(endpoint(&tidegate, one.addr).await["state"], "available");

    // An endpoint that dies is shown so while requests avoid it.
    one.shut_down();
    let start = Instant::now();
    loop {
        assert_eq!(
            get(tidegate.http, "a.test", "/").await.unwrap().text(),
            "two"
        );
        let shown = endpoint(&tidegate, one.addr).await;
        // The reason is written down before those who get requests are chosen anew.
        if shown["state"] == "out" && shown["gets_requests"] == false {
            assert_eq!(shown["reasons"][0]["check"], "connect");
            assert_eq!(shown["effective_weight"], 0.0);
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{shown}");
    }
}

#[tokio::test]
async fn an_operator_drains_an_endpoint_without_a_failed_request() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let file = directory.path().join("web.yaml");
    std::fs::write(&file, manifests(&["a.test"], &[one.addr, two.addr])).unwrap();
    let tidegate = serve("operator", directory.path(), &["--admin-writes"]).await;
    let place = format!("default/web:80/{}", one.addr);
    let load = Load::start(Plan {
        addrs: vec![tidegate.http],
        host: "a.test".into(),
        path: "/".into(),
        posts: true,
        clients: 4,
        rate: 200,
        limit: 100_000,
    });
    for _ in 0..20 {
        let answer = post(&tidegate, &place, r#"{"drain": true}"#).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let shown: Value = serde_json::from_slice(&answer.body).unwrap();
        let shown = &shown["clusters"][0]["endpoints"];
        assert_eq!(shown.as_array().unwrap().len(), 1);
        assert_eq!(shown[0]["state"], "draining");
        assert_eq!(shown[0]["reasons"][0]["check"], "operator");
        assert_eq!(who_answers(&tidegate).await, names(&["two"]));
        let back = post(
            &tidegate,
            &place,
            r#"{"drain": false, "weight_percent": 50}"#,
        )
        .await;
        assert_eq!(back.status, 200, "{}", back.text());
        assert_eq!(who_answers(&tidegate).await, names(&["one", "two"]));
    }
    let outcome = load.stop().await;
    assert_eq!(outcome.failures(), 0, "{:?}", outcome.failed);
    assert!(outcome.total() > 0);
    assert_eq!(endpoint(&tidegate, one.addr).await["effective_weight"], 0.5);

    // A table more, and an endpoint more: what was wanted holds.
    let wanted = r#"{"drain": true, "max_requests": 3}"#;
    assert_eq!(post(&tidegate, &place, wanted).await.status, 200);
    let three = Backend::start("three").await;
    let more = manifests(&["a.test", "b.test"], &[one.addr, two.addr, three.addr]);
    // In one step: a file that is read while it is written has fewer endpoints, and what is wanted of one goes with it.
    let next = directory.path().join("next");
    std::fs::write(&next, more).unwrap();
    std::fs::rename(&next, &file).unwrap();
    wait_for(tidegate.http, "b.test", "/", |answer| {
        answer.text() == "three"
    })
    .await;
    let shown = endpoint(&tidegate, one.addr).await;
    assert_eq!(
        (&shown["state"], &shown["max_requests"]),
        (&json!("draining"), &json!(3))
    );
    assert_eq!(shown["weight_percent"], 50);
    assert_eq!(who_answers(&tidegate).await, names(&["two", "three"]));

    let unknown = format!("default/web:81/{}", one.addr);
    for (place, body, status, said) in [
        (&*place, r#"{"drains": true}"#, 400, "no field"),
        (&*place, "drain", 400, "not JSON"),
        (&*place, r#"{"weight_percent": 101}"#, 400, "0 to 100"),
        (
            &*unknown,
            r#"{"drain": true}"#,
            404,
            "no route leads to the service default/web:81",
        ),
        (
            "default/web:80/127.0.0.1:1",
            r#"{"drain": true}"#,
            404,
            "127.0.0.1:1 is no endpoint",
        ),
        (
            "default/web",
            r#"{"drain": true}"#,
            404,
            "/backends/<namespace>",
        ),
    ] {
        let answer = post(&tidegate, place, body).await;
        assert_eq!(answer.status, status, "{place} {body}");
        assert!(answer.text().contains(said), "{}", answer.text());
    }
    let most = 64 * 1024;
    for (length, status) in [(most, 400), (most + 1, 413)] {
        assert_eq!(
            post(&tidegate, &place, vec![b' '; length]).await.status,
            status
        );
    }
    let mut client = Client::connect(tidegate.admin).await.unwrap();
    let path = format!("/backends/{place}");
    let mut page = request(
        Method::POST,
        "admin",
        &path,
        Bytes::from_static(b"{\"drain\": true}"),
    );
    page.headers_mut()
        .insert("origin", "http://evil.test".parse().unwrap());
    assert_eq!(client.send(page).await.unwrap().status, 403);
}

fn signal(tidegate: &Tidegate, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.arg(name).arg(tidegate.pid().to_string()).status();
    assert!(status.unwrap().success());
}

async fn more_probes(tidegate: &Tidegate, count: f64) {
    let probes = "tidegate_health_probes_total";
    let (start, before) = (Instant::now(), tidegate.metric(probes).await);
    while tidegate.metric(probes).await < before + count {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn endpoints_are_probed_and_a_stopped_process_takes_nobody_out() {
    let (mut backends, port) = (Vec::new(), free_port());
    // They take a while to answer, so that most have a probe in progress when it is stopped.
    let (any, slow) = (([127, 0, 0, 1], 0).into(), Duration::from_millis(60));
    for n in 0..10 {
        backends.push(Backend::start_at(&format!("b{n}"), any, slow).await);
    }
    let addrs = backends.iter().map(|backend| format!("'{}'", backend.addr));
    let addrs: Vec<_> = addrs.collect();
    let text = format!(
        "listeners: [{{port: {port}}}]\nroutes: [{{backend: web}}]\nbackends: {{web: {{static: [{}], policy: \
         {{activeCheck: {{path: /healthz, interval: 50ms, timeout: 2s, unhealthyAfter: 1}}}}}}}}\n",
        addrs.join(", ")
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    std::fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let args = ["serve", &config, "--access-log=off"];
    let tidegate = Tidegate::start("stopped", &args).ready().await;
    more_probes(&tidegate, 50.0).await;
    signal(&tidegate, "-STOP");
    // What is tested: longer than every timeout.
    tokio::time::sleep(Duration::from_secs(5)).await;
    signal(&tidegate, "-CONT");
    more_probes(&tidegate, 100.0).await;
    let out = "tidegate_endpoint_transitions_total{check=\"active\",to=\"out\"}";
    assert_eq!(tidegate.metric(out).await, 0.0, "{}", tidegate.logged());

    let gone = &backends[3];
    assert_eq!(
        endpoint(&tidegate, gone.addr).await["last_check"]["result"],
        "pass"
    );
    gone.shut_down();
    let start = Instant::now();
    let shown = loop {
        let shown = endpoint(&tidegate, gone.addr).await;
        // The reason is written down before those who get requests are chosen anew.
        if shown["state"] == "out" && shown["gets_requests"] == false {
            break shown;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{shown}");
    };
    assert_eq!(shown["reasons"][0]["check"], "active");
    assert_eq!(shown["last_check"]["kind"], "http");
    tidegate.until_logged("endpoint taken out").await;
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..20 {
        assert_eq!(get(here, "a.test", "/").await.unwrap().status, 200);
    }
}
