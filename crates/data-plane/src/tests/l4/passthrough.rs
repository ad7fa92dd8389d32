//! TLS passed on by server name, beside TLS that we do.

use super::{Logged, one_worker, relay_to, serve_relay};
use crate::l4::client_hello_tests::{hello, records};
use crate::tests::tls::{certificate, serve_tls, tls_table};
use crate::tests::{Proxy, host};
use crate::{ClientTimeouts, Settings};
use routing_table::{
    HostMatch, Listener, ListenerProtocol, ProxyVersion, Relay, RelayLimits, RoutingTable,
    TlsSettings, Update,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use test_support::{Authority, Backend, Client, TlsClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

/// The table with these server names passed on.
fn passing_on(
    update: Update,
    names: &[(&str, SocketAddr, Option<ProxyVersion>)],
    change: impl Fn(&mut Listener, &mut Relay),
) -> Update {
    let Update::Table(table, mut sets) = update else {
        unreachable!("a table was made");
    };
    let (mut listener, mut clusters) = (table.listeners()[0].clone(), table.clusters().clone());
    let ListenerProtocol::Https(settings) = &listener.protocol else {
        unreachable!("it does TLS");
    };
    let mut settings = TlsSettings::clone(settings);
    for (name, addr, proxy_header) in names {
        let mut relay = relay_to(&mut clusters, &mut sets, name, &[*addr], RelayLimits::TCP);
        relay.proxy_header = *proxy_header;
        change(&mut listener, &mut relay);
        assert!(
            settings
                .passthrough
                .add(&HostMatch::parse(name).unwrap(), relay)
        );
    }
    listener.protocol = ListenerProtocol::Https(Arc::new(settings));
    let table = RoutingTable::new(vec![listener], clusters).unwrap();
    Update::Table(Arc::new(table), sets)
}

/// A proxy that does TLS for `own.test`, and passes on these.
fn serve(
    authority: &Authority,
    own: SocketAddr,
    names: &[(&str, SocketAddr, Option<ProxyVersion>)],
    settings: Settings,
) -> (Proxy, Logged) {
    let hosts = ["own.test", "own.wild.test"];
    let certificate = certificate(&authority.server(&hosts));
    let rules = hosts.map(|name| host(name, &[own]));
    let table = tls_table(&[(&hosts, &certificate)], &rules);
    serve_relay(passing_on(table, names, |_, _| {}), settings)
}

async fn ask(proxy: SocketAddr, name: &str) -> String {
    let stream = TlsClient::new(None).connect(proxy, name).await.unwrap();
    let mut client = Client::over(stream).await.unwrap();
    client.get(name, "/").await.unwrap().text()
}

#[tokio::test]
async fn each_name_is_ended_where_it_belongs() {
    let (own, passed) = (Backend::start("own").await, Backend::start("passed").await);
    let authority = Authority::new("servers");
    let behind = certificate(&authority.server(&["pass.test", "*.wild.test"]));
    let behind = serve_tls(tls_table(
        &[(&["pass.test", "x.wild.test"], &behind)],
        &[
            host("pass.test", &[passed.addr]),
            host("x.wild.test", &[passed.addr]),
        ],
    ));
    let names = [
        ("pass.test", behind.addr, None),
        ("*.wild.test", behind.addr, None),
    ];
    let (proxy, logged) = serve(&authority, own.addr, &names, one_worker());
    assert_eq!(ask(proxy.addr, "own.test").await, "own");
    assert_eq!(ask(proxy.addr, "pass.test").await, "passed");
    assert_eq!(ask(proxy.addr, "x.wild.test").await, "passed");
    // A host of its own comes before a wildcard.
    assert_eq!(ask(proxy.addr, "own.wild.test").await, "own");
    assert_eq!(proxy.metric("tidegate_tcp_connections_total"), 2.0);
    let lines = logged.lines(4).await;
    let relayed: Vec<_> = lines
        .iter()
        .filter(|line| line["protocol"] == "TLS")
        .collect();
    assert_eq!(relayed.len(), 2);
    assert_eq!(relayed[0]["server_name"], "pass.test");
}

/// By the address that a PROXY header names; TLS that we do ourselves is nobody else's list.
#[tokio::test]
async fn clients_are_let_in_by_their_address() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = Backend::start("own").await;
    let certificate = certificate(&Authority::new("servers").server(&["own.test"]));
    let table = tls_table(
        &[(&["own.test"], &certificate)],
        &[host("own.test", &[own.addr])],
    );
    let names = [("pass.test", backend.local_addr().unwrap(), None)];
    let table = passing_on(table, &names, |listener, relay| {
        listener.proxy_header = true;
        relay.access.deny = vec!["203.0.113.0/24".parse().unwrap()];
    });
    let (proxy, logged) = serve_relay(table, one_worker());
    let from = async |client: &str, name: &str| {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        let header = format!("PROXY TCP4 {client} 192.0.2.1 4711 443\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        let hello = records(&hello(Some(name), 10), 9999);
        stream.write_all(&hello).await.unwrap();
        stream
    };
    let mut refused = from("203.0.113.9", "pass.test").await;
    let read = timeout(SOON, refused.read(&mut [0; 9])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    let _served = from("203.0.112.9", "pass.test").await;
    timeout(SOON, backend.accept()).await.unwrap().unwrap();
    // Ours to answer: with an alert, since the hello offers nothing.
    let mut alert = [0];
    let mut ours = from("203.0.113.9", "own.test").await;
    timeout(SOON, ours.read_exact(&mut alert))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(alert, [21]);
    let line = &logged.lines(1).await[0];
    assert_eq!(
        (&line["flag"], &line["client"]),
        (&"forbidden".into(), &"203.0.113.9".into())
    );
    assert_eq!(
        proxy.metric("tidegate_tcp_connections_forbidden_total"),
        1.0
    );
}

#[tokio::test]
async fn bytes_arrive_as_they_were_sent_however_they_were_cut() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = backend.local_addr().unwrap();
    let own = Backend::start("own").await;
    let authority = Authority::new("servers");
    let names = [
        ("pass.test", addr, None),
        ("told.test", addr, Some(ProxyVersion::V1)),
    ];
    let (proxy, _) = serve(&authority, own.addr, &names, one_worker());
    let split = records(&hello(Some("pass.test"), 100), 1);
    let padded = records(&hello(Some("pass.test"), 65_000), 16_384);
    let told = records(&hello(Some("told.test"), 100), 16_384);
    for (bytes, piece, header) in [(split, 1, false), (padded, 1400, false), (told, 9999, true)] {
        let mut client = TcpStream::connect(proxy.addr).await.unwrap();
        client.set_nodelay(true).unwrap();
        for piece in bytes.chunks(piece) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.write_all(b"more").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut upstream, _) = timeout(SOON, backend.accept()).await.unwrap().unwrap();
        let mut all = Vec::new();
        timeout(SOON, upstream.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap();
        let mut expected = Vec::new();
        if header {
            let (source, proxy) = (client.local_addr().unwrap(), proxy.addr);
            let line = format!(
                "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
                source.port(),
                proxy.port()
            );
            expected.extend_from_slice(line.as_bytes());
        }
        expected.extend_from_slice(&bytes);
        expected.extend_from_slice(b"more");
        assert!(all == expected, "{} bytes of {}", all.len(), expected.len());
    }
}

/// What a client hears after these bytes, in pieces of this size.
async fn heard(proxy: SocketAddr, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut client = TcpStream::connect(proxy).await.unwrap();
    client.set_nodelay(true).unwrap();
    for piece in bytes.chunks(piece) {
        if client.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answer = vec![0; 4096];
    let read = timeout(SOON, client.read(&mut answer)).await.unwrap();
    answer.truncate(read.unwrap_or(0));
    answer
}

#[tokio::test]
async fn what_is_not_passed_on_is_handed_over_whole() {
    let own = Backend::start("own").await;
    let authority = Authority::new("servers");
    let settings = Settings {
        client_timeouts: ClientTimeouts {
            handshake: Duration::from_millis(500),
            ..ClientTimeouts::default()
        },
        ..one_worker()
    };
    let names = [("pass.test", own.addr, None)];
    let (proxy, _) = serve(&authority, own.addr, &names, settings);
    // A real hello is answered with a ServerHello, in whatever pieces and records it came.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "own.test".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    for (bytes, piece) in [
        (bytes.clone(), 1),
        (bytes.clone(), 100),
        (records(&bytes[5..], 1), 9999),
        (records(&bytes[5..], 100), 33),
    ] {
        let answer = heard(proxy.addr, &bytes, piece).await;
        assert_eq!(answer.first(), Some(&22), "{piece}: {answer:?}");
    }
    // What is no TLS gets an alert or the end; a hello that only we could answer and do not like, an alert.
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: own.test\r\n\r\n"[..],
        &[0x80, 0x2e, 1, 3, 1, 0, 0x15],
        &records(&hello(None, 10), 50),
        &records(&hello(Some("other.test"), 90_000), 16_000),
    ] {
        let answer = heard(proxy.addr, bytes, 5000).await;
        assert!(matches!(answer.first(), None | Some(21)), "{answer:?}");
    }
    // Silence, and half a hello, have the time of a handshake.
    for bytes in [&b""[..], &records(&hello(Some("own.test"), 10), 99)[..50]] {
        assert_eq!(heard(proxy.addr, bytes, 99).await, b"");
    }
    assert_eq!(proxy.metric("tidegate_tls_passthrough_silent_total"), 2.0);
    proxy.metric_becomes("tidegate_connections_open", 0.0).await;
    assert_eq!(ask(proxy.addr, "own.test").await, "own");
}

/// However busy it seems to be: each piece comes long before the deadline, all of it would come after.
#[tokio::test]
async fn a_slow_hello_is_ended_at_its_deadline() {
    let own = Backend::start("own").await;
    let limit = Duration::from_millis(600);
    let settings = Settings {
        client_timeouts: ClientTimeouts {
            handshake: limit,
            ..ClientTimeouts::default()
        },
        ..one_worker()
    };
    let names = [("pass.test", own.addr, None)];
    let (proxy, _) = serve(&Authority::new("servers"), own.addr, &names, settings);
    let hello = records(&hello(Some("pass.test"), 2000), 9999);
    let start = std::time::Instant::now();
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    let (mut reader, mut writer) = client.split();
    let sending = async {
        for byte in &hello {
            if writer.write_all(std::slice::from_ref(byte)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("all of it was taken");
    };
    let mut answer = [0];
    let ended = tokio::select! {
        read = timeout(SOON, reader.read(&mut answer)) => read.unwrap(),
        () = sending => Ok(0),
    };
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let waited = start.elapsed();
    assert!((limit..limit * 5).contains(&waited), "{waited:?}");
    proxy
        .metric_becomes("tidegate_tls_passthrough_silent_total", 1.0)
        .await;
    assert_eq!(own.connections(), 0);
}
