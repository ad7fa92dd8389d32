//! What is tried again, and what never is.

use super::raw::{Act, RawBackend};
use super::{host, serve, serve_with};
use crate::Settings;
use bytes::Bytes;
use http::Method;
use std::time::Duration;
use test_support::Backend;
use test_support::client::{Client, get, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn refused() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn a_refused_connection_goes_elsewhere_whatever_the_method() {
    let alive = Backend::start("alive").await;
    let proxy = serve(&[host("a.test", &[refused(), alive.addr])]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    for n in 0..20 {
        let method = if n % 2 == 0 {
            Method::POST
        } else {
            Method::GET
        };
        let answer = client
            .send(request(method, "a.test", "/", Bytes::from_static(b"body")))
            .await
            .unwrap();
        assert_eq!(answer.text(), "alive");
        assert_eq!(
            backend_body(&alive),
            "body",
            "the body is sent again as a whole"
        );
    }
    // Once it has refused, others go before it for a while.
    assert!(proxy.metric("tidegate_upstream_retries_total") >= 1.0);
}

fn backend_body(backend: &Backend) -> String {
    String::from_utf8_lossy(&backend.last().unwrap().body).into_owned()
}

#[tokio::test]
async fn attempts_are_bounded() {
    let proxy = serve(&[host(
        "a.test",
        &[refused(), refused(), refused(), refused(), refused()],
    )]);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 502);
    assert_eq!(proxy.metric("tidegate_upstream_connect_errors_total"), 3.0);
}

#[tokio::test]
async fn a_connection_that_was_closed_at_rest_is_no_failure() {
    let backend = RawBackend::start(&[Act::OkThenCloseAtRest]).await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    for pause in [0, 5, 15, 19, 20, 21, 25, 40, 0, 20] {
        for method in [Method::GET, Method::PUT] {
            assert_eq!(
                client
                    .send(request(method, "a.test", "/", Bytes::new()))
                    .await
                    .unwrap()
                    .status,
                200
            );
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

#[tokio::test]
async fn a_post_that_may_have_been_executed_is_not_sent_twice() {
    // The connection is closed after the request was read: nobody can know what became of it.
    let backend = RawBackend::start(&[
        Act::Reply("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        Act::ReplyAndClose(""),
    ])
    .await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    assert_eq!(
        client
            .send(request(Method::POST, "a.test", "/", Bytes::new()))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        client
            .send(request(Method::POST, "a.test", "/", Bytes::new()))
            .await
            .unwrap()
            .status,
        502
    );
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn an_answer_of_500_is_an_answer() {
    let backend =
        RawBackend::start(&[Act::Reply("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")]).await;
    let proxy = serve(&[host("a.test", &[backend.addr])]);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 500);
    assert_eq!(backend.requests(), 1);
}

/// However often it was tried, an endpoint gets what the client sent: nothing is added twice.
#[tokio::test]
async fn each_attempt_starts_from_the_original() {
    let alive = Backend::start("alive").await;
    let endpoints = [refused(), refused(), refused(), refused(), alive.addr];
    let proxy = serve(&[host("a.test", &endpoints).attempts(5)]);
    for _ in 0..5 {
        let answer = get(proxy.addr, "a.test", "/x?k=1").await.unwrap();
        assert_eq!(answer.status, 200);
        let seen = alive.last().unwrap();
        assert_eq!(seen.target, "/x?k=1");
        let forwarded: Vec<_> = seen.headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(forwarded, ["127.0.0.1"]);
        assert_eq!(seen.headers.get_all("x-request-id").iter().count(), 1);
    }
    // How many depends on their ports, by which they take turns.
    assert!(proxy.metric("tidegate_upstream_retries_total") >= 1.0);
}

/// Each of two dead ones is tried four times, a pause apart, and then the client is told.
#[tokio::test]
async fn the_same_endpoint_may_be_tried_again_before_another_is() {
    // Held together, so that they are two.
    let held = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let dead = held.each_ref().map(|one| one.local_addr().unwrap());
    drop(held);
    let mut rule = host("a.test", &dead).attempts(2);
    rule.retry.same_endpoint = 3;
    rule.retry.pause = Duration::from_millis(10);
    // The budget of retries is shared out among workers.
    let proxy = serve_with(
        &[rule],
        Settings {
            workers: 1,
            ..Settings::default()
        },
    );
    let started = std::time::Instant::now();
    let mut client = Client::connect(proxy.addr).await.unwrap();
    let asked = request(Method::POST, "a.test", "/", Bytes::from_static(b"body"));
    assert_eq!(client.send(asked).await.unwrap().status, 502);
    assert!(started.elapsed() >= Duration::from_millis(60));
    assert_eq!(proxy.metric("tidegate_upstream_connect_errors_total"), 8.0);
}

/// The endpoint closes a connection that was used before, upon a request with trailers. All of it is sent again.
#[tokio::test]
async fn trailers_are_sent_again_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let read = async |stream: &mut TcpStream, end: &[u8]| {
        let mut seen = Vec::new();
        while !seen.ends_with(end) {
            let count = stream.read_buf(&mut seen).await.unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        }
    };
    let behind = b"2\r\nhi\r\n0\r\nx-checksum: 1\r\n\r\n";
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let endpoint = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        read(&mut first, b"\r\n\r\n").await;
        first.write_all(ok).await.unwrap();
        read(&mut first, behind).await;
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        read(&mut second, behind).await;
        second.write_all(ok).await.unwrap();
    });
    let proxy = serve(&[host("a.test", &[addr])]);
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    let get = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    client.write_all(get).await.unwrap();
    read(&mut client, b"ok").await;
    let put = "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
               2\r\nhi\r\n0\r\nX-Checksum: 1\r\n\r\n";
    client.write_all(put.as_bytes()).await.unwrap();
    let done = tokio::time::timeout(Duration::from_secs(10), endpoint).await;
    done.expect("in time").unwrap();
    read(&mut client, b"ok").await;
}
