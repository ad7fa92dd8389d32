//! TLS handshakes that come in pieces, late, or not at all; what is resumed, and what is counted.

use super::tls::{certificate, serve_tls, tls_table};
use super::{Proxy, host, serve_table};
use crate::{ClientTimeouts, MinTlsVersion, Settings, TicketKeys};
use rustls::HandshakeKind;
use std::time::Duration;
use test_support::{Authority, Backend, TlsClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a client says first, caught on the way.
async fn client_hello(name: &str) -> Vec<u8> {
    hello_of(TlsClient::new(None), name).await
}

async fn hello_of(client: TlsClient, name: &str) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let name = name.to_owned();
    tokio::spawn(async move { client.connect(addr, &name).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut header = [0; 5];
    stream.read_exact(&mut header).await.unwrap();
    let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut hello).await.unwrap();
    hello
}

/// As records of at most this many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1, 0, 0][..], piece].concat();
    let mut out = Vec::new();
    for piece in message.chunks(size) {
        let mut record = record(piece);
        record[3..5].copy_from_slice(&(piece.len() as u16).to_be_bytes());
        out.extend(record);
    }
    out
}

/// Sends pieces, one write each, then reads what kind of record comes back: 22 is a handshake message, 21 an alert.
async fn answer(proxy: &Proxy, pieces: &[&[u8]]) -> u8 {
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut first = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut first)).await;
    read.unwrap().map_or(0, |_| first[0])
}

/// RUSTSEC-2024-0399: a ClientHello in several pieces once panicked.
#[tokio::test]
async fn a_hello_cut_anywhere_is_understood() {
    let server = certificate(&Authority::new("servers").server(&["a.test"]));
    let proxy = serve_tls(tls_table(&[(&["a.test"], &server)], &[]));
    let hello = client_hello("a.test").await;
    let whole = records(&hello, 16 * 1024);
    for cut in 1..whole.len() {
        let (one, two) = whole.split_at(cut);
        assert_eq!(answer(&proxy, &[one, two]).await, 22, "cut at {cut}");
    }
    for size in [1, 2, 3, 100] {
        let cut = records(&hello, size);
        let got = answer(&proxy, &[&cut]).await;
        assert_eq!(got, 22, "records of {size} bytes");
    }
    let mut padded = vec![1, 0, 0xff, 0xff];
    padded.resize(0xffff + 4, 0);
    let padded = records(&padded, 16 * 1024);
    // The alert may be lost, because what was not read resets the connection.
    let got = answer(&proxy, &[&padded]).await;
    assert!(matches!(got, 0 | 21), "64 KiB that mean nothing: {got}");
    let failed = proxy.metric("tidegate_tls_handshakes_failed_total");
    assert!(failed >= 1.0, "the worker goes on and counts: {failed}");
}

