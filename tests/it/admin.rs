//! Who may ask the admin port: with a token, over TLS, and both replaced while it runs; and who cannot keep others from it.

use bytes::Bytes;
use http::{Method, header};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use test_support::client::{Answer, Client, get, over_http1, request};
use test_support::tls_client::TlsClient;
use test_support::{Backend, Tidegate, certificate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

fn start(name: &str, backend: &Backend, more: &[&str]) -> Tidegate {
    let to = format!("--backend=http://{}", backend.addr);
    let args = ["serve", &to, "--access-log=off"];
    Tidegate::start(name, &[&args[..], more].concat())
}

async fn ask(tidegate: &Tidegate, method: Method, path: &str, token: Option<&str>) -> Answer {
    let body = match method {
        Method::POST => Bytes::from_static(b"{\"drain\": true}"),
        _ => Bytes::new(),
    };
    let mut asked = request(method, "admin", path, body);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        asked.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let mut client = Client::connect(tidegate.admin).await.unwrap();
    client.send(asked).await.unwrap()
}

/// Puts a file in place of another, as whoever rotates something should.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[tokio::test]
async fn the_token_is_asked_for_and_replaced() {
    let (first, second) = ("first-0123456789", "second-0123456789");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let backend = Backend::start("one").await;
    let flag = format!("--admin-token-file={}", file.display());
    let flags = [&flag, "--admin-writes"];
    let tidegate = start("admin-token", &backend, &flags).ready().await;
    for open in ["/healthz", "/readyz", "/metrics"] {
        let answer = get(tidegate.admin, "admin", open).await.unwrap();
        assert_eq!(answer.status, 200, "{open}");
    }
    let status = async |method, path, token| ask(&tidegate, method, path, token).await.status;
    let refused = ask(&tidegate, Method::GET, "/backends", None).await;
    assert_eq!(refused.status, 401);
    let challenge = &refused.headers["www-authenticate"];
    assert_eq!(challenge, "Bearer realm=\"tidegate\"");
    let refused = ask(&tidegate, Method::GET, "/backends", Some(second)).await;
    assert_eq!(refused.status, 401);
    let challenge = &refused.headers["www-authenticate"];
    assert_eq!(
        challenge,
        "Bearer realm=\"tidegate\", error=\"invalid_token\""
    );
    assert_eq!(status(Method::GET, "/backends", Some(first)).await, 200);
    let place = format!("/backends/standalone/default:0/{}", backend.addr);
    assert_eq!(status(Method::POST, &place, None).await, 401);
    assert_eq!(status(Method::POST, &place, Some(first)).await, 200);

    replace(&file, second);
    tidegate
        .until_logged("the token of --admin-token-file replaced")
        .await;
    assert_eq!(status(Method::GET, "/backends", Some(first)).await, 401);
    assert_eq!(status(Method::GET, "/backends", Some(second)).await, 200);
    replace(&file, "short");
    tidegate
        .until_logged("the token of --admin-token-file cannot be used")
        .await;
    assert_eq!(status(Method::GET, "/backends", Some(second)).await, 200);
    assert_eq!(status(Method::GET, "/backends", Some("short")).await, 401);

    replace(&file, first);
    let flags = [&flag, "--admin-token-for-metrics"];
    let tidegate = start("admin-metrics", &backend, &flags).ready().await;
    let status = async |token| ask(&tidegate, Method::GET, "/metrics", token).await.status;
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some(first)).await, 200);
}

