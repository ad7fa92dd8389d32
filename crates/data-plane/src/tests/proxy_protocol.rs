//! The PROXY protocol over real sockets: who is believed, what becomes of the client's address, what an upstream is told.

use super::raw::exchange;
use super::{Proxy, host, serve, serve_with, table};
use crate::{ClientTimeouts, Settings};
use routing_table::{ProxyVersion, Update};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use test_support::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// The same table on a listener whose connections begin with a PROXY header.
pub(crate) fn proxied(update: Update) -> Update {
    let Update::Table(table, sets) = update else {
        unreachable!("a table was made");
    };
    let mut listeners = table.listeners().to_vec();
    listeners
        .iter_mut()
        .for_each(|listener| listener.proxy_header = true);
    let table = routing_table::RoutingTable::new(listeners, table.clusters().clone()).unwrap();
    Update::Table(Arc::new(table), sets)
}

async fn serve_proxied(backend: SocketAddr, from: &str, trusted: &str) -> Proxy {
    let timeouts = ClientTimeouts {
        first_byte: Duration::from_millis(300),
        ..ClientTimeouts::default()
    };
    let settings = Settings {
        workers: 1,
        proxy_header_from: vec![from.parse().unwrap()],
        trusted_proxies: vec![trusted.parse().unwrap()],
        client_timeouts: timeouts,
        ..Settings::default()
    };
    let mut proxy = serve_with(&[], settings);
    proxy
        .publisher
        .apply(proxied(table(&[host("a.test", &[backend])])))
        .unwrap();
    proxy.addr = proxy.publisher.addresses()[0].1;
    proxy
}

/// Both versions of a header that says `203.0.113.9:4711` connected to `192.0.2.1:443`.
fn headers() -> [Vec<u8>; 2] {
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend_from_slice(&[203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 1, 187]);
    [
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n".to_vec(),
        v2,
    ]
}

#[tokio::test]
async fn the_address_in_the_header_is_the_clients() {
    let backend = Backend::start("a").await;
    let proxy = serve_proxied(backend.addr, "127.0.0.0/8", "10.0.0.0/8").await;
    for header in headers() {
        let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n";
        // In pieces, the last of which is the end of the header and the start of the request.
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (first, rest) = header.split_at(9);
        for piece in first.chunks(1) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream
            .write_all(&[rest, request.as_bytes()].concat())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let seen = backend.last().unwrap();
        assert_eq!(seen.headers["x-forwarded-for"], "203.0.113.9");
        assert_eq!(seen.headers["x-real-ip"], "203.0.113.9");
        assert_eq!(seen.headers["x-forwarded-port"], "443");
    }
}

#[tokio::test]
async fn trust_in_fields_is_in_the_address_that_the_header_names() {
    let backend = Backend::start("a").await;
    let proxy = serve_proxied(backend.addr, "127.0.0.0/8", "203.0.113.0/24").await;
    let [header, _] = headers();
    let request =
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n";
    exchange(proxy.addr, &[&header, request.as_bytes()].concat()).await;
    let seen = backend.last().unwrap();
    assert_eq!(seen.headers["x-forwarded-for"], "1.2.3.4, 203.0.113.9");
}

#[tokio::test]
async fn a_proxy_that_speaks_for_itself_is_the_client() {
    let backend = Backend::start("a").await;
    let proxy = serve_proxied(backend.addr, "127.0.0.0/8", "10.0.0.0/8").await;
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        exchange(proxy.addr, &[header, REQUEST.as_bytes()].concat()).await;
        assert_eq!(
            backend.last().unwrap().headers["x-forwarded-for"],
            "127.0.0.1"
        );
    }
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let backend = Backend::start("a").await;
    let stranger = serve_proxied(backend.addr, "10.0.0.0/8", "127.0.0.0/8").await;
    let [v1, v2] = headers();
    for header in [&v1, &v2, &Vec::new()] {
        let answer = exchange(stranger.addr, &[header, REQUEST.as_bytes()].concat()).await;
        assert_eq!(answer, "");
    }
    assert_eq!(
        stranger.metric("tidegate_proxy_protocol_untrusted_total"),
        3.0
    );
    let proxy = serve_proxied(backend.addr, "127.0.0.0/8", "127.0.0.0/8").await;
    let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", &[0; 70_000][..]].concat();
    let bad_field = [&v2[..15], &[16], &v2[16..], &[1, 0xff, 0xff, 0]].concat();
    let bad: [&[u8]; 6] = [
        REQUEST.as_bytes(),
        b"\x16\x03\x01\x02\0\x01",
        b"PROXY TCP4 nonsense\r\n",
        &long,
        &bad_field,
        b"PROXY TCP4 203.0.",
    ];
    for bytes in bad {
        let started = std::time::Instant::now();
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let read = stream.read(&mut [0; 16]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{}", bytes.escape_ascii());
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    assert_eq!(proxy.metric("tidegate_proxy_protocol_invalid_total"), 6.0);
    assert_eq!(backend.requests(), 0);
    proxy.metric_becomes("tidegate_connections_open", 0.0).await;
}

#[tokio::test]
async fn a_listener_without_it_takes_a_header_for_a_bad_request() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    for header in headers() {
        let answer = exchange(proxy.addr, &[&header, REQUEST.as_bytes()].concat()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    assert_eq!(backend.requests(), 0);
}

/// Answers every connection's first request, and writes down how each connection began.
async fn recording() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let began: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let noted = Arc::clone(&began);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                // A header of version 2 begins with an empty line.
                while !seen.windows(4).skip(4).any(|window| window == b"\r\n\r\n") {
                    if stream.read_buf(&mut seen).await.unwrap() == 0 {
                        break;
                    }
                }
                noted.lock().unwrap().push(seen);
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    (addr, began)
}

#[tokio::test]
async fn an_upstream_is_told_first_and_for_one_client_only() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (addr, began) = recording().await;
        let proxy = serve_with(
            &[host("a.test", &[addr]).proxy_header(version)],
            Settings {
                workers: 1,
                ..Settings::default()
            },
        );
        let request = |n| format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let ours = stream.local_addr().unwrap();
        for n in 1..=2 {
            stream.write_all(request(n).as_bytes()).await.unwrap();
            let mut answer = [0; 1024];
            let count = stream.read(&mut answer).await.unwrap();
            assert!(answer[..count].ends_with(b"ok"));
        }
        let began = began.lock().unwrap();
        assert_eq!(began.len(), 2, "a connection for each request");
        let mut expected = Vec::new();
        let ends = crate::proxy_header::Ends {
            source: ours,
            destination: proxy.addr,
        };
        crate::proxy_header::write(&mut expected, version, ends);
        for (n, seen) in began.iter().enumerate() {
            let request = seen.strip_prefix(expected.as_slice());
            let request = request.unwrap_or_else(|| panic!("{}", seen.escape_ascii()));
            assert!(request.starts_with(format!("GET /{} ", n + 1).as_bytes()));
        }
    }
}