#[tokio::test]
async fn failures_are_counted_by_reason() {
    let server = certificate(&Authority::new("servers").server(&["a.test"]));
    let settings = Settings {
        workers: 1,
        client_timeouts: ClientTimeouts {
            handshake: Duration::from_millis(300),
            ..ClientTimeouts::default()
        },
        ..Settings::default()
    };
    let proxy = serve_table(tls_table(&[(&["a.test"], &server)], &[]), settings);
    let silent = TcpStream::connect(proxy.addr).await.unwrap();
    reason_becomes(&proxy, "timeout", 1).await;
    drop(silent);
    let hello = records(&client_hello("a.test").await, 16 * 1024);
    // A hello, and then silence.
    let mut half = TcpStream::connect(proxy.addr).await.unwrap();
    half.write_all(&hello).await.unwrap();
    reason_becomes(&proxy, "timeout", 2).await;
    drop(TcpStream::connect(proxy.addr).await.unwrap());
    reason_becomes(&proxy, "closed", 1).await;
    answer(&proxy, &[b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"]).await;
    reason_becomes(&proxy, "malformed", 1).await;
    let client = TlsClient::new(None).alpn("foo");
    assert!(client.connect(proxy.addr, "a.test").await.is_err());
    reason_becomes(&proxy, "alpn", 1).await;
    // TLS 1.1 at most, as a client of 2008 says it.
    let mut old = vec![1, 0, 0, 45, 3, 2];
    old.extend([7; 32]);
    old.extend([0, 0, 4, 0, 47, 0, 53, 1, 0]);
    old.resize(4 + 45, 0);
    assert_eq!(answer(&proxy, &[&records(&old, 100)]).await, 21);
    reason_becomes(&proxy, "version", 1).await;
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&proxy.registry.gather())
        .unwrap();
    let series = text
        .lines()
        .filter(|line| line.starts_with("tidegate_tls_handshakes_failed_total{"));
    assert_eq!(
        series.count(),
        9,
        "every reason has a series from the start"
    );
}

async fn reason_becomes(proxy: &Proxy, reason: &str, count: u64) {
    let start = std::time::Instant::now();
    let wanted = format!("tidegate_tls_handshakes_failed_total{{reason=\"{reason}\"}} {count}");
    loop {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&proxy.registry.gather())
            .unwrap();
        if text.lines().any(|line| line == wanted) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "no {wanted} in\n{text}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Clients that stall do not use up the bound on handshakes (T1).
#[tokio::test]
async fn clients_that_stall_hold_nobody_up() {
    let server = certificate(&Authority::new("servers").server(&["a.test"]));
    let settings = Settings {
        workers: 1,
        handshakes: 2,
        ..Settings::default()
    };
    let proxy = serve_table(tls_table(&[(&["a.test"], &server)], &[]), settings);
    let hello = records(&client_hello("a.test").await, 16 * 1024);
    let mut stalled = Vec::new();
    for position in 0..150 {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        // Nothing, half a hello, or a hello whose answer is not answered.
        let said = [0, hello.len() / 2, hello.len()][position % 3];
        stream.write_all(&hello[..said]).await.unwrap();
        stalled.push(stream);
    }
    proxy
        .metric_becomes("tidegate_connections_open", 150.0)
        .await;
    let start = std::time::Instant::now();
    for _ in 0..10 {
        TlsClient::new(None)
            .connect(proxy.addr, "a.test")
            .await
            .unwrap();
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(proxy.metric("tidegate_tls_handshakes_failed_total"), 0.0);
    // None of the stalled has its answer computed for ever, and never were there more than two at once.
    proxy
        .metric_becomes("tidegate_tls_handshakes_active", 0.0)
        .await;
    let most = proxy.metric("tidegate_tls_handshakes_active_max");
    assert!((1.0..=2.0).contains(&most), "{most} at once");
    // Each connection is a task. When the clients go, only the accept loop and who gives turns are left.
    assert!(proxy.metric("tidegate_tasks") >= 152.0);
    drop(stalled);
    proxy.metric_becomes("tidegate_tasks", 2.0).await;
}

async fn kind(proxy: &Proxy, client: &TlsClient, name: &str) -> HandshakeKind {
    let stream = client.connect(proxy.addr, name).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    // The ticket comes behind the handshake, with the first answer at the latest.
    let mut client = test_support::Client::over(stream).await.unwrap();
    client.get(name, "/").await.unwrap();
    kind
}

#[tokio::test]
async fn sessions_are_resumed_over_swaps_but_never_where_a_certificate_is_demanded() {
    let backend = Backend::start("a").await;
    let authority = Authority::new("clients");
    let server = certificate(&Authority::new("servers").server(&["a.test", "m.test"]));
    let mut rule = host("m.test", &[backend.addr]);
    let demand = super::tls::demand(routing_table::CertificateDemand::Optional, &authority);
    rule.client_certificates = Some(std::sync::Arc::new(demand));
    let rules = [host("a.test", &[backend.addr]), rule];
    let table = || tls_table(&[(&["a.test", "m.test"], &server)], &rules);
    let mut proxy = serve_tls(table());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = TlsClient::with_versions(None, &[version]);
        assert_eq!(kind(&proxy, &client, "a.test").await, HandshakeKind::Full);
        for _ in 0..3 {
            proxy.publisher.apply(table()).unwrap();
            let again = kind(&proxy, &client, "a.test").await;
            assert_eq!(again, HandshakeKind::Resumed, "{version:?}");
        }
        for _ in 0..3 {
            let again = kind(&proxy, &client, "m.test").await;
            assert_eq!(again, HandshakeKind::Full, "{version:?}");
        }
    }
}

#[tokio::test]
async fn an_ocsp_response_is_sent_along() {
    let issued = Authority::new("servers").server(&["a.test"]);
    let mut stapled = std::sync::Arc::into_inner(certificate(&issued)).unwrap();
    stapled.ocsp = Some(vec![0x30, 3, 10, 1, 0]);
    for (certificate, wanted) in [
        (certificate(&issued), &[][..]),
        (std::sync::Arc::new(stapled), &[0x30, 3, 10, 1, 0][..]),
    ] {
        let proxy = serve_tls(tls_table(&[(&["a.test"], &certificate)], &[]));
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = TlsClient::with_versions(None, &[version]);
            client.connect(proxy.addr, "a.test").await.unwrap();
            assert_eq!(client.stapled(), wanted, "{version:?}");
        }
    }
}

#[tokio::test]
async fn replicas_that_share_keys_resume_each_others_sessions() {
    let backend = Backend::start("a").await;
    let server = certificate(&Authority::new("servers").server(&["a.test"]));
    let rules = [host("a.test", &[backend.addr])];
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let replica = |keys: Option<&str>| {
        let keys = keys.map(|text| std::sync::Arc::new(TicketKeys::new(text).unwrap()));
        let settings = Settings {
            ticket_keys: keys.clone(),
            ..Settings::default()
        };
        (
            serve_table(tls_table(&[(&["a.test"], &server)], &rules), settings),
            keys,
        )
    };
    use HandshakeKind::{Full, Resumed};
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (first, _) = replica(Some(&one));
        let (second, keys) = replica(Some(&format!("{two}\n{one}")));
        let (apart, _) = replica(None);
        let client = TlsClient::with_versions(None, &[version]);
        for (what, proxy, wanted) in [
            ("new", &first, Full),
            ("the same", &first, Resumed),
            ("another, with another first key", &second, Resumed),
            ("back, where that key is not known", &first, Full),
            ("one that shares no keys (T8)", &apart, Full),
        ] {
            assert_eq!(
                kind(proxy, &client, "a.test").await,
                wanted,
                "{what}, {version:?}"
            );
        }
        assert_eq!(kind(&first, &client, "a.test").await, Full);
        keys.unwrap().replace(&two).unwrap();
        let after = kind(&second, &client, "a.test").await;
        assert_eq!(after, Full, "its key was taken out");
    }
}

