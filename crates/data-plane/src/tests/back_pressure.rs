//! Not more at once than an endpoint may have, not more retries than an outage can bear.
use super::raw::{Act, RawBackend};
use super::{host, serve};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A backend that takes `pause` over each request and knows how many it had at once.
struct Busy {
    addr: std::net::SocketAddr,
    most: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Busy {
    async fn start(pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (most, requests, now) = (
            Arc::default(),
            Arc::default(),
            Arc::new(AtomicUsize::new(0)),
        );
        let busy = Self {
            addr,
            most,
            requests,
        };
        let (most, requests) = (Arc::clone(&busy.most), Arc::clone(&busy.requests));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (now, most, requests) =
                    (Arc::clone(&now), Arc::clone(&most), Arc::clone(&requests));
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        requests.fetch_add(1, Ordering::SeqCst);
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        tokio::time::sleep(pause).await;
                        now.fetch_sub(1, Ordering::SeqCst);
                        let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if stream.write_all(reply).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        busy
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_never_has_more_than_its_limit_and_the_rest_waits() {
    let (a, b) = (
        Busy::start(Duration::from_millis(20)).await,
        Busy::start(Duration::from_millis(20)).await,
    );
    let proxy =
        serve(&[host("a.test", &[a.addr, b.addr]).in_flight(3, 1000, Duration::from_secs(20))]);
    let addr = proxy.addr;
    let asked: Vec<_> = (0..300)
        .map(|_| tokio::spawn(async move { get(addr, "a.test", "/").await.unwrap().status }))
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap(), 200);
    }
    for backend in [&a, &b] {
        let most = backend.most.load(Ordering::SeqCst);
        assert!((1..=3).contains(&most), "{most} at once");
    }
    assert!(proxy.metric("tidegate_requests_queued_total") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_or_in_too_long_a_queue_is_told_to_come_again() {
    let busy = Busy::start(Duration::from_secs(2)).await;
    let wait = Duration::from_millis(300);
    let proxy = serve(&[host("a.test", &[busy.addr]).in_flight(1, 2, wait)]);
    let addr = proxy.addr;
    let first = tokio::spawn(async move { get(addr, "a.test", "/").await });
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    let start = Instant::now();
    let asked: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move { (get(addr, "a.test", "/").await.unwrap(), start.elapsed()) })
        })
        .collect();
    let mut waited = Vec::new();
    for answer in asked {
        let (answer, after) = answer.await.unwrap();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["retry-after"], "1");
        waited.push(after);
    }
    waited.sort();
    assert!(waited[1] < wait, "two found no place to wait: {waited:?}");
    assert!(waited[2] >= wait, "two waited in vain: {waited:?}");
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    assert_eq!(busy.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_never_reaches_an_endpoint() {
    let busy = Busy::start(Duration::from_millis(600)).await;
    let proxy = serve(&[host("a.test", &[busy.addr]).in_flight(1, 10, Duration::from_secs(5))]);
    let addr = proxy.addr;
    let first = tokio::spawn(async move { get(addr, "a.test", "/").await });
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    let leaving = TcpStream::connect(addr).await.unwrap();
    leaving
        .try_write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    proxy
        .metric_becomes("tidegate_requests_queued_total", 1.0)
        .await;
    leaving.set_zero_linger().unwrap();
    drop(leaving);
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    assert_eq!(
        get(addr, "a.test", "/").await.unwrap().status,
        200,
        "its place is free again"
    );
    assert_eq!(busy.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn retries_have_a_budget() {
    // Closes at once, so each attempt fails after it was sent; GET may be tried again.
    let backend = RawBackend::start(&[Act::ReplyAndClose("")]).await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let start = Instant::now();
    const REQUESTS: usize = 500;
    for _ in 0..REQUESTS {
        assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 502);
    }
    let seconds = start.elapsed().as_secs_f64();
    let attempts = backend.requests() as f64;
    let most = REQUESTS as f64 * 1.25 + 10.0 * (seconds + 2.0);
    assert!(
        attempts > REQUESTS as f64 && attempts <= most,
        "{attempts} attempts, at most {most}"
    );
    assert!(proxy.metric("tidegate_retries_denied_total") > 0.0);
}

#[tokio::test]
async fn an_endpoint_that_refuses_costs_no_request() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = gone.local_addr().unwrap();
    drop(gone);
    let backend = Backend::start("alive").await;
    let proxy = serve(&[host("a.test", &[refused, backend.addr])]);
    for n in 0..500 {
        assert_eq!(
            get(proxy.addr, "a.test", "/").await.unwrap().text(),
            "alive",
            "request {n}"
        );
    }
    let errors = proxy.metric("tidegate_upstream_connect_errors_total");
    assert!(
        (1.0..=30.0).contains(&errors),
        "{errors} attempts to connect in vain"
    );
}
