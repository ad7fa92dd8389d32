//! Upgrades: B32 to B34. Only a WebSocket handshake that is right in all its parts goes through; nothing a client sends
//! before 101 does.

use super::stand::Stand;
use super::vector::{Check, Expect, Row, get, join, post, request, row};
use std::time::Duration;
use test_support::raw::{self, End, Plan};
use test_support::recorder::Act;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// RFC 6455 section 1.3.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// A masked text frame that says "Hello" (RFC 6455 section 5.7).
const FRAME: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";

pub(crate) fn rows() -> Vec<Row> {
    vec![b32(), b33(), b34()]
}

fn b32() -> Row {
    const STRIPPED: &[Check] = &[
        Check::NoField("upgrade"),
        Check::NoField("connection"),
        Check::NoField("http2-settings"),
    ];
    const BOTH: &[Check] = &[
        Check::NoField("upgrade"),
        Check::NoField("connection"),
        Check::Targets(&["/v", "/second"]),
    ];
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let second = b"GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let unknown = get("Connection: Upgrade\r\nUpgrade: foo\r\n");
    row("B32", "upgrades to what is not WebSocket")
        .passed("h2c", get(h2c), STRIPPED)
        .passed(
            "h2c with a body",
            post(&format!("{h2c}Content-Length: 2\r\n"), b"hi"),
            &[Check::NoField("upgrade"), Check::Body(b"hi")],
        )
        .passed("foo", unknown.clone(), STRIPPED)
        .passed(
            "TLS/1.2",
            get("Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"),
            STRIPPED,
        )
        .passed(
            "not listed in Connection",
            get("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
            STRIPPED,
        )
        .vector(
            "foo, and a request behind it",
            join(&[&unknown, second]),
            Expect::Passed(2, BOTH),
        )
        .vector(
            "h2c, and a request behind it",
            join(&[&get(h2c), second]),
            Expect::Passed(2, BOTH),
        )
        .scenario("h2c, and the backend says 101", |stand| {
            Box::pin(h2c_switched(stand))
        })
}

fn b33() -> Row {
    let without = |name: &str| {
        let lines = HANDSHAKE
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    let key = |value: &str| {
        let lines = without("Sec-WebSocket-Key");
        get(&format!("{lines}Sec-WebSocket-Key: {value}\r\n"))
    };
    let version = |value: &str| {
        let lines = without("Sec-WebSocket-Version");
        get(&format!("{lines}Sec-WebSocket-Version: {value}\r\n"))
    };
    row("B33", "WebSocket handshakes that are wrong")
        .refused(
            "with a body",
            request(
                "GET /v HTTP/1.1",
                &format!("{HANDSHAKE}Content-Length: 2\r\n"),
                b"hi",
            ),
            &[400],
        )
        .refused(
            "with chunks",
            request(
                "GET /v HTTP/1.1",
                &format!("{HANDSHAKE}Transfer-Encoding: chunked\r\n"),
                b"2\r\nhi\r\n0\r\n\r\n",
            ),
            &[400],
        )
        .refused("POST", post(HANDSHAKE, b""), &[400])
        .refused(
            "POST with a body",
            post(&format!("{HANDSHAKE}Content-Length: 2\r\n"), b"hi"),
            &[400],
        )
        .refused("no key", get(&without("Sec-WebSocket-Key")), &[400])
        .refused("an empty key", key(""), &[400])
        .refused("a key that is no base64", key("not base64!"), &[400])
        .refused("a key of 8 bytes", key("MTIzNDU2Nzg="), &[400])
        .refused(
            "two keys",
            get(&format!(
                "{HANDSHAKE}Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==\r\n"
            )),
            &[400],
        )
        .refused("version 7", version("7"), &[426])
        .refused("version 14", version("14"), &[426])
        .refused(
            "no version",
            get(&without("Sec-WebSocket-Version")),
            &[400, 426],
        )
        // RFC 9110 section 7.8: ignored in an HTTP/1.0 request.
        .passed(
            "on HTTP/1.0",
            request("GET /v HTTP/1.0", HANDSHAKE, b""),
            &[Check::NoField("upgrade")],
        )
}

fn b34() -> Row {
    row("B34", "WebSocket bytes before 101")
        .scenario("the backend says 200", |stand| {
            Box::pin(held(stand, "200 OK"))
        })
        .scenario("the backend says 403", |stand| {
            Box::pin(held(stand, "403 Forbidden"))
        })
        .scenario("the backend says 101", |stand| Box::pin(tunnelled(stand)))
        .scenario("the client leaves", |stand| Box::pin(client_leaves(stand)))
        .scenario("the backend leaves", |stand| {
            Box::pin(backend_leaves(stand))
        })
}

async fn h2c_switched(stand: &Stand) -> Result<(), String> {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    stand.begin(vec![Act::reply(switching)]);
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let mut stream = raw::connect(stand.tidegate.http).await;
    let got = raw::exchange(&mut stream, Plan::new(get(lines))).await;
    match got.statuses() == [502] {
        true => Ok(()),
        false => Err(format!("expected 502, got {}", got.summary())),
    }
}

/// Bytes that a client sends before it knows the answer stay here when there is no 101.
async fn held(stand: &Stand, status: &'static str) -> Result<(), String> {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
    stand.begin(vec![
        Act::silence()
            .pause(Duration::from_millis(100))
            .write(answer),
    ]);
    let mut stream = raw::connect(stand.tidegate.http).await;
    let got = raw::exchange(&mut stream, Plan::new(join(&[&get(HANDSHAKE), FRAME]))).await;
    let wanted: u16 = status[..3].parse().unwrap_or_default();
    if got.statuses() != [wanted] || got.end == End::Open {
        return Err(format!(
            "expected {wanted} and a close, got {}",
            got.summary()
        ));
    }
    let ended = |seen: &test_support::recorder::Seen| {
        seen.connections
            .iter()
            .filter(|one| one.count > 0)
            .all(|one| one.ended.is_some())
    };
    let seen = stand.backend().wait(Duration::from_secs(1), ended).await;
    let request = seen
        .requests
        .first()
        .ok_or("the handshake did not go upstream")?;
    if request.values("upgrade") != ["websocket"] {
        return Err(format!(
            "upstream upgrade is {:?}",
            request.values("upgrade")
        ));
    }
    let leaked = |bytes: &[u8]| bytes.windows(FRAME.len()).any(|part| part == FRAME);
    if seen.connections.iter().any(|one| leaked(&one.bytes)) {
        return Err("the frame went upstream before 101".into());
    }
    match ended(&seen) {
        true => Ok(()),
        false => Err("the backend's connection is still open after 1 s".into()),
    }
}

async fn tunnel(stand: &Stand, act: Act) -> Result<tokio::net::TcpStream, String> {
    stand.begin(vec![act]);
    let mut stream = raw::connect(stand.tidegate.http).await;
    let got = raw::exchange(&mut stream, Plan::new(get(HANDSHAKE))).await;
    match got.statuses() == [101] && got.end == End::Open {
        true => Ok(stream),
        false => Err(format!("expected 101, got {}", got.summary())),
    }
}

/// After 101 bytes flow both ways, those that came before it too.
async fn tunnelled(stand: &Stand) -> Result<(), String> {
    let mut stream = tunnel(stand, Act::reply(SWITCHING).tunnel()).await?;
    for _ in 0..3 {
        let mut back = [0; FRAME.len()];
        let echo = async {
            stream.write_all(FRAME).await?;
            stream.read_exact(&mut back).await
        };
        let echoed = tokio::time::timeout(Duration::from_secs(4), echo).await;
        if !matches!(echoed, Ok(Ok(_))) || back != *FRAME {
            return Err(format!("a frame did not come back: {echoed:?}"));
        }
    }
    drop(stream);
    stand.begin(vec![Act::reply(SWITCHING).tunnel()]);
    let mut early = raw::connect(stand.tidegate.http).await;
    let plan = Plan::new(join(&[&get(HANDSHAKE), FRAME]))
        .wanted(2)
        .patience(Duration::from_secs(1));
    let got = raw::exchange(&mut early, plan).await;
    match got.statuses() == [101] && got.rest == FRAME {
        true => Ok(()),
        false => Err(format!(
            "expected 101 and the early frame, got {}",
            got.summary()
        )),
    }
}

async fn client_leaves(stand: &Stand) -> Result<(), String> {
    let stream = tunnel(stand, Act::reply(SWITCHING).tunnel()).await?;
    drop(stream);
    let seen = stand
        .backend()
        .wait(Duration::from_secs(1), |seen| {
            seen.connections
                .iter()
                .any(|one| one.count > 0 && one.ended.is_some())
        })
        .await;
    match seen.connections.iter().any(|one| one.ended.is_some()) {
        true => Ok(()),
        false => Err("the backend's connection is still open after 1 s".into()),
    }
}

async fn backend_leaves(stand: &Stand) -> Result<(), String> {
    let mut stream = tunnel(
        stand,
        Act::reply(SWITCHING)
            .pause(Duration::from_millis(50))
            .close(),
    )
    .await?;
    let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0; 16])).await;
    match read {
        Ok(Ok(0) | Err(_)) => Ok(()),
        other => Err(format!("the client's connection is still open: {other:?}")),
    }
}
