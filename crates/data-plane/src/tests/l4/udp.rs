//! UDP sessions: replies, limits, endpoints that go.

use super::{one_worker, relay_table, serve_relay};
use routing_table::{ClusterId, EndpointSets, RelayLimits, Update};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Answers each datagram with its name, the sender's port and the datagram.
async fn backend(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 70_000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = format!("{name} {} ", from.port()).into_bytes();
            answer.extend_from_slice(&buffer[..length]);
            let _ = socket.send_to(&answer, from).await;
        }
    });
    addr
}

/// A client that hears only the proxy's address.
async fn client(proxy: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(proxy).await.unwrap();
    socket
}

async fn ask(client: &UdpSocket, datagram: &[u8]) -> Option<String> {
    client.send(datagram).await.unwrap();
    let mut buffer = vec![0; 70_000];
    let received = timeout(Duration::from_millis(500), client.recv(&mut buffer)).await;
    let length = received.ok()?.ok()?;
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

#[tokio::test]
async fn a_session_has_one_endpoint_and_one_socket() {
    let endpoints = [backend("a").await, backend("b").await];
    let table = relay_table(true, &endpoints, RelayLimits::UDP, |_, _| {});
    let (proxy, _) = serve_relay(table, one_worker());
    let mut names = Vec::new();
    for _ in 0..4 {
        let client = client(proxy.addr).await;
        let first = ask(&client, b"1").await.unwrap();
        let second = ask(&client, b"2").await.unwrap();
        assert_eq!(first.trim_end_matches('1'), second.trim_end_matches('2'));
        names.push(first[..1].to_owned());
    }
    names.sort();
    assert_eq!(names, ["a", "a", "b", "b"]);
    assert_eq!(proxy.metric("tidegate_udp_sessions_total"), 4.0);
    let large = client(proxy.addr).await;
    let datagram = vec![b'x'; 9_000];
    assert!(ask(&large, &datagram).await.unwrap().len() > 9_000);
    let empty = client(proxy.addr).await;
    assert!(ask(&empty, b"").await.is_some());
}

#[tokio::test]
async fn silence_ends_a_session() {
    let limits = RelayLimits {
        idle: Duration::from_millis(300),
        ..RelayLimits::UDP
    };
    let table = relay_table(true, &[backend("a").await], limits, |_, _| {});
    let (proxy, logged) = serve_relay(table, one_worker());
    let client = client(proxy.addr).await;
    ask(&client, b"hello").await.unwrap();
    assert_eq!(proxy.metric("tidegate_udp_sessions_open"), 1.0);
    proxy
        .metric_becomes("tidegate_udp_sessions_open", 0.0)
        .await;
    let line = &logged.lines(1).await[0];
    assert_eq!(line["protocol"], "UDP");
    assert_eq!(line["received_bytes"], 5);
    assert_eq!(line.get("flag"), None, "{line}");
    assert!(ask(&client, b"again").await.is_some());
}

/// Long before silence would: the next datagram begins another session, with the next endpoint.
#[tokio::test]
async fn the_last_answer_ends_a_session() {
    let endpoints = [backend("a").await, backend("b").await];
    for (responses, moved) in [(Some(1), [1, 0, 1, 0]), (Some(2), [0; 4]), (None, [0; 4])] {
        let limits = RelayLimits {
            responses,
            ..RelayLimits::UDP
        };
        let table = relay_table(true, &endpoints, limits, |_, _| {});
        let (proxy, logged) = serve_relay(table, one_worker());
        let client = client(proxy.addr).await;
        let mut names = Vec::new();
        for _ in 0..5 {
            names.push(ask(&client, b"x").await.unwrap()[..1].to_owned());
        }
        let others = [1, 2, 3, 4].map(|n| usize::from(names[n] != names[0]));
        assert_eq!(others, moved, "{responses:?}");
        let open = "tidegate_udp_sessions_open";
        if responses == Some(1) {
            proxy.metric_becomes(open, 0.0).await;
            for line in logged.lines(5).await {
                assert_eq!(line.get("flag"), None, "{line}");
                assert_eq!(line["received_bytes"], 1);
            }
        } else {
            // Of two answers to each one has come.
            assert_eq!(proxy.metric(open), 1.0);
        }
    }
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_not_begun() {
    let limits = RelayLimits {
        most: 2,
        ..RelayLimits::UDP
    };
    let table = relay_table(true, &[backend("a").await], limits, |_, _| {});
    let (proxy, _) = serve_relay(table, one_worker());
    let clients = [client(proxy.addr).await, client(proxy.addr).await];
    for client in &clients {
        assert!(ask(client, b"x").await.is_some());
    }
    assert_eq!(ask(&client(proxy.addr).await, b"x").await, None);
    assert_eq!(proxy.metric("tidegate_udp_sessions_shed_total"), 1.0);
    for client in &clients {
        assert!(ask(client, b"x").await.is_some());
    }
}

#[tokio::test]
async fn a_client_whose_endpoint_refuses_or_goes_gets_another() {
    let closed = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let endpoints = [closed, backend("b").await];
    let table = relay_table(true, &endpoints, RelayLimits::UDP, |_, _| {});
    let (mut proxy, _) = serve_relay(table, one_worker());
    for _ in 0..2 {
        // Whichever was first in turn: after one lost datagram at most it is answered.
        let client = client(proxy.addr).await;
        let answer = match ask(&client, b"x").await {
            Some(answer) => answer,
            None => ask(&client, b"x").await.unwrap(),
        };
        assert!(answer.starts_with('b'));
    }
    let staying = client(proxy.addr).await;
    while ask(&staying, b"x").await.is_none() {}
    let other = backend("c").await;
    let id = ClusterId::new("test", "a", 80);
    let sets = EndpointSets::from([(id, vec![routing_table::Endpoint::ready(other)])]);
    proxy.publisher.apply(Update::Endpoints(sets)).unwrap();
    let started = std::time::Instant::now();
    while !ask(&staying, b"x")
        .await
        .is_some_and(|a| a.starts_with('c'))
    {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_endpoints_datagrams_are_counted_and_dropped() {
    let table = relay_table(true, &[], RelayLimits::UDP, |_, _| {});
    let (proxy, _) = serve_relay(table, one_worker());
    assert_eq!(ask(&client(proxy.addr).await, b"x").await, None);
    assert_eq!(proxy.metric("tidegate_udp_datagrams_dropped_total"), 1.0);
}

#[tokio::test]
async fn a_stop_waits_for_silence() {
    let table = relay_table(true, &[backend("a").await], RelayLimits::UDP, |_, _| {});
    let (proxy, _) = serve_relay(table, one_worker());
    let addr = proxy.addr;
    let known = client(addr).await;
    ask(&known, b"x").await.unwrap();
    let stop = tokio::spawn(proxy.stop(Duration::ZERO, Duration::from_secs(20)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(ask(&known, b"x").await.is_some(), "its session goes on");
    assert_eq!(ask(&client(addr).await, b"x").await, None, "no new ones");
    assert!(stop.await.unwrap(), "and ends soon after it fell silent");
}
