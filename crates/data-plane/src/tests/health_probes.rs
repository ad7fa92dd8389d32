//! Endpoints that are probed and agents that are asked, over real sockets. Nothing is waited for but by looking until it is so.

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

#[tokio::test]
async fn an_endpoint_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let (bad, good) = (Says::status(200).await, Backend::start("good").await);
    let proxy = serve(&[rule(&[bad.addr, good.addr], checked(check(http())))]);
    more_checks(&proxy, 6.0).await;
    assert_eq!(endpoint(&proxy, bad.addr).state, State::Available);
    bad.say_status(500);
    becomes(&proxy, bad.addr, State::Out).await;
    let told = endpoint(&proxy, bad.addr);
    assert_eq!(told.reasons.len(), 1);
    assert_eq!(
        (told.reasons[0].check, &*told.reasons[0].why),
        ("active", "status 500")
    );
    assert!(told.reasons[0].since.unwrap() < Duration::from_secs(20));
    let last = told.last_check.unwrap();
    assert_eq!(
        (last.kind, last.passed, &*last.why),
        ("http", false, "status 500")
    );
    assert!(!told.gets_requests);
    for _ in 0..10 {
        assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().text(), "good");
    }
    let shown = prometheus::TextEncoder::new()
        .encode_to_string(&proxy.registry.gather())
        .unwrap();
    for line in [
        r#"tidegate_endpoint_transitions_total{check="active",to="out"} 1"#,
        r#"tidegate_endpoints{namespace="test",port="80",service="a.test",state="available"} 1"#,
        r#"tidegate_endpoints{namespace="test",port="80",service="a.test",state="out"} 1"#,
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    bad.say_status(204);
    becomes(&proxy, bad.addr, State::Available).await;
    until("it gets requests", || {
        endpoint(&proxy, bad.addr).gets_requests
    })
    .await;
    let before = bad.asked();
    let heard = String::from_utf8(bad.heard.lock().unwrap().clone()).unwrap();
    assert!(
        heard.starts_with("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"),
        "{heard}"
    );
    more_checks(&proxy, 4.0).await;
    assert!(bad.asked() > before);
}

#[tokio::test]
async fn what_is_good_of_a_status_is_said_by_the_policy() {
    let teapot = Says::status(418).await;
    let kind = CheckKind::Http {
        method: "HEAD".into(),
        path: "/x?y=z".into(),
        host: Some("h.test".into()),
        expected: vec![StatusRange {
            first: 418,
            last: 418,
        }],
    };
    let only = ActiveCheck {
        unhealthy_after: 1,
        healthy_after: 1,
        ..check(kind)
    };
    let proxy = serve(&[rule(&[teapot.addr], checked(only))]);
    more_checks(&proxy, 2.0).await;
    assert_eq!(endpoint(&proxy, teapot.addr).state, State::Available);
    let heard = String::from_utf8(teapot.heard.lock().unwrap().clone()).unwrap();
    assert!(
        heard.starts_with("HEAD /x?y=z HTTP/1.1\r\nHost: h.test\r\n"),
        "{heard}"
    );
    teapot.say_status(200);
    becomes(&proxy, teapot.addr, State::Out).await;
}

#[tokio::test]
async fn the_first_probe_is_at_once_and_a_table_more_begins_none_again() {
    let (one, two) = (Says::status(200).await, Says::status(200).await);
    let slow = ActiveCheck {
        interval: LONG,
        ..check(http())
    };
    let first = Instant::now();
    let mut proxy = serve(&[rule(&[one.addr], checked(slow.clone()))]);
    until("the first probe", || one.asked() == 1).await;
    // A few milliseconds on a machine that is not loaded.
    assert!(
        first.elapsed() < Duration::from_secs(5),
        "{:?}",
        first.elapsed()
    );
    for _ in 0..5 {
        proxy
            .publisher
            .apply(table(&[rule(&[one.addr, two.addr], checked(slow.clone()))]))
            .unwrap();
        until("that of another one", || two.asked() == 1).await;
    }
    proxy
        .metric_becomes("tidegate_health_probes_total", 2.0)
        .await;
    assert_eq!((one.asked(), two.asked()), (1, 1));
    // Another check begins anew; gone is gone.
    let quick = checked(check(http()));
    proxy
        .publisher
        .apply(table(&[rule(&[one.addr], quick)]))
        .unwrap();
    until("many probes", || one.asked() > 5).await;
    assert_eq!(two.asked(), 1);
    proxy
        .publisher
        .apply(table(&[rule(&[two.addr], Policy::default())]))
        .unwrap();
    let open = || proxy.metric("tidegate_health_probes_total");
    until("nothing is probed any more", || {
        let before = open();
        std::thread::sleep(4 * SHORT);
        open() == before
    })
    .await;
}

