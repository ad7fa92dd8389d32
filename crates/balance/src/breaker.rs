//! The circuit breaker of one endpoint: closed while it does well, open when the last while was too slow or too faulty, and
//! half-open when it is time for one request to try it.
//!
//! Requests only add to two words that never start over. What was in the window is the difference to how they stood when it
//! began, which is written down on a tick ([`Breaker::look`]), so nobody resets what another adds to. That an open breaker
//! keeps requests away is put into effect elsewhere: [`crate::Bar::Breaker`].

use crate::conduct::Reply;
use crate::endpoint_state::{micros, millis};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::waiting::Waits;
use routing_table::policy::CircuitBreaker;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often in a window it is written down how the sums stand.
const STEPS: u32 = 10;
/// In a word of counts: requests above this bit, errors below.
const REQUESTS: u32 = 32;
/// In a word of times: how many above this bit, below their sum in steps of 16 microseconds.
const TIMED: u32 = 40;
const TIME_STEP: u64 = 16;

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Requests pass.
    Closed = 0,
    /// One request may try, or does.
    HalfOpen = 1,
    /// Nothing passes.
    Open = 2,
}

const CLOSED: u32 = 0;
const OPEN: u32 = 1;
/// A trial may be taken.
const READY: u32 = 2;
/// A trial is under way.
const TRIED: u32 = 3;
/// The bits of the state; those above count its changes, so that an old trial is known.
const STATE: u32 = 3;

/// Sums as they stood once.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    counts: u64,
    times: u64,
}

/// One endpoint's breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    word: AtomicU32,
    /// In milliseconds: until when it is open, or since when a trial is under way.
    time: AtomicU64,
    counts: AtomicU64,
    times: AtomicU64,
    /// How the sums stood when the window began.
    counts_before: AtomicU64,
    times_before: AtomicU64,
    /// What began before does not count, in milliseconds.
    counts_from: AtomicU64,
    /// How they stood and when. Only a tick looks at it.
    marks: Mutex<VecDeque<(Duration, Sums)>>,
}

/// The one request that tries an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial(u32);

/// Why a breaker opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The average time to an answer.
    Latency(Duration),
    /// The share of errors, in percent.
    Errors(u32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(time) => write!(f, "answers take {time:?} on average"),
            Self::Errors(percent) => write!(f, "{percent} % errors"),
        }
    }
}

/// What has become of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has opened.
    Opened(Why),
    /// A trial has failed, or takes too long: it stays open for another while.
    StaysOpen,
    /// It is time for a trial.
    HalfOpened,
    /// A trial went well.
    Closed,
}

impl Breaker {
    /// What it does.
    pub fn phase(&self) -> Phase {
        match self.word.load(Ordering::Relaxed) & STATE {
            CLOSED => Phase::Closed,
            OPEN => Phase::Open,
            _ => Phase::HalfOpen,
        }
    }

