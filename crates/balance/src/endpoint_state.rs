//! What is known of one endpoint, for as long as some table has it.
//!
//! Requests count here, and whoever learns something writes it down here: what it is doing, how quick it is, and why it
//! should get nothing. All of it is atomics, so that no request waits for another.

use crate::conduct::Conduct;
use crate::latency::Window;
use crate::notes::{Notes, Voice};
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Half of what was moved this long ago still counts as lately.
const BANDWIDTH_HALF_LIFE: Duration = Duration::from_secs(2);
/// How fast an old answer time is forgotten.
const LATENCY_DECAY: Duration = Duration::from_secs(3);
/// What an endpoint that was never asked is expected to take: little, so that it is asked.
const UNKNOWN_LATENCY: f64 = 0.0;

/// TLS that has not failed for this long is well again.
const TLS_SETTLED: Duration = Duration::from_secs(10);

/// How many stripes the requests of busy workers are spread over.
const STRIPES: usize = 8;

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU32);

/// Where a request is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// With those that have a limit too, which they are counted for.
    Limited,
    /// With all others, so that endpoints can be compared.
    Shared,
    /// With those of this worker alone.
    Own(usize),
}

/// A reason for an endpoint to get nothing. Each has one owner, who sets and lifts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bar {
    /// Active checks fail.
    Probe = 1,
    /// Its agent says it is down.
    Agent = 1 << 1,
    /// Outlier detection has ejected it.
    Ejected = 1 << 2,
    /// Its circuit breaker is open: it gets nothing, even if nobody else is left, but one request at a time that tries.
    Breaker = 1 << 3,
    /// An operator wants it drained: it gets nothing even if nobody else is left.
    Drained = 1 << 4,
    /// Its agent wants it drained; the same for the rest.
    AgentDrained = 1 << 5,
}

impl Bar {
    /// All of them, with the words for who found out, in logs and metrics. An agent has two.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Probe, "active"),
        (Self::Agent, "agent"),
        (Self::Ejected, "passive"),
        (Self::Breaker, "breaker"),
        (Self::Drained, "operator"),
        (Self::AgentDrained, "agent"),
    ];
}

/// One endpoint. Times are since a moment that all callers count from.
#[derive(Debug)]
pub struct EndpointState {
    addr: SocketAddr,
    /// Requests in progress that have a limit, and those that have none.
    limited: AtomicU32,
    shared: AtomicU32,
    /// The latter of workers that are so busy here that they would be in each other's way; made by the first of them.
    stripes: OnceLock<Box<[Stripe]>>,
    bars: AtomicU8,
    /// Until when it is passed over, in milliseconds, because it could not be connected to.
    passed_over_until: AtomicU64,
    /// When TLS to it failed last, in milliseconds; 0 while it does not.
    tls_failed_at: AtomicU64,
    /// Until when it wants less, in milliseconds.
    eased_until: AtomicU64,
    /// Of its declared weight, as its agent and as an operator want it.
    weight_percent: [AtomicU32; 2],
    /// Most requests in progress: the least of what its agent and an operator want.
    most: AtomicU32,
    /// Since when it has got requests, in milliseconds.
    since: AtomicU64,
    /// Nanoseconds as a float, and when that was right, in microseconds.
    latency: AtomicU64,
    latency_at: AtomicU64,
    /// Bytes lately as a float, and when that was right, in milliseconds.
    moved: AtomicU64,
    moved_at: AtomicU64,
    cost: AtomicU64,
    /// How long answers took lately; made where its policy ranks by that.
    window: OnceLock<Box<Window>>,
    /// What is seen of it in real traffic; made where its policy judges that.
    conduct: OnceLock<Box<Conduct>>,
    /// What people are told; no request reads it.
    pub(crate) notes: Mutex<Notes>,
}

// Relaxed everywhere: the numbers themselves are all that is shared.
impl EndpointState {
    /// An endpoint of which nothing is known but that it gets requests from `now` on.
    pub fn new(addr: SocketAddr, now: Duration) -> Self {
        Self {
            addr,
            limited: AtomicU32::new(0),
            shared: AtomicU32::new(0),
            stripes: OnceLock::new(),
            bars: AtomicU8::new(0),
            passed_over_until: AtomicU64::new(0),
            tls_failed_at: AtomicU64::new(0),
            eased_until: AtomicU64::new(0),
            weight_percent: [AtomicU32::new(100), AtomicU32::new(100)],
            most: AtomicU32::new(u32::MAX),
            since: AtomicU64::new(millis(now)),
            latency: AtomicU64::new(UNKNOWN_LATENCY.to_bits()),
            latency_at: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            moved_at: AtomicU64::new(0),
            cost: AtomicU64::new(0),
            window: OnceLock::new(),
            conduct: OnceLock::new(),
            notes: Mutex::default(),
        }
    }

    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Counts one more request in progress, for which [`EndpointState::leave`] needs the seat. With a limit only if fewer than
    /// that many are in progress that have one too.
    pub(crate) fn try_enter(&self, limit: u32, cost: u64, without_limit: Seat) -> Option<Seat> {
        let seat = if limit == u32::MAX {
            self.counter(without_limit).fetch_add(1, Ordering::Relaxed);
            without_limit
        } else {
            let one_more = |count| (count < limit).then_some(count + 1);
            let order = Ordering::Relaxed;
            self.limited.fetch_update(order, order, one_more).ok()?;
            Seat::Limited
        };
        self.charge(cost);
        Some(seat)
    }

