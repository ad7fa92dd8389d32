//! How many requests wait for an endpoint's answer, and for how long in all.
//!
//! One word holds both: the count, and the sum of the times the requests began. So they are never read apart, and the time
//! waited in all is exact whoever has left in between. Which of them has waited longest is not known.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Times are kept in steps of so many milliseconds: a year of them, 60,000 times, fits.
const STEP: u128 = 8;
/// The count is above this bit, the sum of times below.
const COUNT: u32 = 48;
/// How many times one can start over before the oldest requests count as new ones.
const SLOTS: usize = 4;

/// Requests that wait for an answer.
#[derive(Debug, Default)]
pub struct Waiting {
    slots: [AtomicU64; SLOTS],
    current: AtomicU32,
}

/// One request that waits.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    slot: usize,
    amount: u64,
}

/// Those that wait at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// How many.
    pub count: u32,
    /// For how long, all of them taken together. Never more than is true.
    pub in_all: Duration,
}

// Relaxed everywhere: each word stands for itself.
impl Waiting {
    /// One more waits. It has to [`Waiting::end`].
    pub fn begin(&self, now: Duration) -> Ticket {
        // Rounded up, so that nobody seems to wait for longer than it does.
        let step = now.as_millis().div_ceil(STEP) as u64;
        let ticket = Ticket {
            slot: self.current.load(Ordering::Relaxed) as usize % SLOTS,
            amount: (1 << COUNT) + step,
        };
        self.slots[ticket.slot].fetch_add(ticket.amount, Ordering::Relaxed);
        ticket
    }

    /// It does not wait any more.
    pub fn end(&self, ticket: Ticket) {
        self.slots[ticket.slot].fetch_sub(ticket.amount, Ordering::Relaxed);
    }

    /// Those who wait now are not looked at any more.
    pub fn start_over(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Those that wait.
    pub fn waits(&self, now: Duration) -> Waits {
        let slot = self.current.load(Ordering::Relaxed) as usize % SLOTS;
        let word = self.slots[slot].load(Ordering::Relaxed);
        let (count, begun) = (word >> COUNT, word & ((1 << COUNT) - 1));
        let steps = ((now.as_millis() / STEP) as u64)
            .saturating_mul(count)
            .saturating_sub(begun);
        Waits {
            count: count as u32,
            in_all: Duration::from_millis(steps.saturating_mul(STEP as u64)),
        }
    }
}

impl Waits {
    /// For how long each has waited, on average.
    pub fn average(&self) -> Duration {
        self.in_all / self.count.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_sum_is_of_those_that_still_wait() {
        let waiting = Waiting::default();
        let first = waiting.begin(MS(80));
        let second = waiting.begin(MS(160));
        let waits = waiting.waits(MS(240));
        assert_eq!((waits.count, waits.in_all), (2, MS(240)));
        assert_eq!(waits.average(), MS(120));
        waiting.end(first);
        assert_eq!(waiting.waits(MS(240)).in_all, MS(80));
        waiting.start_over();
        assert_eq!(waiting.waits(MS(240)), Waits::default());
        let third = waiting.begin(MS(240));
        waiting.end(second);
        assert_eq!(waiting.waits(MS(248)).in_all, MS(8));
        waiting.end(third);
        assert_eq!(waiting.waits(MS(900)), Waits::default());
    }

    #[test]
    fn nobody_waits_for_longer_than_it_does_not_even_after_a_year() {
        let waiting = Waiting::default();
        let year = Duration::from_secs(365 * 24 * 3600);
        let tickets: Vec<_> = (0..50_000).map(|_| waiting.begin(year + MS(3))).collect();
        assert_eq!(waiting.waits(year + MS(3)).in_all, Duration::ZERO);
        let waits = waiting.waits(year + MS(1000));
        assert_eq!((waits.count, waits.average()), (50_000, MS(992)));
        tickets.into_iter().for_each(|ticket| waiting.end(ticket));
        assert_eq!(waiting.waits(year * 2), Waits::default());
    }
}
