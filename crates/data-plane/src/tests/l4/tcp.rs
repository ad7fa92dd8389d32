//! Relayed TCP connections: ends, refusals, limits, memory.

use super::{Logged, one_worker, relay_table, relay_table_by, serve_relay};
use crate::Settings;
use crate::proxy_header::{Ends, write};
use crate::tests::Proxy;
use routing_table::filter::AccessList;
use routing_table::policy::{CircuitBreaker, OutlierDetection};
use routing_table::{EndpointSets, Policy, ProxyVersion, RelayLimits, Update};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// An address that refuses connections.
async fn refused() -> SocketAddr {
    listener().await.1
}

fn serve(endpoints: &[SocketAddr], limits: RelayLimits) -> (Proxy, Logged) {
    serve_relay(
        relay_table(false, endpoints, limits, |_, _| {}),
        one_worker(),
    )
}

async fn pair(proxy: &Proxy, backend: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.addr).await.unwrap();
    let (upstream, _) = timeout(SOON, backend.accept()).await.unwrap().unwrap();
    (client, upstream)
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    timeout(SOON, stream.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    all
}

#[tokio::test]
async fn the_end_of_each_direction_is_passed_on_by_itself() {
    let (backend, addr) = listener().await;
    let (proxy, logged) = serve(&[addr], RelayLimits::TCP);
    for client_first in [true, false] {
        let (client, upstream) = pair(&proxy, &backend).await;
        let (mut first, mut second) = if client_first {
            (client, upstream)
        } else {
            (upstream, client)
        };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut second).await, b"question");
        // The other direction still works, and after a while too.
        tokio::time::sleep(Duration::from_millis(50)).await;
        second.write_all(b"long answer").await.unwrap();
        let mut answer = [0; 11];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"long answer");
        second.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut first).await, b"");
        proxy
            .metric_becomes("tidegate_tcp_connections_open", 0.0)
            .await;
    }
    let lines = logged.lines(2).await;
    for (line, (received, sent)) in lines.iter().zip([(8, 11), (11, 8)]) {
        assert_eq!(line["protocol"], "TCP");
        assert_eq!(line["client"], "127.0.0.1");
        assert_eq!(line["listener"], "tcp-9000");
        assert_eq!(line["received_bytes"], received);
        assert_eq!(line["sent_bytes"], sent);
        assert_eq!(line["upstream"], addr.to_string());
        assert_eq!(line["service"], "a");
        assert_eq!(line.get("flag"), None, "{line}");
    }
    assert_eq!(proxy.metric("tidegate_tcp_received_bytes_total"), 19.0);
    assert_eq!(proxy.metric("tidegate_tcp_sent_bytes_total"), 19.0);
}

#[tokio::test]
async fn connections_go_to_each_endpoint_in_turn() {
    let (a, addr_a) = listener().await;
    let (b, addr_b) = listener().await;
    let (proxy, _) = serve(&[addr_a, addr_b], RelayLimits::TCP);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(proxy.addr).await.unwrap());
        held.push(TcpStream::connect(proxy.addr).await.unwrap());
        for backend in [&a, &b] {
            held.push(timeout(SOON, backend.accept()).await.unwrap().unwrap().0);
        }
    }
}

