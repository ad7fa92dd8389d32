//! What an answer of the DNS means for the endpoints in use, and when to ask again.
//!
//! | answer | endpoints | asked again |
//! |---|---|---|
//! | records | these | when the least of their TTLs is over |
//! | no such name, no such record | none, once it has been said for [`Timing::confirm`]; at once where there never were any | after the TTL, at most a third of that time |
//! | failure, refusal, silence | the last ones, for [`Timing::keep`] | after a second, twice as long each time, at most [`Timing::longest_wait`] |
//!
//! An empty answer is not believed at once because a name server that has just started, or lost its upstream, gives such
//! answers too, and every endpoint gone is an outage.

use std::time::Duration;

/// Longest time an answer is used without asking again.
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Times of discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// An answer is used for so long, whatever its TTL says. Default 1 s.
    pub least_ttl: Duration,
    /// For one lookup. Default 5 s.
    pub timeout: Duration,
    /// How long a name must be empty before its endpoints go. Default 30 s.
    pub confirm: Duration,
    /// How long endpoints stay in use when there is no answer. Default: for ever.
    pub keep: Option<Duration>,
    /// Longest wait after failures. Default 30 s.
    pub longest_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            least_ttl: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            confirm: Duration::from_secs(30),
            keep: None,
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// What came of a lookup, as far as the schedule cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records, which hold for so long.
    Records(Duration),
    /// The name, or the record, does not exist; that holds for so long.
    Empty(Duration),
    /// Nothing was learnt.
    Failure,
}

/// What becomes of the endpoints in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Those of the answer take their place.
    Take,
    /// They go.
    Empty,
    /// They stay.
    Keep,
}

/// One name's history.
#[derive(Debug)]
pub(crate) struct Schedule {
    timing: Timing,
    /// When records came last.
    good: Option<Duration>,
    /// Since when it has been empty.
    empty_since: Option<Duration>,
    failures: u32,
}

impl Schedule {
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            timing,
            good: None,
            empty_since: None,
            failures: 0,
        }
    }

    /// When what is in use was last confirmed; zero, which is when asking began, before there was an answer.
    pub(crate) fn confirmed(&self) -> Duration {
        self.good.unwrap_or_default()
    }

    /// Takes note of an answer. `dice`: any bits that differ from time to time and place to place.
    pub(crate) fn answered(
        &mut self,
        answer: Kind,
        now: Duration,
        dice: u64,
    ) -> (Effect, Duration) {
        let timing = self.timing;
        let ttl = |ttl: Duration| ttl.clamp(timing.least_ttl, LONGEST_TTL);
        match answer {
            Kind::Records(holds) => {
                (self.good, self.empty_since, self.failures) = (Some(now), None, 0);
                (Effect::Take, ttl(holds))
            }
            Kind::Empty(holds) => {
                self.failures = 0;
                let since = *self.empty_since.get_or_insert(now);
                let believed = self.good.is_none() || now.saturating_sub(since) >= timing.confirm;
                let effect = if believed {
                    Effect::Empty
                } else {
                    Effect::Keep
                };
                let soon = (timing.confirm / 3).max(timing.least_ttl);
                (effect, ttl(holds).min(soon))
            }
            Kind::Failure => {
                let wait = FIRST_WAIT * 2u32.saturating_pow(self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                let wait = wait.min(timing.longest_wait);
                let effect = match (timing.keep, self.good) {
                    (Some(keep), Some(good)) if now.saturating_sub(good) > keep => Effect::Empty,
                    _ => Effect::Keep,
                };
                (
                    effect,
                    jittered(wait, dice).max(FIRST_WAIT.min(timing.longest_wait)),
                )
            }
        }
    }
}