#[tokio::test]
async fn the_minimum_version_is_kept() {
    let server = certificate(&Authority::new("servers").server(&["a.test"]));
    for (minimum, old) in [(MinTlsVersion::Tls12, true), (MinTlsVersion::Tls13, false)] {
        let settings = Settings {
            workers: 1,
            min_tls_version: minimum,
            ..Settings::default()
        };
        let proxy = serve_table(tls_table(&[(&["a.test"], &server)], &[]), settings);
        for (version, wanted) in [
            (&rustls::version::TLS12, old),
            (&rustls::version::TLS13, true),
        ] {
            let client = TlsClient::with_versions(None, &[version]);
            let made = client.connect(proxy.addr, "a.test").await;
            assert_eq!(made.is_ok(), wanted, "{minimum:?}, {version:?}");
        }
        if !old {
            reason_becomes(&proxy, "version", 1).await;
        }
    }
}

#[tokio::test]
async fn only_chosen_cipher_suites_are_used() {
    let server = certificate(&Authority::new("servers").server(&["a.test"]));
    let proxy = |suites: &str| {
        let settings = Settings {
            workers: 1,
            cipher_suites: Some(suites.parse().unwrap()),
            ..Settings::default()
        };
        serve_table(tls_table(&[(&["a.test"], &server)], &[]), settings)
    };
    let used = async |proxy: &Proxy, version| {
        let client = TlsClient::with_versions(None, &[version]);
        let made = client.connect(proxy.addr, "a.test").await.ok()?;
        made.get_ref().1.negotiated_cipher_suite()?.suite().as_str()
    };
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    let chosen = proxy("ECDHE-ECDSA-CHACHA20-POLY1305:TLS_AES_128_GCM_SHA256");
    let chacha = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    assert_eq!(used(&chosen, tls12).await, Some(chacha));
    assert_eq!(used(&chosen, tls13).await, Some("TLS13_AES_128_GCM_SHA256"));
    // Of several the first that was named, wherever the client has it.
    let of_two = [
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256",
    ];
    let aes = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    for (suites, wanted) in of_two.into_iter().zip([aes, chacha]) {
        assert_eq!(used(&proxy(suites), tls12).await, Some(wanted));
    }
    // The key is no RSA key.
    let useless = proxy("ECDHE-RSA-AES128-GCM-SHA256");
    assert_eq!(used(&useless, tls12).await, None);
    assert!(used(&useless, tls13).await.is_some());
}

