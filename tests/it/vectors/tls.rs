//! TLS: T3 to T8. T1 and T2 are in `handshakes`, what T4 and T8 have behind a handshake is in `tls_misuse`. Not here: T9, which
//! the tests of client certificates have.

use super::handshakes::{DEFAULT_LIMIT, SLACK};
use super::hello::Hello;
use super::invariants::assert_invariants;
use super::stand::{Setup, Stand};
use super::tls_client::{certificate_of, client, connect, handshake};
use super::vector::{Row, get, post, row};
use rustls::HandshakeKind;
use std::time::{Duration, Instant};
use test_support::certificate::Authority;
use test_support::h2_raw::{Connection, block, headers};
use test_support::raw::{self, End, Plan};
use tokio::io::AsyncWriteExt;

/// Two tenants with a certificate each, one of a wildcard.
pub(crate) fn setup() -> Setup {
    let mut setup = Setup::plain();
    setup
        .ingresses
        .push(("", vec![("*.w.test", "/", "Prefix", "a")]));
    setup.ingresses.push((
        "tidegate.dev/client-ca-secret: ca",
        vec![("m.test", "/", "Prefix", "a")],
    ));
    setup.certificates = vec!["a.test", "b.test", "*.w.test", "m.test"];
    let authority = Authority::new("clients").pem.replace('\n', "\n    ");
    setup.more = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: ca}}\nstringData:\n  ca.crt: |\n    {authority}\n---\n"
    );
    setup
}

pub(crate) fn rows() -> Vec<Row> {
    vec![t3(), t4(), t5(), t6(), t7(), t8()]
}

fn t3() -> Row {
    row("T3", "ClientHellos in pieces")
        .scenario("cut at every byte", |stand| Box::pin(cut_everywhere(stand)))
        .scenario("in records of one byte", |stand| {
            Box::pin(answered(stand, Hello::named("a.test").records(1)))
        })
        .scenario("in records of 100 bytes", |stand| {
            Box::pin(answered(stand, Hello::named("a.test").records(100)))
        })
        .scenario("padded to 16 KiB", |stand| {
            Box::pin(answered(stand, padded(16_000)))
        })
        .scenario("padded to 64 KiB", |stand| {
            Box::pin(answered(stand, padded(65_300)))
        })
        .scenario("that says it is 16 MiB", |stand| {
            let mut bytes = Hello::named("a.test").bytes();
            bytes[6..9].copy_from_slice(&[0xff; 3]);
            Box::pin(answered(stand, bytes.repeat(50)))
        })
        .scenario("an empty record", |stand| {
            Box::pin(answered(stand, b"\x16\x03\x01\0\0".repeat(100)))
        })
}

fn padded(padding: usize) -> Vec<u8> {
    let hello = Hello {
        padding,
        ..Hello::named("a.test")
    };
    hello.bytes()
}

/// A handshake goes on, or ends with an alert or a close; never with silence.
async fn answered(stand: &Stand, bytes: Vec<u8>) -> Result<(), String> {
    let answer = handshake(stand, &bytes, DEFAULT_LIMIT + SLACK).await;
    match answer.bytes.first() {
        Some(21 | 22) => Ok(()),
        None if answer.ended => Ok(()),
        other => Err(format!("first byte {other:?}, ended {}", answer.ended)),
    }
}

