//! Outlier detection: whether what one endpoint does with real requests is so bad that it gets none for a while.
//!
//! Says so, and for how long. That it then gets none, and how many may be out at a time, is for the caller to put into effect:
//! see [`may_eject`]. gRPC's status, which comes behind the answer, is not looked at.

use crate::conduct::Reply;
use crate::endpoint_state::{Bar, EndpointState, micros, millis};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use routing_table::policy::OutlierDetection;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// So many requests that wait in vain are more than one that is slow.
const SEVERAL: u32 = 3;
/// An endpoint that answers nothing is slow at least by so many times what the others take.
const TIMES_OTHERS: u32 = 10;
/// How much of the usual time to an answer is learnt from each.
const LEARNT: u64 = 8;
const UNKNOWN: u64 = u64::MAX;
/// While it is ejected nothing that began before counts.
const NEVER: u64 = u64::MAX;

/// One endpoint as outlier detection sees it. Times are in milliseconds.
#[derive(Debug)]
pub struct Outlier {
    /// What began before does not count.
    counts_from: AtomicU64,
    /// In a row.
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    /// Answers that broke off, with no whole one in between.
    cuts: AtomicU32,
    /// In this interval.
    requests: AtomicU32,
    failed: AtomicU32,
    timed: AtomicU32,
    time: AtomicU64,
    interval_ends: AtomicU64,
    /// Since when it was asked without an answer; 0 when nobody waits.
    quiet_since: AtomicU64,
    asked_since: AtomicU32,
    /// Its last good answer, and how long those take, in microseconds.
    answered_at: AtomicU64,
    usual: AtomicU64,
    /// Ejections in a row, and until when the last one lasts.
    ejections: AtomicU32,
    ejected_until: AtomicU64,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Errors in a row.
    Errors(u32),
    /// Gateway errors in a row.
    GatewayErrors(u32),
    /// Answers that broke off.
    Cuts(u32),
    /// The share without error, in percent.
    SuccessRate(u32),
    /// The average time to an answer.
    Latency(Duration),
    /// So many wait, and none was answered for so long.
    Unanswered(u32, Duration),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors(count) => write!(f, "{count} errors in a row"),
            Self::GatewayErrors(count) => write!(f, "{count} gateway errors in a row"),
            Self::Cuts(count) => write!(f, "{count} answers broke off"),
            Self::SuccessRate(percent) => write!(f, "{percent} % of requests succeed"),
            Self::Latency(time) => write!(f, "answers take {time:?} on average"),
            Self::Unanswered(count, time) => {
                write!(f, "{count} requests wait, none answered for {time:?}")
            }
        }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            counts_from: AtomicU64::new(0),
            errors: AtomicU32::new(0),
            gateway_errors: AtomicU32::new(0),
            cuts: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            timed: AtomicU32::new(0),
            time: AtomicU64::new(0),
            interval_ends: AtomicU64::new(0),
            quiet_since: AtomicU64::new(0),
            asked_since: AtomicU32::new(0),
            answered_at: AtomicU64::new(0),
            usual: AtomicU64::new(UNKNOWN),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }
}

/// Whether one more may be ejected when `ejected` of `all` are, with at most so many percent.
pub fn may_eject(ejected: usize, all: usize, most: u8) -> bool {
    ejected < (all * usize::from(most) / 100).max(1)
}

// Relaxed everywhere: the numbers themselves are all that is shared.
impl Outlier {
    /// A request was sent.
    pub(crate) fn asked(&self, now: Duration) {
        let order = Ordering::Relaxed;
        if self.quiet_since.load(order) == 0 {
            let now = millis(now).max(1);
            let _ = self.quiet_since.compare_exchange(0, now, order, order);
        }
        self.asked_since.fetch_add(1, order);
    }

    pub(crate) fn nobody_waits(&self) {
        reset(&self.quiet_since, &self.asked_since);
    }

    /// Notes what has come of a request that began at `begun`, and took this long where that is known. Tells why the endpoint
    /// should be ejected.
    pub fn came(
        &self,
        reply: Reply,
        took: Option<Duration>,
        begun: Duration,
        config: &OutlierDetection,
        now: Duration,
    ) -> Option<Why> {
        let order = Ordering::Relaxed;
        if reply != Reply::Nothing {
            self.nobody_waits();
        }
        if reply.is_good() {
            self.answered_at.store(millis(now), order);
            if let (Some(took), Some(_)) = (took, config.unanswered) {
                self.learn(micros(took));
            }
        }
        if millis(begun) < self.counts_from.load(order) {
            return None;
        }
        if config.success_rate.is_some() || config.latency.is_some() {
            self.requests.fetch_add(1, order);
            self.failed.fetch_add(u32::from(!reply.is_good()), order);
            if let Some(took) = took {
                self.timed.fetch_add(1, order);
                self.time.fetch_add(micros(took), order);
            }
        }
        if reply.is_good() {
            clear(&self.errors);
            clear(&self.gateway_errors);
            return None;
        }
        let errors = self.errors.fetch_add(1, order) + 1;
        if config.consecutive_errors.is_some_and(|most| errors >= most) {
            return Some(Why::Errors(errors));
        }
        if reply == Reply::Error {
            clear(&self.gateway_errors);
            return None;
        }
        let errors = self.gateway_errors.fetch_add(1, order) + 1;
        let limit = config.consecutive_gateway_errors;
        limit
            .is_some_and(|most| errors >= most)
            .then_some(Why::GatewayErrors(errors))
    }

