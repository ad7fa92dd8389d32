//! Endpoints that speak HTTP/2: shared connections, streams both ways, trailers, gRPC.
use super::raw::exchange;
use super::{Rule, host, serve, serve_with};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// A backend of HTTP/2 by prior knowledge that sends a request's body back as it comes, then its fields as trailers: those
/// whose names begin with `x-`, and as `got-…` those that are none to be trailers.
struct EchoBackend {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl EchoBackend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let (counted, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let asked = Arc::clone(&asked);
                let service = service_fn(move |request| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    echo(request)
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        Self {
            addr,
            connections,
            requests,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<AnyBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut trailers = HeaderMap::new();
    for (name, value) in &parts.headers {
        if name == "te" || name == "x-forwarded-for" {
            let name: http::HeaderName = format!("got-{name}").parse().unwrap();
            trailers.append(name, value.clone());
        } else if name.as_str().starts_with("x-") {
            trailers.append(name.clone(), value.clone());
        }
    }
    let method = HeaderValue::from_str(parts.method.as_str()).unwrap();
    trailers.append("x-method", method);
    if let Some(delay) = parts.headers.get("x-delay") {
        let delay: u64 = delay.to_str().unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let body = body.map_err(|error| panic!("{error}"));
    let body = body.with_trailers(async move { Some(Ok(trailers)) });
    Ok(Response::new(body.boxed_unsync()))
}

/// A client of HTTP/2 by prior knowledge.
async fn client<B>(addr: SocketAddr) -> hyper::client::conn::http2::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://a.test{path}")).header("te", "trailers")
}

fn rule(endpoints: &[SocketAddr]) -> [Rule; 1] {
    [host("a.test", endpoints).http2()]
}

#[tokio::test]
async fn many_requests_share_a_connection_and_keep_their_trailers() {
    let backend = EchoBackend::start().await;
    let proxy = serve(&rule(&[backend.addr]));
    let client = client(proxy.addr).await;
    let asked = (0..60).map(|n| {
        let mut client = client.clone();
        async move {
            let body = Full::new(Bytes::from(format!("body {n}")));
            let request = post("/")
                .header("x-n", n)
                .header("x-delay", "100")
                .body(body);
            let response = client.send_request(request.unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            let whole = response.into_body().collect().await.unwrap();
            let trailers = whole.trailers().unwrap().clone();
            assert_eq!(trailers["x-n"], n.to_string());
            assert_eq!(
                (&trailers["x-method"], &trailers["got-te"]),
                (&"POST".parse().unwrap(), &"trailers".parse().unwrap())
            );
            assert_eq!(trailers["got-x-forwarded-for"], "127.0.0.1");
            assert_eq!(whole.to_bytes(), format!("body {n}"));
        }
    });
    futures_util::future::join_all(asked).await;
    assert_eq!(
        backend.connections(),
        1,
        "one worker had the client's connection"
    );
}

#[tokio::test]
async fn a_shared_connection_has_a_longest_life() {
    let backend = EchoBackend::start().await;
    let settings = crate::Settings {
        workers: 1,
        pool: crate::PoolLimits {
            life: Some(Duration::from_millis(500)),
            ..crate::PoolLimits::default()
        },
        ..crate::Settings::default()
    };
    let proxy = serve_with(&rule(&[backend.addr]), settings);
    let client = client(proxy.addr).await;
    let ask = |delay: &'static str| {
        let mut client = client.clone();
        async move {
            let request = post("/").header("x-delay", delay);
            let request = request.body(Full::new(Bytes::from("body"))).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.to_bytes(), "body");
        }
    };
    // Longer than the connection that it is on.
    let long = tokio::spawn(ask("2000"));
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(1800) {
        ask("20").await;
    }
    assert!(
        (2..=5).contains(&backend.connections()),
        "{}",
        backend.connections()
    );
    long.await.unwrap();
}

#[tokio::test]
async fn both_ways_at_once() {
    let backend = EchoBackend::start().await;
    let proxy = serve(&rule(&[backend.addr]));
    let mut client = client(proxy.addr).await;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    });
    let request = post("/")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(stream));
    let asked = tokio::spawn(async move { client.send_request(request.unwrap()).await });
    sender.send(Bytes::from("first")).await.unwrap();
    let mut response = asked.await.unwrap().unwrap().into_body();
    for n in 0..3 {
        let piece = response
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        assert!(
            !piece.is_empty(),
            "answer {n} came before the request had ended"
        );
        sender.send(Bytes::from("next")).await.unwrap();
    }
    drop(sender);
    let rest = response.collect().await.unwrap();
    assert_eq!(rest.trailers().unwrap()["x-method"], "POST");
    proxy.metric_becomes("tidegate_requests_active", 0.0).await;
}