async fn cut_everywhere(stand: &Stand) -> Result<(), String> {
    let hello = Hello::named("a.test").bytes();
    for cut in 1..hello.len() {
        let mut stream = raw::connect(stand.tidegate.https).await;
        let _ = stream.write_all(&hello[..cut]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = stream.write_all(&hello[cut..]).await;
        let answer = super::tls_client::read(&mut stream, Duration::from_secs(2)).await;
        if answer.bytes.first() != Some(&22) {
            return Err(format!("cut at {cut}: no ServerHello"));
        }
    }
    assert_invariants(stand, None).await
}

fn t4() -> Row {
    row("T4", "what is too old, or not ours")
        .scenario("TLS 1.0", |stand| Box::pin(refused(stand, with_version(0x0301))))
        .scenario("TLS 1.1", |stand| Box::pin(refused(stand, with_version(0x0302))))
        .scenario("SSL 3", |stand| Box::pin(refused(stand, with_version(0x0300))))
        .scenario("SSLv2", |stand| {
            let hello = b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10\x01\0\x80\x02\0\x80\x03\0\x80\x04\0\x80\x05\0\x80\x06\0\x40\x07\0\xc0";
            Box::pin(refused(stand, [&hello[..], &[7; 32]].concat()))
        })
        .scenario("no common cipher", |stand| {
            let hello = Hello {
                // RC4, 3DES, NULL.
                ciphers: vec![0x0005, 0x000a, 0x0002],
                ..Hello::named("a.test")
            };
            Box::pin(refused(stand, hello.bytes()))
        })
        .scenario("plain HTTP", |stand| Box::pin(refused(stand, get(""))))
        .scenario("ALPN foo only", |stand| Box::pin(unknown_protocol(stand)))
        .scenario("early data", |stand| Box::pin(early_data(stand)))
}

fn with_version(version: u16) -> Vec<u8> {
    let hello = Hello {
        version,
        ..Hello::named("a.test")
    };
    hello.bytes()
}

/// An alert or a close at once; no handshake.
async fn refused(stand: &Stand, bytes: Vec<u8>) -> Result<(), String> {
    let start = Instant::now();
    let answer = handshake(stand, &bytes, Duration::from_secs(1)).await;
    let plain = answer.bytes.starts_with(b"HTTP/1.1 400");
    let alert = matches!(answer.bytes.first(), None | Some(21));
    match answer.ended && (alert || plain) && start.elapsed() < Duration::from_secs(1) {
        true => Ok(()),
        false => Err(format!(
            "first byte {:?}, ended {}",
            answer.bytes.first(),
            answer.ended
        )),
    }
}

async fn unknown_protocol(stand: &Stand) -> Result<(), String> {
    match connect(stand, "a.test", "foo").await {
        Err(_) => Ok(()),
        Ok(stream) => Err(format!(
            "connected with {:?}",
            stream.get_ref().1.alpn_protocol()
        )),
    }
}

/// The second handshake offers early data; it must not be taken, or a request could be sent again by others.
async fn early_data(stand: &Stand) -> Result<(), String> {
    let mut config = client("http/1.1");
    config.enable_early_data = true;
    let config = std::sync::Arc::new(config);
    for _ in 0..2 {
        let mut stream = super::tls_client::connect_with(stand, "a.test", config.clone()).await?;
        let got = raw::exchange(&mut stream, Plan::new(get(""))).await;
        if got.statuses() != [200] {
            return Err(format!("expected 200, got {}", got.summary()));
        }
        if stream.get_ref().1.is_early_data_accepted() {
            return Err("early data was accepted".into());
        }
    }
    Ok(())
}

fn t5() -> Row {
    fn shows<'a>(
        stand: &'a Stand,
        name: Option<&'static [u8]>,
        wanted: &'static str,
    ) -> super::vector::Steps<'a> {
        Box::pin(async move {
            let hello = name.map_or_else(Hello::usual, Hello::named);
            let answer = handshake(stand, &hello.bytes(), Duration::from_secs(2)).await;
            match (answer.bytes.first(), certificate_of(&answer.bytes)) {
                (_, Some(shown)) if shown == wanted => Ok(()),
                // Where the default one would do, an alert does too.
                (Some(21), None) if wanted == DEFAULT && answer.ended => Ok(()),
                (first, shown) => Err(format!(
                    "expected {wanted}, got {shown:?}, first byte {first:?}"
                )),
            }
        })
    }
    const DEFAULT: &str = "tidegate.invalid";
    const LONG: [u8; 300] = [b'a'; 300];
    row("T5", "server names")
        .scenario("none", |stand| shows(stand, None, DEFAULT))
        .scenario("unknown", |stand| {
            shows(stand, Some(b"nobody.test"), DEFAULT)
        })
        .scenario("an address", |stand| {
            shows(stand, Some(b"127.0.0.1"), DEFAULT)
        })
        .scenario("300 bytes", |stand| shows(stand, Some(&LONG), DEFAULT))
        .scenario("a NUL", |stand| {
            shows(stand, Some(b"a.test\0.evil"), DEFAULT)
        })
        .scenario("empty", |stand| shows(stand, Some(b""), DEFAULT))
        .scenario("a space", |stand| shows(stand, Some(b"a.test "), DEFAULT))
        .scenario("bytes beyond ASCII", |stand| {
            shows(stand, Some(b"a\xe9.test"), DEFAULT)
        })
        .scenario("a tenant's", |stand| {
            shows(stand, Some(b"a.test"), "a.test")
        })
        .scenario("upper case", |stand| {
            shows(stand, Some(b"A.TEST"), "a.test")
        })
        .scenario("a final dot", |stand| {
            shows(stand, Some(b"a.test."), "a.test")
        })
        .scenario("one label of a wildcard", |stand| {
            shows(stand, Some(b"x.w.test"), "*.w.test")
        })
        .scenario("two labels of a wildcard", |stand| {
            shows(stand, Some(b"x.y.w.test"), DEFAULT)
        })
        .scenario("no label of a wildcard", |stand| {
            shows(stand, Some(b"w.test"), DEFAULT)
        })
        .scenario("a star", |stand| shows(stand, Some(b"*.w.test"), DEFAULT))
}

