//! A configuration without a cluster in small things: where backends may stand, ports, names in the DNS, what is logged once,
//! how many workers there are, what kind each metric is.

use bytes::Bytes;
use http::{HeaderName, Method};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use test_support::client::{Client, get, request, wait_for};
use test_support::dns::{NameServer, address};
use test_support::process::{binary, free_port};
use test_support::{Backend, Tidegate};

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A tidegate with this configuration, and the folder that holds it.
async fn serve(name: &str, text: &str, more: &[&str]) -> (Tidegate, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    std::fs::write(&file, text).unwrap();
    let config = format!("--config={}", file.display());
    let args = [&["serve", &config, "--access-log=off"], more].concat();
    (Tidegate::start(name, &args).ready().await, directory)
}

async fn shares(addr: SocketAddr, requests: usize) -> BTreeMap<String, usize> {
    let mut client = Client::connect(addr).await.unwrap();
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = client.get("a.test", "/").await.unwrap();
        *shares.entry(answer.text()).or_insert(0) += 1;
    }
    shares
}

fn expected(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let each = shares.iter();
    each.map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// A process that is killed when the test is over.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `/backends` says of addresses and weights.
async fn known(admin: SocketAddr) -> Vec<(String, u64)> {
    let answer = get(admin, "admin", "/backends").await.unwrap();
    let all: Value = serde_json::from_slice(&answer.body).unwrap();
    let endpoints = all["clusters"][0]["endpoints"].as_array().unwrap();
    let one = |one: &Value| {
        let addr = one["addr"].as_str().unwrap().to_owned();
        (addr, one["weight"].as_u64().unwrap())
    };
    endpoints.iter().map(one).collect()
}

#[tokio::test]
async fn a_file_flags_and_variables_come_to_the_same() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    // They are shown in the order of their addresses.
    let mut same = vec![(one.addr.to_string(), 1), (two.addr.to_string(), 1)];
    same.sort();
    let equal = expected(&[("one", 5), ("two", 5)]);

    let port = free_port();
    let text = format!(
        "listeners: [{{port: {port}}}]\nroutes: [{{backend: web}}]\nbackends: {{web: {{static: ['{}', '{}']}}}}\n",
        one.addr, two.addr
    );
    let (file, _directory) = serve("same-file", &text, &[]).await;
    assert_eq!(known(file.admin).await, same);
    assert_eq!(shares(local(port), 10).await, equal);

    let flags = [&one, &two].map(|backend| format!("--backend=http://{}", backend.addr));
    let args = ["serve", &flags[0], &flags[1], "--access-log=off"];
    let flags = Tidegate::start("same-flags", &args).ready().await;
    assert_eq!(known(flags.admin).await, same);
    assert_eq!(shares(flags.http, 10).await, equal);

    let (http, admin) = (local(free_port()), local(free_port()));
    let child = Command::new(binary())
        .args(["serve", "--access-log=off"])
        .arg(format!("--http-addr={http}"))
        .arg(format!("--admin-addr={admin}"))
        .env("BACKEND_1", format!("http://{}", one.addr))
        .env("BACKEND_2", format!("http://{}", two.addr))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _variables = Killed(child.unwrap());
    wait_for(admin, "admin", "/readyz", |answer| answer.status == 200).await;
    assert_eq!(known(admin).await, same);
    assert_eq!(shares(http, 10).await, equal);
}

#[tokio::test]
async fn a_host_has_other_backends_on_another_port() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let (outer, inner) = (free_port(), free_port());
    let text = format!(
        "listeners: [{{port: {outer}, name: outer}}, {{port: {inner}, name: inner}}]\nroutes:\n\
         - {{hosts: [a.test], listeners: [outer], backend: one}}\n- {{hosts: [a.test], listeners: [inner], backend: two}}\n\
         backends: {{one: {{static: ['{}']}}, two: {{static: ['{}']}}}}\n",
        one.addr, two.addr
    );
    let (_tidegate, _directory) = serve("ports", &text, &[]).await;
    assert_eq!(shares(local(outer), 4).await, expected(&[("one", 4)]));
    assert_eq!(shares(local(inner), 4).await, expected(&[("two", 4)]));
}

