//! Steps of B24 to B31: clients that are slow, go away, or send more than anybody wants.

use super::runner::NOT_RUN;
use super::stand::{Stand, has_flag};
use super::vector::{get, get_target, post};
use std::time::{Duration, Instant};
use test_support::raw::{self, End, Exchange, Plan};
use test_support::recorder::{Act, Seen};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// How far from its limit a timer may fire, on a busy machine.
const SLACK: Duration = Duration::from_millis(1_500);
/// Longest default limit that is waited for.
const LONGEST: Duration = Duration::from_secs(20);
/// How much memory may grow.
const GROWTH: u64 = 8 << 20;

pub(crate) const LENGTH: &str = "Content-Length: 100000\r\n";
pub(crate) const CHUNKS: &str = "Transfer-Encoding: chunked\r\n";

/// How a client goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    HalfClose,
    Reset,
}

/// What a limit is in this run: as set by a flag if there is one, else its default.
///
/// # Errors
/// When that is too long to wait for.
fn limit(flag: &str, set: u64, default: u64) -> Result<Duration, String> {
    let seconds = if has_flag(flag) { set } else { default };
    let limit = Duration::from_secs(seconds);
    match limit <= LONGEST {
        true => Ok(limit),
        false => Err(format!(
            "{NOT_RUN}there is no {flag}, and the default of {seconds} s is too long to wait for"
        )),
    }
}

async fn connect(stand: &Stand) -> TcpStream {
    raw::connect(stand.tidegate.http).await
}

/// Closed in time: with one of these statuses, or without a word where that is allowed.
fn timed_out(got: &Exchange, took: Duration, limit: Duration, silent: bool) -> Result<(), String> {
    let told = got.statuses() == [408] && got.answers[0].closes();
    let quiet = silent && got.answers.is_empty() && got.rest.is_empty();
    if got.end == End::Open || !(told || quiet) {
        return Err(format!(
            "expected 408 and a close, got {} after {took:?}",
            got.summary()
        ));
    }
    match took + SLACK >= limit && took <= limit + SLACK {
        true => Ok(()),
        false => Err(format!("closed after {took:?} instead of {limit:?}")),
    }
}

pub(crate) async fn nothing(stand: &Stand) -> Result<(), String> {
    let limit = limit("--client-first-byte-timeout", 3, 15)?;
    let start = Instant::now();
    let mut stream = connect(stand).await;
    let plan = Plan::new("").patience(limit + 2 * SLACK);
    let got = raw::exchange(&mut stream, plan).await;
    timed_out(&got, start.elapsed(), limit, true)
}

pub(crate) async fn stops(stand: &Stand, bytes: &'static [u8]) -> Result<(), String> {
    let limit = limit("--client-head-timeout", 2, 10)?;
    let start = Instant::now();
    let mut stream = connect(stand).await;
    let plan = Plan::new(bytes).patience(limit + 2 * SLACK);
    let got = raw::exchange(&mut stream, plan).await;
    // An empty line is no part of a head yet, and the preface of HTTP/2 no part of an HTTP/1.1 one.
    let is_head = bytes.starts_with(b"GET");
    if !is_head && got.statuses() == [400] {
        return Ok(());
    }
    if bytes == b"\r\n" && start.elapsed() > limit + SLACK {
        let first_byte = if has_flag("--client-first-byte-timeout") {
            3
        } else {
            15
        };
        return timed_out(&got, start.elapsed(), Duration::from_secs(first_byte), true);
    }
    timed_out(&got, start.elapsed(), limit, !is_head)
}

pub(crate) async fn drips(stand: &Stand) -> Result<(), String> {
    let limit = limit("--client-head-timeout", 2, 10)?;
    let pause = limit / 10;
    let mut plan = Plan::new("G").patience(limit + 2 * SLACK);
    for byte in get("")[1..].iter().take(20) {
        plan = plan.then(pause, [*byte]);
    }
    let mut stream = connect(stand).await;
    let start = Instant::now();
    let got = raw::exchange(&mut stream, plan).await;
    timed_out(&got, start.elapsed(), limit, false)
}

pub(crate) async fn memory(stand: &Stand) -> Result<(), String> {
    let before = stand.tidegate.resident();
    for _ in 0..20 {
        let mut stream = connect(stand).await;
        raw::exchange(&mut stream, Plan::new(super::limits::head_of(10 << 20))).await;
    }
    let grown = stand.tidegate.resident().saturating_sub(before);
    match grown <= GROWTH {
        true => Ok(()),
        false => Err(format!("memory grew by {} KiB", grown / 1024)),
    }
}

