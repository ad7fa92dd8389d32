//! A cluster as the data plane runs it: its endpoints, and the state that outlives tables.

use crate::error::ProxyError;
use crate::health::Transitions;
use crate::judge::Judge;
use crate::outstanding::Outstanding;
use crate::publish::Replica;
use crate::request_body::RequestBody;
use crate::wishes::cost_of_byte;
use arc_swap::ArcSwap;
use balance::order::hashed::digest;
use balance::{Ask, EndpointSet, EndpointState, Here, NoPick, Picked, Picker, Seat, Sticky};
use http::StatusCode;
use http::header::{self, HeaderMap};
use routing_table::policy::Balancing;
use routing_table::{ClusterId, Endpoint, InFlightLimit, Policy};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

const MINUTE: Duration = Duration::from_secs(60);
/// The longest that an endpoint is spared because it says so.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// One cluster. It stays the same value for as long as consecutive tables have the cluster.
#[derive(Debug)]
pub(crate) struct Upstream {
    id: ClusterId,
    endpoints: ArcSwap<EndpointSet>,
    /// What the set was made of. Locked to make another, never to pick.
    declared: Mutex<Vec<Endpoint>>,
    picker: Picker,
    /// Made by the first request of a policy that wants to know who had which endpoint.
    sticky: OnceLock<Box<Sticky>>,
    here: Arc<Here>,
    transitions: Arc<Transitions>,
    /// Locked while one is put into effect: see [`crate::judge`].
    verdicts: Mutex<()>,
    /// Endpoints that are gone from their source while requests are still at them; to be shown.
    leaving: Mutex<Vec<(Endpoint, Arc<EndpointState>)>>,
    /// Requests that wait for an endpoint.
    waiting: AtomicU32,
    /// Told when an endpoint may have room again.
    freed: Notify,
}

