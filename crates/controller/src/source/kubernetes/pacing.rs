//! When to ask an API server again that did not answer as hoped. Pure: clock and randomness are passed in.
//!
//! The backoff that kube brings for its watcher starts anew with every list it tries, so it never grows while lists fail.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The first wait; each one doubles it.
const FIRST: Duration = Duration::from_millis(800);
/// Longest wait for a server that answers with errors.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest wait for a server that cannot be reached: asking costs it nothing, and what changed meanwhile should be live soon
/// after it is back.
const LONGEST_AWAY: Duration = Duration::from_secs(3);
/// Longest wait that the server may ask for.
const LONGEST_TOLD: Duration = Duration::from_secs(60);
/// A kind is listed this often at most.
const RELIST: Duration = Duration::from_secs(5);
/// After this long without a failure the waits start anew.
const FORGET: Duration = Duration::from_secs(120);

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No answer, or one that says that nobody is there to answer.
    Away,
    /// An answer, but a refusal; perhaps with how long to wait.
    Refused(Option<Duration>),
    /// What we know is too old to go on from, or cannot be trusted: list again.
    Stale,
}

/// How long to wait, for one kind in one place.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// Failures in a row to get an answer.
    away: u32,
    /// Refusals in a row. Counted apart: a server that comes back refuses at first, while it reads its roles, and that
    /// should not be waited out as if it had refused all the time it was away.
    refused: u32,
    failed: Option<Instant>,
    listed: Option<Instant>,
}

impl Pacing {
    /// A list begins.
    pub(super) fn listing(&mut self, now: Instant) {
        self.listed = Some(now);
    }

    /// The server answered as it should.
    pub(super) fn well(&mut self) {
        (self.away, self.refused) = (0, 0);
    }

    /// How long to wait after a failure. `random` is in `0.0..1.0`; replicas must not come back in step.
    pub(super) fn wait(&mut self, trouble: Trouble, now: Instant, random: f64) -> Duration {
        if self
            .failed
            .is_some_and(|at| now.duration_since(at) > FORGET)
        {
            self.well();
        }
        self.failed = Some(now);
        let jitter = 0.5 + random / 2.0;
        match trouble {
            Trouble::Away => grown(&mut self.away).min(LONGEST_AWAY).mul_f64(jitter),
            Trouble::Refused(told) => grown(&mut self.refused)
                .min(LONGEST)
                .mul_f64(jitter)
                .max(told.unwrap_or_default().min(LONGEST_TOLD)),
            Trouble::Stale => self.until_list(now).max(FIRST.mul_f64(jitter)),
        }
    }

    /// How long no list may begin.
    pub(super) fn until_list(&self, now: Instant) -> Duration {
        self.listed.map_or(Duration::ZERO, |at| {
            (at + RELIST).saturating_duration_since(now)
        })
    }
}

/// The wait after so many failures, and one failure more.
fn grown(failures: &mut u32) -> Duration {
    let wait = FIRST.saturating_mul(1 << (*failures).min(10));
    *failures += 1;
    wait
}

/// From `0.0` to `1.0`. The standard library has no random numbers, but it seeds its hash maps with some.
pub(super) fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(trouble: Trouble, random: f64) -> Vec<u128> {
        let (mut pacing, now) = (Pacing::default(), Instant::now());
        (0..8)
            .map(|_| pacing.wait(trouble, now, random).as_millis())
            .collect()
    }

    #[test]
    fn waits_grow_to_a_limit() {
        assert_eq!(
            waits(Trouble::Refused(None), 1.0),
            [800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
        assert_eq!(
            waits(Trouble::Away, 1.0),
            [800, 1600, 3000, 3000, 3000, 3000, 3000, 3000]
        );
    }

    #[test]
    fn replicas_spread_over_half_of_the_wait() {
        assert_eq!(waits(Trouble::Away, 0.0)[7], 1500);
    }

    #[test]
    fn a_server_that_was_away_is_new_when_it_refuses() {
        let (mut pacing, now) = (Pacing::default(), Instant::now());
        for _ in 0..20 {
            pacing.wait(Trouble::Away, now, 1.0);
        }
        assert_eq!(pacing.wait(Trouble::Refused(None), now, 1.0), FIRST);
        assert_eq!(pacing.wait(Trouble::Away, now, 1.0), LONGEST_AWAY);
    }

    #[test]
    fn a_server_may_ask_for_more_time_but_not_for_a_day() {
        assert_eq!(
            waits(Trouble::Refused(Some(Duration::from_secs(20))), 1.0)[0],
            20_000
        );
        assert_eq!(
            waits(Trouble::Refused(Some(Duration::from_secs(86_400))), 1.0)[0],
            60_000
        );
    }

    #[test]
    fn a_kind_is_listed_every_five_seconds_at_most() {
        let (mut pacing, start, mut lists) = (Pacing::default(), Instant::now(), 0);
        let mut now = start;
        while now < start + Duration::from_secs(60) {
            lists += 1;
            pacing.listing(now);
            pacing.well();
            now += pacing.wait(Trouble::Stale, now, 0.0);
        }
        assert_eq!(lists, 12);
    }

    #[test]
    fn a_single_stale_watch_heals_at_once() {
        let (mut pacing, start) = (Pacing::default(), Instant::now());
        pacing.listing(start);
        assert_eq!(
            pacing.wait(Trouble::Stale, start + Duration::from_secs(60), 1.0),
            FIRST
        );
    }

    #[test]
    fn a_failure_long_ago_is_forgotten() {
        let (mut pacing, start) = (Pacing::default(), Instant::now());
        for _ in 0..5 {
            pacing.wait(Trouble::Away, start, 1.0);
        }
        assert_eq!(pacing.wait(Trouble::Away, start + FORGET * 2, 1.0), FIRST);
    }
}
