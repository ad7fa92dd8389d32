//! When to translate: after a short quiet, never later than a maximum, and not too often. Pure: the clock is passed in.

use std::time::{Duration, Instant};

/// Collects changes into one translation.
#[derive(Debug, Clone)]
pub struct Batch {
    /// How long nothing must change. Default 10 ms.
    pub quiet: Duration,
    /// How long a change may wait for quiet. Default 100 ms.
    pub longest: Duration,
    /// Least time between two translations. Default 100 ms, so a flapping object costs at most ten a second.
    pub interval: Duration,
    first: Option<Instant>,
    last: Option<Instant>,
    built: Option<Instant>,
    /// A translation that nobody waits for.
    later: Option<Instant>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(10),
            longest: Duration::from_millis(100),
            interval: Duration::from_millis(100),
            first: None,
            last: None,
            built: None,
            later: None,
        }
    }
}

impl Batch {
    /// Something changed.
    pub fn changed(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// Something changed that has taken effect already; translate in a while, for the diagnostics.
    pub fn changed_aside(&mut self, now: Instant) {
        self.later.get_or_insert(now + Duration::from_secs(1));
    }

    /// When to translate next.
    pub fn due(&self) -> Option<Instant> {
        let soon = self
            .first
            .zip(self.last)
            .map(|(first, last)| (last + self.quiet).min(first + self.longest));
        let soon = soon.map(|at| self.built.map_or(at, |built| at.max(built + self.interval)));
        match (soon, self.later) {
            (Some(soon), Some(later)) => Some(soon.min(later)),
            (soon, later) => soon.or(later),
        }
    }

    /// A translation was made.
    pub fn built(&mut self, now: Instant) {
        self.first = None;
        self.last = None;
        self.later = None;
        self.built = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn waits_for_quiet_up_to_a_limit() {
        let (mut batch, start) = (Batch::default(), Instant::now());
        assert_eq!(batch.due(), None);
        batch.changed(start);
        assert_eq!(batch.due(), Some(start + ms(10)));
        batch.changed(start + ms(8));
        assert_eq!(batch.due(), Some(start + ms(18)));
        batch.changed(start + ms(99));
        assert_eq!(batch.due(), Some(start + ms(100)));
    }

    #[test]
    fn a_flapping_object_costs_at_most_ten_a_second() {
        let (mut batch, start, mut builds) = (Batch::default(), Instant::now(), 0);
        for at in 0..10_000 {
            let now = start + ms(at);
            if at % 20 == 0 {
                batch.changed(now);
            }
            if batch.due().is_some_and(|due| due <= now) {
                batch.built(now);
                builds += 1;
            }
        }
        assert!((90..=100).contains(&builds), "{builds}");
    }

    #[test]
    fn what_took_effect_already_can_wait() {
        let (mut batch, start) = (Batch::default(), Instant::now());
        batch.changed_aside(start);
        batch.changed_aside(start + ms(500));
        assert_eq!(batch.due(), Some(start + ms(1000)));
        batch.changed(start + ms(600));
        assert_eq!(batch.due(), Some(start + ms(610)));
        batch.built(start + ms(610));
        assert_eq!(batch.due(), None);
    }
}