fn t6() -> Row {
    row("T6", "server name a, host b")
        .scenario("HTTP/1.1, another tenant's host", |stand| {
            Box::pin(host_over(stand, "a.test", "b.test", 421))
        })
        .scenario("HTTP/1.1, another tenant's host, absolute form", |stand| {
            Box::pin(absolute_over(stand, "a.test", "b.test", 421))
        })
        .scenario("HTTP/1.1, its own, spelt otherwise", |stand| {
            Box::pin(host_over(stand, "a.test", "A.TEST.:443", 200))
        })
        .scenario("HTTP/1.1, another under the same wildcard", |stand| {
            Box::pin(host_over(stand, "x.w.test", "y.w.test", 200))
        })
        .scenario("HTTP/1.1, from the wildcard to a tenant", |stand| {
            Box::pin(host_over(stand, "x.w.test", "a.test", 421))
        })
        .scenario("HTTP/2, that stream only", |stand| {
            Box::pin(coalesced(stand, "b.test"))
        })
}

fn t7() -> Row {
    row("T7", "a host that wants client certificates")
        .scenario("HTTP/1.1, by the name of an open host", |stand| {
            Box::pin(host_over(stand, "a.test", "m.test", 421))
        })
        .scenario("HTTP/2, by the name of an open host", |stand| {
            Box::pin(coalesced(stand, "m.test"))
        })
        .scenario("by an unknown name", |stand| {
            Box::pin(host_over(stand, "nobody.test", "m.test", 421))
        })
        .scenario("by its own name, without a certificate", |stand| {
            Box::pin(uncertified(stand))
        })
}

/// No handshake, or none that leads anywhere: with TLS 1.3 the client learns it only when it reads.
async fn uncertified(stand: &Stand) -> Result<(), String> {
    stand.begin(Vec::new());
    if let Ok(mut stream) = connect(stand, "m.test", "http/1.1").await {
        let request = "GET /v HTTP/1.1\r\nHost: m.test\r\n\r\n";
        let got = raw::exchange(&mut stream, Plan::new(request)).await;
        if !matches!(got.statuses()[..], [] | [400]) || got.end == End::Open {
            return Err(format!("expected an alert or 400, got {}", got.summary()));
        }
    }
    match stand.upstream_bytes() {
        0 => Ok(()),
        count => Err(format!("the backend got {count} bytes")),
    }
}

