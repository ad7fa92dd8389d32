//! `https://` URLs of backends: which port, whom is believed, what an endpoint is called.

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use test_support::client::get;
use test_support::process::Surroundings;
use test_support::{Authority, Tidegate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server of TLS that answers its name, and which server names it was asked for.
async fn tls_server(
    name: &'static str,
    authority: &Authority,
    certified: &[&str],
) -> (SocketAddr, Arc<Mutex<Vec<Option<String>>>>) {
    let issued = authority.server(certified);
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(issued.chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let server_name = stream.get_ref().1.server_name().map(str::to_owned);
            seen.lock().unwrap().push(server_name);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                    break;
                }
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{name}",
                name.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (addr, asked)
}

/// What requests get; `variables` are set for the process.
async fn answers(name: &str, args: &[String], variables: &[(&str, &str)]) -> Vec<String> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let args = [&["serve", "--access-log=off", "--workers=1"], &args[..]].concat();
    let variables = variables.iter();
    let surroundings = Surroundings {
        variables: variables
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Surroundings::default()
    };
    let tidegate = Tidegate::start_in(name, Ipv4Addr::LOCALHOST, &args, surroundings);
    let tidegate = tidegate.ready().await;
    twice(tidegate.http).await
}

/// What two requests get.
async fn twice(addr: SocketAddr) -> Vec<String> {
    let mut got = Vec::new();
    for _ in 0..2 {
        let answer = get(addr, "a.test", "/").await.unwrap();
        got.push(match answer.status.as_u16() {
            200 => answer.text(),
            other => other.to_string(),
        });
    }
    got.sort();
    got
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn https_is_verified_by_the_host_of_the_url() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let believed = file(folder.path(), "ours.pem", &ours.pem);
    let stranger = file(folder.path(), "other.pem", &other.pem);
    let (by_ip, by_ip_asked) = tls_server("by address", &ours, &["127.0.0.1"]).await;
    let (again, _) = tls_server("again", &ours, &["127.0.0.1"]).await;
    let (by_name, by_name_asked) = tls_server("by name", &ours, &["localhost"]).await;
    let url = |host: &str, addr: SocketAddr| format!("--backend=https://{host}:{}/", addr.port());
    let ca = |file: &str| format!("--backend-ca={file}");

    let both = [
        url("127.0.0.1", by_ip),
        url("127.0.0.1", again),
        ca(&believed),
    ];
    let got = answers("urls-two", &both, &[]).await;
    assert_eq!(got, ["again", "by address"]);
    assert_eq!(*by_ip_asked.lock().unwrap(), [None]);

    let named = [url("localhost", by_name), ca(&believed)];
    let got = answers("urls-name", &named, &[]).await;
    assert_eq!(got, ["by name", "by name"]);
    let asked = by_name_asked.lock().unwrap().clone();
    assert!(
        asked
            .iter()
            .all(|name| name.as_deref() == Some("localhost"))
    );

    for (what, args) in [
        ("another-name", [url("127.0.0.1", by_name), ca(&believed)]),
        (
            "another-authority",
            [url("127.0.0.1", by_ip), ca(&stranger)],
        ),
    ] {
        assert_eq!(answers(what, &args, &[]).await, ["502", "502"], "{what}");
    }

    // Without a flag those of the system are believed, whoever named the backend.
    let variable = url("127.0.0.1", by_ip).replace("--backend=", "");
    for (authorities, expected) in [(&believed, "by address"), (&stranger, "502")] {
        let variables = [("BACKEND_1", &*variable), ("SSL_CERT_FILE", authorities)];
        let got = answers("urls-system", &[], &variables).await;
        assert_eq!(got, [expected, expected]);
    }
    // In a file as well. Who does not prove its name gets nothing, and the next has it.
    for (server_name, expected) in [("localhost", "by name"), ("x.test", "by address")] {
        let port = test_support::process::free_port();
        let text = format!(
            "listeners: [{{port: {port}}}]\nroutes: [{{backend: web}}]\n\
             backends: {{web: {{static: ['{by_ip} sni=127.0.0.1', '{by_name} sni={server_name}'], tls: {{}}}}}}\n"
        );
        let config = file(folder.path(), "tidegate.yaml", &text);
        let surroundings = Surroundings {
            variables: vec![("SSL_CERT_FILE".to_owned(), believed.clone())],
            ..Surroundings::default()
        };
        let args = [
            "serve",
            "--access-log=off",
            "--workers=1",
            "--config",
            &config,
        ];
        let tidegate = Tidegate::start_in("urls-file", Ipv4Addr::LOCALHOST, &args, surroundings);
        let _tidegate = tidegate.ready().await;
        let mut wanted = ["by address".to_owned(), expected.to_owned()];
        wanted.sort_unstable();
        assert_eq!(
            twice(SocketAddr::from(([127, 0, 0, 1], port))).await,
            wanted
        );
    }
}

#[tokio::test]
async fn authorities_that_cannot_be_had_end_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("none.pem").display().to_string();
    for (args, status, expected) in [
        (
            vec!["--backend=https://127.0.0.1", "--backend-ca=/nowhere.pem"],
            1,
            "cannot read /nowhere.pem",
        ),
        (
            vec!["--backend=https://127.0.0.1"],
            1,
            "the authorities of this system cannot be used",
        ),
        (
            vec!["--backend=http://127.0.0.1", "--backend-ca=/nowhere.pem"],
            2,
            "--backend-ca is for https:// URLs, and there is none",
        ),
    ] {
        let output = std::process::Command::new(test_support::process::binary())
            .arg("serve")
            .args(&args)
            .env("SSL_CERT_FILE", &nothing)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_believed_is_one_warning() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let stranger = file(folder.path(), "other.pem", &other.pem);
    let (addr, _) = tls_server("private", &ours, &["127.0.0.1"]).await;
    let args = [
        "serve",
        "--access-log=off",
        &format!("--backend=https://127.0.0.1:{}/", addr.port()),
        &format!("--backend-ca={stranger}"),
    ];
    let tidegate = Tidegate::start("not-believed", &args).ready().await;
    for _ in 0..4 {
        assert_eq!(twice(tidegate.http).await, ["502", "502"]);
    }
    let refused = "no TLS to the endpoint";
    let logged = tidegate.until_logged(refused).await;
    let warnings: Vec<&str> = logged
        .lines()
        .filter(|line| line.contains(refused))
        .collect();
    assert_eq!(warnings.len(), 1, "{logged}");
    let said = warnings[0];
    assert!(
        said.contains(" WARN ") && said.contains(&addr.to_string()),
        "{said}"
    );
    assert!(
        said.contains("whoever issued its certificate is not believed: name that authority")
            && said.contains("--backend-ca"),
        "{said}"
    );
}