pub(crate) async fn pipelined(stand: &Stand, count: usize) -> Result<(), String> {
    stand.begin(vec![Act::echo_target()]);
    let bytes: Vec<u8> = (0..count)
        .flat_map(|n| get_target(&format!("/{n}")))
        .collect();
    let mut stream = connect(stand).await;
    let got = raw::exchange(&mut stream, Plan::new(bytes).wanted(count)).await;
    if got.answers.len() != count {
        return Err(format!(
            "{} answers, connection {:?}",
            got.answers.len(),
            got.end
        ));
    }
    for (n, answer) in got.answers.iter().enumerate() {
        if answer.body != format!("/{n}").as_bytes() {
            return Err(format!(
                "answer {n} is that to {:?}",
                String::from_utf8_lossy(&answer.body)
            ));
        }
    }
    Ok(())
}

pub(crate) async fn most_requests(stand: &Stand) -> Result<(), String> {
    const MOST: usize = 10_000;
    const BATCH: usize = 500;
    let mut stream = connect(stand).await;
    let mut answered = 0;
    for _ in 0..2 * MOST / BATCH {
        let bytes: Vec<u8> = (0..BATCH).flat_map(|_| get("")).collect();
        let got = raw::exchange(&mut stream, Plan::new(bytes).wanted(BATCH)).await;
        if got.answers.iter().any(|answer| answer.status != 200) {
            return Err(format!("after {answered}: {}", got.summary()));
        }
        answered += got.answers.len();
        if got.end != End::Open {
            let told = got.answers.last().is_some_and(|last| last.closes());
            return match answered == MOST && told {
                true => Ok(()),
                false => Err(format!("{answered} answers; the last says so: {told}")),
            };
        }
        if got.answers.len() != BATCH {
            return Err(format!("after {answered}: {}", got.summary()));
        }
    }
    Err(format!("{answered} answers and no end"))
}

pub(crate) async fn half_closed(stand: &Stand, bytes: Vec<u8>) -> Result<(), String> {
    const SIZE: usize = 64 * 1024;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
    let slow = Act::silence()
        .pause(Duration::from_millis(200))
        .write(head)
        .write(vec![b'x'; SIZE / 2])
        .pause(Duration::from_millis(100))
        .write(vec![b'x'; SIZE / 2]);
    stand.begin(vec![slow]);
    let mut stream = connect(stand).await;
    let got = raw::exchange(&mut stream, Plan::new(bytes).half_close()).await;
    let whole = got
        .answers
        .first()
        .is_some_and(|a| a.complete && a.body.len() == SIZE);
    match got.statuses() == [200] && whole {
        true => Ok(()),
        false => Err(format!("expected a whole 200, got {}", got.summary())),
    }
}

pub(crate) async fn half_closed_after_two(stand: &Stand) -> Result<(), String> {
    stand.begin(vec![
        Act::silence()
            .pause(Duration::from_millis(50))
            .write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
    ]);
    let mut stream = connect(stand).await;
    let bytes = [get_target("/1"), get_target("/2")].concat();
    let got = raw::exchange(&mut stream, Plan::new(bytes).wanted(2).half_close()).await;
    match got.statuses() == [200, 200] {
        true => Ok(()),
        false => Err(format!("expected two answers, got {}", got.summary())),
    }
}

/// Some connection carried a part of a request, and it has ended.
fn is_aborted(seen: &Seen) -> bool {
    seen.requests.iter().any(|one| !one.complete)
        && seen
            .connections
            .iter()
            .filter(|one| one.count > 0)
            .all(|one| one.ended.is_some())
}

async fn upstream_aborted(stand: &Stand) -> Result<(), String> {
    let seen = stand
        .backend()
        .wait(Duration::from_secs(1), is_aborted)
        .await;
    if let Some(whole) = seen.requests.iter().find(|one| one.complete) {
        return Err(format!(
            "the backend got a whole request, body of {}",
            whole.body.len()
        ));
    }
    // Nothing at all would be fine too, but the head is there, and waits for nothing.
    match is_aborted(&seen) {
        true => Ok(()),
        false => Err("the backend's connection is still open after 1 s".into()),
    }
}

/// The head is upstream, a part of the body too.
async fn begun(stand: &Stand) -> Result<(), String> {
    let seen = stand
        .backend()
        .wait(Duration::from_secs(2), |seen| !seen.requests.is_empty())
        .await;
    match seen.requests.is_empty() {
        false => Ok(()),
        true => Err("the request did not reach the backend before its body ended".into()),
    }
}

pub(crate) async fn gone(stand: &Stand, how: Gone, framing: &str) -> Result<(), String> {
    let mut stream = connect(stand).await;
    let body: &[u8] = if framing == LENGTH {
        b"half"
    } else {
        b"4\r\nhalf\r\n"
    };
    let sent = stream.write_all(&post(framing, body)).await;
    sent.map_err(|error| error.to_string())?;
    begun(stand).await?;
    match how {
        Gone::Reset => {
            let _ = stream.set_zero_linger();
            drop(stream);
        }
        Gone::HalfClose => {
            let got = raw::exchange(&mut stream, Plan::new("").half_close()).await;
            let refused = got.answers.is_empty() || got.statuses() == [400];
            if got.end == End::Open || !refused {
                return Err(format!("expected 400 or a close, got {}", got.summary()));
            }
        }
    }
    upstream_aborted(stand).await?;
    stand.begin(Vec::new());
    let mut next = connect(stand).await;
    let got = raw::exchange(&mut next, Plan::new(get(""))).await;
    match got.statuses() == [200] {
        true => Ok(()),
        false => Err(format!("the next request got {}", got.summary())),
    }
}

