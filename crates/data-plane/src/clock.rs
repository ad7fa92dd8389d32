//! The time by which endpoints are judged: it stands still while this process is away.
//!
//! A process that was stopped, or got no processor, has not waited for anybody meanwhile. What it finds when it comes back,
//! answers that seem late and requests that seem to wait for ever, says nothing of endpoints. So workers tick, and the time
//! goes on for a moment after the last tick and no further. Deadlines have a way of their own: see [`crate::h1::deadline`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long it goes on without a tick: two rounds of housekeeping.
const MOST: Duration = Duration::from_millis(500);
/// In one word, so that they are read together: below this bit the time of the last tick in milliseconds, above it what has
/// been left out so far, in steps. Enough for 34 years, and for 12 days that are left out; more are not.
const LEFT_OUT: u32 = 40;
const STEP: u64 = 64;

/// The time since the data plane started, less what the process was away for. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    started: Instant,
    /// 0 before the first tick.
    word: Arc<AtomicU64>,
}

impl Clock {
    /// Begins now. It stands still for nothing before the first tick.
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
            word: Arc::default(),
        }
    }

    /// The time. It never goes back.
    pub(crate) fn now(&self) -> Duration {
        let (passed, word) = (self.started.elapsed(), self.word.load(Ordering::Relaxed));
        passed.saturating_sub(left_out(word, passed))
    }

    /// Somebody is here. For workers, every quarter of a second.
    pub(crate) fn tick(&self) {
        let passed = self.started.elapsed();
        let next = |word| Some(ticked(word, passed));
        let _ = self
            .word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// What is to be left out of the time that has passed.
fn left_out(word: u64, passed: Duration) -> Duration {
    let known = Duration::from_millis((word >> LEFT_OUT) * STEP);
    let last = Duration::from_millis(word & ((1 << LEFT_OUT) - 1));
    match word {
        0 => Duration::ZERO,
        _ => known + passed.saturating_sub(last + MOST),
    }
}

fn ticked(word: u64, passed: Duration) -> u64 {
    // Rounded down: it may go on by less than a step at once, and never back.
    let steps = left_out(word, passed).as_millis() as u64 / STEP;
    let steps = steps.min((1 << (u64::BITS - LEFT_OUT)) - 1);
    // Another worker may have ticked between.
    let last = (passed.as_millis() as u64).max(word & ((1 << LEFT_OUT) - 1));
    (steps << LEFT_OUT) | last.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// The time that is told at these moments, in milliseconds, after ticks at those before.
    #[track_caller]
    fn check(ticks: &[u64], told: &[(u64, u64)]) {
        let word = ticks.iter().fold(0, |word, at| ticked(word, MS(*at)));
        for (passed, expected) in told {
            let now = MS(*passed) - left_out(word, MS(*passed));
            assert_eq!(now, MS(*expected), "at {passed} ms after {ticks:?}");
        }
    }

    #[test]
    fn it_stands_still_while_nobody_ticks() {
        check(&[], &[(0, 0), (90_000, 90_000)]);
        check(&[0, 250], &[(250, 250), (500, 500), (750, 750)]);
        // Stopped from a moment after 250 until 4346: 3,596 ms too many, of which 3,584 are whole steps.
        check(&[0, 250], &[(751, 750), (4_346, 750)]);
        check(
            &[0, 250, 4_346],
            &[(4_346, 762), (4_400, 816), (9_000, 1_262)],
        );
        // A tick that comes a little late, and one of a worker that read the clock before another ticked.
        check(&[0, 499], &[(499, 499)]);
        check(&[0, 400, 390], &[(500, 500), (900, 900)]);
    }

    #[test]
    fn it_never_goes_back() {
        let mut word = 0;
        let (mut passed, mut last) = (0, Duration::ZERO);
        for n in 0..2_000 {
            passed += n * 7 % 1_900;
            for tick in [false, true] {
                if tick {
                    word = ticked(word, MS(passed));
                }
                let now = MS(passed) - left_out(word, MS(passed));
                assert!(now >= last, "{now:?} after {last:?}");
                last = now;
            }
        }
        assert!(last > Duration::from_secs(600));
    }

    #[tokio::test(start_paused = true)]
    async fn all_clones_are_the_same() {
        let clock = Clock::start();
        let other = clock.clone();
        tokio::time::sleep(MS(200)).await;
        clock.tick();
        tokio::time::sleep(MS(10_000)).await;
        assert!(other.now() < MS(710), "{:?}", other.now());
        other.tick();
        tokio::time::sleep(MS(100)).await;
        assert!(clock.now() >= MS(790) && clock.now() < MS(900));
    }
}
