//! Connections: reused, spread, limited, timed out, drained.

use super::raw::exchange;
use super::{host, serve, serve_with};
use crate::{ClientTimeouts, Settings};
use routing_table::{ClusterId, Endpoint, EndpointSets, Update};
use std::net::SocketAddr;
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Client, get};
use test_support::load::{Load, Plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn upstream_connections_are_reused() {
    let backend = Backend::start("a").await;
    let proxy = serve_with(
        &[host("a.test", &[backend.addr])],
        Settings {
            workers: 1,
            ..Settings::default()
        },
    );
    for _ in 0..200 {
        assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 200);
    }
    assert_eq!(
        backend.connections(),
        1,
        "200 client connections, one after the other, need one upstream connection"
    );
}

#[tokio::test]
async fn shares_are_exact_under_concurrency() {
    let backends = [
        Backend::start("a").await,
        Backend::start("b").await,
        Backend::start("c").await,
    ];
    let proxy = serve(&[host("a.test", &backends.each_ref().map(|b| b.addr))]);
    let plan = Plan {
        addrs: vec![proxy.addr],
        host: "a.test".into(),
        path: "/".into(),
        posts: true,
        clients: 30,
        rate: 5_000,
        limit: 900,
    };
    let outcome = Load::start(plan).finish().await;
    assert_eq!(outcome.failures(), 0, "{:?}", outcome.failed);
    assert_eq!(
        outcome.bodies.values().copied().collect::<Vec<_>>(),
        [300, 300, 300],
        "{:?}",
        outcome.bodies
    );
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let timeouts = ClientTimeouts {
        first_byte: Duration::from_millis(150),
        head: Duration::from_millis(150),
        idle: Duration::from_millis(150),
        ..ClientTimeouts::default()
    };
    let backend = Backend::start("a").await;
    let proxy = serve_with(
        &[host("a.test", &[backend.addr])],
        Settings {
            workers: 1,
            client_timeouts: timeouts,
            ..Settings::default()
        },
    );
    for (what, sent) in [
        ("nothing sent", ""),
        ("half a head", "GET / HTTP/1.1\r\nHost:"),
        ("at rest", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ] {
        let answer = tokio::time::timeout(
            Duration::from_secs(5),
            exchange(proxy.addr, sent.as_bytes()),
        )
        .await;
        assert!(answer.is_ok(), "{what}: the connection is still open");
    }
    proxy.metric_becomes("tidegate_connections_open", 0.0).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let proxy = serve_with(
        &[],
        Settings {
            workers: 1,
            connections: 3,
            ..Settings::default()
        },
    );
    let mut held = Vec::new();
    for n in 1..=3 {
        held.push(TcpStream::connect(proxy.addr).await.unwrap());
        proxy
            .metric_becomes("tidegate_connections_open", f64::from(n))
            .await;
    }
    let mut extra = TcpStream::connect(proxy.addr).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), extra.read(&mut [0; 16]))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    held.pop();
    proxy.metric_becomes("tidegate_connections_open", 2.0).await;
    assert_eq!(
        get(proxy.addr, "a.test", "/").await.unwrap().status,
        404,
        "there is room again"
    );
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let slow = Backend::start_at("slow", ([127, 0, 0, 1], 0).into(), Duration::from_secs(30)).await;
    let proxy = serve(&[host("a.test", &[slow.addr])]);
    let client = TcpStream::connect(proxy.addr).await.unwrap();
    client
        .try_write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    // An abort. A plain close looks like a client that only stops sending.
    client.set_zero_linger().unwrap();
    drop(client);
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
}

