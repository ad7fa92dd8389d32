//! The parts of T4 and T8 that come behind a handshake: floods of alerts, and handshakes inside a session.

use super::hello::Hello;
use super::stand::Stand;
use super::tls_client::wait_for_end;
use super::tls_records::{ALERT, DATA, HANDSHAKE, RecordClient};
use super::vector::{Row, get, row};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Level and description of alerts (RFC 8446 section 6).
type Alert = [u8; 2];
const CLOSE_NOTIFY: Alert = [1, 0];
const USER_CANCELED: Alert = [1, 90];
const NO_RENEGOTIATION: Alert = [1, 100];
const UNKNOWN: Alert = [1, 255];
/// How many are sent.
const FLOOD: usize = 1_000;
/// Longest time until the connection is closed.
const SOON: Duration = Duration::from_secs(1);

pub(crate) fn rows() -> Vec<Row> {
    vec![t4(), t8()]
}

fn t8() -> Row {
    row("T8a", "1,000 alerts behind a handshake")
        .scenario("TLS 1.3, user_canceled", |stand| {
            Box::pin(alerts(stand, &TLS13, USER_CANCELED))
        })
        .scenario("TLS 1.3, no_renegotiation", |stand| {
            Box::pin(alerts(stand, &TLS13, NO_RENEGOTIATION))
        })
        .scenario("TLS 1.3, close_notify", |stand| {
            Box::pin(alerts(stand, &TLS13, CLOSE_NOTIFY))
        })
        .scenario("TLS 1.2, user_canceled", |stand| {
            Box::pin(alerts(stand, &TLS12, USER_CANCELED))
        })
        .scenario("TLS 1.2, no_renegotiation", |stand| {
            Box::pin(alerts(stand, &TLS12, NO_RENEGOTIATION))
        })
        .scenario("TLS 1.2, one that does not exist", |stand| {
            Box::pin(alerts(stand, &TLS12, UNKNOWN))
        })
        .scenario("TLS 1.2, close_notify", |stand| {
            Box::pin(alerts(stand, &TLS12, CLOSE_NOTIFY))
        })
}

fn t4() -> Row {
    row("T4r", "handshakes inside a session")
        .scenario("TLS 1.2, a new ClientHello", |stand| {
            Box::pin(renegotiation(stand))
        })
        .scenario("TLS 1.2, a request behind it", |stand| {
            Box::pin(handshakes(stand, &TLS12, hello()))
        })
        .scenario("TLS 1.2, two of them", |stand| {
            Box::pin(handshakes(stand, &TLS12, hello().repeat(2)))
        })
        .scenario("TLS 1.2, a HelloRequest", |stand| {
            Box::pin(handshakes(stand, &TLS12, vec![0; 4]))
        })
        .scenario("TLS 1.3, a new ClientHello", |stand| {
            Box::pin(handshakes(stand, &TLS13, hello()))
        })
}

fn hello() -> Vec<u8> {
    Hello::named("a.test").message()
}

/// A request in records of ours reaches the backend: what does not below is not for want of a key.
async fn works(stand: &Stand, version: &'static SupportedProtocolVersion) -> Result<(), String> {
    stand.begin(Vec::new());
    let mut client = RecordClient::connect(stand, version).await?;
    let request = client.seal(DATA, &get(""));
    let sent = client.stream.write_all(&request).await;
    sent.map_err(|error| error.to_string())?;
    let whole = |seen: &test_support::recorder::Seen| seen.requests.iter().any(|one| one.complete);
    let seen = stand.backend().wait(Duration::from_secs(4), whole).await;
    stand.begin(Vec::new());
    match whole(&seen) {
        true => Ok(()),
        false => Err("a good request did not reach the backend".into()),
    }
}

/// A flood of alerts, and a request behind it.
async fn alerts(
    stand: &Stand,
    version: &'static SupportedProtocolVersion,
    alert: Alert,
) -> Result<(), String> {
    works(stand, version).await?;
    let mut client = RecordClient::connect(stand, version).await?;
    let mut bytes: Vec<u8> = (0..FLOOD)
        .flat_map(|_| client.seal(ALERT, &alert))
        .collect();
    bytes.extend(client.seal(DATA, &get("")));
    ended_by(stand, client, &bytes).await
}

/// Handshake messages in one record, and a request behind it.
async fn handshakes(
    stand: &Stand,
    version: &'static SupportedProtocolVersion,
    messages: Vec<u8>,
) -> Result<(), String> {
    works(stand, version).await?;
    let mut client = RecordClient::connect(stand, version).await?;
    let mut bytes = client.seal(HANDSHAKE, &messages);
    bytes.extend(client.seal(DATA, &get("")));
    ended_by(stand, client, &bytes).await
}

/// These bytes end the connection, and nothing reaches the backend.
async fn ended_by(stand: &Stand, mut client: RecordClient, bytes: &[u8]) -> Result<(), String> {
    // It may be ended before all is written.
    let _ = client.stream.write_all(bytes).await;
    if !wait_for_end(&mut client.stream, SOON).await {
        return Err(format!("still open after {SOON:?}"));
    }
    nothing_upstream(stand)
}

fn nothing_upstream(stand: &Stand) -> Result<(), String> {
    match stand.upstream_bytes() {
        0 => Ok(()),
        count => Err(format!("the backend got {count} bytes")),
    }
}

/// A new ClientHello is answered with an alert, without a handshake, and the connection ends.
async fn renegotiation(stand: &Stand) -> Result<(), String> {
    works(stand, &TLS12).await?;
    let mut client = RecordClient::connect(stand, &TLS12).await?;
    let record = client.seal(HANDSHAKE, &hello());
    let sent = client.stream.write_all(&record).await;
    sent.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let read = client.stream.read_to_end(&mut answer);
    if tokio::time::timeout(SOON, read).await.is_err() {
        return Err(format!("still open after {SOON:?}"));
    }
    match answer.first() {
        Some(&ALERT) => nothing_upstream(stand),
        other => Err(format!("expected an alert, got {other:?}")),
    }
}
