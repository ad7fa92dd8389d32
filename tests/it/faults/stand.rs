//! A tidegate that serves one file, and what its admin port says of the endpoints.

use super::process::{BackendProcess, own_ip, signal};
use super::traffic::{Plan, Traffic};
use serde_json::Value;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use test_support::Tidegate;
use test_support::client::{Client, get, request};

const PORT: u16 = 8080;

/// Requests to this host go to the cluster `web`.
pub(super) const WEB: &str = "web.test";

/// A file of one listener; each cluster has a host, `NAME.test`.
#[derive(Default)]
pub(super) struct Clusters {
    routes: String,
    backends: String,
}

impl Clusters {
    /// One cluster, with fields of its route and of its policy.
    pub(super) fn new(route: &str, policy: &str, endpoints: &[String]) -> Self {
        Self::default().and("web", route, policy, endpoints)
    }

    /// One more.
    pub(super) fn and(
        mut self,
        name: &str,
        route: &str,
        policy: &str,
        endpoints: &[String],
    ) -> Self {
        let comma = if route.is_empty() { "" } else { ", " };
        let _ = writeln!(
            self.routes,
            "- {{hosts: [{name}.test], backend: {name}{comma}{route}}}"
        );
        let _ = writeln!(
            self.backends,
            "  {name}: {{policy: {{{policy}}}, static: {endpoints:?}}}"
        );
        self
    }
}

/// Where backends are.
pub(super) fn at(backends: &[BackendProcess]) -> Vec<String> {
    let addrs = backends.iter().map(|backend| backend.addr.to_string());
    addrs.collect()
}

/// A running tidegate.
pub(super) struct Stand {
    pub(super) tidegate: Tidegate,
    pub(super) addr: SocketAddr,
    file: PathBuf,
    /// Removed when the stand is dropped.
    _directory: tempfile::TempDir,
}

impl Stand {
    /// Starts it with two workers, and waits until it is ready.
    pub(super) async fn start(name: &str, clusters: Clusters) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addr = SocketAddr::from((own_ip(), PORT));
        let file = directory.path().join("tidegate.yaml");
        std::fs::write(&file, text(addr, &clusters)).unwrap();
        let config = format!("--config={}", file.display());
        let args = [
            "serve",
            &config,
            "--access-log=off",
            "--workers=2",
            "--admin-writes",
        ];
        let name = format!("faults-{name}");
        let tidegate = Tidegate::start_at(&name, addr.ip(), &args).ready().await;
        Self {
            tidegate,
            addr,
            file,
            _directory: directory,
        }
    }

    /// Puts another file in the place of the one there is.
    pub(super) fn replace(&self, clusters: &Clusters) {
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, text(self.addr, clusters)).unwrap();
        std::fs::rename(beside, &self.file).unwrap();
    }

    /// Traffic to `web`.
    pub(super) fn traffic(&self, rate: u32, posts: bool, most: usize) -> Traffic {
        Traffic::start(Plan {
            addr: self.addr,
            host: WEB,
            path: "/",
            rate,
            posts,
            most,
        })
    }

    /// `web`, as `/backends` shows it.
    pub(super) async fn cluster(&self) -> Value {
        let answer = get(self.tidegate.admin, "admin", "/backends")
            .await
            .unwrap();
        let all: Value = serde_json::from_slice(&answer.body).unwrap();
        let clusters = all["clusters"].as_array().unwrap();
        let web = clusters.iter().find(|one| one["service"] == "web");
        web.unwrap_or_else(|| panic!("no web in {all}")).clone()
    }

    /// An endpoint of `web`, as `/backends` shows it.
    pub(super) async fn endpoint(&self, addr: SocketAddr) -> Value {
        let cluster = self.cluster().await;
        let endpoints = cluster["endpoints"].as_array().unwrap();
        let one = endpoints.iter().find(|one| one["addr"] == addr.to_string());
        one.unwrap_or_else(|| panic!("{addr} is not in {cluster}"))
            .clone()
    }

    /// Waits until an endpoint is shown so; says how long it took.
    pub(super) async fn until(
        &self,
        addr: SocketAddr,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Duration {
        let start = Instant::now();
        loop {
            let shown = self.endpoint(addr).await;
            if wanted(&shown) {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < within,
                "not within {within:?}: {shown}\n{}",
                self.tidegate.logged()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What an operator wants of an endpoint of `web`.
    pub(super) async fn wish(&self, addr: SocketAddr, wish: &'static str) {
        let cluster = self.cluster().await;
        let path = format!("/backends/{}/{addr}", cluster["name"].as_str().unwrap());
        let mut client = Client::connect(self.tidegate.admin).await.unwrap();
        let asked = request(http::Method::POST, "admin", &path, wish.into());
        let answer = client.send(asked).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }

    /// How often an endpoint was taken out, by what judges it: `passive`, `active` and so on.
    pub(super) async fn taken_out(&self, check: &str) -> u64 {
        let series = format!("tidegate_endpoint_transitions_total{{check=\"{check}\",to=\"out\"}}");
        self.series(&series).await as u64
    }

    /// One series of the metrics; 0 if there is none.
    pub(super) async fn series(&self, series: &str) -> f64 {
        let text = get(self.tidegate.admin, "admin", "/metrics").await;
        let text = text.unwrap().text();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// `kill -STOP`, or another signal, to it.
    pub(super) fn signal(&self, name: &str) {
        signal(name, self.tidegate.pid());
    }
}

fn text(addr: SocketAddr, clusters: &Clusters) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        "listeners: [{{port: {port}, address: {ip}}}]\nroutes:\n{}backends:\n{}",
        clusters.routes, clusters.backends
    )
}

/// Whether an endpoint gets requests, as shown.
pub(super) fn gets_requests(shown: &Value) -> bool {
    shown["gets_requests"] == true
}

/// Whether this is among the reasons for an endpoint to be out, as shown.
pub(super) fn is_out_by(shown: &Value, check: &str) -> bool {
    let reasons = shown["reasons"].as_array();
    reasons.is_some_and(|reasons| reasons.iter().any(|reason| reason["check"] == check))
}