#[tokio::test]
async fn dials_that_fail_eject_an_endpoint_and_accepted_ones_try_it() {
    let (backend, addr) = listener().await;
    let bad = refused().await;
    let policy = Policy {
        outlier: Some(OutlierDetection {
            consecutive_errors: Some(1),
            ..OutlierDetection::default()
        }),
        ..Policy::default()
    };
    let table = relay_table_by(policy, &[bad, addr]);
    let (proxy, _) = serve_relay(table, one_worker());
    for _ in 0..4 {
        pair(&proxy, &backend).await;
    }
    let name = "tidegate_endpoint_transitions_total{check=\"passive\",to=\"out\"}";
    assert_eq!(proxy.series(name), 1.0);
    let errors = proxy.metric("tidegate_upstream_connect_errors_total");
    assert_eq!(errors, 1.0, "nobody dials it any more");
    // A breaker: opened by dials that fail, closed by one that does not.
    let policy = Policy {
        breaker: Some(CircuitBreaker {
            error_ratio: Some(50),
            min_requests: 1,
            open: Duration::from_millis(100),
            ..CircuitBreaker::default()
        }),
        ..Policy::default()
    };
    let (proxy, _) = serve_relay(relay_table_by(policy, &[bad]), one_worker());
    let state = "tidegate_circuit_breaker_state";
    drop(TcpStream::connect(proxy.addr).await.unwrap());
    proxy.metric_becomes(state, 2.0).await;
    proxy.metric_becomes(state, 1.0).await;
    let _back = TcpListener::bind(bad).await.unwrap();
    let start = std::time::Instant::now();
    while proxy.metric(state) != 0.0 {
        drop(TcpStream::connect(proxy.addr).await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(start.elapsed() < SOON * 2);
    }
}

#[tokio::test]
async fn a_refused_dial_goes_on_to_the_next_endpoint() {
    let (backend, addr) = listener().await;
    let endpoints = [refused().await, refused().await, addr, refused().await];
    let (proxy, logged) = serve(&endpoints, RelayLimits::TCP);
    for _ in 0..4 {
        let (mut client, mut upstream) = pair(&proxy, &backend).await;
        client.write_all(b"x").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut upstream).await, b"x");
    }
    let lines = logged.lines(4).await;
    assert!(lines.iter().any(|line| line["attempts"].as_u64() > Some(1)));
}

#[tokio::test]
async fn a_dial_that_nobody_answers_goes_on_to_the_next_endpoint() {
    let (backend, addr) = listener().await;
    // A listener whose queue is full answers nothing.
    let (deaf, deaf_addr) = listener().await;
    let socket = socket2::SockRef::from(&deaf);
    socket.listen(1).unwrap();
    let _queued = [
        TcpStream::connect(deaf_addr).await.unwrap(),
        TcpStream::connect(deaf_addr).await.unwrap(),
    ];
    let limits = RelayLimits {
        connect: Duration::from_millis(200),
        ..RelayLimits::TCP
    };
    let (proxy, _) = serve(&[addr, deaf_addr], limits);
    for _ in 0..2 {
        let _relayed = pair(&proxy, &backend).await;
    }
    assert!(proxy.metric("tidegate_upstream_connect_errors_total") >= 1.0);
}

#[tokio::test]
async fn without_an_endpoint_the_connection_is_closed() {
    for (endpoints, flag) in [
        (vec![], "no_endpoint"),
        (vec![refused().await], "connect_failed"),
    ] {
        let (proxy, logged) = serve(&endpoints, RelayLimits::TCP);
        let mut client = TcpStream::connect(proxy.addr).await.unwrap();
        assert_eq!(read_to_end(&mut client).await, b"");
        assert_eq!(logged.lines(1).await[0]["flag"], flag);
        assert_eq!(
            proxy.metric("tidegate_tcp_connections_unconnected_total"),
            1.0
        );
    }
}

