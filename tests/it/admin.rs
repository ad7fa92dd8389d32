//! Who may ask the admin port: with a token, over TLS, and both replaced while it runs.

use bytes::Bytes;
use http::{Method, header};
use std::path::Path;
use std::time::{Duration, Instant};
use test_support::client::{Answer, Client, get, over_http1, request};
use test_support::tls_client::TlsClient;
use test_support::{Backend, Tidegate, certificate};

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

/// Waits for a line of the log.
async fn until_logged(tidegate: &Tidegate, said: &str) {
    let start = Instant::now();
    while !tidegate.logged().contains(said) {
        let logged = tidegate.logged();
        assert!(start.elapsed() < Duration::from_secs(20), "{logged}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
    until_logged(&tidegate, "the token of --admin-token-file replaced").await;
    assert_eq!(status(Method::GET, "/backends", Some(first)).await, 401);
    assert_eq!(status(Method::GET, "/backends", Some(second)).await, 200);
    replace(&file, "short");
    until_logged(&tidegate, "the token of --admin-token-file cannot be used").await;
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
    until_logged(&tidegate, "ready").await;
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
    until_logged(&tidegate, "the certificate of --admin-tls-cert replaced").await;
    assert_ne!(shown().await, before);
    let before = shown().await;
    replace(&chain, "nonsense");
    until_logged(&tidegate, "the certificate of --admin-tls-cert cannot").await;
    assert_eq!(shown().await, before);
}
