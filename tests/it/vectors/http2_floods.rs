//! Floods of HTTP/2 frames: D13 (streams), D15 to D19. Each must be cut off, or cost next to nothing. Also the steps of D14
//! that stop the proxy.

use super::http2::{Row, row};
use super::http2_resets::{When, many_connections};
use super::http2_runner::{At, Expect, Transport};
use super::runner::NOT_RUN;
use super::stand::{Setup, Stand, has_flag};
use super::vector::Steps;
use std::time::{Duration, Instant};
use test_support::h2_raw::{END_HEADERS, END_STREAM, Got, block, frame, headers, kind, reset};
use test_support::recorder::Act;

/// ENHANCE_YOUR_CALM (RFC 9113 section 7).
pub(crate) const CALM: u32 = 11;
/// REFUSED_STREAM.
const REFUSED: u32 = 7;
/// CANCEL.
pub(crate) const CANCEL: u32 = 8;
/// Streams that may be open at once.
pub(crate) const STREAMS: usize = 100;
/// CPU time that one abusive connection may cost, in a release build.
const CPU: Duration = Duration::from_millis(50);

pub(crate) fn rows() -> Vec<Row> {
    vec![d19(), d15(), d16(), d17(), d18()]
}

/// What a flood must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    BeCalmed,
    BeCalmedOrCheap,
}

/// Processor time that the process has used.
fn cpu(stand: &Stand) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stand.tidegate.pid()));
    let stat = stat.unwrap_or_default();
    // User and system time are the 14th and 15th value; the 2nd, in parentheses, may have spaces. A tick is 10 ms.
    let behind_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = behind_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|value| value.parse::<u64>().ok())
        .sum();
    Duration::from_millis(10 * ticks)
}

async fn flood(
    stand: &Stand,
    transport: Transport,
    bytes: Vec<u8>,
    must: Must,
) -> Result<(), String> {
    stand.begin(vec![Act::silence()]);
    let mut connection = transport.open(stand, &[]).await;
    connection
        .read(Duration::from_secs(4), |got| got.settings)
        .await;
    let before = cpu(stand);
    connection.pour(&bytes).await;
    // A PING behind it: its answer says that everything before was taken.
    let acknowledged = connection
        .read(Duration::ZERO, |_| false)
        .await
        .acknowledged;
    connection.send(&frame(kind::PING, 0, 0, b"the last")).await;
    let got = connection
        .read(Duration::from_secs(2), |got| {
            got.is_over() || must == Must::BeCalmedOrCheap && got.acknowledged > acknowledged
        })
        .await;
    let cost = cpu(stand) - before;
    let calmed = got.goaway == Some(CALM);
    let most = match test_support::process::is_release() {
        true => CPU,
        false => 10 * CPU,
    };
    match must {
        _ if calmed => Ok(()),
        Must::BeCalmedOrCheap if cost <= most => Ok(()),
        _ => Err(format!(
            "expected GOAWAY(11){}, got goaway {:?}, closed {}, {cost:?} of CPU",
            if must == Must::BeCalmed {
                ""
            } else {
                " or little CPU"
            },
            got.goaway,
            got.closed
        )),
    }
}

pub(crate) fn at(transport: Transport, stream: u32) -> At {
    At {
        stream,
        scheme: transport.scheme(),
    }
}

fn repeat(count: usize, bytes: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count as u32).flat_map(|n| bytes(2 * n + 1)).collect()
}

fn d15() -> Row {
    fn rapid(stand: &Stand, transport: Transport) -> Steps<'_> {
        let bytes = repeat(500, |stream| {
            [at(transport, stream).get(&[]), reset(stream, CANCEL)].concat()
        });
        Box::pin(flood(stand, transport, bytes, Must::BeCalmed))
    }
    fn made(stand: &Stand, transport: Transport) -> Steps<'_> {
        // More DATA than announced is an error of the stream, so the server resets it.
        let bytes = repeat(2_000, |stream| {
            let head = at(transport, stream).post(&[("content-length", "1")]);
            [head, at(transport, stream).data(true, b"hi")].concat()
        });
        Box::pin(flood(stand, transport, bytes, Must::BeCalmed))
    }
    fn continuation(stand: &Stand, transport: Transport) -> Steps<'_> {
        let head = at(transport, 1).block("GET", "/v", &[]);
        let mut bytes = frame(kind::HEADERS, END_STREAM, 1, &head);
        for _ in 0..5_000 {
            bytes.extend(frame(kind::CONTINUATION, 0, 1, &block(&[("x-a", "b")])));
        }
        Box::pin(flood(stand, transport, bytes, Must::BeCalmed))
    }
    fn empty_continuation(stand: &Stand, transport: Transport) -> Steps<'_> {
        let head = at(transport, 1).block("GET", "/v", &[]);
        let mut bytes = frame(kind::HEADERS, END_STREAM, 1, &head);
        for _ in 0..5_000 {
            bytes.extend(frame(kind::CONTINUATION, 0, 1, b""));
        }
        Box::pin(flood(stand, transport, bytes, Must::BeCalmed))
    }
    row("D15", "resets and continuations")
        .scenario("500 requests reset at once", rapid)
        .scenario("2,000 that make the server reset", made)
        .scenario("5,000 CONTINUATION", continuation)
        .scenario("5,000 empty CONTINUATION", empty_continuation)
}