#[tokio::test]
async fn an_http1_client_may_have_an_http2_endpoint() {
    let backend = EchoBackend::start().await;
    let proxy = serve(&rule(&[backend.addr]));
    let answer = exchange(
        proxy.addr,
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: close, te\r\nTransfer-Encoding: chunked\r\n\r\n\
          3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("3\r\nabc\r\n0\r\n"), "{answer}");
    assert!(answer.contains("\r\nx-method: POST\r\n"), "{answer}");
    assert_eq!(backend.connections(), 1);
}

/// Answers by HTTP/2 with this.
async fn answering(answer: fn() -> Response<AnyBody>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |_: Request<Incoming>| {
                let answer = answer();
                async { Ok::<_, Infallible>(answer) }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    addr
}

/// What clients of both versions get of such an answer: of HTTP/1.1 as bytes, of HTTP/2 as status, fields, and trailers.
async fn got(answer: fn() -> Response<AnyBody>) -> (String, u16, HeaderMap, HeaderMap) {
    let proxy = serve(&rule(&[answering(answer).await]));
    let head = b"GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: close, te\r\n\r\n";
    let by_http1 = exchange(proxy.addr, head).await;
    let mut client = client(proxy.addr).await;
    let request = Request::get("http://a.test/").header("te", "trailers");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let (parts, body) = client.send_request(request).await.unwrap().into_parts();
    let whole = body.collect().await.unwrap();
    let trailers = whole.trailers().cloned().unwrap_or_default();
    (by_http1, parts.status.as_u16(), parts.headers, trailers)
}

fn with_fields(fields: &[(&'static str, &'static str)], body: &'static str) -> Response<AnyBody> {
    let mut answer = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().append(*name, value);
    }
    answer
}

/// By HTTP/1.1 it would end with us, too.
#[tokio::test]
async fn what_is_not_for_the_client_ends_here_by_http2_too() {
    let (http1, status, fields, _) = got(|| {
        with_fields(
            &[
                ("server", "engine"),
                ("alt-svc", "engine"),
                ("proxy-authenticate", "engine"),
                ("http2-settings", "engine"),
                ("trailer", "engine"),
                ("x-own", "mine"),
                ("content-length", "002"),
            ],
            "ok",
        )
    })
    .await;
    assert!(http1.starts_with("HTTP/1.1 200 "), "{http1}");
    assert!(!http1.contains("engine"), "{http1}");
    assert!(http1.contains("\r\nx-own: mine\r\n"), "{http1}");
    assert!(http1.contains("\r\ncontent-length: 2\r\n"), "{http1}");
    assert!(http1.ends_with("\r\n\r\nok"), "{http1}");
    assert_eq!(
        (status, &fields["content-length"]),
        (200, &"2".parse().unwrap())
    );
    assert_eq!(fields["server"], "tidegate");
    assert!(fields.values().all(|value| value != "engine"), "{fields:?}");
}

#[tokio::test]
async fn an_answer_without_content_has_no_length_and_none_comes() {
    let (http1, status, fields, _) = got(|| {
        let mut answer = with_fields(&[("content-length", "5")], "");
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer
    })
    .await;
    assert!(http1.starts_with("HTTP/1.1 204 "), "{http1}");
    assert!(!http1.contains("content-length"), "{http1}");
    assert_eq!((status, fields.get("content-length")), (204, None));
    // Nor does what comes all the same.
    let (http1, status, fields, _) = got(|| {
        let mut answer = with_fields(&[("content-length", "5")], "evil!");
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer
    })
    .await;
    assert!(
        http1.starts_with("HTTP/1.1 204 ") && http1.ends_with("\r\n\r\n"),
        "{http1}"
    );
    assert_eq!((status, fields.get("content-length")), (204, None));
}

