//! What a row of probes comes to: whether an endpoint is up, and when it is probed next.
//!
//! Sends nothing and reads no clock: whoever probes tells what came of it.

use routing_table::policy::ActiveCheck;
use std::time::Duration;

/// The least time between the beginnings of two probes of one endpoint, whatever is declared.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
/// The most.
const MOST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a probe changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Enough failures in a row.
    Down,
    /// Enough successes in a row.
    Up,
}

/// What the probes of one endpoint have come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    is_up: bool,
    /// It has not been judged by this check yet, so its first success is enough.
    is_open: bool,
    /// Results in a row that speak against what holds.
    against: u32,
}

impl Verdict {
    /// Before the first probe. An endpoint that is down then comes up with its first success.
    pub fn new(is_up: bool) -> Self {
        Self {
            is_up,
            is_open: !is_up,
            against: 0,
        }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Takes a result in.
    pub fn observe(&mut self, passed: bool, check: &ActiveCheck) -> Option<Transition> {
        if passed == self.is_up {
            self.against = 0;
            self.is_open &= passed;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let (needed, transition) = match passed {
            true if self.is_open => (1, Transition::Up),
            true => (check.healthy_after, Transition::Up),
            false => (check.unhealthy_after, Transition::Down),
        };
        if self.against < needed.max(1) {
            return None;
        }
        (self.is_up, self.is_open, self.against) = (passed, false, 0);
        Some(transition)
    }
}

/// The time from the beginning of one probe to that of the next: the interval give or take a tenth, so that the probes of many
/// endpoints and replicas spread. `random` is any number.
pub fn next_after(interval: Duration, random: u64) -> Duration {
    // From -1 to 1 in steps of a thousandth.
    let share = (random % 2001) as f64 / 1000.0 - 1.0;
    let interval = interval.clamp(LEAST_INTERVAL, MOST_INTERVAL);
    interval.mul_f64(1.0 + share / 10.0).max(LEAST_INTERVAL)
}

/// Whether a result says something of the endpoint. A failure does not when we were late ourselves by more than half the
/// timeout while it was waited for: we were stopped, or starved.
pub fn counts(passed: bool, late: Duration, timeout: Duration) -> bool {
    passed || late <= timeout / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fails: u32, passes: u32) -> ActiveCheck {
        ActiveCheck {
            unhealthy_after: fails,
            healthy_after: passes,
            ..ActiveCheck::default()
        }
    }

    /// `U` and `H` are results; `d` and `u` stand behind the result that changed something.
    #[track_caller]
    fn row(starts_up: bool, check: &ActiveCheck, expected: &str) {
        let mut verdict = Verdict::new(starts_up);
        let mut shown = String::new();
        for result in expected.chars().filter(|c| c.is_ascii_uppercase()) {
            shown.push(result);
            match verdict.observe(result == 'H', check) {
                Some(Transition::Down) => shown.push('d'),
                Some(Transition::Up) => shown.push('u'),
                None => {}
            }
        }
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_results_in_a_row_count() {
        row(true, &check(3, 2), "UHUHUHH");
        row(true, &check(3, 2), "UUUd");
        row(true, &check(3, 2), "UUHUUUdUHUHHuH");
        row(true, &check(1, 1), "UdHuUd");
        row(true, &check(3, 2), "UUUdHHuUUUd");
    }

    #[test]
    fn who_starts_down_comes_up_with_its_first_success_if_that_is_its_first_result() {
        row(false, &check(3, 2), "HuUUUdHHu");
        row(false, &check(3, 2), "UUHHu");
    }

    #[test]
    fn zero_is_read_as_one() {
        row(true, &check(0, 0), "UdHu");
    }

    #[test]
    fn the_interval_varies_by_a_tenth() {
        let interval = Duration::from_secs(10);
        let all: Vec<_> = (0..5000).map(|n| next_after(interval, n * 7)).collect();
        assert_eq!(all.iter().min(), Some(&Duration::from_secs(9)));
        assert_eq!(all.iter().max(), Some(&Duration::from_secs(11)));
        assert!(next_after(Duration::ZERO, 0) >= LEAST_INTERVAL);
        assert!(next_after(Duration::MAX, u64::MAX) <= 2 * MOST_INTERVAL);
    }

    #[test]
    fn a_failure_counts_only_while_we_were_awake() {
        let timeout = Duration::from_secs(2);
        for (passed, late, expected) in [
            (false, 0, true),
            (false, 1000, true),
            (false, 1001, false),
            (false, 10_000, false),
            (true, 10_000, true),
        ] {
            let late = Duration::from_millis(late);
            assert_eq!(counts(passed, late, timeout), expected, "{passed} {late:?}");
        }
    }
}
