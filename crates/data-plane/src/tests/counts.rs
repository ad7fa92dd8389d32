//! Exact numbers over real sockets: who gets how many requests, and what is given back when they end.

use super::proxy_protocol::proxied;
use super::raw::{Act, RawBackend};
use super::{Proxy, Rule, host, serve, serve_table, serve_with, table};
use crate::{Settings, State};
use routing_table::policy::Balancing;
use routing_table::{ClusterId, Endpoint, EndpointSets, Policy, Update};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::{Client, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn backends(names: &[&str]) -> (Vec<Backend>, Vec<SocketAddr>) {
    let mut backends = Vec::new();
    for name in names {
        backends.push(Backend::start(name).await);
    }
    let addrs = backends.iter().map(|backend| backend.addr).collect();
    (backends, addrs)
}

fn by(balancing: Balancing) -> Policy {
    Policy {
        balancing,
        ..Policy::default()
    }
}

/// Who answers so many requests, one after the other on one connection.
async fn answered(proxy: &Proxy, requests: usize) -> Vec<String> {
    let mut client = Client::connect(proxy.addr).await.unwrap();
    let mut names = Vec::new();
    for _ in 0..requests {
        names.push(client.get("a.test", "/").await.unwrap().text());
    }
    names
}

fn counted(names: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

/// Has a port, at which nothing listens for as long as this lives.
fn not_listening() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket
}

fn addr_of(socket: &socket2::Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// One worker: with more, the first connection may be of any of them.
fn one_worker(rules: &[Rule]) -> Proxy {
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    serve_with(rules, settings)
}

#[tokio::test]
async fn each_has_a_third_and_the_first_request_goes_to_the_first() {
    let (_backends, addrs) = backends(&["a", "b", "c"]).await;
    let proxy = serve(&[host("a.test", &addrs)]);
    let names = answered(&proxy, 900).await;
    // In the order of their addresses, whatever order they came in.
    let mut order: Vec<_> = addrs.iter().zip(["a", "b", "c"]).collect();
    order.sort();
    for (n, name) in names.iter().enumerate() {
        assert_eq!(name, order[n % 3].1, "request {n}");
    }
    assert_eq!(
        counted(&names),
        BTreeMap::from([("a", 300), ("b", 300), ("c", 300)])
    );
}

#[tokio::test]
async fn one_of_a_hundred_is_ten_of_a_thousand() {
    let (_backends, addrs) = backends(&["light", "heavy"]).await;
    let weighed = [(addrs[0], 1), (addrs[1], 99)].map(|(addr, weight)| Endpoint {
        weight,
        ..Endpoint::ready(addr)
    });
    let proxy = serve(&[host("a.test", &[]).endpoints(weighed.to_vec())]);
    assert_eq!(
        counted(&answered(&proxy, 1000).await),
        BTreeMap::from([("light", 10), ("heavy", 990)])
    );
}

#[tokio::test]
async fn equals_at_rest_take_turns() {
    for balancing in [Balancing::LeastRequest, Balancing::LeastConnections] {
        let (_backends, addrs) = backends(&["a", "b", "c"]).await;
        let proxy = serve(&[host("a.test", &addrs).policy(by(balancing))]);
        assert_eq!(
            counted(&answered(&proxy, 60).await),
            BTreeMap::from([("a", 20), ("b", 20), ("c", 20)])
        );
    }
}

async fn in_use(proxy: &Proxy) -> u64 {
    let clusters = proxy.backends().read();
    let all = clusters.iter().flat_map(|cluster| &cluster.endpoints);
    all.map(|endpoint| u64::from(endpoint.in_flight)).sum()
}

/// After an answer, an error and a client that leaves: nothing is in use.
#[tokio::test]
async fn what_a_request_takes_is_given_back_however_it_ends() {
    let broken = RawBackend::start(&[Act::ReplyAndClose("")]).await;
    let silent = RawBackend::start(&[Act::Silence]).await;
    let well = Backend::start("well").await;
    for (addr, status) in [(well.addr, 200), (broken.addr, 502), (silent.addr, 504)] {
        let rule = host("a.test", &[addr])
            .policy(by(Balancing::LeastConnections))
            .first_byte(Duration::from_millis(100));
        let proxy = serve(&[rule]);
        for _ in 0..10 {
            assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, status);
        }
        proxy.metric_becomes("tidegate_requests_active", 0.0).await;
        assert_eq!(in_use(&proxy).await, 0, "{status}");
    }
    let proxy = serve(&[host("a.test", &[silent.addr]).policy(by(Balancing::LeastConnections))]);
    let mut leaving = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect(proxy.addr).await.unwrap();
        let head = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        client.write_all(head).await.unwrap();
        client.set_zero_linger().unwrap();
        leaving.push(client);
    }
    proxy.metric_becomes("tidegate_requests_active", 10.0).await;
    let start = Instant::now();
    while in_use(&proxy).await != 10 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(leaving);
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
    assert_eq!(in_use(&proxy).await, 0);
}

