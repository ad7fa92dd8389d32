//! Endpoints that are probed and agents that are asked, over real sockets. Nothing is waited for but by looking until it is so.

mod agents;
mod kinds;
mod outcomes;

use super::{Proxy, Rule, host, serve, table};
use crate::{EndpointStatus, State, Wish};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing_table::policy::{ActiveCheck, AgentCheck, CheckKind, Expected, Pattern, StatusRange};
use routing_table::{Endpoint, Policy, ProxyVersion, UpstreamTls};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use test_support::client::get;
use test_support::{Authority, Backend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(40);

/// Whatever connects is told what is written here, and then it is closed.
#[derive(Clone)]
struct Says {
    addr: SocketAddr,
    text: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
    /// Most that were asked something at once, and those that are now.
    at_once: Arc<Mutex<(usize, usize)>>,
    /// The first bytes of the last connection.
    heard: Arc<Mutex<Vec<u8>>>,
    delay: Arc<Mutex<Duration>>,
}

impl Says {
    async fn start(text: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            addr: listener.local_addr().unwrap(),
            text: Arc::new(Mutex::new(text.as_bytes().to_vec())),
            asked: Arc::default(),
            at_once: Arc::default(),
            heard: Arc::default(),
            delay: Arc::default(),
        };
        let answering = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answering.clone().answer(stream));
            }
        });
        this
    }

    /// HTTP/1.1 with this status.
    async fn status(status: u16) -> Self {
        Self::start(&answer(status)).await
    }

    async fn answer(self, mut stream: TcpStream) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        {
            let mut at_once = self.at_once.lock().unwrap();
            at_once.1 += 1;
            at_once.0 = at_once.0.max(at_once.1);
        }
        let delay = *self.delay.lock().unwrap();
        let text = self.text.lock().unwrap().clone();
        let mut heard = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut heard)).await;
        heard.truncate(read.map_or(0, |count| count.unwrap_or(0)));
        *self.heard.lock().unwrap() = heard;
        let said = async {
            tokio::time::sleep(delay).await;
            let _ = stream.write_all(&text).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), said).await;
        self.at_once.lock().unwrap().1 -= 1;
    }

    fn say(&self, text: &str) {
        *self.text.lock().unwrap() = text.as_bytes().to_vec();
    }

    fn say_status(&self, status: u16) {
        self.say(&answer(status));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

fn http() -> CheckKind {
    CheckKind::Http {
        method: "GET".into(),
        path: "/health".into(),
        host: None,
        expected: Vec::new(),
    }
}

fn check(kind: CheckKind) -> ActiveCheck {
    ActiveCheck {
        kind,
        interval: SHORT,
        timeout: Duration::from_secs(2),
        ..ActiveCheck::default()
    }
}

fn checked(check: ActiveCheck) -> Policy {
    Policy {
        active_check: Some(check),
        ..Policy::default()
    }
}

fn asked_at(port: u16) -> AgentCheck {
    AgentCheck {
        interval: SHORT,
        ..AgentCheck::new(port)
    }
}

fn with_agent(check: AgentCheck) -> Policy {
    Policy {
        agent_check: Some(check),
        ..Policy::default()
    }
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn endpoint(proxy: &Proxy, addr: SocketAddr) -> EndpointStatus {
    let all = proxy.backends().read().into_iter();
    let mut endpoints = all.flat_map(|cluster| cluster.endpoints);
    endpoints.find(|one| one.addr == addr).unwrap()
}

async fn becomes(proxy: &Proxy, addr: SocketAddr, state: State) {
    let what = format!("{addr} is {state:?}");
    until(&what, || endpoint(proxy, addr).state == state).await;
}

/// Waits until so many more checks than now have ended.
async fn more_checks(proxy: &Proxy, count: f64) {
    let before = proxy.metric("tidegate_health_probes_total");
    until("more checks", || {
        proxy.metric("tidegate_health_probes_total") >= before + count
    })
    .await;
}

fn rule(addrs: &[SocketAddr], policy: Policy) -> Rule {
    host("a.test", addrs).policy(policy)
}