/// Asked for now and then, and never for a request; one that is gone leaves all to the other.
#[tokio::test]
async fn every_address_of_a_name_has_its_share() {
    let port = free_port();
    let mut backends = Vec::new();
    for (name, ip) in [("one", [127, 0, 0, 1]), ("two", [127, 0, 0, 2])] {
        let addr = SocketAddr::from((ip, port));
        backends.push(Backend::start_at(name, addr, Duration::ZERO).await);
    }
    let server = NameServer::start().await;
    let both = vec![
        address("web.test", "127.0.0.1"),
        address("web.test", "127.0.0.2"),
    ];
    server.records("web.test", "A".parse().unwrap(), both);
    let listener = free_port();
    let text = format!(
        "listeners: [{{port: {listener}}}]\nroutes: [{{backend: web}}]\n\
         backends: {{web: {{dns: 'web.test:{port}', resolver: '{}'}}}}\n",
        server.addr
    );
    let (_tidegate, _directory) = serve("addresses", &text, &[]).await;
    wait_for(local(listener), "a.test", "/", |answer| {
        answer.status == 200
    })
    .await;
    let (start, before) = (Instant::now(), server.queries());
    assert_eq!(
        shares(local(listener), 1000).await,
        expected(&[("one", 500), ("two", 500)])
    );
    // Two questions a second at the most: the records may be kept for one.
    let asked = server.queries() - before;
    assert!(asked as f64 <= 4.0 + 4.0 * start.elapsed().as_secs_f64());
    backends[0].shut_down();
    wait_for(local(listener), "a.test", "/", |answer| {
        answer.text() == "two"
    })
    .await;
    for _ in 0..20 {
        let answer = get(local(listener), "a.test", "/").await.unwrap();
        assert_eq!(answer.text(), "two");
    }
}

fn lines(tidegate: &Tidegate, part: &str) -> Vec<String> {
    let logged = tidegate.logged();
    let all = logged.lines().filter(|line| line.contains(part));
    all.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_change_of_health_is_one_line_with_its_reason() {
    let steady = Backend::start("steady").await;
    let port = free_port();
    let text = |flaky: SocketAddr| {
        format!(
            "listeners: [{{port: {port}}}]\nroutes: [{{backend: web}}]\nbackends: {{web: {{static: ['{}', '{flaky}'], policy: \
             {{activeCheck: {{kind: tcp, interval: 50ms, unhealthyAfter: 2, healthyAfter: 2}}}}}}}}\n",
            steady.addr
        )
    };
    let flaky = local(free_port());
    let (tidegate, _directory) = serve("one-line", &text(flaky), &[]).await;
    let (out, back) = ("endpoint taken out", "endpoint brought back");
    tidegate.until_logged(out).await;
    let _up = Backend::start_at("flaky", flaky, Duration::ZERO).await;
    tidegate.until_logged(back).await;
    // Many more checks that change nothing.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let said = [lines(&tidegate, out), lines(&tidegate, back)];
    assert!(said.iter().all(|lines| lines.len() == 1), "{said:?}");
    for part in [&*flaky.to_string(), "active", "refused"] {
        assert!(said[0][0].contains(part), "{part} is not in {}", said[0][0]);
    }
}

#[tokio::test]
async fn there_are_as_many_workers_as_told() {
    let text = format!(
        "listeners: [{{port: {}}}]\nroutes: [{{respond: 204}}]\n",
        free_port()
    );
    for workers in [1, 3] {
        let flag = format!("--workers={workers}");
        let (tidegate, _directory) = serve("workers", &text, &[&flag]).await;
        let tasks = std::fs::read_dir(format!("/proc/{}/task", tidegate.pid())).unwrap();
        let names = tasks.filter_map(|task| {
            let name = task.unwrap().path().join("comm");
            std::fs::read_to_string(name).ok()
        });
        let found = names.filter(|name| name.starts_with("worker-")).count();
        assert_eq!(found, workers);
    }
}

/// Whatever is counted is a counter, and nothing else is named as one; what is counted of a service goes with it.
#[tokio::test]
async fn counters_are_counters_and_series_go_with_their_backend() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let port = free_port();
    let text = |backend: &Backend, name: &str| {
        format!(
            "listeners: [{{port: {port}}}]\nroutes: [{{name: {name}, backend: {name}}}]\nbackends: {{{name}: {{static: ['{}']}}}}\n",
            backend.addr
        )
    };
    let (tidegate, directory) = serve("kinds", &text(&one, "first"), &[]).await;
    for _ in 0..7 {
        get(local(port), "a.test", "/").await.unwrap();
    }
    let scrape = async || {
        let answer = get(tidegate.admin, "admin", "/metrics").await.unwrap();
        answer.text()
    };
    let shown = scrape().await;
    let kinds = shown.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name, kind))
    });
    let kinds: BTreeMap<_, _> = kinds.collect();
    for (name, kind) in &kinds {
        let counts = name.ends_with("_total");
        assert_eq!(counts, *kind == "counter", "{name} is a {kind}");
    }
    for name in [
        "tidegate_requests_total",
        "tidegate_request_duration_seconds",
        "tidegate_requests_active",
        "tidegate_upstream_connects_total",
        "tidegate_upstream_reused_total",
        "tidegate_upstream_connect_errors_total",
        "tidegate_upstream_retries_total",
        "tidegate_endpoints",
        "tidegate_request_body_bytes_total",
        "tidegate_response_body_bytes_total",
        "tidegate_table_generation",
        "tidegate_build_info",
    ] {
        assert!(kinds.contains_key(name), "no {name} in\n{shown}");
    }
    let of_first = |shown: &str| {
        let first = shown
            .lines()
            .filter(|line| line.contains("service=\"first\""));
        first.count()
    };
    assert!(of_first(&shown) > 0, "{shown}");
    // Seven bodies of three bytes each: `one`.
    let sent = tidegate.metric("tidegate_response_body_bytes_total").await;
    assert_eq!(sent, 21.0);
    let next = directory.path().join("next");
    std::fs::write(&next, text(&two, "second")).unwrap();
    std::fs::rename(&next, directory.path().join("tidegate.yaml")).unwrap();
    wait_for(local(port), "a.test", "/", |answer| answer.text() == "two").await;
    let start = Instant::now();
    while of_first(&scrape().await) > 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of the same backend: who is let in at one listener is not at another.