/// Each is counted by its status, and the connection goes on.
#[tokio::test]
async fn errors_are_counted_and_leave_the_connection_usable() {
    let silent = RawBackend::start(&[Act::Silence]).await;
    let well = Backend::start("well").await;
    let closed = not_listening();
    let refused = addr_of(&closed);
    let proxy = serve(&[
        host("none.test", &[]),
        host("refused.test", &[refused]),
        host("silent.test", &[silent.addr]).first_byte(Duration::from_millis(100)),
        host("well.test", &[well.addr]),
    ]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    for (host, status) in [
        ("unknown.test", 404),
        ("none.test", 503),
        ("refused.test", 502),
        ("silent.test", 504),
        ("well.test", 200),
    ] {
        assert_eq!(
            client.get(host, "/").await.unwrap().status,
            status,
            "{host}"
        );
    }
    assert_eq!(proxy.metric("tidegate_connections_accepted_total"), 1.0);
    let counted = |status: u16| {
        let encoder = prometheus::TextEncoder::new();
        let shown = encoder.encode_to_string(&proxy.registry.gather()).unwrap();
        let code = format!("code=\"{status}\"");
        let series = shown
            .lines()
            .filter(|line| line.starts_with("tidegate_requests_total{") && line.contains(&code));
        series.map(str::to_owned).collect::<Vec<_>>()
    };
    for status in [404, 503, 502, 504, 200] {
        let start = Instant::now();
        // A request is counted when all of its answer has gone.
        while !matches!(&counted(status)[..], [one] if one.ends_with(" 1")) {
            let counted = counted(status);
            assert!(start.elapsed() < Duration::from_secs(10), "{counted:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The client's address is the one in a PROXY header that is believed.
#[tokio::test]
async fn a_thousand_requests_of_a_client_are_at_one_endpoint() {
    let (_backends, addrs) = backends(&["a", "b", "c"]).await;
    let settings = Settings {
        workers: 2,
        proxy_header_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    };
    let rule = host("a.test", &addrs).policy(by(Balancing::SourceIp));
    let proxy = serve_table(proxied(table(&[rule])), settings);
    let client = async |last: u8| {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let header = format!("PROXY TCP4 203.0.113.{last} 192.0.2.1 4711 80\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        Client::over(stream).await.unwrap()
    };
    let mut same = Vec::new();
    for _ in 0..10 {
        let mut client = client(7).await;
        for _ in 0..100 {
            same.push(client.get("a.test", "/").await.unwrap().text());
        }
    }
    assert_eq!(counted(&same).into_values().collect::<Vec<_>>(), [1000]);
    let mut others = Vec::new();
    for n in 0..60 {
        let mut client = client(n).await;
        others.push(client.get("a.test", "/").await.unwrap().text());
    }
    assert_eq!(counted(&others).len(), 3);
}

/// Sends without an end to whoever asks.
async fn endless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
                let mut sent = stream.write_all(head).await;
                while sent.is_ok() {
                    sent = stream.write_all(&[b'x'; 65_536]).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn while_one_streams_new_requests_go_to_the_other() {
    let (streams, quiet) = (endless().await, Backend::start("quiet").await);
    let rule = host("a.test", &[streams, quiet.addr]).policy(by(Balancing::LeastBandwidth));
    let proxy = one_worker(&[rule]);
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    let mut piece = vec![0; 65_536];
    let mut read = 0;
    loop {
        let head = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        client.write_all(head).await.unwrap();
        let count = client.read(&mut piece).await.unwrap();
        read += count;
        if !String::from_utf8_lossy(&piece[..count]).contains("quiet") {
            break;
        }
    }
    while read < 3_000_000 {
        read += client.read(&mut piece).await.unwrap();
    }
    assert_eq!(
        counted(&answered(&proxy, 20).await),
        BTreeMap::from([("quiet", 20)])
    );
}

/// Of three one goes: it gets nothing more, what it has begun ends in peace, and the other two serve.
#[tokio::test]
async fn one_of_three_goes_and_what_it_has_begun_ends() {
    let slow = Backend::start_at("slow", ([127, 0, 0, 1], 0).into(), Duration::from_secs(2)).await;
    let (_backends, addrs) = backends(&["a", "b"]).await;
    let all = [addrs[0], addrs[1], slow.addr];
    let mut proxy = one_worker(&[host("a.test", &all)]);
    let addr = proxy.addr;
    let asked: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { get(addr, "a.test", "/").await.unwrap().text() }))
        .collect();
    let start = Instant::now();
    // Requests are counted when they are answered, which is too late.
    while slow.connections() == 0 {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let id = ClusterId::new("test", "a.test", 80);
    let two = addrs.iter().copied().map(Endpoint::ready).collect();
    let sets = EndpointSets::from([(id, two)]);
    proxy.publisher.apply(Update::Endpoints(sets)).unwrap();
    // Shown for as long as it is at something.
    let shown = || proxy.backends().read().remove(0).endpoints;
    let leaving = shown().pop().unwrap();
    assert_eq!((leaving.addr, leaving.in_flight), (slow.addr, 1));
    assert_eq!(leaving.state, State::Draining);
    assert!(!leaving.gets_requests && leaving.reasons[0].why.starts_with("it is gone"));
    assert_eq!(
        counted(&answered(&proxy, 100).await),
        BTreeMap::from([("a", 50), ("b", 50)])
    );
    let mut names = Vec::new();
    for one in asked {
        names.push(one.await.unwrap());
    }
    assert_eq!(counted(&names)["slow"], 1);
    assert_eq!(slow.requests(), 1);
    while shown().len() > 2 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