#[tokio::test]
async fn nobody_holds_up_the_probes_of_others() {
    // Connections are accepted by the kernel and never answered.
    let holes: Vec<_> = (0..25)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut addrs: Vec<_> = holes
        .iter()
        .map(|hole| hole.local_addr().unwrap())
        .collect();
    let mut good = Vec::new();
    for _ in 0..25 {
        good.push(Says::status(200).await);
    }
    addrs.extend(good.iter().map(|good| good.addr));
    let patient = ActiveCheck {
        timeout: Duration::from_secs(30),
        interval: Duration::from_millis(100),
        ..check(http())
    };
    let start = Instant::now();
    let proxy = serve(&[rule(&addrs, checked(patient))]);
    until("ten probes of each that answers", || {
        good.iter().all(|good| good.asked() >= 10)
    })
    .await;
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    // Not one of the others has had its answer by now.
    for hole in &addrs[..25] {
        assert_eq!(endpoint(&proxy, *hole).last_check, None);
    }
}

#[tokio::test]
async fn one_probe_at_a_time_and_a_timeout_is_a_failure() {
    let slow = Says::status(200).await;
    *slow.delay.lock().unwrap() = Duration::from_secs(3600);
    let impatient = ActiveCheck {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(150),
        unhealthy_after: 2,
        ..check(http())
    };
    let proxy = serve(&[rule(&[slow.addr], checked(impatient))]);
    becomes(&proxy, slow.addr, State::Out).await;
    assert_eq!(
        endpoint(&proxy, slow.addr).reasons[0].why,
        "no answer in 150ms"
    );
    let late = Says::status(200).await;
    *late.delay.lock().unwrap() = Duration::from_millis(150);
    let patient = ActiveCheck {
        interval: Duration::from_millis(10),
        ..check(http())
    };
    let proxy = serve(&[rule(&[late.addr], checked(patient))]);
    more_checks(&proxy, 4.0).await;
    // The end of a connection may be seen here after the next one has begun there.
    assert!(late.at_once.lock().unwrap().0 <= 2);
}

#[tokio::test]
async fn who_starts_out_comes_in_with_its_first_good_answer() {
    let (slow, other) = (Says::status(200).await, Backend::start("other").await);
    let careful = ActiveCheck {
        starts_healthy: false,
        healthy_after: 5,
        interval: LONG,
        timeout: LONG,
        ..check(http())
    };
    let mut proxy = serve(&[rule(&[other.addr], checked(careful.clone()))]);
    becomes(&proxy, other.addr, State::Available).await;
    *slow.delay.lock().unwrap() = Duration::from_secs(2);
    proxy
        .publisher
        .apply(table(&[rule(&[slow.addr, other.addr], checked(careful))]))
        .unwrap();
    let told = endpoint(&proxy, slow.addr);
    assert_eq!(
        (told.state, &*told.reasons[0].why),
        (State::Out, "not checked yet")
    );
    assert_eq!(
        get(proxy.addr, "a.test", "/").await.unwrap().text(),
        "other"
    );
    becomes(&proxy, slow.addr, State::Available).await;
}

#[tokio::test]
async fn nobody_stays_out_by_a_check_there_is_no_more() {
    let (bad, good) = (Says::status(500).await, Backend::start("good").await);
    let both = [bad.addr, good.addr];
    let mut proxy = serve(&[rule(&both, checked(check(http())))]);
    becomes(&proxy, bad.addr, State::Out).await;
    // Another check judges anew, from where the last one was.
    proxy
        .publisher
        .apply(table(&[rule(&both, checked(check(CheckKind::Tcp)))]))
        .unwrap();
    becomes(&proxy, bad.addr, State::Available).await;
    proxy
        .publisher
        .apply(table(&[rule(&both, checked(check(http())))]))
        .unwrap();
    becomes(&proxy, bad.addr, State::Out).await;
    proxy
        .publisher
        .apply(table(&[rule(&both, Policy::default())]))
        .unwrap();
    becomes(&proxy, bad.addr, State::Available).await;
    assert_eq!(endpoint(&proxy, bad.addr).last_check, None);
}

