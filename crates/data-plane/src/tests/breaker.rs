//! The circuit breaker over real sockets: it opens in time, lets one request try, and closes.

use super::raw::{Act, RawBackend};
use super::{Proxy, host, serve};
use routing_table::Policy;
use routing_table::policy::CircuitBreaker;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A backend that takes as long as it is told, answers with the status it is told, and counts what it gets.
struct Moody {
    addr: SocketAddr,
    millis: Arc<AtomicU64>,
    status: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Moody {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            addr: listener.local_addr().unwrap(),
            millis: Arc::default(),
            status: Arc::new(AtomicUsize::new(200)),
            requests: Arc::default(),
        };
        let (millis, status) = (Arc::clone(&this.millis), Arc::clone(&this.status));
        let requests = Arc::clone(&this.requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (millis, status) = (Arc::clone(&millis), Arc::clone(&status));
                let requests = Arc::clone(&requests);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        requests.fetch_add(1, Ordering::SeqCst);
                        let wait = Duration::from_millis(millis.load(Ordering::SeqCst));
                        tokio::time::sleep(wait).await;
                        let status = status.load(Ordering::SeqCst);
                        let reply =
                            format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\nmoody");
                        if stream.write_all(reply.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        this
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn takes(&self, millis: u64) {
        self.millis.store(millis, Ordering::SeqCst);
    }

    fn answers(&self, status: usize) {
        self.status.store(status, Ordering::SeqCst);
    }
}

fn broken_by(breaker: CircuitBreaker) -> Policy {
    Policy {
        breaker: Some(breaker),
        ..Policy::default()
    }
}

fn state(proxy: &Proxy, endpoint: SocketAddr) -> f64 {
    proxy.series(&format!(
        "tidegate_circuit_breaker_state{{endpoint=\"{endpoint}\",namespace=\"test\",port=\"80\",service=\"a.test\"}}"
    ))
}

async fn state_becomes(proxy: &Proxy, endpoint: SocketAddr, wanted: f64) {
    let start = Instant::now();
    while state(proxy, endpoint) != wanted {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} is not {wanted}",
            state(proxy, endpoint)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latency_ramp_opens_it_before_a_timeout_and_a_trial_closes_it() {
    let moody = Moody::start().await;
    let good = Backend::start("good").await;
    let proxy = serve(&[host("a.test", &[moody.addr, good.addr])
        .policy(broken_by(CircuitBreaker {
            latency: Some(Duration::from_millis(500)),
            min_requests: 5,
            window: Duration::from_secs(2),
            open: Duration::from_secs(2),
            ..CircuitBreaker::default()
        }))
        .first_byte(Duration::from_secs(15))]);
    assert_eq!(state(&proxy, moody.addr), 0.0);
    let addr = proxy.addr;
    let stop = tokio_util::sync::CancellationToken::new();
    let load: Vec<_> = (0..8)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while !stop.is_cancelled() {
                    statuses.push(get(addr, "a.test", "/").await.unwrap().status.as_u16());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                statuses
            })
        })
        .collect();
    let start = Instant::now();
    // Slower and slower, and in the end nearly as slow as the timeout, which nobody may reach.
    for millis in [50, 100, 200, 6_000] {
        moody.takes(millis);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    state_becomes(&proxy, moody.addr, 2.0).await;
    let opened = start.elapsed();
    assert!(opened < Duration::from_secs(6), "{opened:?}");
    stop.cancel();
    // None while it is open.
    let before = moody.requests();
    for _ in 0..20 {
        assert_eq!(get(addr, "a.test", "/").await.unwrap().text(), "good");
    }
    assert_eq!(moody.requests(), before);
    moody.takes(0);
    state_becomes(&proxy, moody.addr, 1.0).await;
    assert_eq!(moody.requests(), before);
    // One tries, and it closes.
    assert_eq!(get(addr, "a.test", "/").await.unwrap().text(), "moody");
    assert_eq!(state(&proxy, moody.addr), 0.0);
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..4 {
        names.insert(get(addr, "a.test", "/").await.unwrap().text());
    }
    assert_eq!(names.len(), 2, "{names:?}");
    for one in load {
        assert!(one.await.unwrap().iter().all(|status| *status == 200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_ratio_opens_it_and_one_request_of_many_tries() {
    let moody = Moody::start().await;
    let good = Backend::start("good").await;
    moody.answers(500);
    let proxy =
        serve(&[
            host("a.test", &[moody.addr, good.addr]).policy(broken_by(CircuitBreaker {
                error_ratio: Some(50),
                open: Duration::from_secs(1),
                ..CircuitBreaker::default()
            })),
        ]);
    let addr = proxy.addr;
    let mut errors = 0;
    for _ in 0..40 {
        errors += usize::from(get(addr, "a.test", "/").await.unwrap().status == 500);
    }
    assert_eq!((errors, moody.requests()), (10, 10), "ten are enough");
    assert_eq!(state(&proxy, moody.addr), 2.0);
    state_becomes(&proxy, moody.addr, 1.0).await;
    // It takes its time over the one, so all of these come meanwhile; and then it fails.
    moody.takes(500);
    let crowd: Vec<_> = (0..30)
        .map(|_| tokio::spawn(async move { get(addr, "a.test", "/").await.unwrap() }))
        .collect();
    let mut answers = Vec::new();
    for one in crowd {
        answers.push(one.await.unwrap().text());
    }
    assert_eq!(moody.requests(), 11, "{answers:?}");
    assert_eq!(state(&proxy, moody.addr), 2.0);
    // A client that leaves has not tried.
    moody.answers(200);
    moody.takes(3000);
    state_becomes(&proxy, moody.addr, 1.0).await;
    let before = moody.requests();
    let mut leaves = TcpStream::connect(addr).await.unwrap();
    leaves
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    while moody.requests() == before {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leaves.set_zero_linger().unwrap();
    drop(leaves);
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    assert_eq!(state(&proxy, moody.addr), 1.0);
    moody.takes(0);
    assert_eq!(get(addr, "a.test", "/").await.unwrap().text(), "moody");
    assert_eq!(state(&proxy, moody.addr), 0.0);
}

#[tokio::test]
async fn when_all_are_open_clients_are_told_at_once() {
    let (a, b) = (Moody::start().await, Moody::start().await);
    a.answers(503);
    b.answers(503);
    let proxy = serve(&[host("a.test", &[a.addr, b.addr]).policy(Policy {
        panic_threshold: 100,
        ..broken_by(CircuitBreaker {
            error_ratio: Some(50),
            min_requests: 3,
            open: Duration::from_secs(3),
            ..CircuitBreaker::default()
        })
    })]);
    for n in 0..6 {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        assert_eq!(answer.text(), "moody", "{n}");
    }
    // However slow they would be: nobody asks them.
    a.takes(30_000);
    b.takes(30_000);
    for _ in 0..20 {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().contains("503")),
            (503, true)
        );
    }
    assert_eq!((a.requests(), b.requests()), (3, 3));
    assert_eq!(proxy.metric("tidegate_cluster_in_panic"), 0.0);
    for moody in [&a, &b] {
        moody.takes(0);
        moody.answers(200);
        state_becomes(&proxy, moody.addr, 1.0).await;
    }
    for _ in 0..10 {
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        assert_eq!(answer.text(), "moody");
    }
    assert_eq!(proxy.metric("tidegate_circuit_breaker_state"), 0.0);
}

#[tokio::test]
async fn its_series_go_with_endpoint_and_policy() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let policy = || {
        broken_by(CircuitBreaker {
            error_ratio: Some(50),
            ..CircuitBreaker::default()
        })
    };
    let mut proxy = serve(&[host("a.test", &[a.addr, b.addr]).policy(policy())]);
    let series = |proxy: &Proxy| {
        let all = proxy.registry.gather();
        let mut named = all.iter();
        let family = named.find(|family| family.name() == "tidegate_circuit_breaker_state");
        family.map_or(0, |family| family.get_metric().len())
    };
    assert_eq!(series(&proxy), 2);
    let one = super::table(&[host("a.test", &[b.addr]).policy(policy())]);
    proxy.publisher.apply(one).unwrap();
    assert_eq!(series(&proxy), 1);
    let none = super::table(&[host("a.test", &[b.addr])]);
    proxy.publisher.apply(none).unwrap();
    assert_eq!(series(&proxy), 0);
}

#[tokio::test]
async fn a_policy_without_it_closes_it() {
    let bad =
        RawBackend::start(&[Act::Reply("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")]).await;
    let mut proxy = serve(&[
        host("a.test", &[bad.addr]).policy(broken_by(CircuitBreaker {
            error_ratio: Some(50),
            open: Duration::from_secs(600),
            ..CircuitBreaker::default()
        })),
    ]);
    let status = async |proxy: &Proxy| get(proxy.addr, "a.test", "/").await.unwrap().status;
    for _ in 0..10 {
        assert_eq!(status(&proxy).await, 500);
    }
    assert_eq!(status(&proxy).await, 503);
    let none = super::table(&[host("a.test", &[bad.addr])]);
    proxy.publisher.apply(none).unwrap();
    for _ in 0..20 {
        assert_eq!(status(&proxy).await, 500);
    }
}