    /// A good answer broke off: that was none. Tells why the endpoint should be ejected.
    pub fn broke_off(&self, begun: Duration, config: &OutlierDetection) -> Option<Why> {
        let order = Ordering::Relaxed;
        if millis(begun) < self.counts_from.load(order) {
            return None;
        }
        self.failed.fetch_add(1, order);
        let cuts = self.cuts.fetch_add(1, order) + 1;
        let limits = [config.consecutive_errors, config.consecutive_gateway_errors];
        let is_much = limits.into_iter().flatten().any(|most| cuts >= most);
        is_much.then_some(Why::Cuts(cuts))
    }

    /// A good answer came as a whole.
    pub fn was_whole(&self) {
        clear(&self.cuts);
    }

    fn learn(&self, took: u64) {
        let known = self.usual.load(Ordering::Relaxed);
        let next = match known {
            UNKNOWN => took,
            known => known - known / LEARNT + took / LEARNT,
        };
        self.usual.store(next, Ordering::Relaxed);
    }

    /// Looks at the interval where it has ended. Tells why the endpoint should be ejected. For one thread, now and then.
    pub fn look(&self, config: &OutlierDetection, now: Duration) -> Option<Why> {
        let order = Ordering::Relaxed;
        let ends = self.interval_ends.load(order);
        if ends > millis(now) {
            return None;
        }
        self.interval_ends
            .store(millis(now + config.interval), order);
        let [requests, failed, timed] = [&self.requests, &self.failed, &self.timed]
            .map(|count| u64::from(count.swap(0, order)));
        let time = Duration::from_micros(self.time.swap(0, order));
        if ends == 0 {
            return None; // The first one has no beginning.
        }
        let least = u64::from(config.min_requests.max(1));
        if let Some(rate) = config.success_rate
            && requests >= least
        {
            let good = requests.saturating_sub(failed) * 100;
            if good < requests * u64::from(rate) {
                return Some(Why::SuccessRate((good / requests) as u32));
            }
        }
        if let Some(most) = config.latency
            && timed >= least
        {
            let average = time / u32::try_from(timed).unwrap_or(u32::MAX);
            if average > most {
                return Some(Why::Latency(average));
            }
        }
        // It has behaved.
        let _ = self
            .ejections
            .fetch_update(order, order, |count| count.checked_sub(1));
        None
    }

    /// Begins an ejection, and tells for how long.
    pub fn eject(&self, config: &OutlierDetection, now: Duration) -> Duration {
        let order = Ordering::Relaxed;
        let times = self.ejections.load(order).saturating_add(1);
        let time = config.ejection.saturating_mul(times);
        let time = time.min(config.max_ejection.max(config.ejection));
        // No further than where the cap is reached, or it would have to behave for ever.
        if time < config.max_ejection || times == 1 {
            self.ejections.store(times, order);
        }
        self.counts_from.store(NEVER, order);
        self.ejected_until.store(millis(now + time), order);
        time
    }

    /// Whether its ejection, if there is one, is over.
    pub fn is_served(&self, now: Duration) -> bool {
        self.ejected_until.load(Ordering::Relaxed) <= millis(now)
    }

    /// It is back and is judged afresh.
    pub fn back(&self, config: Option<&OutlierDetection>, now: Duration) {
        let order = Ordering::Relaxed;
        for count in [
            &self.errors,
            &self.gateway_errors,
            &self.cuts,
            &self.requests,
            &self.failed,
            &self.timed,
        ] {
            count.store(0, order);
        }
        self.time.store(0, order);
        self.nobody_waits();
        let ends = config.map_or(0, |config| millis(now + config.interval));
        self.interval_ends.store(ends, order);
        self.ejected_until.store(0, order);
        self.counts_from.store(millis(now), order);
    }

    /// Since when it was asked without an answer, if it is so.
    fn quiet_since(&self) -> Option<Duration> {
        let since = self.quiet_since.load(Ordering::Relaxed);
        (since > 0).then(|| Duration::from_millis(since))
    }
}

/// Why an endpoint should be ejected that answers nothing, long before a timeout says so: several requests have been waiting
/// since it answered last, for at least `limit` and taken together as long as that many would, while some other endpoint of the
/// cluster answers, much quicker than that, and lets nobody wait like this. Where all are slow, nobody is.
pub fn unanswered(
    one: &EndpointState,
    all: &[Arc<EndpointState>],
    limit: Duration,
    now: Duration,
) -> Option<Why> {
    let (outlier, waits) = (&one.conduct().outlier, one.conduct().waiting.waits(now));
    let since = outlier.quiet_since()?;
    let quiet = now.saturating_sub(since);
    let several = outlier.asked_since.load(Ordering::Relaxed).min(waits.count) >= SEVERAL;
    if !several || quiet < limit || waits.in_all < limit * SEVERAL {
        return None;
    }
    let answers = |other: &EndpointState| {
        let (conduct, order) = (other.conduct(), Ordering::Relaxed);
        let usual = conduct.outlier.usual.load(order);
        conduct.outlier.answered_at.load(order) >= millis(since)
            && usual != UNKNOWN
            && Duration::from_micros(usual) * TIMES_OTHERS <= quiet
            && conduct.waiting.waits(now).average() * 2 <= waits.average()
    };
    all.iter()
        .filter(|other| other.addr() != one.addr() && !other.has(Bar::Ejected))
        .any(|other| answers(other))
        .then_some(Why::Unanswered(waits.count, quiet))
}

/// Written to only when there is something to clear, so that an endpoint that is well costs no shared write.
fn clear(count: &AtomicU32) {
    if count.load(Ordering::Relaxed) != 0 {
        count.store(0, Ordering::Relaxed);
    }
}

fn reset(since: &AtomicU64, count: &AtomicU32) {
    since.store(0, Ordering::Relaxed);
    clear(count);
}

#[cfg(test)]
#[path = "tests/outlier.rs"]
mod tests;