#[tokio::test]
async fn health_is_ignored_when_nobody_is_left() {
    let bad = Says::status(503).await;
    let proxy = serve(&[rule(&[bad.addr], checked(check(http())))]);
    becomes(&proxy, bad.addr, State::Out).await;
    let cluster = proxy.backends().read().remove(0);
    assert!(cluster.ignores_health && cluster.endpoints[0].gets_requests);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 503);
}

#[tokio::test]
async fn another_port_can_be_probed() {
    let (health, serving) = (Says::status(500).await, Backend::start("web").await);
    let elsewhere = ActiveCheck {
        port: Some(health.addr.port()),
        ..check(http())
    };
    let proxy = serve(&[rule(&[serving.addr], checked(elsewhere))]);
    becomes(&proxy, serving.addr, State::Out).await;
    health.say_status(200);
    becomes(&proxy, serving.addr, State::Available).await;
    assert_eq!(serving.requests(), 0);
}

#[tokio::test]
async fn a_connection_or_bytes_can_be_probed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let proxy = serve(&[rule(&[addr], checked(check(CheckKind::Tcp)))]);
    more_checks(&proxy, 2.0).await;
    assert_eq!(endpoint(&proxy, addr).state, State::Available);
    drop(listener);
    becomes(&proxy, addr, State::Out).await;
    assert!(endpoint(&proxy, addr).reasons[0].why.contains("refused"));

    let redis = Says::start("+PONG\r\n").await;
    let ping = CheckKind::Bytes {
        send: (*b"PING\r\n").into(),
        expect: Expected::Start((*b"+PONG").into()),
    };
    let proxy = serve(&[rule(&[redis.addr], checked(check(ping)))]);
    more_checks(&proxy, 3.0).await;
    assert_eq!(endpoint(&proxy, redis.addr).state, State::Available);
    assert_eq!(*redis.heard.lock().unwrap(), b"PING\r\n");
    redis.say("+PO");
    becomes(&proxy, redis.addr, State::Out).await;
    assert_eq!(
        endpoint(&proxy, redis.addr).reasons[0].why,
        "the answer ends after 3 bytes"
    );
}

#[tokio::test]
async fn a_datagram_can_be_asked_for() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    let good = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let says = Arc::clone(&good);
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((count, from)) = server.recv_from(&mut buffer).await {
            assert_eq!(&buffer[..count], b"status?");
            let answer: &[u8] = match says.load(Ordering::Relaxed) {
                true => b"up 42",
                false => b"down",
            };
            server.send_to(answer, from).await.unwrap();
        }
    });
    let ask = CheckKind::Udp {
        send: (*b"status?").into(),
        expect: Expected::Pattern(Pattern::new("^up [0-9]+$").unwrap()),
    };
    let proxy = serve(&[rule(&[addr], checked(check(ask)))]);
    more_checks(&proxy, 2.0).await;
    assert_eq!(endpoint(&proxy, addr).state, State::Available);
    good.store(false, Ordering::Relaxed);
    becomes(&proxy, addr, State::Out).await;
    let told = endpoint(&proxy, addr);
    assert_eq!(told.reasons[0].why, "the answer of 4 bytes is another one");
    assert_eq!(told.last_check.unwrap().kind, "udp");
    good.store(true, Ordering::Relaxed);
    becomes(&proxy, addr, State::Available).await;
    // Nobody listens there any more.
    serving.abort();
    becomes(&proxy, addr, State::Out).await;
}

#[tokio::test]
async fn probes_begin_like_the_connections_of_requests() {
    for (version, begin) in [
        (ProxyVersion::V1, &b"PROXY UNKNOWN\r\n"[..]),
        (ProxyVersion::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let one = Says::status(200).await;
        let proxy = serve(&[rule(&[one.addr], checked(check(http()))).proxy_header(version)]);
        more_checks(&proxy, 1.0).await;
        let heard = one.heard.lock().unwrap().clone();
        assert!(heard.starts_with(begin), "{version:?}: {heard:?}");
    }
}

/// Serves HTTP/2, by itself or through TLS: a gRPC health service that says this, and 200 for `/health`.
async fn http2_backend(
    serving: Arc<AtomicUsize>,
    identity: Option<Arc<ServerConfig>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (serving, identity) = (Arc::clone(&serving), identity.clone());
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let status = serving.load(Ordering::Relaxed) as u8;
                async move {
                    let mut answer = http::Response::new(GrpcAnswer::new(&request, status));
                    if request.uri().path() == "/nothing" {
                        *answer.status_mut() = http::StatusCode::NOT_FOUND;
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                match identity {
                    None => drop(
                        builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    ),
                    Some(config) => {
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            drop(
                                builder
                                    .serve_connection(TokioIo::new(stream), service)
                                    .await,
                            );
                        }
                    }
                }
            });
        }
    });
    addr
}

