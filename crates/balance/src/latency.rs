//! How long answers of an endpoint took lately: a bounded window of samples, and its 90th percentile.
//!
//! Requests write, whoever makes sets reads now and then. Who is best is not decided here but in [`crate::order::ranked`].

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Most samples that are kept.
pub const WINDOW: usize = 500;
/// Samples that are older than this do not count, unless there are too few.
pub const AGE: Duration = Duration::from_secs(5);
/// So many count whatever their age; with fewer, nothing is known.
pub const LEAST: usize = 5;

/// The last samples of one endpoint: four kilobytes, whatever happens.
#[derive(Debug)]
pub struct Window {
    /// When it was taken, in milliseconds from 1, above what it is, in microseconds. 0: none.
    samples: Box<[AtomicU64]>,
    /// Where the next one goes.
    next: AtomicU32,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            samples: (0..WINDOW).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU32::new(0),
        }
    }
}

// Relaxed everywhere: each sample is one number, and nothing else hangs on it.
impl Window {
    /// Notes how long an answer took.
    pub fn note(&self, took: Duration, now: Duration) {
        let at = u64::from(stamp(now));
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let place = self.next.fetch_add(1, Ordering::Relaxed) as usize % WINDOW;
        self.samples[place].store(at << 32 | u64::from(took), Ordering::Relaxed);
    }

    /// The time that nine of ten answers of the last [`AGE`] did not exceed, in microseconds; of the last [`LEAST`] where those
    /// are more. `None`: so many were never seen.
    pub fn p90(&self, now: Duration) -> Option<u32> {
        let now = stamp(now);
        // By age, the youngest first. Stamps wrap after weeks, so ages are differences.
        let samples = self.samples.iter().map(|one| one.load(Ordering::Relaxed));
        let mut samples: Vec<(u32, u32)> = samples
            .filter(|sample| *sample != 0)
            .map(|sample| (age(now, (sample >> 32) as u32), sample as u32))
            .collect();
        if samples.len() < LEAST {
            return None;
        }
        samples.sort_unstable();
        let young = samples.partition_point(|(age, _)| u128::from(*age) <= AGE.as_millis());
        samples.truncate(young.max(LEAST));
        let mut took: Vec<u32> = samples.into_iter().map(|(_, took)| took).collect();
        // Nearest rank: the least sample that nine of ten do not exceed.
        let rank = (took.len() * 9).div_ceil(10) - 1;
        Some(*took.select_nth_unstable(rank).1)
    }
}

/// Never 0, which would be no sample.
fn stamp(now: Duration) -> u32 {
    (now.as_millis() as u32).max(1)
}

/// What seems to be taken a moment from now is of another thread, whose clock is read later.
fn age(now: u32, at: u32) -> u32 {
    let age = now.wrapping_sub(at);
    if age > u32::MAX / 2 { 0 } else { age }
}

#[cfg(test)]
#[path = "tests/latency.rs"]
mod tests;
