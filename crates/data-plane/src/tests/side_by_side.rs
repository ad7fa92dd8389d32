//! Clients beside one another: a slow one holds nobody up, and one that leaves is noticed by its endpoint.

use super::{host, serve, serve_with};
use crate::Settings;
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_slow_request_holds_up_nobody() {
    const SLOW: Duration = Duration::from_secs(4);
    let slow = Backend::start_at("slow", ([127, 0, 0, 1], 0).into(), SLOW).await;
    let quick = Backend::start("quick").await;
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let rules = [
        host("slow.test", &[slow.addr]),
        host("quick.test", &[quick.addr]),
    ];
    let proxy = serve_with(&rules, settings);
    let addr = proxy.addr;
    let waiting = tokio::spawn(async move { get(addr, "slow.test", "/").await.unwrap() });
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    let mut times = Vec::new();
    for _ in 0..99 {
        let start = Instant::now();
        let answer = get(addr, "quick.test", "/").await.unwrap();
        assert_eq!(answer.text(), "quick");
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "beside a slow one: p50 {:?}, most {:?}",
        times[49], times[98]
    );
    assert!(times[49] < Duration::from_millis(50), "{times:?}");
    assert!(!waiting.is_finished(), "{times:?}");
    assert_eq!(waiting.await.unwrap().text(), "slow");
}

#[tokio::test]
async fn an_endpoint_is_told_at_once_that_the_client_has_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = serve(&[host("a.test", &[listener.local_addr().unwrap()])]);
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    client.write_all(head).await.unwrap();
    let (mut endpoint, _) = listener.accept().await.unwrap();
    let mut buffer = [0; 4096];
    assert!(endpoint.read(&mut buffer).await.unwrap() > 0);
    client.set_zero_linger().unwrap();
    drop(client);
    let left = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(10), endpoint.read(&mut buffer)).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    assert!(
        left.elapsed() < Duration::from_secs(1),
        "{:?}",
        left.elapsed()
    );
}