#[tokio::test]
async fn a_client_that_stops_sending_gets_its_answer() {
    let slow = Backend::start_at(
        "slow",
        ([127, 0, 0, 1], 0).into(),
        Duration::from_millis(300),
    )
    .await;
    let proxy = serve(&[host("a.test", &[slow.addr])]);
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("slow"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_asks_clients_to_leave() {
    let slow = Backend::start_at(
        "slow",
        ([127, 0, 0, 1], 0).into(),
        Duration::from_millis(500),
    )
    .await;
    let proxy = serve(&[host("a.test", &[slow.addr])]);
    let addr = proxy.addr;
    let resting = Client::connect(addr).await.unwrap();
    let running = tokio::spawn(async move { get(addr, "a.test", "/").await });
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    assert!(
        proxy
            .stop(Duration::from_millis(50), Duration::from_secs(20))
            .await,
        "everything finished"
    );
    let answer = running.await.unwrap().unwrap();
    assert_eq!(answer.text(), "slow");
    assert!(answer.closes());
    drop(resting);
    assert!(
        get(addr, "a.test", "/").await.is_err(),
        "nothing listens any more"
    );
}

#[tokio::test]
async fn a_stop_has_a_deadline() {
    let slow = Backend::start_at("slow", ([127, 0, 0, 1], 0).into(), Duration::from_secs(60)).await;
    let proxy = serve(&[host("a.test", &[slow.addr])]);
    let addr = proxy.addr;
    let running = tokio::spawn(async move { get(addr, "a.test", "/").await });
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    let registry = proxy.registry.clone();
    assert!(
        !proxy.stop(Duration::ZERO, Duration::from_millis(200)).await,
        "it says that something was cut off"
    );
    assert!(running.await.unwrap().is_err());
    // It was not the client that left.
    let encoder = prometheus::TextEncoder::new();
    let metrics = encoder.encode_to_string(&registry.gather()).unwrap();
    let counted = r#"tidegate_requests_total{code="503","#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_request_that_loops_ends() {
    let mut proxy = serve(&[]);
    let addr = proxy.addr;
    proxy
        .publisher
        .apply(super::table(&[host("loop.test", &[addr])]))
        .unwrap();
    assert_eq!(get(addr, "loop.test", "/").await.unwrap().status, 508);
}

/// At the limit a connection at rest goes for one that comes; those that are busy, or were never used, stay.
#[tokio::test]
async fn a_connection_at_rest_makes_room_at_the_limit() {
    let backend = Backend::start_at("a", "127.0.0.1:0".parse().unwrap(), Duration::ZERO).await;
    let proxy = serve_with(
        &[host("a.test", &[backend.addr])],
        Settings {
            workers: 1,
            connections: 3,
            ..Settings::default()
        },
    );
    let _never_used = TcpStream::connect(proxy.addr).await.unwrap();
    let mut at_rest = Client::connect(proxy.addr).await.unwrap();
    let mut busy = Client::connect(proxy.addr).await.unwrap();
    for client in [&mut at_rest, &mut busy] {
        assert_eq!(client.get("a.test", "/").await.unwrap().status, 200);
    }
    let started = std::time::Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(busy.get("a.test", "/").await.unwrap().status, 200);
        if let Ok(answer) = get(proxy.addr, "a.test", "/").await {
            assert_eq!(answer.status, 200);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(proxy.metric("tidegate_connections_evicted_total"), 1.0);
    assert_eq!(busy.get("a.test", "/").await.unwrap().status, 200);
    assert!(at_rest.get("a.test", "/").await.is_err());
}

#[tokio::test]
async fn connections_to_endpoints_end_when_they_rest_or_their_endpoint_goes() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let pool = crate::PoolLimits {
        idle: Duration::from_millis(300),
        ..crate::PoolLimits::default()
    };
    for idle in [pool, crate::PoolLimits::default()] {
        let mut proxy = serve_with(
            &[host("a.test", &[a.addr, b.addr])],
            Settings {
                workers: 1,
                pool: idle,
                ..Settings::default()
            },
        );
        for _ in 0..2 {
            assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 200);
        }
        let at_rest = "tidegate_upstream_idle";
        if idle.idle > Duration::from_secs(1) {
            proxy.metric_becomes(at_rest, 2.0).await;
            let id = ClusterId::new("test", "a.test", 80);
            let sets = EndpointSets::from([(id, vec![Endpoint::ready(a.addr)])]);
            proxy.publisher.apply(Update::Endpoints(sets)).unwrap();
            proxy.metric_becomes(at_rest, 1.0).await;
        } else {
            proxy.metric_becomes(at_rest, 0.0).await;
        }
    }
}

/// A request that takes longer than that is not cut.
#[tokio::test]
async fn connections_to_endpoints_have_a_longest_life() {
    let quick = Backend::start("quick").await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let slow = Backend::start_at("slow", any, Duration::from_millis(1500)).await;
    let settings = |life| Settings {
        workers: 1,
        pool: crate::PoolLimits {
            life,
            ..crate::PoolLimits::default()
        },
        ..Settings::default()
    };
    for (life, renewed) in [(Some(Duration::from_millis(500)), true), (None, false)] {
        let rules = [
            host("quick.test", &[quick.addr]),
            host("slow.test", &[slow.addr]),
        ];
        let proxy = serve_with(&rules, settings(life));
        let before = quick.connections();
        let slow_one = tokio::spawn(async move { get(proxy.addr, "slow.test", "/").await });
        let mut client = Client::connect(proxy.addr).await.unwrap();
        // Never at rest for long.
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(1600) {
            assert_eq!(client.get("quick.test", "/").await.unwrap().status, 200);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let made = quick.connections() - before;
        match renewed {
            true => assert!((2..=5).contains(&made), "{made}"),
            false => assert_eq!(made, 1),
        }
        assert_eq!(slow_one.await.unwrap().unwrap().text(), "slow");
        assert_eq!(proxy.metric("tidegate_upstream_retries_total"), 0.0);
    }
}

/// They take descriptors, and one client connection of HTTP/2 may ask for a hundred.
#[tokio::test]
async fn connections_to_endpoints_have_a_limit_for_all() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let slow = Backend::start_at("slow", any, Duration::from_secs(60)).await;
    let (quick, other) = (Backend::start("quick").await, Backend::start("other").await);
    let rules = [
        host("slow.test", &[slow.addr]),
        host("quick.test", &[quick.addr]),
        host("other.test", &[other.addr]),
    ];
    let settings = Settings {
        workers: 1,
        endpoint_connections: 2,
        ..Settings::default()
    };
    let proxy = serve_with(&rules, settings);
    let addr = proxy.addr;
    let hold = async || {
        let mut client = TcpStream::connect(addr).await.unwrap();
        // So that its end is an abort.
        client.set_zero_linger().unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n";
        client.write_all(request).await.unwrap();
        client
    };
    let one = hold().await;
    proxy.metric_becomes("tidegate_requests_active", 1.0).await;
    // What rests makes room for what is needed.
    for name in ["quick", "other", "quick"] {
        let answer = get(addr, &format!("{name}.test"), "/").await.unwrap();
        assert_eq!(answer.text(), name);
    }
    assert_eq!((quick.connections(), other.connections()), (2, 1));
    let two = hold().await;
    proxy.metric_becomes("tidegate_requests_active", 2.0).await;
    let refused = get(addr, "other.test", "/").await.unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(
        proxy.metric("tidegate_upstream_connections_shed_total"),
        1.0
    );
    drop((one, two));
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    // The endpoint was not to blame.
    let answer = get(addr, "other.test", "/").await.unwrap();
    assert_eq!(answer.text(), "other");
    assert_eq!(proxy.metric("tidegate_upstream_connect_errors_total"), 0.0);
}
