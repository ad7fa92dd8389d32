//! What filters and hooks decide of a request's fields a client cannot say otherwise: not by another spelling of the name, not in
//! its trailers, whatever protocol it and the endpoint speak.

use super::raw::exchange;
use super::{Rule, host, serve, serve_with};
use crate::Settings;
use crate::hooks::{Fields, Hook, Reply, Visit};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing_table::Filter;
use routing_table::filter::{HeaderChanges, RequestHeaders};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

const SET: HeaderName = HeaderName::from_static("x-set");
const GONE: HeaderName = HeaderName::from_static("x_gone_too");

/// What a client sends in front of its body and behind it, in spellings of what is decided, and one name that is its own.
const SENT: [(&str, &str); 6] = [
    ("x-set", "theirs"),
    ("x_set", "theirs"),
    ("x-gone-too", "theirs"),
    ("x_gone-too", "theirs"),
    ("x_gone_too", "theirs"),
    ("x_own", "theirs"),
];

/// An endpoint that answers with those fields of a request, and of its trailers, whose names begin with `x` and that a client
/// could mean.
async fn telling(is_http2: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = TokioIo::new(stream);
            tokio::spawn(async move {
                let service = service_fn(tell);
                if is_http2 {
                    let builder = http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(stream, service).await;
                } else {
                    let _ = http1::Builder::new()
                        .serve_connection(stream, service)
                        .await;
                }
            });
        }
    });
    addr
}

async fn tell(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let whole = body.collect().await.unwrap();
    let trailers = whole.trailers().cloned().unwrap_or_default();
    let told = |fields: &HeaderMap| {
        let known = SENT.map(|(name, _)| name);
        let of = fields
            .iter()
            .filter(|(name, _)| known.contains(&name.as_str()));
        let of = of.map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
        of.collect::<Vec<_>>().join(" ")
    };
    let told = format!(
        "head: {}; trailers: {}.",
        told(&parts.headers),
        told(&trailers)
    );
    Ok(Response::new(Full::new(Bytes::from(told))))
}

async fn asked_by_http1(proxy: SocketAddr) -> String {
    let fields: String = SENT
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\n{fields}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         2\r\nok\r\n0\r\n{fields}\r\n"
    );
    exchange(proxy, request.as_bytes()).await
}

async fn asked_by_http2(proxy: SocketAddr) -> String {
    let stream = TcpStream::connect(proxy).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let fields = SENT.map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    let trailers: HeaderMap = fields.iter().cloned().collect();
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"ok"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut request = Request::post("http://a.test/").body(body).unwrap();
    request.headers_mut().extend(fields);
    let answer = sender.send_request(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

/// Asks by both protocols for endpoints of both.
async fn nothing_gets_by(rule: impl Fn(Rule) -> Rule, settings: impl Fn() -> Settings) {
    let expected = "head: x_own=theirs x-set=ours; trailers: x_own=theirs.";
    for is_http2 in [false, true] {
        let endpoint = host("a.test", &[telling(is_http2).await]);
        let endpoint = if is_http2 { endpoint.http2() } else { endpoint };
        let proxy = serve_with(&[rule(endpoint)], settings());
        let answer = asked_by_http1(proxy.addr).await;
        assert!(answer.ends_with(expected), "to http2: {is_http2}: {answer}");
        let answer = asked_by_http2(proxy.addr).await;
        assert_eq!(answer, expected, "to http2: {is_http2}");
    }
}

#[tokio::test]
async fn what_a_filter_decides_has_no_other_spelling_and_no_trailer() {
    let deciding = |mut rule: Rule| {
        let changes = HeaderChanges {
            remove: vec![GONE],
            set: vec![(SET, HeaderValue::from_static("ours"))],
        };
        let filter = Filter::RequestHeaders(RequestHeaders(changes));
        rule.filters.push(filter);
        rule
    };
    nothing_gets_by(deciding, Settings::default).await;
}

#[derive(Debug)]
struct Deciding;

impl Hook for Deciding {
    fn on_request(&self, _: &mut Visit<'_>, fields: &mut Fields<'_>) -> ControlFlow<Reply> {
        fields.set(SET, HeaderValue::from_static("ours")).unwrap();
        fields.remove(&GONE).unwrap();
        ControlFlow::Continue(())
    }
}

#[tokio::test]
async fn what_a_hook_decides_has_no_other_spelling_and_no_trailer() {
    let settings = || Settings {
        hooks: vec![Arc::new(Deciding)],
        ..Settings::default()
    };
    nothing_gets_by(|rule| rule, settings).await;
}

#[tokio::test]
async fn where_nothing_is_decided_all_passes() {
    let proxy = serve(&[host("a.test", &[telling(false).await])]);
    let all: Vec<_> = SENT.map(|(name, value)| format!("{name}={value}")).into();
    let all = all.join(" ");
    let answer = asked_by_http1(proxy.addr).await;
    assert!(
        answer.ends_with(&format!("head: {all}; trailers: {all}.")),
        "{answer}"
    );
}
