//! WebSockets: over HTTP/1.1 and on HTTP/2 streams, agreed to and refused.
use super::raw::{Act, RawBackend, exchange};
use super::{host, serve};
use http::{Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use test_support::Backend;
use test_support::h2_raw::{Connection, Got, block, headers};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Agrees to any upgrade, sends "hello " at once, then echoes. Gives also the heads it got.
async fn echo_backend() -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (heads, seen) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    stream.read_line(&mut head).await.unwrap();
                }
                heads.send(head).await.unwrap();
                // Nothing of what it says of a length or of its own connection concerns anybody.
                stream
                    .write_all(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Hop\r\nUpgrade: websocket\r\n\
                          Content-Length: 5\r\nX-Hop: 1\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello ",
                    )
                    .await
                    .unwrap();
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..count]).await.unwrap();
                }
            });
        }
    });
    (addr, seen)
}

#[tokio::test]
async fn over_http1() {
    let (backend, mut heads) = echo_backend().await;
    let proxy = serve(&[host("a.test", &[backend])]);
    // What is sent along with the request waits until the upstream has agreed.
    let answer = exchange_and_close(proxy.addr, format!("{ASK}early").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(!answer.contains("connection: close"), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    assert!(
        answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nhello early"), "{answer}");
    assert!(
        !answer.contains("content-length") && !answer.contains("x-hop"),
        "{answer}"
    );
    let head = heads.recv().await.unwrap();
    assert!(
        head.starts_with("GET /chat HTTP/1.1\r\n")
            && head.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
        "{head}"
    );
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
}

async fn exchange_and_close(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks for a WebSocket by extended CONNECT.
async fn connected(addr: SocketAddr) -> Response<Incoming> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://a.test/chat")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "theirs")
        .body(Empty::new())
        .unwrap();
    request
        .extensions_mut()
        .insert(hyper::ext::Protocol::from_static("websocket"));
    client.send_request(request).await.unwrap()
}

#[tokio::test]
async fn on_an_http2_stream() {
    let (backend, mut heads) = echo_backend().await;
    let proxy = serve(&[host("a.test", &[backend])]);
    let response = connected(proxy.addr).await;
    assert_eq!(response.status(), 200);
    for name in ["content-length", "x-hop"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"and back").await.unwrap();
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello and back");
    let head = heads.recv().await.unwrap();
    assert!(
        head.starts_with("GET /chat HTTP/1.1\r\nhost: a.test\r\n"),
        "{head}"
    );
    // One, and not the client's, which means nothing on HTTP/2.
    assert_eq!(head.matches("sec-websocket-key: ").count(), 1, "{head}");
    assert!(!head.contains("theirs"), "{head}");
    drop(stream);
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
}

/// To CONNECT any 2xx means that the WebSocket is open.
#[tokio::test]
async fn without_101_there_is_no_success_on_an_http2_stream() {
    for (status, expected) in [
        ("200 OK", 502),
        ("204 No", 502),
        ("302 Found", 302),
        ("403 No", 403),
    ] {
        let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").leak();
        let backend = RawBackend::start(&[Act::Reply(reply)]).await;
        let proxy = serve(&[host("a.test", &[backend.addr])]);
        assert_eq!(connected(proxy.addr).await.status(), expected, "{status}");
    }
}

/// The stream, not the connection: requests beside it are answered.
#[tokio::test]
async fn connect_with_a_length_is_refused_alone() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let mut client = Connection::open(TcpStream::connect(proxy.addr).await.unwrap(), &[]).await;
    let scheme = [
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a.test"),
    ];
    let get = block(&[&[(":method", "GET")], &scheme[..]].concat());
    let connect = [
        &[(":method", "CONNECT"), (":protocol", "websocket")],
        &scheme[..],
        &[("sec-websocket-version", "13"), ("content-length", "5")],
    ];
    let connect = block(&connect.concat());
    let streams = [
        headers(1, true, &get),
        headers(3, false, &connect),
        headers(5, false, &connect),
        headers(7, true, &get),
    ];
    client.send(&streams.concat()).await;
    let over = |got: &Got| [1, 3, 5, 7].iter().all(|one| got.stream(*one).is_over());
    let got = client.read(Duration::from_secs(5), over).await;
    assert_eq!((got.goaway, got.closed), (None, false));
    for stream in [1, 7] {
        assert_eq!(got.stream(stream).status, Some(200), "{stream}");
    }
    for stream in [3, 5] {
        assert!(got.stream(stream).reset.is_some(), "{stream}");
    }
    // It ends as any other, and nothing is left of it.
    drop(client);
    proxy.metric_becomes("tidegate_connections_open", 0.0).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_agree_ends_the_connection() {
    let backend = Backend::start("plain").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let answer = exchange(proxy.addr, format!("{ASK}{smuggled}").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn nothing_else_is_upgraded() {
    let reply = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n";
    let backend = RawBackend::start(&[Act::Reply(reply)]).await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    // Nor does a client hear of a WebSocket when the upstream has switched to something else.
    let answer = exchange_and_close(proxy.addr, ASK.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    for (fields, status) in [
        ("Connection: Upgrade\r\nUpgrade: foo\r\n", "502"),
        ("", "502"),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n",
            "426",
        ),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "400",
        ),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        let answer = exchange_and_close(proxy.addr, head.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{fields:?}: {answer}"
        );
    }
}
