//! How many retries are allowed: a share of the requests, and a few a second besides, so that an outage is not made worse.

use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

/// In thousandths of a retry.
const RETRY: u64 = 1000;
/// What each request adds: a retry for every five.
const FOR_A_REQUEST: u64 = RETRY / 5;
/// What is saved up at most: ten seconds' worth of the rate.
const SECONDS_SAVED: u64 = 10;

/// The budget of one route on one worker, which alone may use it.
#[derive(Debug)]
pub struct RetryBudget {
    saved: AtomicU64,
    /// Retries a second that are allowed whatever the number of requests, in thousandths.
    rate: u64,
    /// In milliseconds.
    filled_at: AtomicU64,
}

impl RetryBudget {
    /// Retries a second, besides one for every five requests. It begins with a second's worth.
    pub fn new(retries_a_second: f64) -> Self {
        let rate = (retries_a_second * RETRY as f64) as u64;
        Self {
            saved: AtomicU64::new(rate),
            rate,
            filled_at: AtomicU64::new(0),
        }
    }

    /// Adds what a request brings.
    pub fn deposit(&self) {
        self.add(FOR_A_REQUEST);
    }

    /// Takes a retry out, if there is one. `now` is the time since any fixed moment.
    pub fn withdraw(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let passed = now.saturating_sub(self.filled_at.load(Ordering::Relaxed));
        self.filled_at.store(now, Ordering::Relaxed);
        self.add(passed.min(SECONDS_SAVED * 1000) * self.rate / 1000);
        let saved = self.saved.load(Ordering::Relaxed);
        if saved >= RETRY {
            self.saved.store(saved - RETRY, Ordering::Relaxed);
        }
        saved >= RETRY
    }

    fn add(&self, amount: u64) {
        let most = (self.rate * SECONDS_SAVED).max(RETRY);
        let saved = self.saved.load(Ordering::Relaxed);
        self.saved
            .store((saved + amount).min(most), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries that are allowed when all of so many requests fail, evenly over so many seconds.
    fn allowed(requests: u32, seconds: u64) -> u32 {
        let budget = RetryBudget::new(10.0);
        let step = Duration::from_secs(seconds) / requests;
        let mut allowed = 0;
        for n in 0..requests {
            budget.deposit();
            allowed += u32::from(budget.withdraw(step * n));
        }
        allowed
    }

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second() {
        let allowed_of = |requests, seconds| f64::from(allowed(requests, seconds));
        for (requests, seconds) in [(100_000, 10), (10_000, 100), (1000, 1)] {
            let expected = f64::from(requests) / 5.0 + 10.0 * seconds as f64;
            let allowed = allowed_of(requests, seconds);
            assert!(
                (allowed - expected).abs() <= 20.0,
                "{allowed} of {expected}"
            );
        }
        assert_eq!(allowed(50, 10), 50, "few requests may all be retried");
    }

    #[test]
    fn what_is_saved_is_bounded() {
        let budget = RetryBudget::new(10.0);
        for _ in 0..1_000_000 {
            budget.deposit();
        }
        let now = Duration::from_secs(3600);
        let allowed = (0..1000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(allowed, 100);
    }
}