pub(crate) async fn silent_in_body(stand: &Stand) -> Result<(), String> {
    let limit = limit("--client-body-timeout", 2, 30)?;
    let start = Instant::now();
    let mut stream = connect(stand).await;
    let plan = Plan::new(post(LENGTH, b"half")).patience(limit + 2 * SLACK);
    let got = raw::exchange(&mut stream, plan).await;
    timed_out(&got, start.elapsed(), limit, false)?;
    upstream_aborted(stand).await
}

pub(crate) async fn early(stand: &Stand, reads_on: bool) -> Result<(), String> {
    const SIZE: usize = 1 << 30;
    // How long a client may go on sending after an answer. How much that comes to depends on how fast it is.
    const LINGER: Duration = Duration::from_secs(2);
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
    let act = Act::reply(refusal).early();
    let act = if reads_on {
        act
    } else {
        act.pause(Duration::from_secs(5))
    };
    stand.begin(vec![act]);
    let before = stand.tidegate.resident();
    let head = format!("POST /v HTTP/1.1\r\nHost: big.test\r\nContent-Length: {SIZE}\r\n\r\n");
    let mut plan = Plan::new(head);
    // A part of it, or a fast client would spend its time on what is thrown away.
    for _ in 0..96 {
        plan = plan.then(Duration::ZERO, vec![b'x'; 1 << 20]);
    }
    let mut stream = connect(stand).await;
    let start = Instant::now();
    let got = raw::exchange(&mut stream, plan).await;
    let took = start.elapsed();
    let grown = stand.tidegate.resident().saturating_sub(before);
    let closes = got.answers.first().is_some_and(|answer| answer.closes());
    if got.statuses() != [413] || !closes || got.end == End::Open {
        return Err(format!("expected 413 and a close, got {}", got.summary()));
    }
    if took > LINGER + SLACK {
        return Err(format!(
            "closed after {took:?}, and {} MiB that were taken",
            got.sent >> 20
        ));
    }
    let ended = |seen: &Seen| seen.connections.iter().all(|one| one.ended.is_some());
    if reads_on && !ended(&stand.backend().wait(Duration::from_secs(1), ended).await) {
        return Err("the backend's connection is still open after 1 s".into());
    }
    match grown <= GROWTH {
        true => Ok(()),
        false => Err(format!("memory grew by {} KiB", grown / 1024)),
    }
}

pub(crate) async fn dripping_body(stand: &Stand) -> Result<(), String> {
    // The rate counts after twice the longest wait for a piece, which is set to 3 s.
    limit("--client-body-min-rate", 10, 600)?;
    let mut plan = Plan::new(post(LENGTH, b"")).patience(LONGEST);
    for _ in 0..40 {
        plan = plan.then(Duration::from_millis(500), "x");
    }
    let mut stream = connect(stand).await;
    let got = raw::exchange(&mut stream, plan).await;
    if got.statuses() != [408] || got.end == End::Open {
        return Err(format!("expected 408 and a close, got {}", got.summary()));
    }
    upstream_aborted(stand).await
}

pub(crate) async fn not_reading(stand: &Stand) -> Result<(), String> {
    const SIZE: usize = 64 << 20;
    let limit = limit("--client-write-timeout", 2, 30)?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
    stand.begin(vec![Act::reply(head).write(vec![0; SIZE])]);
    let mut stream = connect(stand).await;
    let sent = stream.write_all(&get("")).await;
    sent.map_err(|error| error.to_string())?;
    let start = Instant::now();
    let ended = |seen: &Seen| {
        seen.connections
            .iter()
            .any(|one| one.count > 0 && one.ended.is_some())
    };
    let seen = stand.backend().wait(limit + 2 * SLACK, ended).await;
    let took = start.elapsed();
    drop(stream);
    match ended(&seen) && took + SLACK >= limit {
        true => Ok(()),
        false => Err(format!(
            "the backend's connection: {:?} after {took:?}",
            seen.connections.last().map(|one| one.ended)
        )),
    }
}

/// Either HTTP/2 is spoken, or it is refused at once.
pub(crate) async fn preface(stand: &Stand) -> Result<(), String> {
    let bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut stream = connect(stand).await;
    let plan = Plan::new(bytes).patience(Duration::from_secs(1));
    let got = raw::exchange(&mut stream, plan).await;
    let speaks = got.rest.get(3) == Some(&4);
    let refuses = matches!(got.statuses()[..], [] | [400] | [505]) && got.end != End::Open;
    match speaks || refuses {
        true => Ok(()),
        false => Err(format!(
            "expected SETTINGS, or a refusal at once, got {}",
            got.summary()
        )),
    }
}
