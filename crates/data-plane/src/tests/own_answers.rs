//! Answers of our own: without content where an answer has none, in both protocols.

use super::raw::exchange;
use super::{Proxy, host, serve_with};
use crate::Settings;
use crate::hooks::{Fields, Hook, Reply, Visit};
use http::StatusCode;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use test_support::h2_raw::{Connection, Stream, block, headers};
use tokio::net::TcpStream;

/// Answers with the status that is the path.
#[derive(Debug)]
struct Answers;

impl Hook for Answers {
    fn on_request(&self, visit: &mut Visit<'_>, _: &mut Fields<'_>) -> ControlFlow<Reply> {
        let status = visit.uri().path()[1..].parse::<u16>().unwrap();
        ControlFlow::Break(Reply::new(StatusCode::from_u16(status).unwrap()))
    }
}

fn proxy() -> Proxy {
    let settings = Settings {
        hooks: vec![Arc::new(Answers)],
        ..Settings::default()
    };
    serve_with(&[host("a.test", &[])], settings)
}

async fn over_http2(proxy: &Proxy, method: &str, path: &str) -> Stream {
    let mut client = Connection::open(TcpStream::connect(proxy.addr).await.unwrap(), &[]).await;
    let request = block(&[
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a.test"),
    ]);
    client.send(&headers(1, true, &request)).await;
    let over = |got: &test_support::h2_raw::Got| got.stream(1).is_over();
    client.read(Duration::from_secs(5), over).await.stream(1)
}

#[tokio::test]
async fn an_answer_without_content_has_none() {
    let proxy = proxy();
    for (method, status) in [
        ("HEAD", 404),
        ("HEAD", 200),
        ("GET", 204),
        ("GET", 205),
        ("POST", 304),
    ] {
        let path = format!("/{status}");
        let got = over_http2(&proxy, method, &path).await;
        assert_eq!(got.status, Some(status), "{method}");
        // Nothing, not even an empty piece, comes behind the head.
        assert!(
            got.ended && got.body.is_empty() && got.pieces == 0,
            "{got:?}"
        );
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        let answer = exchange(proxy.addr, request.as_bytes()).await;
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        let length = answer
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        // RFC 9110 section 15.3.6: the end of a 205 is told by a length.
        assert_eq!(length, (status == 205).then_some("0"), "{answer}");
        let content_type = answer.contains("content-type: ");
        assert_eq!(content_type, method == "HEAD", "{answer}");
    }
    let got = over_http2(&proxy, "GET", "/404").await;
    assert!(got.status == Some(404) && got.pieces > 0, "{got:?}");
    assert_eq!(got.body, b"404 Not Found\n");
}