#[tokio::test]
async fn relays_let_clients_in_by_their_address() {
    let backend = Backend::start("one").await;
    let ports = [free_port(), free_port(), free_port()];
    let [open, closed, other] = ports;
    let text = format!(
        "listeners:\n- {{port: {open}, protocol: tcp, backend: one, allow: [127.0.0.0/8]}}\n\
         - {{port: {closed}, protocol: tcp, backend: one, deny: [127.0.0.1]}}\n\
         - {{port: {other}, protocol: tcp, backend: one, allow: [10.0.0.0/8]}}\n\
         backends: {{one: {{static: ['{}']}}}}\n",
        backend.addr
    );
    let (tidegate, _directory) = serve("relay-lists", &text, &[]).await;
    assert_eq!(get(local(open), "a.test", "/").await.unwrap().text(), "one");
    for port in [closed, other] {
        get(local(port), "a.test", "/").await.unwrap_err();
    }
    let forbidden = tidegate
        .metric("tidegate_tcp_connections_forbidden_total")
        .await;
    assert_eq!(forbidden, 2.0);
    assert_eq!(tidegate.metric("tidegate_tcp_connections_total").await, 3.0);
}

/// Who asks is who a trusted proxy names; what nobody believes changes nothing.
#[tokio::test]
async fn routes_ask_for_cookies_and_clients() {
    let config = "\
routes:
  - {respond: 210, cookies: [{name: beta, value: \"1\"}], clients: [10.0.0.0/8, \"2001:db8::/32\"]}
  - {respond: 211, cookies: [{name: beta, present: true}]}
  - {respond: 212, clients: [10.0.0.0/8, 127.0.0.1]}
  - {respond: 213}
";
    let listeners = |port| format!("listeners: [{{port: {port}}}]\n{config}");
    let of = async |addr, fields: &[(&str, &str)]| {
        let mut asked = request(Method::GET, "a.test", "/", Bytes::new());
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            asked.headers_mut().append(name, value.parse().unwrap());
        }
        let mut client = Client::connect(addr).await.unwrap();
        client.send(asked).await.unwrap().status.as_u16()
    };
    let port = free_port();
    let trusting = ["--trusted-proxy=127.0.0.0/8"];
    let (_tidegate, _directory) = serve("conditions", &listeners(port), &trusting).await;
    let behind = |addr: &'static str| ("x-forwarded-for", addr);
    let beta = |value: &'static str| ("cookie", value);
    for (fields, expected) in [
        (&[behind("10.1.2.3"), beta("a=b; beta=1")][..], 210),
        (&[behind("[2001:db8::7]:99"), beta("beta=1")], 210),
        (&[behind("10.1.2.3, 192.0.2.1"), beta("beta=1")], 211),
        (&[behind("10.1.2.3"), beta("beta=2")], 211),
        (&[behind("10.1.2.3"), beta("alphabeta=1")], 212),
        (&[behind("192.0.2.1")], 213),
        (&[beta("beta=1")], 211),
        (&[], 212),
    ] {
        assert_eq!(of(local(port), fields).await, expected, "{fields:?}");
    }
    let port = free_port();
    let (_tidegate, _directory) = serve("conditions-alone", &listeners(port), &[]).await;
    let claims = [behind("10.1.2.3"), beta("beta=1")];
    assert_eq!(of(local(port), &claims).await, 211);
}

#[tokio::test]
async fn lines_of_the_access_log_may_be_text_and_a_metric_says_what_was_built() {
    let backend = Backend::start("one").await;
    let port = free_port();
    let text = format!(
        "listeners: [{{port: {port}}}]\nroutes: [{{name: web, backend: b}}]\nbackends: {{b: {{static: ['{}']}}}}\n",
        backend.addr
    );
    let directory = tempfile::tempdir().unwrap();
    let (file, log) = (
        directory.path().join("tidegate.yaml"),
        directory.path().join("access.log"),
    );
    std::fs::write(&file, text).unwrap();
    let args = [
        "serve".to_owned(),
        format!("--config={}", file.display()),
        format!("--access-log={}", log.display()),
        "--access-log-format=text".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let tidegate = Tidegate::start("text-log", &args).ready().await;
    let answer = get(local(port), "a.test", "/x?y=1").await.unwrap();
    assert_eq!(answer.status, 200);
    let start = Instant::now();
    let line = loop {
        let line = std::fs::read_to_string(&log).unwrap_or_default();
        if line.ends_with('\n') {
            break line;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    println!("{line}");
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let said = "] \"GET /x?y=1 HTTP/1.1\" 200 ";
    assert!(line.contains(said), "{line}");
    let said = format!(
        " route=\"standalone/web\" upstream={} attempts=1 ",
        backend.addr
    );
    assert!(line.contains(&said), "{line}");

    let metrics = get(tidegate.admin, "admin", "/metrics")
        .await
        .unwrap()
        .text();
    let info = metrics
        .lines()
        .find(|line| line.starts_with("tidegate_build_info{"));
    let info = info.unwrap_or_else(|| panic!("no tidegate_build_info in\n{metrics}"));
    println!("{info}");
    assert!(info.ends_with("} 1"), "{info}");
    for label in ["commit=\"", "rustc=\"1.", "version=\"0."] {
        assert!(info.contains(label), "{info}");
    }
}

/// When it comes up, and in `check`; not again for as long as it stays.
#[tokio::test]
async fn endpoints_that_prove_nothing_are_warned_of_once() {
    let port = free_port();
    let text = |more: &str| {
        format!(
            "listeners: [{{port: {port}}}]\nroutes: [{{backend: web}}{more}]\n\
             backends: {{web: {{static: ['127.0.0.1:1'], tls: {{serverName: a.test, verify: false}}}}}}\n"
        )
    };
    let (tidegate, directory) = serve("unverified", &text(""), &[]).await;
    let file = directory.path().join("tidegate.yaml");
    let new = directory.path().join("new");
    std::fs::write(&new, text(", {path: {exact: /x}, respond: 404}")).unwrap();
    std::fs::rename(&new, &file).unwrap();
    wait_for(local(port), "a.test", "/x", |answer| answer.status == 404).await;
    let warning = "backends.web.tls.verify: endpoints do not prove who they are";
    let logged = tidegate.until_logged(warning).await;
    assert_eq!(logged.matches(warning).count(), 1);
    let check = Command::new(binary())
        .arg("check")
        .arg(&file)
        .output()
        .unwrap();
    assert!(check.status.success());
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert!(said.contains("warning: "), "{said}");
}
