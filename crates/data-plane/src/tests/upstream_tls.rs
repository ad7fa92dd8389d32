//! TLS towards endpoints over real sockets: who is believed, what is sent, what is used again.

use super::{Proxy, Rule, host, serve, table};
use routing_table::policy::{ActiveCheck, CheckKind};
use routing_table::{Endpoint, TlsVersions, UpstreamTls, UpstreamVerify};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateRevocationListDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use test_support::client::{get, request};
use test_support::{Authority, Backend, Client, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A backend that speaks TLS: `PATH -> what it saw` in its answers, bodies sent back.
struct TlsBackend {
    addr: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    resumed: Arc<AtomicUsize>,
    /// Server name and version of the last handshake, and whether the client showed a certificate.
    last: Arc<Mutex<(Option<String>, String, bool)>>,
}

impl TlsBackend {
    async fn start(identity: &Issued, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
        let config = builder
            .with_single_cert(identity.chain.clone(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            addr: listener.local_addr().unwrap(),
            handshakes: Arc::default(),
            resumed: Arc::default(),
            last: Arc::default(),
        };
        let (handshakes, resumed) = (Arc::clone(&this.handshakes), Arc::clone(&this.resumed));
        let last = Arc::clone(&this.last);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handshakes) = (acceptor.clone(), Arc::clone(&handshakes));
                let (resumed, last) = (Arc::clone(&resumed), Arc::clone(&last));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    handshakes.fetch_add(1, Ordering::Relaxed);
                    let session = stream.get_ref().1;
                    if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                        resumed.fetch_add(1, Ordering::Relaxed);
                    }
                    *last.lock().unwrap() = (
                        session.server_name().map(str::to_owned),
                        format!("{:?}", session.protocol_version().unwrap()),
                        session.peer_certificates().is_some(),
                    );
                    echo(&mut stream).await;
                });
            }
        });
        this
    }

    fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }
}

/// Answers requests with the body they have; `/close` closes without an end of the TLS session.
async fn echo<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S) {
    let mut seen = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let Ok(1..) = stream.read_buf(&mut seen).await else {
                return;
            };
        };
        let text = String::from_utf8_lossy(&seen[..head]).into_owned();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse::<usize>().unwrap());
        while seen.len() < head + length {
            let Ok(1..) = stream.read_buf(&mut seen).await else {
                return;
            };
        }
        if text.starts_with("GET /close ") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").await;
            let _ = stream.flush().await;
            return;
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.write_all(&seen[head..head + length]).await;
        let _ = stream.flush().await;
        seen.drain(..head + length);
    }
}

fn settings() -> UpstreamTls {
    UpstreamTls {
        server_name: "web.internal".into(),
        own_names: BTreeMap::new(),
        send_server_name: false,
        verify: None,
        client_certificate: None,
        versions: TlsVersions::default(),
    }
}

fn verified(authority: &Authority) -> UpstreamTls {
    UpstreamTls {
        verify: Some(UpstreamVerify {
            authorities: super::tls::authorities(&[authority], vec![]),
            depth: 1,
        }),
        ..settings()
    }
}

fn through(name: &str, addr: SocketAddr, tls: UpstreamTls) -> Rule {
    let mut rule = host(name, &[addr]);
    rule.upstream_tls = Some(Arc::new(tls));
    rule
}

fn one_worker(rules: &[Rule]) -> Proxy {
    let settings = crate::Settings {
        workers: 1,
        ..crate::Settings::default()
    };
    super::serve_with(rules, settings)
}