fn d16() -> Row {
    fn of(stand: &Stand, transport: Transport, count: usize, one: Vec<u8>) -> Steps<'_> {
        Box::pin(flood(
            stand,
            transport,
            one.repeat(count),
            Must::BeCalmedOrCheap,
        ))
    }
    row("D16", "frames that cost an answer, or nothing")
        .scenario("20,000 PING", |stand, transport| {
            of(
                stand,
                transport,
                20_000,
                frame(kind::PING, 0, 0, b"12345678"),
            )
        })
        .scenario("5,000 SETTINGS", |stand, transport| {
            of(stand, transport, 5_000, frame(kind::SETTINGS, 0, 0, b""))
        })
        .scenario("20,000 PRIORITY", |stand, transport| {
            of(
                stand,
                transport,
                20_000,
                frame(kind::PRIORITY, 0, 1, b"\0\0\0\x03\x10"),
            )
        })
        .scenario("20,000 WINDOW_UPDATE", |stand, transport| {
            of(
                stand,
                transport,
                20_000,
                frame(kind::WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"),
            )
        })
        .scenario("20,000 of an unknown type", |stand, transport| {
            of(stand, transport, 20_000, frame(0x42, 0, 0, b"12345678"))
        })
}

fn d17() -> Row {
    fn data<'a>(
        stand: &'a Stand,
        transport: Transport,
        count: usize,
        body: &'static [u8],
    ) -> Steps<'a> {
        let mut bytes = at(transport, 1).post(&[]);
        for _ in 0..count {
            bytes.extend(frame(kind::DATA, 0, 1, body));
        }
        Box::pin(flood(stand, transport, bytes, Must::BeCalmed))
    }
    row("D17", "empty and tiny DATA, resets over many connections")
        .scenario("60,000 empty DATA", |stand, transport| {
            data(stand, transport, 60_000, b"")
        })
        .scenario("40,000 DATA of one byte", |stand, transport| {
            data(stand, transport, 40_000, b"x")
        })
        .scenario(
            "many connections of 100 streams reset after their head",
            |stand, transport| Box::pin(many_connections(stand, transport, When::AtOnce)),
        )
        .scenario(
            "some of 100 streams reset when they had time to be taken",
            |stand, transport| Box::pin(many_connections(stand, transport, When::Later)),
        )
}

