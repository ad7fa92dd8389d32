//! What filters and hooks decide of a message's fields its sender cannot say otherwise: not by another spelling of the name, not in
//! its trailers, whatever protocol client and endpoint speak.

use super::raw::{Act, RawBackend, exchange};
use super::{Rule, host, serve, serve_with};
use crate::Settings;
use crate::hooks::{Answering, Fields, Hook, Reply, Visit};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use routing_table::Filter;
use routing_table::filter::{HeaderChanges, RequestHeaders, ResponseHeaders};
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
    endpoint(is_http2, tell).await
}

async fn endpoint<F, B>(is_http2: bool, answer: fn(Request<Incoming>) -> F) -> SocketAddr
where
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = TokioIo::new(stream);
            tokio::spawn(async move {
                let service = service_fn(answer);
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

/// Answers with the fields in front of a body and behind it.
async fn send(
    _: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"ok"))),
        Ok(Frame::trailers(sent())),
    ];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().extend(sent());
    Ok(response)
}

/// The fields that are sent.
fn sent() -> HeaderMap {
    let fields = SENT.map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    fields.into_iter().collect()
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
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"ok"))),
        Ok(Frame::trailers(sent())),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut request = Request::post("http://a.test/").body(body).unwrap();
    request.headers_mut().extend(sent());
    let answer = answer_by_http2(proxy, request).await;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

async fn answer_by_http2<B>(proxy: SocketAddr, request: Request<B>) -> Response<Incoming>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(proxy).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
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

    fn on_response(&self, _: &mut Visit<'_>, _: &Answering, fields: &mut Fields<'_>) {
        fields.set(SET, HeaderValue::from_static("ours")).unwrap();
        fields.remove(&GONE).unwrap();
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

/// Those of [`SENT`] that a client got, as `name=value`.
fn got(fields: &HeaderMap) -> String {
    let known = |name: &HeaderName| SENT.iter().any(|(sent, _)| name == sent);
    let of = fields.iter().filter(|(name, _)| known(name));
    let of = of.map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
    of.collect::<Vec<_>>().join(" ")
}

/// Asks by both protocols endpoints of both that send [`SENT`] in front of a body and behind it.
async fn no_answer_gets_by(rule: impl Fn(Rule) -> Rule, settings: impl Fn() -> Settings) {
    for is_http2 in [false, true] {
        let fields: String = SENT
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .concat();
        let reply = format!(
            "HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{fields}\r\n"
        );
        let addr = if is_http2 {
            endpoint(true, send).await
        } else {
            RawBackend::start(&[Act::Reply(reply.leak())]).await.addr
        };
        let endpoint = host("a.test", &[addr]);
        let endpoint = if is_http2 { endpoint.http2() } else { endpoint };
        let proxy = serve_with(&[rule(endpoint)], settings());
        let request = Request::get("http://a.test/")
            .body(Full::default())
            .unwrap();
        let (head, body) = answer_by_http2(proxy.addr, request).await.into_parts();
        assert_eq!(got(&head.headers), "x_own=theirs x-set=ours");
        let whole = body.collect().await.unwrap();
        let trailers = whole.trailers().unwrap().clone();
        assert_eq!(got(&trailers), "x_own=theirs", "from http2: {is_http2}");
        let asked =
            b"GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n";
        let answer = exchange(proxy.addr, asked).await;
        let rest = "\r\n2\r\nok\r\n0\r\nx_own: theirs\r\n\r\n";
        assert!(answer.ends_with(rest), "from http2: {is_http2}: {answer}");
    }
}

fn deciding_of_answers(mut rule: Rule) -> Rule {
    let changes = HeaderChanges {
        remove: vec![GONE],
        set: vec![(SET, HeaderValue::from_static("ours"))],
    };
    let filter = Filter::ResponseHeaders(ResponseHeaders(changes));
    rule.filters.push(filter);
    rule
}

fn deciding_hook() -> Settings {
    Settings {
        hooks: vec![Arc::new(Deciding)],
        ..Settings::default()
    }
}

#[tokio::test]
async fn what_a_filter_decides_of_an_answer_has_no_trailer() {
    no_answer_gets_by(deciding_of_answers, Settings::default).await;
}

#[tokio::test]
async fn what_a_hook_decides_of_an_answer_has_no_trailer() {
    no_answer_gets_by(|rule| rule, deciding_hook).await;
}

/// Nor can an endpoint say it in advance. A hook only decides when the answer is there, so there is nothing before that.
#[tokio::test]
async fn nothing_that_is_decided_of_an_answer_comes_before_it() {
    let fields: String = SENT
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat();
    let reply = format!(
        "HTTP/1.1 103 Early Hints\r\n{fields}\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    );
    let backend = RawBackend::start(&[Act::Reply(reply.leak())]).await;
    let rule = || host("a.test", &[backend.addr]);
    let hints = |fields: &str| format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\nHTTP/1.1 200 ");
    for (rule, settings, begin) in [
        (rule(), Settings::default(), hints(&fields)),
        (
            deciding_of_answers(rule()),
            Settings::default(),
            hints("x_own: theirs\r\n"),
        ),
        (rule(), deciding_hook(), "HTTP/1.1 200 ".to_owned()),
    ] {
        let proxy = serve_with(&[rule], settings);
        let asked = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let answer = exchange(proxy.addr, asked).await;
        assert!(answer.starts_with(&begin), "{begin}: {answer}");
    }
}