#[tokio::test]
async fn who_is_believed() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let middle = ours.below("middle");
    let lower = middle.below("lower");
    let good = ours.server(&["web.internal", "127.0.0.1"]);
    let behind_two = lower.server(&["web.internal"]).through(&[&lower, &middle]);
    let revoking = |issued: &Issued| {
        let list = ours.revocation_list(&[issued]);
        let list = CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
        UpstreamTls {
            verify: Some(UpstreamVerify {
                authorities: super::tls::authorities(&[&ours], vec![list]),
                depth: 1,
            }),
            ..settings()
        }
    };
    let named = |name: &str| UpstreamTls {
        server_name: name.into(),
        ..verified(&ours)
    };
    let deep = UpstreamTls {
        verify: verified(&ours)
            .verify
            .map(|verify| UpstreamVerify { depth: 2, ..verify }),
        ..settings()
    };
    for (what, identity, settings, wanted) in [
        ("nobody asks", &other.server(&["x.test"]), settings(), 200),
        ("ours", &good, verified(&ours), 200),
        ("by address", &good, named("127.0.0.1"), 200),
        (
            "a stranger's",
            &other.server(&["web.internal"]),
            verified(&ours),
            502,
        ),
        ("another name", &good, named("api.internal"), 502),
        ("another address", &good, named("127.0.0.2"), 502),
        (
            "a client's",
            &ours.client("web.internal"),
            verified(&ours),
            502,
        ),
        (
            "expired",
            &ours.expired_client("web.internal"),
            verified(&ours),
            502,
        ),
        ("revoked", &good, revoking(&good), 502),
        (
            "another is revoked",
            &good,
            revoking(&ours.client("x")),
            200,
        ),
        (
            "behind one",
            &middle.server(&["web.internal"]).through(&[&middle]),
            verified(&ours),
            200,
        ),
        ("behind two", &behind_two, verified(&ours), 502),
        ("behind two, as allowed", &behind_two, deep, 200),
    ] {
        let backend = TlsBackend::start(identity, None).await;
        let proxy = serve(&[through("a.test", backend.addr, settings)]);
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        assert_eq!(answer.status.as_u16(), wanted, "{what}");
    }
}

/// Probes go by it too, and a connection under one name never stands in for one under another.
#[tokio::test]
async fn an_endpoint_may_have_a_name_of_its_own() {
    let ours = Authority::new("ours");
    let usual = TlsBackend::start(&ours.server(&["web.internal"]), None).await;
    let other = TlsBackend::start(&ours.server(&["other.internal"]), None).await;
    let rule = |own: &str| {
        let settings = UpstreamTls {
            send_server_name: true,
            own_names: BTreeMap::from([(other.addr, own.into())]),
            ..verified(&ours)
        };
        let mut rule = through("a.test", usual.addr, settings);
        rule.endpoints.push(Endpoint::ready(other.addr));
        rule.retry.attempts = 1;
        rule
    };
    let mut probed = rule("other.internal");
    probed.policy.active_check = Some(ActiveCheck {
        kind: CheckKind::Http {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            expected: Vec::new(),
        },
        starts_healthy: false,
        ..ActiveCheck::default()
    });
    let mut proxy = one_worker(&[probed]);
    proxy
        .metric_becomes(
            "tidegate_health_probes_total{check=\"active\",result=\"pass\"}",
            2.0,
        )
        .await;
    let mut client = Client::connect(proxy.addr).await.unwrap();
    for _ in 0..4 {
        assert_eq!(client.get("a.test", "/").await.unwrap().status, 200);
    }
    for (backend, name) in [(&usual, "web.internal"), (&other, "other.internal")] {
        // One for the probe, one for requests.
        assert_eq!(backend.handshakes(), 2, "{name}");
        assert_eq!(backend.last.lock().unwrap().0.as_deref(), Some(name));
    }
    proxy
        .publisher
        .apply(table(&[rule("wrong.internal")]))
        .unwrap();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.get("a.test", "/").await.unwrap().status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
}

#[tokio::test]
async fn what_is_sent() {
    let ours = Authority::new("ours");
    let backend = TlsBackend::start(&ours.server(&["web.internal"]), Some(&ours)).await;
    let own = Some(super::tls::certificate(&ours.client("tidegate")));
    let only = |tls12, tls13| TlsVersions { tls12, tls13 };
    for (what, name, versions, wanted) in [
        ("no name", false, only(true, true), (None, "TLSv1_3")),
        (
            "a name",
            true,
            only(true, true),
            (Some("web.internal"), "TLSv1_3"),
        ),
        (
            "1.2",
            true,
            only(true, false),
            (Some("web.internal"), "TLSv1_2"),
        ),
        ("1.3", false, only(false, true), (None, "TLSv1_3")),
    ] {
        let settings = UpstreamTls {
            send_server_name: name,
            client_certificate: own.clone(),
            versions,
            ..verified(&ours)
        };
        let proxy = serve(&[through("a.test", backend.addr, settings)]);
        let answer = get(proxy.addr, "a.test", "/").await.unwrap();
        assert_eq!(answer.status, 200, "{what}");
        let last = backend.last.lock().unwrap().clone();
        assert_eq!(
            (last.0.as_deref(), last.1.as_str(), last.2),
            (wanted.0, wanted.1, true),
            "{what}"
        );
    }
    // Without a certificate the backend, which demands one, refuses us.
    let proxy = serve(&[through("a.test", backend.addr, verified(&ours))]);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().status, 502);
}

