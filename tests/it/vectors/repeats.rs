//! Sends vectors again and again: memory must not grow with how often (I5).
//!
//! Bytes with an expectation are sent so often whatever they cost. They depend on nothing but their connection, so several
//! are sent at once, and many where each waits for a time to be up. Scenarios set scripts, so one runs after the other, and
//! those that take long are repeated for a while only, and those that take longer than that not at all; the line of a row says how
//! many of its cases were, and how often the rarest was.

use super::http2_runner;
use super::runner::send_again;
use super::stand::Stand;
use super::vector::{Case, Kind};
use crate::load_stand::{full, scaled};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How much memory may grow.
const GROWTH: u64 = 8 << 20;
/// How long memory has to come back to where it was: what a connection holds goes a moment after its client has gone.
const SETTLE: Duration = Duration::from_secs(3);
/// What takes longer than this waits for something.
const SLOW: Duration = Duration::from_millis(250);
/// How many are sent at once, of those that wait and of those that do not.
const AT_ONCE: (usize, usize) = (100, 8);
/// How many are sent between two times that the backend forgets what it saw.
const ROUND: usize = 100;

/// What sending a case again came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Repeated {
    pub(crate) times: usize,
    /// By how much memory grew.
    pub(crate) growth: u64,
}

/// How often: `TIDEGATE_REPEAT`, or 20 in the short form and 1,000 in the full one.
fn wanted() -> usize {
    let times = std::env::var("TIDEGATE_REPEAT").ok();
    let times = times.and_then(|times| times.parse().ok());
    times.unwrap_or_else(|| scaled(20, 1_000))
}

/// How long a scenario is repeated at most.
fn budget() -> Duration {
    scaled(Duration::from_millis(200), Duration::from_secs(10))
}

/// Repeats a case that took so long the first time; `at_once` says whether its scenario may run beside itself. Fails when
/// memory grows too much.
pub(crate) async fn repeat(
    stand: &Rc<Stand>,
    case: &Rc<Case>,
    first: Duration,
    at_once: bool,
) -> Result<Repeated, String> {
    let is_scenario = case.is_scenario();
    if is_scenario && (!at_once || !full()) && first > budget() {
        return Ok(Repeated::default());
    }
    let start = Instant::now();
    round(stand, case, 1, 1).await?;
    let took = start.elapsed();
    let together = match (is_scenario && !at_once, took > SLOW) {
        (true, _) => 1,
        (false, true) => AT_ONCE.0.min(wanted()),
        (false, false) => AT_ONCE.1,
    };
    // A process that has not yet had as many at once grows with the first that are. What waits is worth it only where
    // figures are wanted.
    if took <= SLOW || full() {
        round(stand, case, together, together).await?;
    }
    let before = stand.tidegate.resident();
    let deadline = (is_scenario && !at_once).then(|| Instant::now() + budget());
    let mut times = 0;
    while times < wanted() {
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            break;
        }
        let size = match together {
            1 => 1,
            _ => ROUND.min(wanted() - times),
        };
        round(stand, case, size, together).await?;
        times += size;
    }
    let growth = settled(stand, before).await;
    match growth <= GROWTH {
        true => Ok(Repeated { times, growth }),
        false => Err(format!(
            "after {times} times memory has grown by {} KiB",
            growth / 1024
        )),
    }
}

/// By how much memory has grown, once it has had time to shrink.
async fn settled(stand: &Stand, before: u64) -> u64 {
    let start = Instant::now();
    loop {
        let growth = stand.tidegate.resident().saturating_sub(before);
        if growth <= GROWTH || start.elapsed() > SETTLE {
            return growth;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a case `count` times, so many at once.
async fn round(
    stand: &Rc<Stand>,
    case: &Rc<Case>,
    count: usize,
    together: usize,
) -> Result<(), String> {
    case.begin(stand);
    let mut running = JoinSet::new();
    for _ in 0..count {
        if running.len() >= together {
            one_ended(&mut running).await?;
        }
        let (stand, case) = (Rc::clone(stand), Rc::clone(case));
        running.spawn_local(async move { once(&stand, &case).await });
    }
    while !running.is_empty() {
        one_ended(&mut running).await?;
    }
    Ok(())
}

async fn one_ended(running: &mut JoinSet<Result<(), String>>) -> Result<(), String> {
    match running.join_next().await {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(why))) => Err(format!("again: {why}")),
        Some(Err(error)) => Err(format!("again: {error}")),
    }
}

/// Vectors are only sent: what came of them was judged before. Scenarios judge what they do each time.
async fn once(stand: &Stand, case: &Case) -> Result<(), String> {
    match &case.kind {
        Kind::Vector(vector) => {
            send_again(stand, vector).await;
            Ok(())
        }
        Kind::Scenario(scenario) => scenario(stand).await,
        Kind::Http2(http2_runner::Case::Scenario(scenario), transport) => {
            scenario(stand, *transport).await
        }
        Kind::Http2(http2_runner::Case::Vector(vector), transport) => {
            http2_runner::send_again(stand, *transport, vector).await
        }
    }
}

impl Case {
    fn is_scenario(&self) -> bool {
        let http2 = matches!(self.kind, Kind::Http2(http2_runner::Case::Scenario(_), _));
        http2 || matches!(self.kind, Kind::Scenario(_))
    }

    /// Tells the backends what to do, and to forget.
    fn begin(&self, stand: &Stand) {
        stand.begin(match &self.kind {
            // The last act is repeated; of several it takes enough.
            Kind::Vector(vector) if vector.backend.len() > 1 => {
                let acts = vector.backend.iter().cycle();
                acts.take(ROUND * vector.backend.len()).cloned().collect()
            }
            Kind::Vector(vector) => vector.backend.clone(),
            _ => Vec::new(),
        });
    }
}

/// What repeating a row's cases came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    /// How often the rarest was repeated; those that take long are not in the short form.
    fewest: usize,
    /// How many were repeated.
    cases: usize,
    /// The most that memory grew with one of them.
    most: u64,
    /// By how much it grew with all of them.
    sum: u64,
}

impl Summary {
    pub(crate) fn of(repeated: &[Repeated]) -> Self {
        let repeated: Vec<_> = repeated.iter().filter(|one| one.times > 0).collect();
        Self {
            fewest: repeated.iter().map(|one| one.times).min().unwrap_or(0),
            cases: repeated.len(),
            most: repeated.iter().map(|one| one.growth).max().unwrap_or(0),
            sum: repeated.iter().map(|one| one.growth).sum(),
        }
    }

    /// In the short form a row is held to what its vectors are in the full one: all of them are not repeated as often as one is
    /// there.
    pub(crate) fn assert(&self) -> Result<(), String> {
        match full() || self.sum <= GROWTH {
            true => Ok(()),
            false => Err(format!("memory has grown by {} KiB", self.sum / 1024)),
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (most, sum) = (self.most / 1024, self.sum / 1024);
        let (cases, fewest) = (self.cases, self.fewest);
        write!(
            out,
            "{cases} again {fewest}x, most +{most} KiB, all +{sum} KiB"
        )
    }
}