#[tokio::test]
async fn what_is_no_answer_by_http1_is_none_by_http2() {
    let answers: [fn() -> Response<AnyBody>; 2] = [
        || {
            let mut answer = with_fields(&[], "");
            *answer.status_mut() = StatusCode::from_u16(999).unwrap();
            answer
        },
        || with_fields(&[("a", "b"); 102], ""),
    ];
    for answer in answers {
        let (http1, status, ..) = got(answer).await;
        assert!(http1.starts_with("HTTP/1.1 502 "), "{http1}");
        assert_eq!(status, 502);
    }
}

#[tokio::test]
async fn trailers_by_http2_say_only_what_trailers_may() {
    let (http1, status, _, trailers) = got(|| {
        let trailers = [
            ("content-length", "5"),
            ("host", "b.test"),
            ("set-cookie", "a=1"),
            ("server", "engine"),
            ("grpc-status", "0"),
            ("grpc-message", "fine"),
            ("x-own-bin", "AAE"),
        ];
        let trailers = trailers.map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let trailers = HeaderMap::from_iter(trailers);
        let frames = [Frame::data(Bytes::from("ok")), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok)));
        Response::new(body.boxed_unsync())
    })
    .await;
    assert!(http1.starts_with("HTTP/1.1 200 "), "{http1}");
    let (_, behind) = http1.split_once("\r\n0\r\n").unwrap();
    let mut lines: Vec<_> = behind.split("\r\n").collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "",
            "",
            "grpc-message: fine",
            "grpc-status: 0",
            "x-own-bin: AAE"
        ]
    );
    let mut names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        (status, names),
        (200, vec!["grpc-message", "grpc-status", "x-own-bin"])
    );
}

#[tokio::test]
async fn our_own_errors_speak_grpc_to_a_call() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = nobody.local_addr().unwrap();
    drop(nobody);
    let proxy = serve(&rule(&[gone]));
    let mut client = client(proxy.addr).await;
    for (name, code) in [("a.test", "14"), ("unknown.test", "12")] {
        let request = Request::post(format!("http://{name}/pkg.Service/Method"))
            .header("content-type", "application/grpc")
            .body(Full::new(Bytes::new()));
        let response = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], code, "{name}");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.into_body().is_end_stream());
    }
}

#[tokio::test]
async fn a_call_says_how_long_it_may_take() {
    let backend = EchoBackend::start().await;
    let proxy = serve(&rule(&[backend.addr]));
    let mut client = client(proxy.addr).await;
    let request = post("/")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "100m")
        .header("x-delay", "5000")
        .body(Full::new(Bytes::new()));
    let started = std::time::Instant::now();
    let response = client.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_connection_that_ends_at_rest_is_not_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // One request for each connection, then GOAWAY.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let answered = Arc::new(tokio::sync::Notify::new());
                let answer = Arc::clone(&answered);
                let service = service_fn(move |_: Request<Incoming>| {
                    answer.notify_one();
                    async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok")))) }
                });
                let mut connection = std::pin::pin!(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                );
                tokio::select! {
                    _ = &mut connection => return,
                    () = answered.notified() => connection.as_mut().graceful_shutdown(),
                }
                let _ = connection.await;
            });
        }
    });
    let proxy = serve(&rule(&[addr]));
    let mut client = client(proxy.addr).await;
    for _ in 0..50 {
        let request = Request::get("http://a.test/")
            .body(Full::new(Bytes::new()))
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "ok"
        );
    }
}

/// Calls of one connection go to each endpoint in turn, however long the connection lives.
#[tokio::test]
async fn calls_are_balanced_one_by_one() {
    let backends = [EchoBackend::start().await, EchoBackend::start().await];
    let proxy = serve(&rule(&backends.each_ref().map(|backend| backend.addr)));
    let mut client = client(proxy.addr).await;
    for n in 0..20 {
        let call = post("/demo.Greeter/Hello")
            .header("content-type", "application/grpc")
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")));
        let answer = client.send_request(call.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200, "{n}");
        answer.into_body().collect().await.unwrap();
    }
    let asked = backends.each_ref();
    let asked = asked.map(|backend| backend.requests.load(Ordering::Relaxed));
    assert_eq!(asked, [10, 10]);
    assert_eq!(proxy.metric("tidegate_connections_accepted_total"), 1.0);
}
