//! Ports that are relayed, declared as in ingress-nginx, from a directory of manifests.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::client::get;
use test_support::process::free_port;
use test_support::{Tidegate, TlsClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Answers with what it got, once it has got all of it.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

async fn udp_echo() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    port
}

/// What comes back, once something listens.
async fn ask(port: u16, question: &str) -> String {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let start = Instant::now();
    loop {
        if let Ok(mut stream) = TcpStream::connect(addr).await {
            stream.write_all(question.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            if stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
                return answer;
            }
        }
        assert!(start.elapsed() < Duration::from_secs(20), "port {port}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn ports_of_config_maps_are_relayed() {
    let directory = tempfile::tempdir().unwrap();
    let (tcp, udp) = (echo().await, udp_echo().await);
    std::fs::write(
        directory.path().join("services.yaml"),
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: echo, namespace: shop}}\n\
             spec: {{ports: [{{name: t, port: 7}}, {{name: u, port: 7, protocol: UDP}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: echo, namespace: shop, labels: {{kubernetes.io/service-name: echo}}}}\n\
             addressType: IPv4\nports: [{{name: t, port: {tcp}}}, {{name: u, port: {udp}, protocol: UDP}}]\n\
             endpoints: [{{addresses: [127.0.0.1]}}]\n"
        ),
    )
    .unwrap();
    let config_maps = |tcp: &str, udp: &str| {
        let one = |name, data| {
            format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: edge}}\ndata: {{{data}}}\n"
            )
        };
        std::fs::write(
            directory.path().join("ports.yaml"),
            one("tcp", tcp) + &one("udp", udp),
        )
        .unwrap();
    };
    let [plain, told, later, datagrams] = [(); 4].map(|()| free_port());
    config_maps(
        &format!(
            "'{plain}': 'shop/echo:7', '{told}': 'shop/echo:t:PROXY:PROXY', '99999': 'shop/echo:7'"
        ),
        &format!("'{datagrams}': 'shop/echo:7'"),
    );
    let path = format!("--manifests={}", directory.path().display());
    let log = directory.path().join("access.log");
    let tidegate = Tidegate::start(
        "relays",
        &[
            "serve",
            &path,
            &format!("--access-log={}", log.display()),
            "--tcp-services-configmap=edge/tcp",
            "--udp-services-configmap=edge/udp",
            "--proxy-protocol-from=127.0.0.0/8",
        ],
    )
    .ready()
    .await;
    assert_eq!(ask(plain, "hello").await, "hello");
    let header = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
    let introduced = format!("{header}hello");
    assert_eq!(ask(told, &introduced).await, introduced);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", datagrams)).await.unwrap();
    socket.send(b"ping").await.unwrap();
    let mut buffer = [0; 16];
    let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
    assert_eq!(&buffer[..received.unwrap().unwrap()], b"ping");
    tidegate
        .until_logged("ConfigMap edge/tcp data[99999]")
        .await;

    config_maps(&format!("'{later}': 'shop/echo:7'"), "");
    assert_eq!(ask(later, "again").await, "again");
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", plain)).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let start = Instant::now();
    while !std::fs::read_to_string(&log)
        .unwrap()
        .contains("203.0.113.9")
    {
        assert!(start.elapsed() < Duration::from_secs(20), "not logged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn tls_is_passed_on_where_it_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    std::fs::write(
        directory.path().join("vault.yaml"),
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
             metadata: {{name: vault, annotations: {{nginx.ingress.kubernetes.io/ssl-passthrough: 'true'}}}}\n\
             spec:\n  rules:\n  - host: vault.test\n    \
             http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: vault, port: {{number: 443}}}}}}}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: vault}}\nspec: {{ports: [{{port: 443}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: vault, labels: {{kubernetes.io/service-name: vault}}}}\n\
             addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        ),
    )
    .unwrap();
    let path = format!("--manifests={}", directory.path().display());
    let args = [
        "serve",
        &path,
        "--access-log=off",
        "--enable-ssl-passthrough",
    ];
    let tidegate = Tidegate::start("passthrough", &args).ready().await;
    let https = tidegate.https;
    let client =
        tokio::spawn(async move { TlsClient::new(None).connect(https, "vault.test").await });
    let accepted = tokio::time::timeout(Duration::from_secs(20), listener.accept()).await;
    let (mut backend, _) = accepted.unwrap().unwrap();
    let mut hello = vec![0; 4096];
    let length = backend.read(&mut hello).await.unwrap();
    let hello = &hello[..length];
    assert_eq!(hello[0], 22, "the client's own handshake");
    assert!(hello.windows(10).any(|bytes| bytes == b"vault.test"));
    drop(backend);
    assert!(client.await.unwrap().is_err());
    // Without TLS there is nothing to pass on.
    let answer = get(tidegate.http, "vault.test", "/").await.unwrap();
    assert_eq!(answer.status, 503);
}