#[tokio::test]
async fn silence_in_both_directions_ends_it() {
    let (backend, addr) = listener().await;
    let limits = RelayLimits {
        idle: Duration::from_millis(300),
        ..RelayLimits::TCP
    };
    let (proxy, logged) = serve(&[addr], limits);
    let (mut client, mut upstream) = pair(&proxy, &backend).await;
    // One direction alone keeps it alive.
    for _ in 0..8 {
        upstream.write_all(b".").await.unwrap();
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    assert_eq!(proxy.metric("tidegate_tcp_connections_open"), 1.0);
    assert_eq!(read_to_end(&mut client).await, b"........");
    assert_eq!(read_to_end(&mut upstream).await, b"");
    assert_eq!(logged.lines(1).await[0]["flag"], "idle");
    assert_eq!(proxy.metric("tidegate_tcp_connections_idle_total"), 1.0);
}

#[tokio::test]
async fn a_reset_is_passed_on() {
    let (backend, addr) = listener().await;
    let (proxy, logged) = serve(&[addr], RelayLimits::TCP);
    let (client, mut upstream) = pair(&proxy, &backend).await;
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    let read = timeout(SOON, upstream.read(&mut [0; 1])).await.unwrap();
    assert_eq!(
        read.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert_eq!(logged.lines(1).await[0]["flag"], "reset");
}

#[tokio::test]
async fn the_limit_of_a_listener_holds_over_workers_and_tables() {
    let (backend, addr) = listener().await;
    let limits = RelayLimits {
        most: 3,
        ..RelayLimits::TCP
    };
    let table = || relay_table(false, &[addr], limits, |_, _| {});
    let settings = Settings {
        workers: 2,
        ..Settings::default()
    };
    let (mut proxy, _) = serve_relay(table(), settings);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(pair(&proxy, &backend).await);
    }
    proxy.publisher.apply(table()).unwrap();
    for _ in 0..4 {
        let mut extra = TcpStream::connect(proxy.addr).await.unwrap();
        assert_eq!(read_to_end(&mut extra).await, b"");
    }
    assert_eq!(proxy.metric("tidegate_tcp_connections_shed_total"), 4.0);
    held.pop();
    proxy
        .metric_becomes("tidegate_tcp_connections_open", 2.0)
        .await;
    held.push(pair(&proxy, &backend).await);
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    let (backend, addr) = listener().await;
    let (proxy, _) = serve(&[addr], RelayLimits::TCP);
    let (client, mut upstream) = pair(&proxy, &backend).await;
    let chunk = vec![7; 64 * 1024];
    let mut written = 0u64;
    // The kernel's buffers take some megabytes, ours nearly nothing.
    while let Ok(Ok(count)) = timeout(Duration::from_millis(300), async {
        client.writable().await?;
        match client.try_write(&chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            done => done,
        }
    })
    .await
    {
        written += count as u64;
        assert!(written < 64 << 20, "it takes whatever comes");
    }
    let passed_on = proxy.metric("tidegate_tcp_received_bytes_total") as u64;
    // The other direction is not held up.
    upstream.write_all(b"stop").await.unwrap();
    let mut client = client;
    let mut answer = [0; 4];
    timeout(SOON, client.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let mut read = 0u64;
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = upstream.read(&mut buffer).await {
            assert!(buffer[..count].iter().all(|byte| *byte == 7));
            read += count as u64;
        }
        read
    });
    client.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, reading).await.unwrap().unwrap(), written);
    println!("written {written}, passed on before the reader went on {passed_on}");
}

#[tokio::test]
async fn what_goes_in_comes_out() {
    let (backend, addr) = listener().await;
    let (proxy, _) = serve(&[addr], RelayLimits::TCP);
    let (client, upstream) = pair(&proxy, &backend).await;
    let bytes: Vec<u8> = (0..20_000_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let bytes = std::sync::Arc::new(bytes);
    let mut tasks = Vec::new();
    for stream in [client, upstream] {
        let (mut read, mut write) = stream.into_split();
        let sent = std::sync::Arc::clone(&bytes);
        let expected = std::sync::Arc::clone(&bytes);
        tasks.push(tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        }));
        tasks.push(tokio::spawn(async move {
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.unwrap();
            assert!(all == *expected);
        }));
    }
    for task in tasks {
        timeout(Duration::from_secs(60), task)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn proxy_headers_are_taken_and_sent() {
    let (backend, addr) = listener().await;
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let table = relay_table(false, &[addr], RelayLimits::TCP, |listener, relay| {
            listener.proxy_header = true;
            relay.proxy_header = Some(version);
        });
        let (proxy, logged) = serve_relay(table, one_worker());
        let (mut client, mut upstream) = {
            let mut client = TcpStream::connect(proxy.addr).await.unwrap();
            client
                .write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\nhello")
                .await
                .unwrap();
            let (upstream, _) = timeout(SOON, backend.accept()).await.unwrap().unwrap();
            (client, upstream)
        };
        client.shutdown().await.unwrap();
        let mut expected = Vec::new();
        let ends = Ends {
            source: "203.0.113.9:4711".parse().unwrap(),
            destination: "192.0.2.1:443".parse().unwrap(),
        };
        write(&mut expected, version, ends);
        expected.extend_from_slice(b"hello");
        assert_eq!(read_to_end(&mut upstream).await, expected);
        drop(upstream);
        read_to_end(&mut client).await;
        let line = &logged.lines(1).await[0];
        assert_eq!(line["client"], "203.0.113.9");
        assert_eq!(line["received_bytes"], 5, "what we add does not count");
    }
}