#[tokio::test]
async fn it_speaks_tls_with_the_certificate_of_now() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (
        directory.path().join("tls.crt"),
        directory.path().join("tls.key"),
    );
    let issue = || {
        let (certificate, its_key) = certificate::self_signed(&["admin.test"]);
        replace(&key, &its_key);
        replace(&chain, &certificate);
    };
    issue();
    let backend = Backend::start("one").await;
    let flags = [
        format!("--admin-tls-cert={}", chain.display()),
        format!("--admin-tls-key={}", key.display()),
    ];
    let tidegate = start("admin-tls", &backend, &[&flags[0], &flags[1]]);
    tidegate.until_logged("ready").await;
    let client = TlsClient::new(None);
    let connect = async || client.connect(tidegate.admin, "admin.test").await.unwrap();
    let shown = async || {
        let session = connect().await;
        let (_, session) = session.get_ref();
        session.peer_certificates().unwrap()[0].to_vec()
    };
    assert_eq!(
        over_http1(connect().await, "admin", "/readyz").await,
        "ready\n"
    );
    // In plain there is nothing to be had.
    assert!(get(tidegate.admin, "admin", "/readyz").await.is_err());

    let before = shown().await;
    issue();
    tidegate
        .until_logged("the certificate of --admin-tls-cert replaced")
        .await;
    assert_ne!(shown().await, before);
    let before = shown().await;
    replace(&chain, "nonsense");
    tidegate
        .until_logged("the certificate of --admin-tls-cert cannot")
        .await;
    assert_eq!(shown().await, before);
}

/// Connections that never come to ask: half of them say nothing, half a byte every second, until this is dropped.
async fn crowd(addr: SocketAddr, begin: &'static [u8]) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for number in 0..1_000 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        crowd.spawn(async move {
            if number % 2 == 0 {
                // Waits for the other side to close it.
                let _ = stream.read(&mut [0]).await;
                return;
            }
            for byte in begin.iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    crowd
}

#[tokio::test]
async fn a_crowd_that_never_asks_keeps_no_probe_out() {
    let directory = tempfile::tempdir().unwrap();
    let files = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    let (certificate, key) = certificate::self_signed(&["admin.test"]);
    std::fs::write(&files[0], certificate).unwrap();
    std::fs::write(&files[1], key).unwrap();
    let backend = Backend::start("one").await;
    let tls = [
        format!("--admin-tls-cert={}", files[0].display()),
        format!("--admin-tls-key={}", files[1].display()),
    ];
    let plain = start("admin-crowd", &backend, &[]).ready().await;
    let encrypted = start("admin-crowd-tls", &backend, &[&tls[0], &tls[1]]);
    encrypted.until_logged("ready").await;
    let client = TlsClient::new(None);
    let _crowds = [
        crowd(plain.admin, b"GET /healthz HTTP/1.1\r\nx: ").await,
        // What a handshake begins with.
        crowd(encrypted.admin, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").await,
    ];
    for _ in 0..20 {
        let asked = Instant::now();
        let answer = get(plain.admin, "admin", "/healthz").await.unwrap();
        assert_eq!(answer.status, 200);
        let session = client.connect(encrypted.admin, "admin.test").await.unwrap();
        assert_eq!(over_http1(session, "admin", "/healthz").await, "ok\n");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn pages_in_a_browser_get_nothing_but_what_everybody_gets() {
    let backend = Backend::start("one").await;
    let flags = ["--admin-writes", "--admin-profile"];
    let tidegate = start("admin-pages", &backend, &flags).ready().await;
    let status = async |method: Method, path: &str, host: &str, origin: Option<&str>| {
        let body = Bytes::from_static(b"{\"drain\": false}");
        let mut asked = request(method, host, path, body);
        if let Some(origin) = origin {
            let origin = origin.parse().unwrap();
            asked.headers_mut().insert(header::ORIGIN, origin);
        }
        let mut client = Client::connect(tidegate.admin).await.unwrap();
        client.send(asked).await.unwrap().status
    };
    let place = format!("/backends/standalone/default:0/{}", backend.addr);
    let (host, origin) = ("evil.test:10254", Some("http://evil.test"));
    for (method, path) in [
        (Method::GET, "/backends"),
        (Method::GET, "/profile?seconds=1"),
        (Method::POST, &place),
        (Method::GET, "/"),
    ] {
        let asked = async |host, origin| status(method.clone(), path, host, origin).await;
        assert_eq!(asked(host, None).await, 403, "{path}");
        assert_eq!(asked("127.0.0.1:10254", origin).await, 403, "{path}");
        assert_ne!(asked("127.0.0.1:10254", None).await, 403, "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(Method::GET, path, host, origin).await, 200, "{path}");
    }
}
