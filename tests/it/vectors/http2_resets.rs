//! The part of D17 that takes long: many connections that ask and reset at once, again and again.
//!
//! In the full form 50 connections for 30 s, as the catalogue has it; 10 for one second in the short one. Each goes on with a
//! hundred streams after the other until it is told to calm down, and then another takes its place.

use super::http2_floods::{CALM, CANCEL, STREAMS, at};
use super::http2_runner::{Stream, Transport};
use super::stand::Stand;
use crate::load_stand::scaled;
use std::time::{Duration, Instant};
use test_support::h2_raw::{Connection, Got, reset};
use test_support::recorder::Act;

/// Hundreds of streams that a connection may ask and reset before it must have been told to calm down: 1,000 abusive frames.
const ROUNDS: usize = 5;
/// Between heads and their resets.
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

pub(crate) async fn many_connections(stand: &Stand, transport: Transport) -> Result<(), String> {
    let (connections, length) = (scaled(10, 50), Duration::from_secs(scaled(1, 30)));
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
            totals.sent += ask_and_reset(&mut open, transport, round).await;
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
        "    D17: {} connections, {} requests reset, {accepted} accepted, {attempts} attempts upstream",
        totals.connections, totals.sent
    );
    match attempts as f64 <= accepted * 1.1 {
        true => Ok(()),
        false => Err(format!(
            "{attempts} attempts upstream for {accepted} accepted"
        )),
    }
}

/// A hundred requests on each connection, which are reset when they had time to be taken; before that they would be requests
/// that nobody has seen. Gives how many.
async fn ask_and_reset(
    open: &mut [Connection<Box<dyn Stream>>],
    transport: Transport,
    round: usize,
) -> usize {
    let first = 2 * (round * STREAMS) as u32 + 1;
    let streams = (0..STREAMS as u32).map(|n| first + 2 * n);
    let heads = streams
        .clone()
        .flat_map(|one| at(transport, one).get(&[]))
        .collect::<Vec<u8>>();
    let resets = streams
        .flat_map(|one| reset(one, CANCEL))
        .collect::<Vec<u8>>();
    let mut asked = Vec::new();
    for connection in open {
        let got = connection.read(Duration::ZERO, Got::is_over).await;
        if !got.is_over() && connection.send(&heads).await {
            asked.push(connection);
        }
    }
    tokio::time::sleep(LATER).await;
    for connection in &mut asked {
        connection.send(&resets).await;
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
