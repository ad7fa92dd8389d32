//! T1 and T2: clients that are slow with a handshake, and many that want one.
//!
//! In the short form T1 has 1,000 silent clients and a limit of 2 s, in the full one the 5,000 of the catalogue and the
//! default of 5 s. T2 is in `handshake_flood`.

use super::canary::percentile;
use super::handshake_flood;
use super::hello::Hello;
use super::stand::Stand;
use super::tls_client::{connect, wait_for_end};
use super::vector::{Row, row};
use crate::load_stand::{full, scaled};
use std::time::{Duration, Instant};
use test_support::raw;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How far from its limit a timer may fire, on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_millis(1_500);

pub(crate) fn rows() -> Vec<Row> {
    vec![t1(), t1_crowds(), t2()]
}

/// The limit of rows that say nothing of it.
pub(crate) const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// The limit of T1.
fn limit() -> Duration {
    scaled(Duration::from_secs(2), DEFAULT_LIMIT)
}

/// The flag that sets it, where it is not the default.
fn with_limit(row: Row) -> Row {
    match full() {
        true => row,
        false => row.flags(&["--client-handshake-timeout=2s"]),
    }
}

fn t1() -> Row {
    with_limit(row("T1", "clients that are slow with a handshake"))
        .at_once()
        .scenario("silence", |stand| {
            Box::pin(slow(stand, Vec::new(), Duration::ZERO))
        })
        .scenario("half a ClientHello", |stand| {
            let mut bytes = Hello::named("a.test").bytes();
            bytes.truncate(bytes.len() / 2);
            Box::pin(slow(stand, bytes, Duration::ZERO))
        })
        .scenario("a ClientHello byte by byte", |stand| {
            let bytes = Hello::named("a.test").bytes();
            Box::pin(slow(stand, bytes, limit() / 10))
        })
        .scenario("a ClientHello and nothing more", |stand| {
            Box::pin(slow(stand, Hello::named("a.test").bytes(), Duration::ZERO))
        })
}

fn t1_crowds() -> Row {
    with_limit(row("T1c", "many that are slow with a handshake"))
        .scenario("many that are silent, and one that is not", |stand| {
            Box::pin(crowd(stand, Vec::new()))
        })
        .scenario(
            "many that stop after a ClientHello, and one that does not",
            |stand| Box::pin(crowd(stand, Hello::named("a.test").bytes())),
        )
}

fn t2() -> Row {
    row("T2", "2,000 handshakes a second from one peer")
        .scenario("beside a connection that exists, and new ones", |stand| {
            Box::pin(handshake_flood::flood(stand))
        })
}

/// Closed when its time is up, whatever it sent, and not before.
async fn slow(stand: &Stand, bytes: Vec<u8>, pause: Duration) -> Result<(), String> {
    let limit = limit();
    let mut stream = raw::connect(stand.tidegate.https).await;
    let start = Instant::now();
    if pause.is_zero() {
        let _ = stream.write_all(&bytes).await;
    } else {
        for byte in bytes {
            if start.elapsed() > limit + SLACK || stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
    }
    closed_in_time(stream, start).await
}

/// A connection that began at `start` is closed when its time is up.
async fn closed_in_time(mut stream: TcpStream, start: Instant) -> Result<(), String> {
    let limit = limit();
    let ended = wait_for_end(&mut stream, limit + 2 * SLACK).await;
    let took = start.elapsed();
    match ended && took + SLACK >= limit && took <= limit + SLACK {
        true => Ok(()),
        false => Err(format!(
            "closed: {ended}, after {took:?} instead of {limit:?}"
        )),
    }
}

/// Others are served while many hold their handshakes open, and those are closed when their time is up.
async fn crowd(stand: &Stand, bytes: Vec<u8>) -> Result<(), String> {
    let clients = scaled(1_000, 5_000);
    let mut held = JoinSet::new();
    for _ in 0..clients {
        let start = Instant::now();
        let mut stream = raw::connect(stand.tidegate.https).await;
        let _ = stream.write_all(&bytes).await;
        held.spawn(closed_in_time(stream, start));
    }
    fast_beside(stand).await?;
    // Those that were held up must be there all the while.
    let open = stand.tidegate.metric("tidegate_connections_open").await;
    while let Some(ended) = held.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    println!("    T1c: handshakes beside {open} connections that are open");
    Ok(())
}

/// Handshakes that are not slow take 100 ms at most, 99 of 100 of them, in the full form. In the short one it is enough that none
/// fails or takes three seconds: the machine may be busy, and a build without optimisation is some ten times slower.
async fn fast_beside(stand: &Stand) -> Result<(), String> {
    let most = scaled(Duration::from_secs(3), Duration::from_millis(100));
    let mut times = Vec::new();
    for _ in 0..scaled(20, 100) {
        let start = Instant::now();
        let connected =
            tokio::time::timeout(Duration::from_secs(3), connect(stand, "a.test", "h2"));
        match connected.await {
            Ok(Ok(_)) => times.push(start.elapsed()),
            Ok(Err(why)) => return Err(format!("a handshake failed: {why}")),
            Err(_) => return Err("a handshake took more than 3 s".into()),
        }
    }
    times.sort_unstable();
    let p99 = percentile(&times, 99);
    println!("    T1c: handshakes of others: p99 {p99:.1?}");
    match p99 <= most {
        true => Ok(()),
        false => Err(format!("the p99 of handshakes is {p99:?}")),
    }
}