#[tokio::test]
async fn plain_and_tls_never_mix() {
    let ours = Authority::new("ours");
    let plain = Backend::start("plain").await;
    let proxy = one_worker(&[
        host("plain.test", &[plain.addr]),
        through("tls.test", plain.addr, settings()),
    ]);
    for _ in 0..3 {
        assert_eq!(
            get(proxy.addr, "plain.test", "/").await.unwrap().status,
            200
        );
        let answer = get(proxy.addr, "tls.test", "/").await.unwrap();
        assert_eq!(
            answer.status, 502,
            "what speaks no TLS gets nothing in the clear"
        );
    }
    assert_eq!(plain.requests(), 3);

    // Two ways of TLS to one address are two connections; each is used again.
    let backend = TlsBackend::start(&ours.server(&["web.internal"]), None).await;
    let rules = |second: UpstreamTls| {
        [
            through("any.test", backend.addr, settings()),
            through("checked.test", backend.addr, second),
        ]
    };
    let mut proxy = one_worker(&rules(verified(&ours)));
    for _ in 0..20 {
        for name in ["any.test", "checked.test"] {
            assert_eq!(get(proxy.addr, name, "/").await.unwrap().status, 200);
        }
    }
    assert_eq!(backend.handshakes(), 2);
    // A swap with the same settings keeps them, other settings do not.
    proxy
        .publisher
        .apply(table(&rules(verified(&ours))))
        .unwrap();
    assert_eq!(
        get(proxy.addr, "checked.test", "/").await.unwrap().status,
        200
    );
    assert_eq!(backend.handshakes(), 2);
    let stranger = verified(&Authority::new("other"));
    proxy.publisher.apply(table(&rules(stranger))).unwrap();
    assert_eq!(
        get(proxy.addr, "checked.test", "/").await.unwrap().status,
        502
    );
    assert_eq!(get(proxy.addr, "any.test", "/").await.unwrap().status, 200);
    assert_eq!(backend.handshakes(), 2);
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    let ours = Authority::new("ours");
    let backend = TlsBackend::start(&ours.server(&["web.internal"]), None).await;
    let proxy = one_worker(&[through("a.test", backend.addr, verified(&ours))]);
    let mut client = Client::connect(proxy.addr).await.unwrap();
    for size in [0, 1, 16 * 1024, 8 * 1024 * 1024] {
        let body: bytes::Bytes = (0..size)
            .map(|n| (n % 251) as u8)
            .collect::<Vec<_>>()
            .into();
        let sent = request(http::Method::POST, "a.test", "/", body.clone());
        let answer = client.send(sent).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{size} bytes");
    }
    assert_eq!(backend.handshakes(), 1);
}

#[tokio::test]
async fn sessions_are_resumed_and_a_cut_is_seen() {
    let ours = Authority::new("ours");
    let backend = TlsBackend::start(&ours.server(&["web.internal"]), None).await;
    let proxy = one_worker(&[through("a.test", backend.addr, verified(&ours))]);
    for _ in 0..3 {
        // An answer that ends with the connection must end with the end of the session, or it may have been cut.
        let answer = get(proxy.addr, "a.test", "/close").await;
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(backend.handshakes(), 3);
    assert_eq!(backend.resumed.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_handshake_is_within_the_connect_timeout() {
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let rule = through("a.test", addr, settings())
        .connect(Duration::from_millis(150))
        .attempts(1);
    let proxy = serve(&[rule]);
    let start = std::time::Instant::now();
    let answer = get(proxy.addr, "a.test", "/").await.unwrap();
    assert_eq!(answer.status, 504);
    assert!(start.elapsed() < Duration::from_secs(2));
}