impl Upstream {
    /// A cluster without endpoints.
    pub(crate) fn new(
        id: ClusterId,
        policy: Arc<Policy>,
        replica: &Replica,
        transitions: Arc<Transitions>,
    ) -> Self {
        let none = EndpointSet::new(
            &[],
            &policy,
            &EndpointSet::default(),
            &replica.here,
            Duration::ZERO,
        );
        Self {
            id,
            endpoints: ArcSwap::from_pointee(none),
            declared: Mutex::default(),
            picker: Picker::new(replica.workers),
            sticky: OnceLock::new(),
            here: Arc::clone(&replica.here),
            transitions,
            verdicts: Mutex::default(),
            leaving: Mutex::default(),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> &ClusterId {
        &self.id
    }

    /// Makes these its endpoints; state is kept by address. `now` is [`crate::worker::Worker::now`], here and below.
    pub(crate) fn set_endpoints(&self, endpoints: &[Endpoint], now: Duration) {
        let mut declared = self.declared();
        if *declared != endpoints {
            *declared = endpoints.to_vec();
            let before = self.endpoints();
            self.make_set(&declared, &self.policy(), now);
            let there: HashSet<SocketAddr> = endpoints.iter().map(|one| one.addr).collect();
            let gone = before
                .known()
                .filter(|(endpoint, _)| !there.contains(&endpoint.addr))
                .map(|(endpoint, state)| (endpoint.clone(), Arc::clone(state)));
            let mut leaving = self.locked_leaving();
            leaving.extend(gone);
            leaving.retain(|(_, state)| state.in_flight() > 0);
        }
    }

    /// Endpoints that are gone from their source, as long as requests are at them.
    pub(crate) fn leaving(&self) -> Vec<(Endpoint, Arc<EndpointState>)> {
        let mut leaving = self.locked_leaving();
        leaving.retain(|(_, state)| state.in_flight() > 0);
        leaving.clone()
    }

    fn locked_leaving(&self) -> MutexGuard<'_, Vec<(Endpoint, Arc<EndpointState>)>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this its policy.
    pub(crate) fn set_policy(&self, policy: &Arc<Policy>, now: Duration) {
        let declared = self.declared();
        if self.policy() != *policy {
            self.make_set(&declared, policy, now);
            drop(declared);
            self.pardon(policy, now);
        }
    }

    /// Looks at the state of its endpoints again: something was learnt of one of them.
    pub(crate) fn refresh(&self, now: Duration) {
        self.make_set(&self.declared(), &self.policy(), now);
    }

    /// Where its transitions are counted.
    pub(crate) fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    /// Its policy.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(self.endpoints.load().policy())
    }

    /// For as long as this is held nobody else's verdict is put into effect.
    pub(crate) fn verdicts(&self) -> MutexGuard<'_, ()> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn declared(&self) -> MutexGuard<'_, Vec<Endpoint>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Upstream::refresh`], where somebody's time is up. For one thread, now and then.
    pub(crate) fn refresh_if_due(&self, now: Duration) {
        let (due, judges) = {
            let set = self.endpoints.load();
            (set.changes_at().is_some_and(|at| at <= now), set.judges())
        };
        if due {
            self.refresh(now);
        }
        if judges {
            self.judge(now);
        }
    }

    /// Workers' times are apart by some of their housekeeping's interval. By the time of one that is behind, an endpoint is
    /// still passed over that is back in the set already: then this one would seem to be nothing new, and the endpoint would
    /// stay in for as long as it goes on failing.
    fn no_earlier(&self, now: Duration) -> Duration {
        now.max(self.endpoints.load().made_at())
    }

    /// Puts another set in. Whoever calls holds the lock, so one is made after the other.
    fn make_set(&self, declared: &[Endpoint], policy: &Arc<Policy>, now: Duration) {
        let before = self.endpoints.load();
        let next = EndpointSet::new(declared, policy, &before, &self.here, now);
        self.endpoints.store(Arc::new(next));
        // There may be new ones with room.
        self.freed.notify_waiters();
    }

    /// The endpoint for one attempt that can be made at once.
    ///
    /// # Errors
    /// [`ProxyError::NoEndpoint`], or [`ProxyError::Overloaded`] when all have as many requests as they may.
    pub(crate) fn pick(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Entered, ProxyError> {
        self.try_enter(ask)?.ok_or(ProxyError::Overloaded)
    }

    /// The endpoint for one attempt, one with fewer requests than its limit, which is waited for if it must be.
    ///
    /// # Errors
    /// [`ProxyError::NoEndpoint`], or [`ProxyError::Overloaded`] when too many wait already or it took too long.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        limit: InFlightLimit,
        queued: impl FnOnce(),
    ) -> Result<Entered, ProxyError> {
        // Whoever came first has its turn first.
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Some(entered) = self.try_enter(ask)?
        {
            return Ok(entered);
        }
        let Some(_place) = Place::take(self, limit.queue) else {
            return Err(ProxyError::Overloaded);
        };
        queued();
        let waiting = Box::pin(async {
            loop {
                let freed = self.freed.notified();
                if let Some(entered) = self.try_enter(ask)? {
                    return Ok(entered);
                }
                freed.await;
            }
        });
        match timeout(limit.wait, waiting).await {
            Ok(entered) => entered,
            Err(_) => Err(ProxyError::Overloaded),
        }
    }

    fn try_enter(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Option<Entered>, ProxyError> {
        let set = self.endpoints.load();
        let picked = match (set.policy().sticky_for, ask.hash) {
            (Some(keep), Some(client)) => self.pick_again(&set, ask, client, keep),
            _ => set.pick(&self.picker, ask),
        };
        match picked {
            Ok(picked) => {
                let endpoint = &picked.member.state;
                let judge = set.judges().then(|| {
                    Judge::new(Arc::clone(endpoint), Arc::clone(set.policy()), picked.trial)
                });
                Ok(Some(Entered {
                    upstream: Arc::clone(self),
                    endpoint: Arc::clone(endpoint),
                    seat: picked.seat,
                    cost: ask.cost,
                    cost_of_byte: if ask.cost > 0 {
                        cost_of_byte(set.policy())
                    } else {
                        0
                    },
                    outstanding: None,
                    watches_bytes: false,
                    judge,
                }))
            }
            Err(NoPick::Full) => Ok(None),
            Err(NoPick::Empty) => Err(ProxyError::NoEndpoint),
        }
    }

    /// The endpoint that this client had last, if it can have it. Where that is only full it is remembered all the same.
    fn pick_again<'a>(
        &self,
        set: &'a EndpointSet,
        ask: &Ask<'_>,
        client: u64,
        keep: Duration,
    ) -> Result<Picked<'a>, NoPick> {
        let sticky = self.sticky.get_or_init(Box::default);
        let known = sticky.place(client, keep, ask.now);
        let ask = Ask {
            stay_at: ask.stay_at.or(known),
            ..*ask
        };
        let picked = set.pick(&self.picker, &ask)?;
        let place = digest(picked.member.endpoint.addr);
        let stays = known
            .is_some_and(|known| known == place || (ask.tried.is_empty() && set.has_place(known)));
        if !stays {
            sticky.remember(client, place, keep, ask.now);
        }
        Ok(picked)
    }

    /// Every endpoint.
    pub(crate) fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load_full()
    }
}

/// A request that counts at an endpoint for as long as this lives.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) upstream: Arc<Upstream>,
    endpoint: Arc<EndpointState>,
    seat: Seat,
    /// What it costs, as far as its head told.
    cost: u64,
    cost_of_byte: u64,
    /// What its body makes of that, where there is one.
    outstanding: Option<Rc<Outstanding>>,
    /// The policy wants to know of bytes.
    watches_bytes: bool,
    /// Where its cluster judges endpoints by their requests: see [`crate::judge`].
    pub(crate) judge: Option<Box<Judge>>,
}

impl Entered {
    /// Where to connect to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.endpoint.addr()
    }

    /// Notes the head of its answer, as far as the policy cares.
    pub(crate) fn answered(
        &mut self,
        policy: &Policy,
        status: StatusCode,
        headers: &HeaderMap,
        waited: Duration,
        now: Duration,
    ) {
        self.came(status);
        match policy.balancing {
            Balancing::PeakEwma => self.endpoint.answered(waited, now),
            // Who fails at once is not quick.
            Balancing::LatencyRank if !status.is_server_error() => self.endpoint.took(waited, now),
            Balancing::LeastBandwidth => self.watches_bytes = true,
            _ => {}
        }
        if policy.heeds_retry_after
            && matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            )
            && let Some(wait) = retry_after(headers)
        {
            let now = self.upstream.no_earlier(now);
            if self.endpoint.ease_until(now + wait, now) {
                self.upstream.refresh(now);
            }
        }
    }

    /// Has the bytes of a body that is sent there correct what the request costs.
    pub(crate) fn watch(&mut self, body: &mut RequestBody) {
        if self.cost_of_byte == 0 || body.is_empty() || self.outstanding.is_some() {
            return;
        }
        let declared = body.length().is_some();
        let endpoint = Arc::clone(&self.endpoint);
        let outstanding = Outstanding::new(endpoint, self.cost, self.cost_of_byte, declared);
        body.tell_of_bytes(&outstanding);
        self.outstanding = Some(outstanding);
    }

    /// Notes bytes that have passed, in both directions.
    pub(crate) fn moved(&mut self, bytes: u64, now: Duration) {
        if self.watches_bytes && bytes > 0 {
            self.endpoint.moved(bytes, now);
        }
    }

    /// Lets others go before this endpoint for so long.
    pub(crate) fn pass_over(&self, time: Duration, now: Duration) {
        let now = self.upstream.no_earlier(now);
        if self.endpoint.pass_over_until(now + time, now) {
            self.upstream.refresh(now);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        match &self.outstanding {
            Some(outstanding) => outstanding.leave(self.seat),
            None => self.endpoint.leave(self.cost, self.seat),
        }
        if self.upstream.waiting.load(Ordering::Relaxed) > 0 {
            self.upstream.freed.notify_one();
        }
    }
}

/// How long an endpoint wants to be spared (RFC 9110 section 10.2.3). A date is taken for a minute: only its sender's clock
/// could tell.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = value.parse().map_or(MINUTE, Duration::from_secs);
    Some(wait.min(MOST_RETRY_AFTER)).filter(|wait| !wait.is_zero())
}

/// A place in the queue of an upstream.
struct Place<'a>(&'a Upstream);

impl<'a> Place<'a> {
    fn take(upstream: &'a Upstream, most: u32) -> Option<Self> {
        let taken = upstream
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < most).then_some(count + 1)
            });
        taken.ok().map(|_| Self(upstream))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        // What it was told it may have been told in place of another.
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use routing_table::id::Transport;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn upstream() -> Arc<Upstream> {
        let endpoints: Vec<_> = ["10.0.0.1:80", "10.0.0.2:80"]
            .map(|addr| Endpoint::ready(addr.parse().unwrap()))
            .into();
        let id = ClusterId {
            namespace: "shop".into(),
            service: "web".into(),
            port: 80,
            variant: None,
            transport: Transport::Tcp,
        };
        let replica = Replica {
            clock: crate::clock::Clock::start(),
            here: Arc::default(),
            workers: 1,
        };
        let upstream = Upstream::new(id, Arc::default(), &replica, Arc::default());
        upstream.set_endpoints(&endpoints, MS(0));
        Arc::new(upstream)
    }

    #[test]
    fn a_worker_whose_time_is_behind_takes_out_what_has_just_come_back() {
        let upstream = upstream();
        let members = || upstream.endpoints().members().count();
        let fails = |now| {
            // Always the same one.
            let ask = Ask {
                tried: &["10.0.0.2:80".parse().unwrap()],
                ..Ask::new(now)
            };
            let entered = upstream.pick(&ask).unwrap();
            assert_eq!(entered.addr(), "10.0.0.1:80".parse().unwrap());
            entered.pass_over(MS(1000), now);
        };
        fails(MS(0));
        assert_eq!(members(), 1);
        upstream.refresh_if_due(MS(1000));
        assert_eq!(members(), 2);
        fails(MS(900));
        assert_eq!(members(), 1);
        upstream.refresh_if_due(MS(1999));
        assert_eq!(members(), 1);
        upstream.refresh_if_due(MS(2000));
        assert_eq!(members(), 2);
    }
}