#[tokio::test]
async fn clients_are_let_in_by_their_address() {
    let (backend, addr) = listener().await;
    let network = |text: &str| text.parse().unwrap();
    let table = |proxied: bool, deny: &[&str], allow: &[&str]| {
        relay_table(false, &[addr], RelayLimits::TCP, |listener, relay| {
            listener.proxy_header = proxied;
            relay.access = AccessList {
                deny: deny.iter().copied().map(network).collect(),
                allow: allow.iter().copied().map(network).collect(),
            };
        })
    };
    for (header, deny, allow, let_in) in [
        ("", &[][..], &["127.0.0.0/8"][..], true),
        ("", &["127.0.0.1/32"], &[], false),
        ("", &[], &["10.0.0.0/8", "::1/128"], false),
        // Whom a header names counts, not who sent it.
        (
            "PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n",
            &["127.0.0.0/8"],
            &[],
            true,
        ),
        (
            "PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n",
            &[],
            &["127.0.0.0/8"],
            false,
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
            &["2001:db8::/32"],
            &[],
            false,
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
            &[],
            &["2001:db8::/32"],
            true,
        ),
        (
            "PROXY TCP6 ::ffff:10.0.0.1 ::ffff:10.0.0.2 1 2\r\n",
            &[],
            &["10.0.0.0/8"],
            true,
        ),
    ] {
        let (proxy, logged) = serve_relay(table(!header.is_empty(), deny, allow), one_worker());
        let mut client = TcpStream::connect(proxy.addr).await.unwrap();
        client.write_all(header.as_bytes()).await.unwrap();
        if let_in {
            timeout(SOON, backend.accept()).await.unwrap().unwrap();
            continue;
        }
        let read = timeout(SOON, client.read(&mut [0; 9])).await.unwrap();
        assert!(
            matches!(read, Ok(0) | Err(_)),
            "{header} {deny:?} {allow:?}: {read:?}"
        );
        let line = &logged.lines(1).await[0];
        assert_eq!(line["flag"], "forbidden");
        assert_eq!(line.get("upstream"), None, "{line}");
        assert_eq!(
            proxy.metric("tidegate_tcp_connections_forbidden_total"),
            1.0
        );
        assert_eq!(proxy.metric("tidegate_tcp_connections_open"), 0.0);
    }
}

#[tokio::test]
async fn a_proxy_header_names_the_socket_where_nobody_told_another() {
    let (backend, addr) = listener().await;
    let table = relay_table(false, &[addr], RelayLimits::TCP, |_, relay| {
        relay.proxy_header = Some(ProxyVersion::V1);
    });
    let (proxy, _) = serve_relay(table, one_worker());
    let (mut client, mut upstream) = pair(&proxy, &backend).await;
    client.shutdown().await.unwrap();
    let port = client.local_addr().unwrap().port();
    let expected = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}\r\n",
        proxy.addr.port()
    );
    assert_eq!(
        String::from_utf8(read_to_end(&mut upstream).await).unwrap(),
        expected
    );
}

