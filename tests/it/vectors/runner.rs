//! Sends vectors and judges what came of them. Each is sent whole, in pieces, and after a good request on the same connection.

use super::http2_runner;
use super::invariants::{Rest, assert_at_rest, assert_canary, assert_invariants};
use super::judge::judge;
use super::random::Random;
use super::repeats::{self, Repeated, Summary};
use super::stand::{Setup, Stand};
use super::vector::{Case, Kind, Row, Vector};
use crate::load_stand::{full, scaled};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};
use test_support::raw::{self, Exchange, Plan, RawAnswer};
use test_support::recorder::Seen;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Rows of a test that run at the same time. Most of their time is waiting.
const ROWS_AT_ONCE: usize = 6;
/// In the full form one row runs at a time, of all tests: each is held to figures of time and memory.
static ALONE: Semaphore = Semaphore::const_new(1);
/// In the full form the other tenant asks from so long before the first vector of a row until so long after the last.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(5);
/// Most places where a vector is cut.
const CUTS: usize = 6;
/// The request that is sent before a vector.
const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// How the result of a case begins that could not be run. It is neither passed nor failed, and said aloud.
pub(crate) const NOT_RUN: &str = "not run: ";

/// How a vector is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Whole,
    Split,
    AfterGood,
}

/// One vector as it went.
pub(crate) struct Sent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) exchange: Exchange,
    /// What each backend saw, under its name.
    pub(crate) seen: Vec<(String, Seen)>,
}

impl Sent {
    /// Whether an answer is an error of ours and not one that a backend wrote.
    pub(crate) fn is_ours(&self, answer: &RawAnswer) -> bool {
        let ours = format!("{} ", answer.status);
        answer.body.is_empty() || answer.body.starts_with(ours.as_bytes())
    }

    /// What the first backend saw.
    pub(crate) fn backend(&self) -> &Seen {
        &self.seen[0].1
    }

    /// Bytes that all backends saw.
    pub(crate) fn upstream_bytes(&self) -> u64 {
        self.seen.iter().map(|(_, seen)| seen.bytes()).sum()
    }
}

/// Cases that do not pass, and why not yet. They run all the same; one that passes fails the test, so that it is taken off here.
const GAPS: &[(&str, &str)] = &[];

/// Runs rows and prints one line for each; panics with every case that failed.
pub(crate) async fn run(title: &'static str, setup: Setup, rows: Vec<Row>) {
    let seed = Random::seed();
    let only = std::env::var("TIDEGATE_VECTORS").ok();
    println!("{title}: seed {seed}");
    let started = Instant::now();
    let (local, permits) = (LocalSet::new(), Rc::new(Semaphore::new(ROWS_AT_ONCE)));
    let mut running = Vec::new();
    let mut ids = BTreeSet::new();
    for row in rows {
        if only.as_ref().is_some_and(|only| only != row.id) {
            continue;
        }
        ids.extend((1..=row.cases.len()).map(|number| format!("{}.{number}", row.id)));
        let (permits, setup) = (Rc::clone(&permits), setup.clone());
        running.push(local.spawn_local(async move {
            let permits = if full() { &ALONE } else { &*permits };
            let _permit = permits.acquire().await;
            run_row(title, row, &setup, seed).await
        }));
    }
    let (mut total, mut failures, mut not_run) = (0, Vec::new(), Vec::new());
    local
        .run_until(async {
            for row in running {
                let outcome = row.await.expect("a row does not panic");
                total += outcome.run;
                failures.extend(outcome.failed);
                not_run.extend(outcome.not_run);
            }
        })
        .await;
    for case in &not_run {
        println!("  {case}");
    }
    let mut gaps = 0;
    for (id, why) in GAPS.iter().filter(|(id, _)| ids.contains(*id)) {
        let begins = format!("{id} ");
        match failures
            .iter()
            .position(|failure| failure.starts_with(&begins))
        {
            Some(at) => {
                gaps += 1;
                println!("  known gap {}: {why}", failures.remove(at));
            }
            None => failures.push(format!("{id} passes: take it off the list of gaps")),
        }
    }
    println!(
        "{title}: {total} vectors, {} failed, {gaps} known gaps in {:.1} s",
        failures.len(),
        started.elapsed().as_secs_f64()
    );
    assert!(
        failures.is_empty(),
        "{title}: {} of {total} vectors failed (seed {seed}):\n  {}",
        failures.len(),
        failures.join("\n  ")
    );
}

/// What a row came to.
struct Outcome {
    run: usize,
    failed: Vec<String>,
    not_run: Vec<String>,
}

