//! The part of D17 that takes long: many connections that ask and reset, again and again. Each goes on with a hundred streams after
//! the other until it is told to calm down; then another takes its place.
//!
//! Reset right after their heads, requests are gone before anybody has seen them: in the full form 50 connections for 30 s, as the
//! catalogue has it; 10 for one second in the short one. The catalogue has no row for clients that wait until their requests have
//! reached the backend. Each of those costs a whole request, so a few connections are a load: they must be told to calm down too.

use super::http2_floods::{CALM, CANCEL, STREAMS, at};
use super::http2_runner::{Stream, Transport};
use super::stand::Stand;
use crate::load_stand::scaled;
use std::time::{Duration, Instant};
use test_support::h2_raw::{Connection, Got, reset};
use test_support::recorder::Act;

/// Hundreds of streams that a connection may ask and reset before it must have been told to calm down: 1,000 abusive frames.
const ROUNDS: usize = 5;
/// When requests are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Right after their head.
    AtOnce,
    /// When they had time to be taken.
    Later,
}

/// That time.
const LATER: Duration = Duration::from_millis(50);
/// How long the end of a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all connections came to.
#[derive(Debug, Default)]
struct Totals {
    connections: usize,
    /// Requests that were sent and reset.
    sent: usize,
}

pub(crate) async fn many_connections(
    stand: &Stand,
    transport: Transport,
    when: When,
) -> Result<(), String> {
    let length = Duration::from_secs(scaled(1, 30));
    let connections = match when {
        When::AtOnce => scaled(10, 50),
        When::Later => 4,
    };
    stand.begin(vec![Act::silence()]);
    let accepted = accepted(stand).await;
    let until = Instant::now() + length;
    let mut totals = Totals::default();
    while Instant::now() < until {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(transport.open(stand, &[]).await);
        }
        for round in 0..ROUNDS {
            totals.sent += ask_and_reset(&mut open, transport, when, round).await;
        }
        for mut connection in open {
            let got = connection.read(PATIENCE, Got::is_over).await;
            if got.goaway != Some(CALM) {
                return Err(format!("expected GOAWAY(11), got {}", got.summary(1)));
            }
            totals.connections += 1;
        }
    }
    let accepted = self::accepted(stand).await - accepted;
    let attempts = stand.backend().seen().requests.len();
    println!(
        "    D17, {when:?}: {} connections, {} requests reset, {accepted} accepted, {attempts} attempts upstream",
        totals.connections, totals.sent
    );
    match attempts as f64 <= accepted * 1.1 {
        true => Ok(()),
        false => Err(format!(
            "{attempts} attempts upstream for {accepted} accepted"
        )),
    }
}

/// A hundred requests on each connection, and their resets. Gives how many.
async fn ask_and_reset(
    open: &mut [Connection<Box<dyn Stream>>],
    transport: Transport,
    when: When,
    round: usize,
) -> usize {
    let first = 2 * (round * STREAMS) as u32 + 1;
    let streams = (0..STREAMS as u32).map(|n| first + 2 * n);
    let head = |one| at(transport, one).get(&[]);
    let resets: Vec<u8> = streams.clone().flat_map(|one| reset(one, CANCEL)).collect();
    let begin: Vec<u8> = match when {
        When::AtOnce => streams
            .flat_map(|one| [head(one), reset(one, CANCEL)].concat())
            .collect(),
        When::Later => streams.flat_map(head).collect(),
    };
    let mut asked = Vec::new();
    for connection in open {
        let got = connection.read(Duration::ZERO, Got::is_over).await;
        if !got.is_over() && connection.send(&begin).await {
            asked.push(connection);
        }
    }
    if when == When::Later {
        tokio::time::sleep(LATER).await;
        for connection in &mut asked {
            connection.send(&resets).await;
        }
    }
    asked.len() * STREAMS
}

/// Requests for the backend that the proxy has taken so far.
async fn accepted(stand: &Stand) -> f64 {
    let backend = r#"service="a""#;
    stand
        .tidegate
        .metric_of("tidegate_requests_total", backend)
        .await
}
