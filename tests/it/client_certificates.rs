//! Client certificates by manifests: Secrets are rotated while clients are connected, and nobody is dropped; what is taken
//! away counts at once; what is missing closes. And two replicas that share ticket keys.

use bytes::Bytes;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use test_support::{Authority, Backend, Client, Issued, Tidegate, TlsClient};

const HOST: &str = "m.test";

/// A block of YAML, indented.
fn block(key: &str, text: &str) -> String {
    let mut out = format!("  {key}: |\n");
    for line in text.lines() {
        writeln!(out, "    {line}").unwrap();
    }
    out
}

fn secret(name: &str, kind: &str, data: &[(&str, &str)]) -> String {
    let mut out = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: {kind}\nstringData:\n"
    );
    for (key, text) in data {
        out.push_str(&block(key, text));
    }
    out
}

fn server_secret(issued: &Issued) -> String {
    let data = [
        ("tls.crt", issued.pem.as_str()),
        ("tls.key", &issued.key_pem),
    ];
    secret("web-tls", "kubernetes.io/tls", &data)
}

fn routing(port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  annotations:\n    \
         nginx.ingress.kubernetes.io/auth-tls-secret: default/clients\n    \
         nginx.ingress.kubernetes.io/auth-tls-pass-certificate-to-upstream: \"true\"\nspec:\n  \
         tls: [{{hosts: [{HOST}], secretName: web-tls}}]\n  rules:\n  - host: {HOST}\n    \
         http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
    )
}

fn write(directory: &Path, name: &str, text: &str) {
    // Written beside and moved, so that no half of it is ever read.
    let beside = directory.join(format!(".{name}"));
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, directory.join(name)).unwrap();
}

async fn connect(tidegate: &Tidegate, identity: Option<&Issued>) -> Client {
    let stream = TlsClient::new(identity).connect(tidegate.https, HOST).await;
    Client::over(stream.unwrap()).await.unwrap()
}

/// The status on a new connection.
async fn status(tidegate: &Tidegate, identity: Option<&Issued>) -> u16 {
    let mut client = connect(tidegate, identity).await;
    client.get(HOST, "/").await.unwrap().status.as_u16()
}