    /// Goes from one state to another; whether it was this call that did.
    fn change(&self, from: u32, to: u32) -> bool {
        let next = (from & !STATE).wrapping_add(STATE + 1) | to;
        // What was written before can be read by whoever sees the new state.
        self.word
            .compare_exchange(from, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The trial, for the first that asks.
    pub fn try_trial(&self, now: Duration) -> Option<Trial> {
        let word = self.word.load(Ordering::Acquire);
        if word & STATE != READY {
            return None;
        }
        self.time.fetch_max(millis(now), Ordering::Relaxed);
        let taken = self.change(word, TRIED);
        taken.then_some(Trial((word & !STATE).wrapping_add(STATE + 1) | TRIED))
    }

    /// Gives a trial back that has come to nothing; another may have it.
    pub fn give_back(&self, trial: Trial) {
        self.change(trial.0, READY);
    }

    /// Ends a trial. `None`: it was given up before.
    pub fn tried(
        &self,
        trial: Trial,
        reply: Reply,
        took: Option<Duration>,
        config: &CircuitBreaker,
        now: Duration,
    ) -> Option<Change> {
        let slow = config
            .latency
            .zip(took)
            .is_some_and(|(most, took)| took > most);
        if self.word.load(Ordering::Acquire) != trial.0 {
            return None;
        }
        if reply.is_good() && !slow {
            // Before anybody sees it closed; until then nobody adds to the window or moves it.
            self.start_over(now);
            self.change(trial.0, CLOSED).then_some(Change::Closed)
        } else {
            self.open(trial.0, config, now).then_some(Change::StaysOpen)
        }
    }

    /// Notes what has come of a request that began at `begun`, and took this long where that is known.
    pub fn came(
        &self,
        reply: Reply,
        took: Option<Duration>,
        begun: Duration,
        config: &CircuitBreaker,
        now: Duration,
    ) -> Option<Change> {
        let (order, word) = (Ordering::Relaxed, self.counting(begun)?);
        let counted = (1 << REQUESTS) + u64::from(!reply.is_good());
        self.counts.fetch_add(counted, order);
        if let Some(took) = took {
            self.times
                .fetch_add((1 << TIMED) + micros(took) / TIME_STEP, order);
        }
        self.open_if_bad(word, Waits::default(), config, now)
    }

    /// A good answer broke off: that was none.
    pub fn broke_off(
        &self,
        begun: Duration,
        config: &CircuitBreaker,
        now: Duration,
    ) -> Option<Change> {
        let word = self.counting(begun)?;
        self.counts.fetch_add(1, Ordering::Relaxed);
        self.open_if_bad(word, Waits::default(), config, now)
    }

    /// The state, where it is closed and what began then counts.
    fn counting(&self, begun: Duration) -> Option<u32> {
        let word = self.word.load(Ordering::Acquire);
        let counts_from = self.counts_from.load(Ordering::Relaxed);
        (word & STATE == CLOSED && millis(begun) >= counts_from).then_some(word)
    }

    /// Opens it where the window is too bad, with those that wait for an answer.
    fn open_if_bad(
        &self,
        word: u32,
        waits: Waits,
        config: &CircuitBreaker,
        now: Duration,
    ) -> Option<Change> {
        let why = self.judge(waits, config)?;
        self.open(word, config, now).then_some(Change::Opened(why))
    }

    /// Opens it for a while; whether it was this call that did. The time is there before anybody sees it open, and only grows,
    /// so it does not matter who else was about to.
    fn open(&self, word: u32, config: &CircuitBreaker, now: Duration) -> bool {
        self.time
            .fetch_max(millis(now + config.open), Ordering::Relaxed);
        self.change(word, OPEN)
    }

    /// Whether the window is too bad, with those that wait for an answer.
    fn judge(&self, waits: Waits, config: &CircuitBreaker) -> Option<Why> {
        let order = Ordering::Relaxed;
        let (counts, before) = (self.counts.load(order), self.counts_before.load(order));
        let requests = ((counts >> REQUESTS) as u32).wrapping_sub((before >> REQUESTS) as u32);
        let errors = (counts as u32).wrapping_sub(before as u32);
        let least = config.min_requests.max(1);
        if let Some(ratio) = config.error_ratio {
            let percent = u64::from(errors) * 100 / u64::from(requests.max(1));
            if requests >= least && errors > 0 && percent >= u64::from(ratio) {
                return Some(Why::Errors(percent as u32));
            }
        }
        let most = config.latency?;
        let times = self.times.load(order);
        let before = self.times_before.load(order);
        let mask = (1 << TIMED) - 1;
        let timed = (times.wrapping_sub(before) >> TIMED) as u32;
        let steps = (times & mask).wrapping_sub(before & mask) & mask;
        let known = Duration::from_micros(steps * TIME_STEP);
        // Those that wait count with what they have waited so far: among the others, and by themselves where they are many.
        let all = (timed.saturating_add(waits.count), known + waits.in_all);
        [(timed, known), all, (waits.count, waits.in_all)]
            .into_iter()
            .filter(|(count, _)| *count >= least)
            .map(|(count, sum)| sum / count)
            .find(|average| *average > most)
            .map(Why::Latency)
    }

    /// Moves the window on, and does what is due. For one thread, now and then.
    pub fn look(&self, waits: Waits, config: &CircuitBreaker, now: Duration) -> Option<Change> {
        let word = self.word.load(Ordering::Acquire);
        let time = Duration::from_millis(self.time.load(Ordering::Relaxed));
        match word & STATE {
            CLOSED => {
                self.move_window(config.window, now);
                self.open_if_bad(word, waits, config, now)
            }
            OPEN if time <= now => self.change(word, READY).then_some(Change::HalfOpened),
            TRIED if config.latency.is_some_and(|most| now > time + most) => {
                self.open(word, config, now).then_some(Change::StaysOpen)
            }
            _ => None,
        }
    }

    fn move_window(&self, window: Duration, now: Duration) {
        let order = Ordering::Relaxed;
        let from = Duration::from_millis(self.counts_from.load(order));
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        // Of before it was closed.
        marks.retain(|(at, _)| *at >= from);
        if marks
            .back()
            .is_none_or(|(at, _)| now.saturating_sub(*at) >= window / STEPS)
        {
            let sums = Sums {
                counts: self.counts.load(order),
                times: self.times.load(order),
            };
            marks.push_back((now, sums));
        }
        let is_old = |mark: &(Duration, Sums)| now.saturating_sub(mark.0) >= window;
        while marks.get(1).is_some_and(is_old) {
            marks.pop_front();
        }
        if let Some((_, sums)) = marks.front().filter(|mark| is_old(mark)) {
            self.counts_before.store(sums.counts, order);
            self.times_before.store(sums.times, order);
        }
    }

    /// Forgets what was.
    fn start_over(&self, now: Duration) {
        let order = Ordering::Relaxed;
        self.counts_from.store(millis(now), order);
        self.counts_before.store(self.counts.load(order), order);
        self.times_before.store(self.times.load(order), order);
    }

    /// Closes it whatever it does: the policy has no breaker any more.
    pub fn close(&self, now: Duration) {
        self.start_over(now);
        let next = |word: u32| Some((word & !STATE).wrapping_add(STATE + 1) | CLOSED);
        let _ = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
    }
}

#[cfg(test)]
#[path = "tests/breaker.rs"]
mod tests;
