//! What a client is told when something is wrong, and that no byte of a refused request goes upstream.

use super::raw::{Act, RawBackend, exchange};
use super::{host, serve};
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Client, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_that_has_no_single_reading_is_refused_before_routing() {
    let backend = Backend::start("a").await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: a.test,b.test\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a.test:99999\r\n\r\n", "400"),
        ("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "400"),
        ("GET /a/../admin HTTP/1.1\r\nHost: a.test\r\n\r\n", "400"),
        (
            "GET /a/%2e%2e/admin HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "400",
        ),
        ("GET /a%2fadmin HTTP/1.1\r\nHost: a.test\r\n\r\n", "400"),
        ("GET /%00 HTTP/1.1\r\nHost: a.test\r\n\r\n", "400"),
        ("GET * HTTP/1.1\r\nHost: a.test\r\n\r\n", "400"),
        // Nor is what is asked of us.
        ("OPTIONS * HTTP/1.1\r\n\r\n", "400"),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            "400",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: a,b\r\n\r\n", "400"),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            "200",
        ),
        ("GET /a/..%3b/admin HTTP/1.1\r\nHost: a.test\r\n\r\n", "400"),
        ("TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n", "405"),
        (
            "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n",
            "405",
        ),
        ("GET / HTTP/1.1\r\nHost: a.test\r\n folded\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +2\r\n\r\nab",
            "400",
        ),
    ] {
        let answer = exchange(proxy.addr, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?} got {answer:?}"
        );
        assert!(answer.len() <= 512, "{answer:?}");
    }
    assert_eq!(backend.requests(), 0);
    let answer = get(proxy.addr, "A.Test.:80", "/%61?q=%2f").await.unwrap();
    assert_eq!(answer.text(), "a");
    assert_eq!(
        backend.last().unwrap().target,
        "/a?q=%2f",
        "what is routed is what is forwarded"
    );
}

#[tokio::test]
async fn a_head_has_limits() {
    let proxy = serve(&[]);
    let fields = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\n{}\r\n",
        "a: b\r\n".repeat(101)
    );
    assert!(
        exchange(proxy.addr, fields.as_bytes())
            .await
            .starts_with("HTTP/1.1 431 ")
    );
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\na: {}\r\n\r\n",
        "b".repeat(33 * 1024)
    );
    assert!(
        exchange(proxy.addr, large.as_bytes())
            .await
            .starts_with("HTTP/1.1 431 ")
    );
}

#[tokio::test]
async fn no_route_no_endpoint_no_connection() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = serve(&[host("none.test", &[]), host("closed.test", &[closed])]);
    for (name, status) in [
        ("unknown.test", 404),
        ("none.test", 503),
        ("closed.test", 502),
    ] {
        let answer = get(proxy.addr, name, "/").await.unwrap();
        assert_eq!(answer.status, status, "{name}");
        assert!(
            !answer.text().contains("127.0.0.1"),
            "the answer says nothing of what is behind us: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn what_an_upstream_sends_must_be_a_response() {
    for reply in [
        "junk\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\n\r\n",
        "HTTP/1.1 999 What\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
    ] {
        let backend = RawBackend::start(&[Act::Reply(reply)]).await;
        let proxy = serve(&[host("a.test", &[backend.addr])]);
        assert_eq!(
            get(proxy.addr, "a.test", "/").await.unwrap().status,
            502,
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn interim_responses_are_read_past() {
    let backend = RawBackend::start(&[Act::Reply(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )])
    .await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().text(), "ok");
}

#[tokio::test]
async fn silence_is_504_and_is_not_tried_again() {
    let backend = RawBackend::start(&[Act::Silence]).await;
    let proxy = serve(&[host("a.test", &[backend.addr]).first_byte(Duration::from_millis(100))]);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 504);
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_504() {
    // A listener whose queue is full lets further connections wait for ever.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let _full: Vec<_> = (0..4)
        .map(|_| tokio::spawn(tokio::net::TcpStream::connect(addr)))
        .collect();
    let proxy = serve(&[host("a.test", &[addr])
        .connect(Duration::from_millis(200))
        .attempts(1)]);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(proxy.addr, "a.test", "/").await);
        if statuses
            .last()
            .unwrap()
            .as_ref()
            .is_ok_and(|answer| answer.status == 504)
        {
            return;
        }
    }
    panic!("no 504: {statuses:?}");
}

#[tokio::test]
async fn a_response_that_is_cut_short_is_never_a_clean_end() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let backend = RawBackend::start(&[Act::ReplyAndClose(reply)]).await;
        let proxy = serve(&[host("a.test", &[backend.addr])]);
        assert!(get(proxy.addr, "a.test", "/").await.is_err(), "{reply:?}");
        assert_eq!(
            backend.requests(),
            1,
            "not tried again once bytes were sent"
        );
    }
}

/// To HTTP/1.0 the end of the connection is the end of the answer, so that one is none.
#[tokio::test]
async fn a_client_of_http10_sees_that_an_answer_is_cut() {
    let half = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for (end, is_whole) in [("0\r\n\r\n", true), ("", false), ("x\r\n", false)] {
        let reply = format!("{half}{end}").leak();
        let backend = RawBackend::start(&[Act::ReplyAndClose(reply)]).await;
        let proxy = serve(&[host("a.test", &[backend.addr])]);
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let asked = b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
        stream.write_all(asked).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        assert_eq!(read.is_ok(), is_whole, "{end:?}: {read:?}");
        assert!(!is_whole || answer.ends_with(b"\r\n\r\nhalf"));
    }
}

#[tokio::test]
async fn a_response_that_stops_is_cut_at_the_idle_limit() {
    let backend = RawBackend::start(&[Act::Reply(
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    )])
    .await;
    let proxy = serve(&[host("a.test", &[backend.addr]).idle(Duration::from_millis(100))]);
    assert!(get(proxy.addr, "a.test", "/").await.is_err());
}

/// A defect costs the request that meets it: 500, and nothing is left of it.
#[tokio::test]
async fn a_panic_costs_one_request() {
    let backend = Backend::start("a").await;
    let both = ["a.test", "panic.test"].map(|name| host(name, &[backend.addr]));
    let proxy = serve(&both);
    for _ in 0..3 {
        let mut client = Client::connect(proxy.addr).await.unwrap();
        assert_eq!(client.get("a.test", "/").await.unwrap().text(), "a");
        let answer = client.get("panic.test", "/").await.unwrap();
        assert_eq!(answer.status, 500);
        assert!(answer.closes());
    }
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().text(), "a");
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
}