/// The message and its status, or nothing.
struct GrpcAnswer(Vec<http_body::Frame<bytes::Bytes>>);

impl GrpcAnswer {
    fn new<B>(request: &http::Request<B>, status: u8) -> Self {
        if !request
            .uri()
            .path()
            .starts_with("/grpc.health.v1.Health/Check")
        {
            return Self(Vec::new());
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let message = bytes::Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
        // Taken from the end.
        Self(vec![
            http_body::Frame::trailers(trailers),
            http_body::Frame::data(message),
        ])
    }
}

impl http_body::Body for GrpcAnswer {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.pop().map(Ok))
    }
}

/// What a server of this name shows, speaking these protocols.
fn identity(authority: &Authority, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let issued = authority.server(&["b.test"]);
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(issued.chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn unverified() -> Arc<UpstreamTls> {
    Arc::new(UpstreamTls {
        server_name: "b.test".into(),
        own_names: Default::default(),
        send_server_name: true,
        verify: None,
        client_certificate: None,
        versions: Default::default(),
    })
}

#[tokio::test]
async fn grpc_health_is_asked_in_the_clear_and_through_tls() {
    let authority = Authority::new("ours");
    for through_tls in [false, true] {
        let serving = Arc::new(AtomicUsize::new(1));
        let config = through_tls.then(|| identity(&authority, &[b"h2"]));
        let addr = http2_backend(Arc::clone(&serving), config).await;
        let kind = CheckKind::Grpc {
            service: "shop.Cart".into(),
        };
        let mut rule = rule(&[addr], checked(check(kind))).http2();
        rule.upstream_tls = through_tls.then(unverified);
        let proxy = serve(&[rule]);
        more_checks(&proxy, 2.0).await;
        let told = endpoint(&proxy, addr);
        assert_eq!(told.last_check.unwrap().why, "serving");
        assert_eq!(told.state, State::Available);
        serving.store(2, Ordering::Relaxed);
        becomes(&proxy, addr, State::Out).await;
        assert_eq!(endpoint(&proxy, addr).reasons[0].why, "not serving");
        serving.store(1, Ordering::Relaxed);
        becomes(&proxy, addr, State::Available).await;
    }
}

#[tokio::test]
async fn http_is_asked_as_the_cluster_is_spoken_to() {
    let authority = Authority::new("ours");
    for through_tls in [false, true] {
        let config = through_tls.then(|| identity(&authority, &[b"h2"]));
        let addr = http2_backend(Arc::default(), config).await;
        for (path, state) in [("/health", State::Available), ("/nothing", State::Out)] {
            let kind = CheckKind::Http {
                method: "GET".into(),
                path: path.into(),
                host: None,
                expected: vec![],
            };
            let mut rule = rule(&[addr], checked(check(kind))).http2();
            rule.upstream_tls = through_tls.then(unverified);
            let proxy = serve(&[rule]);
            more_checks(&proxy, 4.0).await;
            becomes(&proxy, addr, state).await;
        }
    }
}

#[tokio::test]
async fn a_handshake_is_a_probe_whatever_the_certificate_says() {
    let addr = http2_backend(
        Arc::default(),
        Some(identity(&Authority::new("stranger"), &[])),
    )
    .await;
    let plain = Says::start("not TLS at all\r\n").await;
    let proxy = serve(&[rule(&[addr, plain.addr], checked(check(CheckKind::Tls)))]);
    becomes(&proxy, plain.addr, State::Out).await;
    let told = endpoint(&proxy, addr);
    assert_eq!(told.state, State::Available);
    assert_eq!(told.last_check.unwrap().why, "handshake done");
    assert!(
        endpoint(&proxy, plain.addr).reasons[0]
            .why
            .starts_with("TLS: ")
    );
}

async fn shares(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        *shares.entry(answer.text()).or_insert(0) += 1;
    }
    shares
}

/// A backend at another address of this machine, so that one port can have an agent at each.
async fn backend_at(ip: [u8; 4], name: &str) -> Backend {
    Backend::start_at(name, (ip, 0).into(), Duration::ZERO).await
}

#[tokio::test]
async fn an_agent_sets_the_share_of_its_endpoint() {
    // Of two endpoints only one has an agent that answers.
    let agent = Says::start("25%\n").await;
    let told = Backend::start("told").await;
    let other = backend_at([127, 0, 0, 2], "other").await;
    let heavy = |addr| Endpoint {
        weight: 100,
        ..Endpoint::ready(addr)
    };
    let policy = with_agent(AgentCheck {
        send: "how are you\n".into(),
        ..asked_at(agent.addr.port())
    });
    let both = host("a.test", &[])
        .endpoints(vec![heavy(told.addr), heavy(other.addr)])
        .policy(policy);
    let mut proxy = serve(&[both]);
    until("its share is 25", || {
        endpoint(&proxy, told.addr).effective_weight == 25.0
    })
    .await;
    assert_eq!(
        shares(&proxy, 100).await,
        BTreeMap::from([("told".into(), 20), ("other".into(), 80)])
    );
    assert_eq!(*agent.heard.lock().unwrap(), b"how are you\n");
    assert_eq!(endpoint(&proxy, other.addr).weight, 100);

    // An operator wants half of it besides, and neither forgets what the other wants.
    let half = Wish {
        weight_percent: Some(40),
        ..Wish::default()
    };
    proxy
        .backends()
        .wish("test", "a.test", 80, told.addr, half)
        .unwrap();
    assert_eq!(endpoint(&proxy, told.addr).effective_weight, 10.0);
    agent.say("50%");
    until("its share is 20", || {
        endpoint(&proxy, told.addr).effective_weight == 20.0
    })
    .await;

    // What an agent does not say, stays; also when it says nothing at all.
    agent.say("up maxconn:7\n");
    until("its limit is 7", || {
        endpoint(&proxy, told.addr).max_requests == Some(7)
    })
    .await;
    agent.say("");
    until("its agent is silent", || {
        endpoint(&proxy, told.addr)
            .last_agent_check
            .is_some_and(|last| !last.passed)
    })
    .await;
    let kept = endpoint(&proxy, told.addr);
    assert_eq!((kept.effective_weight, kept.max_requests), (20.0, Some(7)));
    agent.say("hello world \u{1F980} 5.5% maxconn:x \0\0");
    until("it talks nonsense", || {
        endpoint(&proxy, told.addr)
            .last_agent_check
            .is_some_and(|last| last.passed)
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).effective_weight, 20.0);
    agent.say(&"x".repeat(5000));
    until("it talks without an end", || {
        endpoint(&proxy, told.addr)
            .last_agent_check
            .is_some_and(|last| !last.passed)
    })
    .await;

    // Without a check of it, it has no say any more; the operator does.
    let silent = host("a.test", &[]).endpoints(vec![heavy(told.addr), heavy(other.addr)]);
    proxy.publisher.apply(table(&[silent])).unwrap();
    until("its share is 40", || {
        endpoint(&proxy, told.addr).effective_weight == 40.0
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).max_requests, None);
}

#[tokio::test]
async fn an_agent_drains_its_endpoint_and_what_runs_ends_in_peace() {
    let agent = Says::start("up ready\n").await;
    let told = Backend::start_at("told", ([127, 0, 0, 1], 0).into(), Duration::from_secs(2)).await;
    let other = backend_at([127, 0, 0, 2], "other").await;
    let proxy = serve(&[rule(
        &[told.addr, other.addr],
        with_agent(asked_at(agent.addr.port())),
    )]);
    let running: Vec<_> = (0..4)
        .map(|_| tokio::spawn(get(proxy.addr, "a.test", "/")))
        .collect();
    until("two are there", || {
        endpoint(&proxy, told.addr).in_flight == 2
    })
    .await;
    agent.say("drain");
    becomes(&proxy, told.addr, State::Draining).await;
    assert_eq!(
        shares(&proxy, 10).await,
        BTreeMap::from([("other".into(), 10)])
    );
    for answer in running {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(told.requests(), 2);
    // An operator wants it too: the word of one does not lift that of the other.
    let drain = |yes| Wish {
        drain: Some(yes),
        ..Wish::default()
    };
    proxy
        .backends()
        .wish("test", "a.test", 80, told.addr, drain(true))
        .unwrap();
    let checks = |told: &EndpointStatus| {
        told.reasons
            .iter()
            .map(|reason| reason.check)
            .collect::<Vec<_>>()
    };
    assert_eq!(checks(&endpoint(&proxy, told.addr)), ["operator", "agent"]);
    agent.say("ready");
    until("its agent wants it back", || {
        checks(&endpoint(&proxy, told.addr)) == ["operator"]
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).state, State::Draining);
    agent.say("maint");
    until("its agent does not", || {
        checks(&endpoint(&proxy, told.addr)).len() == 2
    })
    .await;
    proxy
        .backends()
        .wish("test", "a.test", 80, told.addr, drain(false))
        .unwrap();
    assert_eq!(checks(&endpoint(&proxy, told.addr)), ["agent"]);
    agent.say("ready");
    becomes(&proxy, told.addr, State::Available).await;
    // `Bar` has two of the agent; a series is there once.
    proxy.registry.gather();
    assert_eq!(proxy.metric("tidegate_endpoint_transitions_total"), 6.0);
}

#[tokio::test]
async fn a_check_and_an_agent_have_to_agree() {
    let (agent, health) = (Says::start("up").await, Says::status(200).await);
    let other = backend_at([127, 0, 0, 2], "other").await;
    let told = Backend::start("told").await;
    let policy = Policy {
        active_check: Some(ActiveCheck {
            port: Some(health.addr.port()),
            unhealthy_after: 1,
            ..check(http())
        }),
        ..with_agent(asked_at(agent.addr.port()))
    };
    let proxy = serve(&[rule(&[told.addr, other.addr], policy)]);
    let reasons = || {
        let told = endpoint(&proxy, told.addr);
        told.reasons
            .into_iter()
            .map(|reason| (reason.check, reason.why))
            .collect::<Vec<_>>()
    };
    agent.say("down #disk full\n");
    until("its agent says down", || {
        reasons() == [("agent", "the agent says down (disk full)".to_owned())]
    })
    .await;
    health.say_status(500);
    until("its check fails too", || reasons().len() == 2).await;
    agent.say("up");
    until("its agent says up", || {
        reasons() == [("active", "status 500".to_owned())]
    })
    .await;
    assert_eq!(endpoint(&proxy, told.addr).state, State::Out);
    health.say_status(200);
    becomes(&proxy, told.addr, State::Available).await;
}

#[tokio::test]
async fn what_an_operator_wants_takes_effect_at_once_and_outlives_tables() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let both = [one.addr, two.addr];
    let mut proxy = serve(&[host("a.test", &both)]);
    let backends = proxy.backends();
    let wish = |wish| backends.wish("test", "a.test", 80, one.addr, wish);
    wish(Wish {
        drain: Some(true),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(
        shares(&proxy, 10).await,
        BTreeMap::from([("two".into(), 10)])
    );
    proxy
        .publisher
        .apply(table(&[host("a.test", &both), host("b.test", &both)]))
        .unwrap();
    assert_eq!(endpoint(&proxy, one.addr).state, State::Draining);
    assert_eq!(
        shares(&proxy, 10).await,
        BTreeMap::from([("two".into(), 10)])
    );
    wish(Wish {
        drain: Some(false),
        weight_percent: Some(25),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(
        shares(&proxy, 50).await,
        BTreeMap::from([("one".into(), 10), ("two".into(), 40)])
    );
    wish(Wish {
        max_requests: Some(Some(3)),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(endpoint(&proxy, one.addr).max_requests, Some(3));
    wish(Wish {
        max_requests: Some(None),
        ..Wish::default()
    })
    .unwrap();
    assert_eq!(endpoint(&proxy, one.addr).max_requests, None);
    let unknown = |service, addr| {
        let wished = backends.wish("test", service, 80, addr, Wish::default());
        wished.unwrap_err().to_string()
    };
    assert_eq!(
        unknown("x", one.addr),
        "no route leads to the service test/x:80"
    );
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(
        unknown("a.test", nobody),
        "127.0.0.1:1 is no endpoint of the service test/a.test:80"
    );
}