    /// Whether a request with this limit could enter at this moment.
    pub(crate) fn has_room(&self, limit: u32) -> bool {
        limit == u32::MAX || self.limited.load(Ordering::Relaxed) < limit
    }

    /// Ends a request that was counted; `cost` is what is left of its cost.
    pub fn leave(&self, cost: u64, seat: Seat) {
        self.counter(seat).fetch_sub(1, Ordering::Relaxed);
        self.pay(cost);
    }

    /// Adds to the cost of a request in progress.
    pub fn charge(&self, cost: u64) {
        if cost > 0 {
            self.cost.fetch_add(cost, Ordering::Relaxed);
        }
    }

    /// Takes off a part of a request's cost that is behind it.
    pub fn pay(&self, cost: u64) {
        if cost > 0 {
            self.cost.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    fn counter(&self, seat: Seat) -> &AtomicU32 {
        match seat {
            Seat::Limited => &self.limited,
            Seat::Shared => &self.shared,
            Seat::Own(worker) => {
                let make = || (0..STRIPES).map(|_| Stripe::default()).collect();
                &self.stripes.get_or_init(make)[worker % STRIPES].0
            }
        }
    }

    /// Requests in progress.
    pub fn in_flight(&self) -> u32 {
        let own = self.stripes.get().into_iter().flatten();
        let own: u32 = own.map(|stripe| stripe.0.load(Ordering::Relaxed)).sum();
        self.limited.load(Ordering::Relaxed) + self.shared.load(Ordering::Relaxed) + own
    }

    /// Cost in progress.
    pub fn cost(&self) -> u64 {
        self.cost.load(Ordering::Relaxed)
    }

    /// Sets a reason for it to get nothing. Whether that is new: then its sets have to be made anew.
    pub fn bar(&self, bar: Bar) -> bool {
        self.bars.fetch_or(bar as u8, Ordering::Relaxed) & bar as u8 == 0
    }

    /// Lifts a reason. Whether it was there; the endpoint rises slowly from `now` on, where its policy says so.
    pub fn lift(&self, bar: Bar, now: Duration) -> bool {
        let lifted = self.bars.fetch_and(!(bar as u8), Ordering::Relaxed) & bar as u8 != 0;
        if lifted {
            self.since.store(millis(now), Ordering::Relaxed);
        }
        lifted
    }

    /// Whether this reason holds.
    pub fn has(&self, bar: Bar) -> bool {
        self.bars.load(Ordering::Relaxed) & bar as u8 != 0
    }

    /// Whether this reason holds and no other.
    pub(crate) fn has_only(&self, bar: Bar, now: Duration) -> bool {
        self.bars.load(Ordering::Relaxed) == bar as u8 && !self.is_passed_over(now)
    }

    /// What is seen of it in real traffic.
    pub fn conduct(&self) -> &Conduct {
        self.conduct.get_or_init(Box::default)
    }

    /// Whether it should get requests.
    pub fn is_available(&self, now: Duration) -> bool {
        self.bars.load(Ordering::Relaxed) == 0 && !self.is_passed_over(now)
    }

    /// Passes it over until this time, while there are others. Whether that is new.
    pub fn pass_over_until(&self, time: Duration, now: Duration) -> bool {
        let before = self.passed_over_until.swap(millis(time), Ordering::Relaxed);
        before <= millis(now)
    }

    /// Whether it is passed over.
    pub fn is_passed_over(&self, now: Duration) -> bool {
        self.passed_over_until.load(Ordering::Relaxed) > millis(now)
    }

    /// Takes note that TLS to it has failed. Whether that is news.
    pub fn tls_failed(&self, now: Duration) -> bool {
        let now = millis(now).max(1);
        self.tls_failed_at.swap(now, Ordering::Relaxed) == 0
    }

    /// Takes note of a handshake that succeeded. Whether that is news: not while some fail, so that an endpoint of which each
    /// handshake ends otherwise is not told of each time.
    pub fn tls_succeeded(&self, now: Duration) -> bool {
        let failed = self.tls_failed_at.load(Ordering::Relaxed);
        let is_over = failed > 0 && millis(now).saturating_sub(failed) >= millis(TLS_SETTLED);
        is_over && self.tls_failed_at.swap(0, Ordering::Relaxed) > 0
    }

    /// Gives it a tenth of its share until this time. Whether that is new.
    pub fn ease_until(&self, time: Duration, now: Duration) -> bool {
        let before = self.eased_until.fetch_max(millis(time), Ordering::Relaxed);
        before <= millis(now)
    }

    /// Until when it wants less; zero when it does not.
    pub fn eased_until(&self) -> Duration {
        Duration::from_millis(self.eased_until.load(Ordering::Relaxed))
    }

    /// Until when it is passed over; zero when it is not.
    pub fn passed_over_until(&self) -> Duration {
        Duration::from_millis(self.passed_over_until.load(Ordering::Relaxed))
    }

    /// Sets the share of its declared weight that somebody wants it to have, in percent. Whether that is new.
    pub fn set_weight_percent(&self, voice: Voice, percent: u32) -> bool {
        self.weight_percent[voice as usize].swap(percent, Ordering::Relaxed) != percent
    }

    /// The share of its declared weight that somebody wants it to have, in percent.
    pub fn weight_percent_of(&self, voice: Voice) -> u32 {
        self.weight_percent[voice as usize].load(Ordering::Relaxed)
    }

    /// Its share of its declared weight, in percent: what its agent wants times what an operator wants.
    pub fn weight_percent(&self) -> u32 {
        let [agent, operator] =
            [Voice::Agent, Voice::Operator].map(|voice| u64::from(self.weight_percent_of(voice)));
        let least = u64::from(agent > 0 && operator > 0);
        let percent = (agent * operator / 100).max(least);
        u32::try_from(percent).unwrap_or(u32::MAX)
    }

    /// Whether it wants nothing at all, or is to have nothing.
    pub fn is_drained(&self) -> bool {
        let drained = Bar::Drained as u8 | Bar::AgentDrained as u8;
        self.bars.load(Ordering::Relaxed) & drained != 0
    }

    pub(crate) fn store_most(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The most requests it may have in progress.
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Since when it has got requests.
    pub fn since(&self) -> Duration {
        Duration::from_millis(self.since.load(Ordering::Relaxed))
    }

    /// Notes how long an answer took. A rise counts at once, a fall slowly (a peak-sensitive moving average).
    pub fn answered(&self, took: Duration, now: Duration) {
        let (took, at) = (took.as_nanos() as f64, micros(now));
        let elapsed = at.saturating_sub(self.latency_at.swap(at, Ordering::Relaxed));
        let known = f64::from_bits(self.latency.load(Ordering::Relaxed));
        let next = if took >= known {
            took
        } else {
            let kept = (-(elapsed as f64) / LATENCY_DECAY.as_micros() as f64).exp();
            known * kept + took * (1.0 - kept)
        };
        self.latency.store(next.to_bits(), Ordering::Relaxed);
    }

    /// The average time to an answer, in nanoseconds; what was learnt long ago is worth less, so that it is asked again.
    pub fn latency(&self, now: Duration) -> f64 {
        let known = f64::from_bits(self.latency.load(Ordering::Relaxed));
        let elapsed = micros(now).saturating_sub(self.latency_at.load(Ordering::Relaxed));
        known * (-(elapsed as f64) / LATENCY_DECAY.as_micros() as f64).exp()
    }

    /// Notes how long an answer took, for [`EndpointState::p90`].
    pub fn took(&self, took: Duration, now: Duration) {
        self.window.get_or_init(Box::default).note(took, now);
    }

    /// See [`Window::p90`].
    pub fn p90(&self, now: Duration) -> Option<u32> {
        self.window.get()?.p90(now)
    }

    /// Notes bytes moved to or from it.
    pub fn moved(&self, bytes: u64, now: Duration) {
        let lately = self.moved_lately(now) + bytes as f64;
        self.moved_at.store(millis(now), Ordering::Relaxed);
        self.moved.store(lately.to_bits(), Ordering::Relaxed);
    }

    /// Bytes moved lately, whole ones.
    pub fn moved_lately(&self, now: Duration) -> f64 {
        let elapsed = millis(now).saturating_sub(self.moved_at.load(Ordering::Relaxed));
        let halves = elapsed as f64 / BANDWIDTH_HALF_LIFE.as_millis() as f64;
        (f64::from_bits(self.moved.load(Ordering::Relaxed)) * (-halves).exp2()).floor()
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
