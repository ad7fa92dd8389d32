//! Bodies: streamed, counted, bounded, framed by us.

use super::raw::{Act, RawBackend, exchange};
use super::{host, serve, serve_with};
use crate::Settings;
use bytes::Bytes;
use http::Method;
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Client, get, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn what_a_client_sends_is_what_a_backend_gets() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let body = Bytes::from(vec![b'x'; 300_000]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let answer = client
            .send(request(
                method.clone(),
                "a.test",
                "/p?q=1&q=2",
                body.clone(),
            ))
            .await
            .unwrap();
        assert_eq!(answer.text(), "a");
        let seen = backend.last().unwrap();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            (method.as_str(), "/p?q=1&q=2")
        );
        assert_eq!(seen.body, body);
        assert_eq!(seen.headers["content-length"], "300000");
    }
    assert_eq!(
        backend.connections(),
        1,
        "one upstream connection serves one client connection after another request"
    );
}

#[tokio::test]
async fn a_chunked_request_stays_chunked_and_whole() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let answer = exchange(
        proxy.addr,
        format!("{head}4\r\nWiki\r\n6;x=y\r\npedia!\r\n0\r\nTrailer: x\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = backend.last().unwrap();
    assert_eq!(seen.body, "Wikipedia!");
    assert_eq!(seen.headers["transfer-encoding"], "chunked");
    assert!(!seen.headers.contains_key("content-length"));
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr]).body_limit(10)]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    assert_eq!(
        client
            .send(request(
                Method::POST,
                "a.test",
                "/",
                Bytes::from_static(b"0123456789")
            ))
            .await
            .unwrap()
            .status,
        200
    );
    let answer = client
        .send(request(
            Method::POST,
            "a.test",
            "/",
            Bytes::from_static(b"0123456789a"),
        ))
        .await
        .unwrap();
    assert_eq!(answer.status, 413);
    assert!(answer.closes());
    assert_eq!(
        backend.requests(),
        1,
        "it is refused by its declared length"
    );
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = exchange(
        proxy.addr,
        format!("{head}8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn responses_of_every_framing() {
    for (reply, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "hello",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nhello", "hello"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ] {
        let backend = RawBackend::start(&[Act::ReplyAndClose(reply)]).await;
        let proxy = serve(&[host("a.test", &[backend.addr])]);
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        assert_eq!(answer.text(), body, "{reply:?}");
        for hop in ["transfer-encoding", "connection", "keep-alive"] {
            assert!(
                hop == "transfer-encoding" || !answer.headers.contains_key(hop),
                "{hop} in {:?}",
                answer.headers
            );
        }
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    let answer = client
        .send(request(Method::HEAD, "a.test", "/", Bytes::new()))
        .await
        .unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""));
    assert_eq!(answer.headers["content-length"], "1");
    assert_eq!(
        client.get("a.test", "/").await.unwrap().text(),
        "a",
        "the connection is still in step"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (a, b) = (Backend::start("aaa").await, Backend::start("bbb").await);
    let proxy = serve(&[host("a.test", &[a.addr]), host("b.test", &[b.addr])]);
    let mut requests = String::new();
    for n in 0..50 {
        let (name, close) = (
            if n % 2 == 0 { "a.test" } else { "b.test" },
            if n == 49 { "Connection: close\r\n" } else { "" },
        );
        requests.push_str(&format!("GET /{n} HTTP/1.1\r\nHost: {name}\r\n{close}\r\n"));
    }
    let answer = exchange(proxy.addr, requests.as_bytes()).await;
    let order: String = answer
        .split("\r\n\r\n")
        .filter_map(|part| part.get(..3))
        .filter(|p| *p == "aaa" || *p == "bbb")
        .collect();
    assert_eq!(order, "aaabbb".repeat(25));
}

#[tokio::test]
async fn a_slow_upload_lives_as_long_as_bytes_flow() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr]).first_byte(Duration::from_millis(300))]);
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(backend.last().unwrap().body, "xxxxxxxx");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_is_told_so() {
    let backend = Backend::start("a").await;
    let mut settings = Settings::default();
    settings.client_timeouts.body_idle = Duration::from_millis(200);
    let proxy = serve_with(&[host("a.test", &[backend.addr])], settings);
    // A gRPC call may rest, and there are none on HTTP/1.1.
    for media_type in ["text/plain", "application/grpc"] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Type: {media_type}\r\nContent-Length: 8\r\n\r\nxx"
        );
        let answer = exchange(proxy.addr, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_failed_is_never_sent_as_if_it_had_ended() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr]).body_limit(100)]);
    // All of it is there before anything was sent, so the attempt could be made again.
    let too_large = format!("c8\r\n{}\r\n0\r\n\r\n", "x".repeat(200));
    for (body, expected) in [
        ("zz\r\nno chunk\r\n", "HTTP/1.1 400 "),
        (too_large.as_str(), "HTTP/1.1 413 "),
    ] {
        for _ in 0..5 {
            let head = "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: chunked";
            let answer = exchange(proxy.addr, format!("{head}\r\n\r\n{body}").as_bytes()).await;
            assert!(answer.starts_with(expected), "{body:?}: {answer}");
        }
    }
    assert_eq!(backend.requests(), 0);
}