async fn becomes(tidegate: &Tidegate, identity: Option<&Issued>, wanted: u16) {
    let start = Instant::now();
    loop {
        let got = status(tidegate, identity).await;
        if got == wanted {
            return;
        }
        let waited = start.elapsed();
        assert!(
            waited < Duration::from_secs(20),
            "{got}, not {wanted}:\n{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn secrets_are_rotated_under_open_connections() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let backend = Backend::start("web").await;
    let servers = Authority::new("servers");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (carol, dave) = (old.client("carol"), new.client("dave"));
    let authorities = |all: &[&Authority]| {
        let pem: String = all.iter().map(|authority| authority.pem.as_str()).collect();
        secret("clients", "Opaque", &[("ca.crt", &pem)])
    };
    write(path, "web.yaml", &routing(backend.addr.port()));
    write(path, "tls.yaml", &server_secret(&servers.server(&[HOST])));
    write(path, "ca.yaml", &authorities(&[&old]));
    let manifests = format!("--manifests={}", path.display());
    let tidegate = Tidegate::start("mtls", &["serve", &manifests, "--access-log=off"])
        .ready()
        .await;
    assert_eq!(status(&tidegate, None).await, 400);
    assert_eq!(status(&tidegate, Some(&dave)).await, 400);
    assert_eq!(status(&tidegate, Some(&carol)).await, 200);
    let seen = backend.last().unwrap().headers;
    assert_eq!(seen["ssl-client-verify"], "SUCCESS");
    assert_eq!(
        seen["ssl-client-subject-dn"],
        r"CN=carol,O=Shop\, Inc.,C=DE"
    );
    assert!(seen.contains_key("ssl-client-cert"));
    assert_eq!(backend.requests(), 1, "who was refused reached nobody");

    // One connection that stays open and always has a request in progress, while everything around it changes.
    let mut open = connect(&tidegate, Some(&carol)).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        let mut count = 0u64;
        while stopped.try_recv().is_err() {
            let answer = open
                .get(HOST, "/")
                .await
                .expect("the connection stays open");
            assert_eq!(answer.status, 200, "after {count} requests");
            count += 1;
        }
        (open, count)
    });
    write(path, "ca.yaml", &authorities(&[&old, &new]));
    becomes(&tidegate, Some(&dave), 200).await;
    for _ in 0..10 {
        // Another certificate of the server, and the same authorities written anew.
        let issued = servers.server(&[HOST]);
        write(path, "tls.yaml", &server_secret(&issued));
        write(path, "ca.yaml", &authorities(&[&new, &old]));
        let start = Instant::now();
        loop {
            let stream = TlsClient::new(None).connect(tidegate.https, HOST).await;
            let stream = stream.expect("no handshake fails");
            if stream.get_ref().1.peer_certificates().unwrap() == issued.chain {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the certificate stays the old one"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    stop.send(()).unwrap();
    let (mut open, count) = running.await.unwrap();
    assert!(count > 10, "{count} requests are too few to tell");

    // An authority is taken away: that counts for connections that are open.
    write(path, "ca.yaml", &authorities(&[&new]));
    becomes(&tidegate, Some(&carol), 400).await;
    let answer = open.get(HOST, "/").await.unwrap();
    assert_eq!(
        answer.status, 421,
        "a new connection may bring another certificate"
    );
    assert_eq!(status(&tidegate, Some(&dave)).await, 200);
    // So does a certificate that is revoked.
    let list = new.revocation_list(&[&dave]);
    let data = [("ca.crt", new.pem.as_str()), ("ca.crl", &list)];
    write(path, "ca.yaml", &secret("clients", "Opaque", &data));
    becomes(&tidegate, Some(&dave), 400).await;
    assert_eq!(status(&tidegate, Some(&new.client("erin"))).await, 200);

    // Without its Secret, and with a broken one, the host is closed to everybody, whichever way they come.
    let before = backend.requests();
    for broken in ["", &secret("clients", "Opaque", &[("ca.crt", "garbage")])] {
        write(path, "ca.yaml", broken);
        becomes(&tidegate, Some(&dave), 503).await;
        assert_eq!(status(&tidegate, None).await, 503);
        let plain = test_support::client::get(tidegate.http, HOST, "/")
            .await
            .unwrap();
        assert_eq!(plain.status, 503);
    }
    assert_eq!(backend.requests(), before);
    write(path, "ca.yaml", &authorities(&[&old]));
    becomes(&tidegate, Some(&carol), 200).await;
    let plain = test_support::client::get(tidegate.http, HOST, "/")
        .await
        .unwrap();
    assert_eq!(plain.status, 421, "there is no certificate without TLS");
    assert_eq!(plain.body, Bytes::from_static(b"421 Misdirected Request\n"));
}

#[tokio::test]
async fn two_replicas_share_ticket_keys() {
    use rustls::HandshakeKind::{Full, Resumed};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let backend = Backend::start("web").await;
    let open = routing(backend.addr.port()).replace("auth-tls-", "custom-");
    write(path, "web.yaml", &open);
    write(
        path,
        "tls.yaml",
        &server_secret(&Authority::new("servers").server(&[HOST])),
    );
    let keys = tempfile::tempdir().unwrap();
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    write(keys.path(), "keys", &one);
    let args = [
        "serve".to_owned(),
        format!("--manifests={}", path.display()),
        format!("--tls-ticket-keys={}", keys.path().join("keys").display()),
        "--access-log=off".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let first = Tidegate::start("tickets-1", &args).ready().await;
    let second = Tidegate::start("tickets-2", &args).ready().await;
    let client = TlsClient::new(None);
    let kind = async |tidegate: &Tidegate| {
        let stream = client.connect(tidegate.https, HOST).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        let answer = Client::over(stream).await.unwrap().get(HOST, "/").await;
        assert_eq!(answer.unwrap().status, 200);
        kind
    };
    assert_eq!(kind(&first).await, Full);
    assert_eq!(kind(&second).await, Resumed);
    assert_eq!(kind(&first).await, Resumed);
    let replaced = async |count: usize| {
        let start = Instant::now();
        let told = |tidegate: &Tidegate| tidegate.logged().matches("ticket keys replaced").count();
        while told(&first) < count || told(&second) < count {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}",
                second.logged()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // A new key in front of the old: tickets of the old are good, and replaced.
    write(keys.path(), "keys", &format!("{two}\n{one}\n"));
    replaced(1).await;
    assert_eq!(kind(&second).await, Resumed);
    write(keys.path(), "keys", &two);
    replaced(2).await;
    assert_eq!(
        kind(&first).await,
        Resumed,
        "the ticket of the step before was made with the new key"
    );
}