#[tokio::test]
async fn an_endpoint_that_goes_keeps_its_connections_unless_told_otherwise() {
    for close_with_endpoint in [false, true] {
        let (backend, addr) = listener().await;
        let limits = RelayLimits {
            close_with_endpoint,
            ..RelayLimits::TCP
        };
        let (mut proxy, logged) = serve(&[addr], limits);
        let (mut client, mut upstream) = pair(&proxy, &backend).await;
        let id = routing_table::ClusterId::new("test", "a", 80);
        let gone = EndpointSets::from([(id, vec![])]);
        proxy.publisher.apply(Update::Endpoints(gone)).unwrap();
        if close_with_endpoint {
            assert_eq!(read_to_end(&mut client).await, b"");
            assert_eq!(logged.lines(1).await[0]["flag"], "endpoint_gone");
        } else {
            tokio::time::sleep(Duration::from_millis(1200)).await;
            client.write_all(b"x").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(read_to_end(&mut upstream).await, b"x");
        }
    }
}

#[tokio::test]
async fn a_stop_leaves_relays_until_the_deadline() {
    let (backend, addr) = listener().await;
    let (proxy, logged) = serve(&[addr], RelayLimits::TCP);
    let proxy_addr = proxy.addr;
    let (mut client, mut upstream) = pair(&proxy, &backend).await;
    let stop = tokio::spawn(proxy.stop(Duration::ZERO, Duration::from_millis(600)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(proxy_addr).await.is_err());
    client.write_all(b"still").await.unwrap();
    let mut seen = [0; 5];
    upstream.read_exact(&mut seen).await.unwrap();
    assert!(!stop.await.unwrap(), "it says that something was cut off");
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(logged.lines(1).await[0]["flag"], "stopped");
    // And one that ends in time is not cut off.
    let (proxy, _) = serve(&[addr], RelayLimits::TCP);
    let (client, upstream) = pair(&proxy, &backend).await;
    let stop = tokio::spawn(proxy.stop(Duration::ZERO, Duration::from_secs(20)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop((client, upstream));
    assert!(stop.await.unwrap());
}

#[tokio::test]
async fn an_endpoint_that_is_ourselves_is_not_connected_to() {
    let (mut proxy, logged) = serve(&[], RelayLimits::TCP);
    let id = routing_table::ClusterId::new("test", "a", 80);
    let ourselves = vec![routing_table::Endpoint::ready(proxy.addr)];
    let sets = EndpointSets::from([(id, ourselves)]);
    proxy.publisher.apply(Update::Endpoints(sets)).unwrap();
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(logged.lines(1).await[0]["flag"], "loop");
    assert_eq!(proxy.metric("tidegate_tcp_connections_total"), 1.0);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// What a relay at rest costs this process, both ends of the test included. Run with `--nocapture` to see it.
#[tokio::test]
async fn relays_at_rest_are_small() {
    const RELAYS: usize = 2_000;
    let (backend, addr) = listener().await;
    let (proxy, _) = serve(&[addr], RelayLimits::TCP);
    let mut held = Vec::with_capacity(2 * RELAYS);
    let mut measure = async |count: usize| {
        for _ in 0..count {
            let (mut client, mut upstream) = pair(&proxy, &backend).await;
            client.write_all(b"hello").await.unwrap();
            let mut seen = [0; 5];
            upstream.read_exact(&mut seen).await.unwrap();
            held.push((client, upstream));
        }
        resident_kib()
    };
    let before = measure(100).await;
    let after = measure(RELAYS).await;
    let each = (after - before) as f64 / RELAYS as f64;
    println!(
        "{RELAYS} relays at rest: {} KiB, {each:.1} KiB each",
        after - before
    );
    assert!(each < 8.0, "{each} KiB for a relay that holds nothing");
}