async fn host_over(stand: &Stand, name: &str, host: &str, wanted: u16) -> Result<(), String> {
    misdirected(
        stand,
        name,
        format!("GET /v HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        wanted,
    )
    .await
}

async fn absolute_over(stand: &Stand, name: &str, host: &str, wanted: u16) -> Result<(), String> {
    let request = format!("GET https://{host}/v HTTP/1.1\r\nHost: {host}\r\n\r\n");
    misdirected(stand, name, request, wanted).await
}

async fn misdirected(
    stand: &Stand,
    name: &str,
    request: String,
    wanted: u16,
) -> Result<(), String> {
    stand.begin(Vec::new());
    let mut stream = connect(stand, name, "http/1.1").await?;
    let got = raw::exchange(&mut stream, Plan::new(request)).await;
    if got.statuses() != [wanted] {
        return Err(format!("expected {wanted}, got {}", got.summary()));
    }
    match wanted == 200 || stand.upstream_bytes() == 0 {
        true => Ok(()),
        false => Err("refused, yet the backend got it".into()),
    }
}

async fn coalesced(stand: &Stand, other: &str) -> Result<(), String> {
    let to = |stream: u32, host: &str| {
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/v"),
            (":authority", host),
        ];
        headers(stream, true, &block(&fields))
    };
    stand.begin(Vec::new());
    let stream = connect(stand, "a.test", "h2").await?;
    let mut connection = Connection::open(stream, &[]).await;
    connection.send(&to(1, other)).await;
    let got = connection
        .read(Duration::from_secs(3), |got| got.stream(1).is_over())
        .await;
    if got.stream(1).status != Some(421) || stand.upstream_bytes() > 0 {
        let bytes = stand.upstream_bytes();
        return Err(format!(
            "expected 421, got {}; {bytes} bytes upstream",
            got.summary(1)
        ));
    }
    connection.send(&to(3, "a.test")).await;
    let got = connection
        .read(Duration::from_secs(3), |got| got.stream(3).is_over())
        .await;
    match got.stream(3).status {
        Some(200) => Ok(()),
        _ => Err(format!("the next stream got {}", got.summary(3))),
    }
}

fn t8() -> Row {
    row("T8", "ends without a word, alerts, tickets of others")
        .scenario("a close without close_notify inside a body", |stand| {
            Box::pin(truncated(stand))
        })
        .scenario("1,000 warnings before a handshake", |stand| {
            Box::pin(answered(stand, b"\x15\x03\x01\0\x02\x01\x5a".repeat(1_000)))
        })
        .scenario("a ticket of another replica", |stand| {
            Box::pin(foreign_ticket(stand))
        })
}

/// The end of the transport is no end of a message that says how long it is.
async fn truncated(stand: &Stand) -> Result<(), String> {
    stand.begin(Vec::new());
    let mut stream = connect(stand, "a.test", "http/1.1").await?;
    let sent = async {
        stream
            .write_all(&post("Transfer-Encoding: chunked\r\n", b"4\r\nhalf\r\n"))
            .await?;
        stream.flush().await
    };
    sent.await
        .map_err(|error: std::io::Error| error.to_string())?;
    let begun = stand
        .backend()
        .wait(Duration::from_secs(2), |seen| !seen.requests.is_empty())
        .await;
    if begun.requests.is_empty() {
        return Err("the request did not reach the backend before its body ended".into());
    }
    // Only the transport ends: what TLS would say is never sent.
    let (mut socket, _) = stream.into_inner();
    let _ = socket.shutdown().await;
    let ended = |seen: &test_support::recorder::Seen| {
        seen.connections
            .iter()
            .filter(|one| one.count > 0)
            .all(|one| one.ended.is_some())
    };
    let seen = stand.backend().wait(Duration::from_secs(1), ended).await;
    match ended(&seen) && seen.requests.iter().all(|one| !one.complete) {
        true => Ok(()),
        false => Err(format!(
            "ended: {}; whole: {}",
            ended(&seen),
            seen.requests.iter().any(|one| one.complete)
        )),
    }
}

async fn foreign_ticket(stand: &Stand) -> Result<(), String> {
    let other = Stand::start("T8-other", &setup(), &[]).await;
    let config = std::sync::Arc::new(client("http/1.1"));
    for (replica, resumed) in [(stand, None), (&other, Some(HandshakeKind::Resumed))] {
        let mut stream = super::tls_client::connect_with(replica, "a.test", config.clone()).await?;
        let kind = stream.get_ref().1.handshake_kind();
        if resumed.is_some() && kind == resumed {
            return Err("a ticket of another replica was taken".into());
        }
        let got = raw::exchange(&mut stream, Plan::new(get(""))).await;
        if got.statuses() != [200] || got.end != End::Open {
            return Err(format!("expected 200, got {}", got.summary()));
        }
    }
    Ok(())
}