/// Between three quarters of it and all of it.
fn jittered(wait: Duration, dice: u64) -> Duration {
    wait - wait / 4 * (dice % 1024) as u32 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn records(ttl: u64) -> Kind {
        Kind::Records(secs(ttl))
    }

    /// N3: TTL 0, 1, 2^31, 2^32-1.
    #[test]
    fn ttls_have_a_floor_and_a_ceiling() {
        for (ttl, wait) in [
            (0, 1),
            (1, 1),
            (5, 5),
            (1 << 31, 3600),
            (u64::from(u32::MAX), 3600),
        ] {
            let mut schedule = Schedule::new(Timing::default());
            let (effect, next) = schedule.answered(records(ttl), secs(0), 0);
            assert_eq!((effect, next), (Effect::Take, secs(wait)), "{ttl}");
        }
    }

    /// N1 and E22: silence for half an hour changes nothing; then the name is gone, and then it is back.
    #[test]
    fn half_an_hour_of_silence_keeps_what_there_is() {
        let mut schedule = Schedule::new(Timing::default());
        let mut now = secs(0);
        schedule.answered(records(5), now, 0);
        let mut questions = 0;
        while now < secs(1800) {
            let (effect, wait) = schedule.answered(Kind::Failure, now, questions * 397);
            assert_eq!(effect, Effect::Keep);
            assert!(wait >= secs(1) && wait <= secs(30), "{wait:?}");
            now += wait;
            questions += 1;
        }
        assert!((60..=90).contains(&questions), "{questions}");
        assert_eq!(schedule.confirmed(), secs(0));
        let gone = now;
        while now < gone + secs(30) {
            let (effect, wait) = schedule.answered(Kind::Empty(secs(5)), now, 0);
            assert_eq!(effect, Effect::Keep);
            now += wait;
        }
        assert_eq!(
            schedule.answered(Kind::Empty(secs(5)), now, 0).0,
            Effect::Empty
        );
        assert_eq!(schedule.answered(records(5), now, 0).0, Effect::Take);
        assert_eq!(schedule.confirmed(), now);
    }

    /// N1: SERVFAIL between two empty answers does not make it less empty, and records make it full again.
    #[test]
    fn emptiness_is_confirmed_from_its_first_word_on() {
        let mut schedule = Schedule::new(Timing::default());
        schedule.answered(records(5), secs(0), 0);
        let empty = Kind::Empty(secs(3600));
        let (effect, wait) = schedule.answered(empty, secs(5), 0);
        assert_eq!((effect, wait), (Effect::Keep, secs(10)), "asked again soon");
        assert_eq!(
            schedule.answered(Kind::Failure, secs(15), 0).0,
            Effect::Keep
        );
        assert_eq!(schedule.answered(empty, secs(35), 0).0, Effect::Empty);
        schedule.answered(records(5), secs(40), 0);
        assert_eq!(schedule.answered(empty, secs(45), 0).0, Effect::Keep);
    }

    /// N2: never an answer: there is nothing to keep, and nothing is asked more often than once a second.
    #[test]
    fn a_name_that_never_was_is_empty_at_once() {
        let mut schedule = Schedule::new(Timing::default());
        assert_eq!(
            schedule.answered(Kind::Failure, secs(0), 0),
            (Effect::Keep, secs(1))
        );
        assert_eq!(
            schedule.answered(Kind::Empty(secs(1)), secs(1), 0).0,
            Effect::Empty
        );
    }

    #[test]
    fn failures_back_off_and_an_answer_ends_that() {
        let mut schedule = Schedule::new(Timing::default());
        let mut waits = Vec::new();
        for _ in 0..7 {
            waits.push(schedule.answered(Kind::Failure, secs(0), 0).1.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        schedule.answered(records(5), secs(0), 0);
        assert_eq!(schedule.answered(Kind::Failure, secs(0), 0).1, secs(1));
    }

    #[test]
    fn what_is_kept_may_have_a_longest_age() {
        let mut schedule = Schedule::new(Timing {
            keep: Some(secs(60)),
            ..Timing::default()
        });
        schedule.answered(records(5), secs(0), 0);
        assert_eq!(
            schedule.answered(Kind::Failure, secs(60), 0).0,
            Effect::Keep
        );
        assert_eq!(
            schedule.answered(Kind::Failure, secs(61), 0).0,
            Effect::Empty
        );
    }
}
