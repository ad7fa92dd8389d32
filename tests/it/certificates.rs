//! A certificate from a Secret: a client that knows its authority believes it, two replicas show the same one, and it is replaced
//! under open connections.

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::ServerName;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_support::{Authority, Backend, Client, Issued, Tidegate};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HOST: &str = "a.test";

fn manifests(issued: &Issued, port: u16) -> String {
    let block =
        |text: &str| -> String { text.lines().map(|line| format!("    {line}\n")).collect() };
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web}}\nspec:\n  \
         tls: [{{hosts: [{HOST}], secretName: tls}}]\n  rules:\n  - host: {HOST}\n    \
         http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n",
        block(&issued.pem),
        block(&issued.key_pem)
    )
}

fn replace(directory: &Path, text: &str) {
    let beside = directory.join(".web.yaml");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, directory.join("web.yaml")).unwrap();
}

/// Connects as a client does that believes this authority and no other.
async fn connect(
    tidegate: &Tidegate,
    authority: &Authority,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(tidegate.https).await?;
    let name = ServerName::try_from(HOST).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

#[tokio::test]
async fn two_replicas_show_the_same_and_it_is_replaced_under_open_connections() {
    let backend = Backend::start("web").await;
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (old.server(&[HOST]), new.server(&[HOST]));
    let port = backend.addr.port();
    replace(directory.path(), &manifests(&first, port));
    let flag = format!("--manifests={}", directory.path().display());
    let args = ["serve", &flag, "--access-log=off"];
    let replicas = [
        Tidegate::start("certificates-a", &args).ready().await,
        Tidegate::start("certificates-b", &args).ready().await,
    ];
    let mut open = Vec::new();
    for replica in &replicas {
        let stream = connect(replica, &old).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(shown[0], first.chain[0]);
        assert!(connect(replica, &new).await.is_err(), "a stranger's");
        let mut client = Client::over(stream).await.unwrap();
        assert_eq!(client.get(HOST, "/").await.unwrap().text(), "web");
        open.push(client);
    }
    // The endpoint is spoken to without TLS.
    let seen = backend.last().unwrap();
    assert_eq!(seen.headers["x-forwarded-proto"], "https");
    replace(directory.path(), &manifests(&second, port));
    for replica in &replicas {
        let start = Instant::now();
        let stream = loop {
            match connect(replica, &new).await {
                Ok(stream) => break stream,
                Err(error) => {
                    let logged = replica.logged();
                    let waited = start.elapsed();
                    assert!(waited < Duration::from_secs(20), "{error}\n{logged}");
                }
            }
            for client in &mut open {
                assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(shown[0], second.chain[0]);
    }
    for client in &mut open {
        assert_eq!(client.get(HOST, "/").await.unwrap().text(), "web");
    }
}
