//! A request finds its route by what it says, one by one on a connection, and gets what its endpoint says.

use super::raw::{Act, RawBackend, exchange};
use super::{host, serve};
use bytes::Bytes;
use http::Method;
use routing_table::{ClusterId, Endpoint, EndpointSets, Update};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use test_support::Backend;
use test_support::client::{Client, get, request};

#[tokio::test]
async fn the_host_is_found_wherever_it_stands() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let proxy = serve(&[host("a.test", &[a.addr]), host("b.test", &[b.addr])]);
    for head in [
        "GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: b.test\r\n",
        "GET / HTTP/1.1\r\nUser-Agent: b.test\r\nAccept: */*\r\nHost: a.test\r\n",
        "GET / HTTP/1.1\r\nhost:A.TEST:80\r\n",
        "GET http://a.test/ HTTP/1.1\r\nUser-Agent: b.test\r\nHost: a.test\r\n",
    ] {
        let sent = format!("{head}Connection: close\r\n\r\n");
        let answer = exchange(proxy.addr, sent.as_bytes()).await;
        assert!(answer.ends_with('a'), "{head:?}: {answer}");
    }
}

/// Not by connection: each request has its own turn and its own host.
#[tokio::test]
async fn each_request_of_a_connection_is_routed_by_itself() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let other = Backend::start("other").await;
    let proxy = serve(&[
        host("a.test", &[one.addr, two.addr]),
        host("b.test", &[other.addr]),
    ]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    let mut shares = BTreeMap::new();
    for _ in 0..4 {
        let answer = client.get("a.test", "/").await.unwrap();
        *shares.entry(answer.text()).or_insert(0) += 1;
    }
    assert_eq!(
        shares,
        BTreeMap::from([("one".into(), 2), ("two".into(), 2)])
    );
    assert_eq!(client.get("b.test", "/").await.unwrap().text(), "other");
    // Whatever one of them comes to, the connection goes on.
    assert_eq!(client.get("nobody.test", "/").await.unwrap().status, 404);
    assert_eq!(client.get("b.test", "/").await.unwrap().text(), "other");
}

#[tokio::test]
async fn redirects_are_passed_on_and_not_followed() {
    let reply =
        "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/x\r\nContent-Length: 0\r\n\r\n";
    let backend = RawBackend::start(&[Act::Reply(reply)]).await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let answer = get(proxy.addr, "a.test", "/").await.unwrap();
    assert_eq!(answer.status, 302);
    assert_eq!(answer.headers["location"], "http://elsewhere.test/x");
    assert_eq!(backend.requests(), 1);
}

/// No answer crosses over to another request, however many there are at once.
#[tokio::test]
async fn a_thousand_at_once_get_their_own_answers() {
    let echo = echo().await;
    let proxy = serve(&[host("a.test", &[echo])]);
    let mut tasks = Vec::new();
    for client in 0..50 {
        let addr = proxy.addr;
        tasks.push(tokio::spawn(async move {
            let mut connection = Client::connect(addr).await.unwrap();
            for number in 0..20 {
                let path = format!("/{client}/{number}");
                let answer = connection.get("a.test", &path).await.unwrap();
                assert_eq!(answer.text(), path);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Answers with the path it was asked for.
async fn echo() -> SocketAddr {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut path = String::new();
                let mut line = String::new();
                while let Ok(1..) = stream.read_line(&mut line).await {
                    if let Some(rest) = line.strip_prefix("GET ") {
                        path = rest.split(' ').next().unwrap_or_default().to_owned();
                    }
                    if line == "\r\n" {
                        let length = path.len();
                        let answer =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    line.clear();
                }
            });
        }
    });
    addr
}

/// An empty list is 503 for as long as it is empty, and nothing else happens.
#[tokio::test]
async fn without_endpoints_it_is_503_until_there_is_one() {
    let backend = Backend::start("a").await;
    let mut proxy = serve(&[host("a.test", &[])]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    for method in [Method::GET, Method::POST].iter().cycle().take(200) {
        let asked = request(method.clone(), "a.test", "/", Bytes::from_static(b"x"));
        assert_eq!(client.send(asked).await.unwrap().status, 503);
    }
    let set = |endpoints: Vec<Endpoint>| {
        let id = ClusterId::new("test", "a.test", 80);
        Update::Endpoints(EndpointSets::from([(id, endpoints)]))
    };
    let there = vec![Endpoint::ready(backend.addr)];
    proxy.publisher.apply(set(there)).unwrap();
    assert_eq!(client.get("a.test", "/").await.unwrap().text(), "a");
    proxy.publisher.apply(set(vec![])).unwrap();
    assert_eq!(client.get("a.test", "/").await.unwrap().status, 503);
}

/// Every request of a hundred clients that come one after the other finds a connection that is there already.
#[tokio::test]
async fn connections_to_endpoints_are_few_and_used_again() {
    let backends = [Backend::start("a").await, Backend::start("b").await];
    let addresses = backends.each_ref().map(|backend| backend.addr);
    let proxy = serve(&[host("a.test", &addresses)]);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let mut client = Client::connect(proxy.addr).await.unwrap();
        for _ in 0..10 {
            seen.insert(client.get("a.test", "/").await.unwrap().text());
        }
    }
    assert_eq!(seen.len(), 2);
    let opened: u64 = backends.iter().map(|one| one.connections()).sum();
    // Two workers, two endpoints.
    assert!(opened <= 4, "{opened}");
    assert_eq!(
        proxy.metric("tidegate_upstream_connects_total"),
        opened as f64
    );
    let reused = proxy.metric("tidegate_upstream_reused_total");
    assert_eq!(reused, 1000.0 - opened as f64);
}