async fn run_row(title: &str, row: Row, setup: &Setup, seed: u64) -> Outcome {
    let name = format!("{}-{}", title.replace([' ', '/'], "-"), row.id);
    let stand = Rc::new(Stand::start(&name, setup, &row.flags).await);
    let mut failures = Vec::new();
    if let Err(why) = stand.canary_once().await {
        failures.push(format!("{} before its first vector: {why}", row.id));
    }
    let before = Rest::of(&stand).await;
    stand.begin_canary().await;
    tokio::time::sleep(scaled(Duration::ZERO, BEFORE)).await;
    let mut count = row.cases.len();
    let mut repeats = Vec::new();
    let mut running = Vec::new();
    for (number, case) in row.cases.into_iter().enumerate() {
        let id = format!("{}.{}", row.id, number + 1);
        let task = spawn_local(run_and_repeat(
            Rc::clone(&stand),
            Rc::new(case),
            Random::new(seed, &id),
            row.at_once,
            id,
        ));
        if row.at_once {
            running.push(task);
        } else {
            ended(task, &mut repeats, &mut failures).await;
        }
    }
    for task in running {
        ended(task, &mut repeats, &mut failures).await;
    }
    tokio::time::sleep(scaled(Duration::ZERO, AFTER)).await;
    stand.canary.rest().await;
    let canary = stand.canary.figures(None);
    let repeats = Summary::of(&repeats);
    stand.begin(Vec::new());
    let after = [
        ("again", repeats.assert()),
        ("the other tenant", assert_canary(&canary)),
        ("at rest", assert_at_rest(&stand, before).await),
    ];
    for (what, result) in after {
        if let Err(why) = result {
            // Counted as one more vector, or the number of failures could exceed that of vectors.
            count += 1;
            failures.push(format!("{} {what}: {why}", row.id));
        }
    }
    let is_not_run = |one: &String| one.contains(NOT_RUN);
    let (not_run, failed): (Vec<_>, Vec<_>) = failures.into_iter().partition(is_not_run);
    let outcome = Outcome {
        run: count - not_run.len(),
        failed,
        not_run,
    };
    println!(
        "  {:<4} {:<54} {:>3} vectors, {} failed; {repeats}; canary {} asked, p99 {:.1?}, worst {:.1?}",
        row.id,
        row.about,
        outcome.run,
        outcome.failed.len(),
        canary.asked,
        canary.p99,
        canary.worst,
    );
    outcome
}

/// Takes note of what a case came to. One that panics is a failure of the case, not of the run.
async fn ended(
    task: JoinHandle<Result<Repeated, String>>,
    repeats: &mut Vec<Repeated>,
    failures: &mut Vec<String>,
) {
    match task.await {
        Ok(Ok(repeated)) => repeats.push(repeated),
        Ok(Err(why)) => failures.push(why),
        Err(error) => failures.push(error.to_string()),
    }
}

async fn run_and_repeat(
    stand: Rc<Stand>,
    case: Rc<Case>,
    mut random: Random,
    at_once: bool,
    id: String,
) -> Result<Repeated, String> {
    let result = async {
        let start = Instant::now();
        run_case(&stand, &case, &mut random).await?;
        repeats::repeat(&stand, &case, start.elapsed(), at_once).await
    };
    let result = result.await;
    result.map_err(|why| format!("{id} {}: {why}", case.name))
}

async fn run_case(stand: &Stand, case: &Case, random: &mut Random) -> Result<(), String> {
    match &case.kind {
        Kind::Scenario(scenario) => {
            stand.begin(Vec::new());
            scenario(stand).await?;
            assert_invariants(stand, None).await
        }
        Kind::Http2(case, transport) => http2_runner::run(stand, *transport, case, random).await,
        Kind::Vector(vector) => {
            for mode in [Mode::Whole, Mode::Split, Mode::AfterGood] {
                if mode == Mode::AfterGood && vector.first_only {
                    continue;
                }
                let sent = send(stand, vector, mode, random).await;
                let judged = match &sent {
                    Ok(sent) => judge(stand, &vector.expect, sent).await,
                    Err(why) => Err(why.clone()),
                };
                let how = match mode {
                    Mode::Whole => "",
                    Mode::Split => "in pieces: ",
                    Mode::AfterGood => "after a good request: ",
                };
                judged.map_err(|why| format!("{how}{why}"))?;
                assert_invariants(stand, sent.as_ref().ok())
                    .await
                    .map_err(|why| format!("{how}{why}"))?;
            }
            Ok(())
        }
    }
}

/// Sends a vector and waits for what comes, without a look at it.
pub(crate) async fn send_again(stand: &Stand, vector: &Vector) {
    let mut stream = raw::connect(stand.tidegate.http).await;
    raw::exchange(&mut stream, plan(vector)).await;
}

/// The vector in one piece.
fn plan(vector: &Vector) -> Plan {
    let mut plan = Plan::new(vector.bytes.clone()).wanted(vector.expect.answers());
    plan.head = vector.head;
    plan.patience = vector.expect.patience();
    plan
}

async fn send(
    stand: &Stand,
    vector: &Vector,
    mode: Mode,
    random: &mut Random,
) -> Result<Sent, String> {
    let mut stream = raw::connect(stand.tidegate.http).await;
    if mode == Mode::AfterGood {
        stand.begin(Vec::new());
        let good = raw::exchange(&mut stream, Plan::new(GOOD)).await;
        if good.statuses() != [200] || good.end != raw::End::Open {
            return Err(format!("the good request got {}", good.summary()));
        }
    }
    stand.begin(vector.backend.clone());
    let mut plan = plan(vector);
    if mode == Mode::Split {
        plan.pieces = split(&vector.bytes, random);
    }
    let exchange = raw::exchange(&mut stream, plan).await;
    drop(stream);
    Ok(Sent {
        bytes: vector.bytes.clone(),
        exchange,
        seen: stand
            .recorders
            .iter()
            .map(|one| (one.name().to_owned(), one.seen()))
            .collect(),
    })
}

/// Cuts bytes at random places; each piece is sent a moment after the one before.
pub(crate) fn split(bytes: &[u8], random: &mut Random) -> Vec<(Duration, Vec<u8>)> {
    let mut cuts: Vec<usize> = (0..CUTS).map(|_| random.below(bytes.len() + 1)).collect();
    cuts.push(0);
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let pieces = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec());
    pieces
        .filter(|piece| !piece.is_empty())
        .map(|piece| (Duration::from_millis(2), piece))
        .collect()
}