fn d18() -> Row {
    // One field goes into the table, then it is named again and again by one byte.
    let bomb = |count: usize| {
        move |at: At| {
            let mut bytes = at.block("GET", "/v", &[]);
            bytes.extend_from_slice(b"\x40\x03x-a\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
            bytes.extend(std::iter::repeat_n(0xbe, count));
            headers(at.stream, true, &bytes)
        }
    };
    row("D18", "header lists that grow when they are read")
        .vector("400 references", Expect::Refused(&[431]), bomb(400))
        .vector("4,000 references", Expect::Refused(&[431]), bomb(4_000))
        .vector("60,000 references", Expect::Refused(&[431]), bomb(60_000))
        .vector("500 cookie crumbs", Expect::Refused(&[431]), |at| {
            at.get(&[("cookie", "a=b"); 500])
        })
        .vector("a table of 4 GiB", Expect::GoAway, |at| {
            frame(
                kind::HEADERS,
                END_STREAM | END_HEADERS,
                at.stream,
                b"\x3f\xff\xff\xff\xff\x0f",
            )
        })
}

fn d19() -> Row {
    let mut d19 = row("D19", "a client that gives no window");
    if has_flag("--client-write-timeout") {
        d19.flags.push("--client-write-timeout=2s");
    }
    d19.scenario("window 0, 100 GETs, silence", |stand, transport| {
        Box::pin(no_window(stand, transport))
    })
}

async fn no_window(stand: &Stand, transport: Transport) -> Result<(), String> {
    if !has_flag("--client-write-timeout") {
        return Err(format!(
            "{NOT_RUN}there is no --client-write-timeout, and the default of 30 s is too long to wait for"
        ));
    }
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const GROWTH: u64 = 2 << 20;
    stand.begin(Vec::new());
    // A process that has served nobody yet grows with whatever is asked of it first: a hundred ordinary GETs at once.
    let mut ordinary = transport.open(stand, &[]).await;
    ordinary
        .pour(&repeat(STREAMS, |stream| at(transport, stream).get(&[])))
        .await;
    let answered =
        |got: &Got| got.streams.len() >= STREAMS && got.streams.values().all(|one| one.ended);
    ordinary.read(Duration::from_secs(5), answered).await;
    let before = stand.tidegate.resident();
    let mut connection = transport.open(stand, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let bytes = repeat(STREAMS, |stream| at(transport, stream).get(&[]));
    connection.pour(&bytes).await;
    connection.fall_silent();
    let start = Instant::now();
    let over = |got: &Got| {
        got.is_over()
            || got.streams.len() >= STREAMS && got.streams.values().all(|one| one.reset.is_some())
    };
    let got = connection.read(Duration::from_secs(5), over).await;
    let grown = stand.tidegate.resident().saturating_sub(before);
    if !over(&got) {
        return Err(format!("streams are held after {:?}", start.elapsed()));
    }
    match grown <= GROWTH {
        true => Ok(()),
        false => Err(format!("memory grew by {} KiB", grown / 1024)),
    }
}

/// 300 POSTs without an end: those beyond the limit are refused, those below go on.
pub(crate) async fn held_open(stand: &Stand, transport: Transport) -> Result<(), String> {
    stand.begin(Vec::new());
    let mut connection = transport.open(stand, &[]).await;
    connection
        .read(Duration::from_secs(4), |got| got.settings)
        .await;
    connection
        .pour(&repeat(300, |stream| at(transport, stream).post(&[])))
        .await;
    let refused = |got: &Got| {
        let streams = got.streams.values();
        streams.filter(|one| one.reset == Some(REFUSED)).count()
    };
    let got = connection
        .read(Duration::from_secs(2), |got| {
            got.is_over() || refused(got) >= 300 - STREAMS
        })
        .await;
    if got.is_over() {
        // To give such a client up is as good.
        return Ok(());
    }
    match refused(&got) {
        200 => Ok(()),
        count => Err(format!("{count} of 300 streams refused instead of 200")),
    }
}

/// The proxy is asked to stop while a request is in progress, and the client goes on asking.
pub(crate) async fn after_goaway(_: &Stand, transport: Transport) -> Result<(), String> {
    let name = format!("D14-{transport:?}");
    let mut stand = Stand::start(&name, &Setup::plain(), &["--drain-timeout=5s"]).await;
    let slow = Act::silence()
        .pause(Duration::from_millis(500))
        .write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    stand.begin(vec![slow]);
    let mut connection = transport.open(&stand, &[]).await;
    connection.send(&at(transport, 1).get(&[])).await;
    let begun = stand
        .backend()
        .wait(Duration::from_secs(2), |seen| !seen.requests.is_empty());
    if begun.await.requests.is_empty() {
        return Err("the request did not reach the backend".into());
    }
    stand.tidegate.terminate();
    let got = connection
        .read(Duration::from_secs(2), |got| got.goaway.is_some())
        .await;
    if got.goaway != Some(0) {
        return Err(format!("expected GOAWAY(0), got {}", got.summary(1)));
    }
    connection.send(&at(transport, 3).get(&[])).await;
    let got = connection
        .read(Duration::from_secs(4), |got| got.closed)
        .await;
    let (first, late) = (got.stream(1), got.stream(3));
    if first.status != Some(200) || !first.ended {
        return Err(format!("what was in progress got {}", got.summary(1)));
    }
    let served = late.status == Some(200) && late.ended;
    let refused = late.status.is_none() && matches!(late.reset, None | Some(REFUSED));
    if !got.closed || !(served || refused) {
        return Err(format!("the late one got {}", got.summary(3)));
    }
    let status = stand.tidegate.wait(Duration::from_secs(5)).await;
    match status.success() {
        true => Ok(()),
        false => Err(format!("it ended with {status}")),
    }
}
