//! Each kind of probe: what is sent, and what is a good answer.

use super::*;

#[tokio::test]
async fn a_connection_or_bytes_can_be_probed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let proxy = serve(&[rule(&[addr], checked(check(CheckKind::Tcp)))]);
    more_checks(&proxy, 2.0).await;
    assert_eq!(endpoint(&proxy, addr).state, State::Available);
    drop(listener);
    becomes(&proxy, addr, State::Out).await;
    assert!(endpoint(&proxy, addr).reasons[0].why.contains("refused"));

    let redis = Says::start("+PONG\r\n").await;
    let ping = CheckKind::Bytes {
        send: (*b"PING\r\n").into(),
        expect: Expected::Start((*b"+PONG").into()),
    };
    let proxy = serve(&[rule(&[redis.addr], checked(check(ping)))]);
    more_checks(&proxy, 3.0).await;
    assert_eq!(endpoint(&proxy, redis.addr).state, State::Available);
    assert_eq!(*redis.heard.lock().unwrap(), b"PING\r\n");
    redis.say("+PO");
    becomes(&proxy, redis.addr, State::Out).await;
    assert_eq!(
        endpoint(&proxy, redis.addr).reasons[0].why,
        "the answer ends after 3 bytes"
    );
}

#[tokio::test]
async fn a_datagram_can_be_asked_for() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    let good = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let says = Arc::clone(&good);
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((count, from)) = server.recv_from(&mut buffer).await {
            assert_eq!(&buffer[..count], b"status?");
            let answer: &[u8] = match says.load(Ordering::Relaxed) {
                true => b"up 42",
                false => b"down",
            };
            server.send_to(answer, from).await.unwrap();
        }
    });
    let ask = CheckKind::Udp {
        send: (*b"status?").into(),
        expect: Expected::Pattern(Pattern::new("^up [0-9]+$").unwrap()),
    };
    let proxy = serve(&[rule(&[addr], checked(check(ask)))]);
    more_checks(&proxy, 2.0).await;
    assert_eq!(endpoint(&proxy, addr).state, State::Available);
    good.store(false, Ordering::Relaxed);
    becomes(&proxy, addr, State::Out).await;
    let told = endpoint(&proxy, addr);
    assert_eq!(told.reasons[0].why, "the answer of 4 bytes is another one");
    assert_eq!(told.last_check.unwrap().kind, "udp");
    good.store(true, Ordering::Relaxed);
    becomes(&proxy, addr, State::Available).await;
    // Nobody listens there any more.
    serving.abort();
    becomes(&proxy, addr, State::Out).await;
}

#[tokio::test]
async fn probes_begin_like_the_connections_of_requests() {
    for (version, begin) in [
        (ProxyVersion::V1, &b"PROXY UNKNOWN\r\n"[..]),
        (ProxyVersion::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let one = Says::status(200).await;
        let proxy = serve(&[rule(&[one.addr], checked(check(http()))).proxy_header(version)]);
        more_checks(&proxy, 1.0).await;
        let heard = one.heard.lock().unwrap().clone();
        assert!(heard.starts_with(begin), "{version:?}: {heard:?}");
    }
}

/// Serves HTTP/2, by itself or through TLS: a gRPC health service that says this, and 200 for `/health`.
async fn http2_backend(
    serving: Arc<AtomicUsize>,
    identity: Option<Arc<ServerConfig>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (serving, identity) = (Arc::clone(&serving), identity.clone());
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let status = serving.load(Ordering::Relaxed) as u8;
                async move {
                    let mut answer = http::Response::new(GrpcAnswer::new(&request, status));
                    if request.uri().path() == "/nothing" {
                        *answer.status_mut() = http::StatusCode::NOT_FOUND;
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                match identity {
                    None => drop(
                        builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    ),
                    Some(config) => {
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            drop(
                                builder
                                    .serve_connection(TokioIo::new(stream), service)
                                    .await,
                            );
                        }
                    }
                }
            });
        }
    });
    addr
}

/// The message and its status, or nothing.
struct GrpcAnswer(Vec<http_body::Frame<bytes::Bytes>>);

impl GrpcAnswer {
    fn new<B>(request: &http::Request<B>, status: u8) -> Self {
        if !request
            .uri()
            .path()
            .starts_with("/grpc.health.v1.Health/Check")
        {
            return Self(Vec::new());
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let message = bytes::Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
        // Taken from the end.
        Self(vec![
            http_body::Frame::trailers(trailers),
            http_body::Frame::data(message),
        ])
    }
}

impl http_body::Body for GrpcAnswer {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.pop().map(Ok))
    }
}

/// What a server of this name shows, speaking these protocols.
fn identity(authority: &Authority, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let issued = authority.server(&["b.test"]);
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(issued.chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn unverified() -> Arc<UpstreamTls> {
    Arc::new(UpstreamTls {
        server_name: "b.test".into(),
        own_names: Default::default(),
        send_server_name: true,
        verify: None,
        client_certificate: None,
        versions: Default::default(),
    })
}

#[tokio::test]
async fn grpc_health_is_asked_in_the_clear_and_through_tls() {
    let authority = Authority::new("ours");
    for through_tls in [false, true] {
        let serving = Arc::new(AtomicUsize::new(1));
        let config = through_tls.then(|| identity(&authority, &[b"h2"]));
        let addr = http2_backend(Arc::clone(&serving), config).await;
        let kind = CheckKind::Grpc {
            service: "shop.Cart".into(),
        };
        let mut rule = rule(&[addr], checked(check(kind))).http2();
        rule.upstream_tls = through_tls.then(unverified);
        let proxy = serve(&[rule]);
        more_checks(&proxy, 2.0).await;
        let told = endpoint(&proxy, addr);
        assert_eq!(told.last_check.unwrap().why, "serving");
        assert_eq!(told.state, State::Available);
        serving.store(2, Ordering::Relaxed);
        becomes(&proxy, addr, State::Out).await;
        assert_eq!(endpoint(&proxy, addr).reasons[0].why, "not serving");
        serving.store(1, Ordering::Relaxed);
        becomes(&proxy, addr, State::Available).await;
    }
}

#[tokio::test]
async fn http_is_asked_as_the_cluster_is_spoken_to() {
    let authority = Authority::new("ours");
    for through_tls in [false, true] {
        let config = through_tls.then(|| identity(&authority, &[b"h2"]));
        let addr = http2_backend(Arc::default(), config).await;
        for (path, state) in [("/health", State::Available), ("/nothing", State::Out)] {
            let kind = CheckKind::Http {
                method: "GET".into(),
                path: path.into(),
                host: None,
                expected: vec![],
            };
            let mut rule = rule(&[addr], checked(check(kind))).http2();
            rule.upstream_tls = through_tls.then(unverified);
            let proxy = serve(&[rule]);
            more_checks(&proxy, 4.0).await;
            becomes(&proxy, addr, state).await;
        }
    }
}

#[tokio::test]
async fn a_handshake_is_a_probe_whatever_the_certificate_says() {
    let addr = http2_backend(
        Arc::default(),
        Some(identity(&Authority::new("stranger"), &[])),
    )
    .await;
    let plain = Says::start("not TLS at all\r\n").await;
    let proxy = serve(&[rule(&[addr, plain.addr], checked(check(CheckKind::Tls)))]);
    becomes(&proxy, plain.addr, State::Out).await;
    let told = endpoint(&proxy, addr);
    assert_eq!(told.state, State::Available);
    assert_eq!(told.last_check.unwrap().why, "handshake done");
    assert!(
        endpoint(&proxy, plain.addr).reasons[0]
            .why
            .starts_with("TLS: ")
    );
}