/// A hello that asks for other bytes than it did.
fn with_server_name(hello: &[u8], old: &str, new: &[u8]) -> Vec<u8> {
    let at = hello
        .windows(old.len())
        .position(|window| window == old.as_bytes())
        .unwrap();
    let mut out = [&hello[..at], new, &hello[at + old.len()..]].concat();
    let grown = new.len() as isize - old.len() as isize;
    let session = 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let compression =
        suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let extensions = compression + 1 + usize::from(hello[compression]);
    // The name, the list it is in, the extension, all extensions, the message.
    for length in [at - 2, at - 5, at - 7, extensions, 2] {
        let value = u16::from_be_bytes([out[length], out[length + 1]]);
        let value = value.checked_add_signed(grown as i16).unwrap();
        out[length..length + 2].copy_from_slice(&value.to_be_bytes());
    }
    out
}

/// T5. TLS 1.2 shows the certificate in the clear.
#[tokio::test]
async fn server_names_of_every_kind() {
    let servers = Authority::new("servers");
    let (exact, wild) = (
        certificate(&servers.server(&["a.test"])),
        certificate(&servers.server(&["*.w.test"])),
    );
    let proxy = serve_tls(tls_table(
        &[(&["a.test"], &exact), (&["*.w.test"], &wild)],
        &[],
    ));
    let client = TlsClient::with_versions(None, &[&rustls::version::TLS12]);
    let hello = hello_of(client, "placeholder.test").await;
    let long = vec![b'a'; 300];
    for (name, wanted) in [
        (b"a.test".as_slice(), &["a.test"][..]),
        (b"A.TeST", &["a.test"]),
        (b"a.test.", &["a.test", "alert"]),
        (b"x.w.test", &["*.w.test"]),
        (b"w.test", &["tidegate.invalid"]),
        (b"x.y.w.test", &["tidegate.invalid"]),
        (b"unknown.test", &["tidegate.invalid"]),
        (b"127.0.0.1", &["tidegate.invalid", "alert"]),
        (b"[::1]", &["tidegate.invalid", "alert"]),
        (&long, &["tidegate.invalid", "alert"]),
        (b"a.test\0", &["tidegate.invalid", "alert"]),
        (b"a\0.test", &["tidegate.invalid", "alert"]),
        (b"a.test:443", &["tidegate.invalid", "alert"]),
        (b"a..test", &["tidegate.invalid", "alert"]),
        (b".w.test", &["tidegate.invalid", "alert"]),
        (b"*.w.test", &["tidegate.invalid", "alert"]),
        (b"\xff\xfe", &["tidegate.invalid", "alert"]),
        (b"", &["tidegate.invalid", "alert"]),
    ] {
        let hello = records(
            &with_server_name(&hello, "placeholder.test", name),
            16 * 1024,
        );
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut answer = Vec::new();
        let shown = loop {
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut answer));
            let count = read.await.unwrap().unwrap_or(0);
            let known = ["a.test", "*.w.test", "tidegate.invalid"];
            let shows = |name: &&&str| answer.windows(name.len()).any(|w| w == name.as_bytes());
            match known.iter().find(shows) {
                Some(shown) => break *shown,
                None if answer.first() == Some(&21) => break "alert",
                None => assert!(
                    count > 0,
                    "{:?}: {answer:?}",
                    name.escape_ascii().to_string()
                ),
            }
        };
        let name = name.escape_ascii();
        assert!(wanted.contains(&shown), "{name}: {shown}");
    }
}
