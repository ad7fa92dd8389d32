//! The endpoints of a cluster as requests see them: who may get some, in which tiers, and in which order.
//!
//! A set is made when something changes (endpoints, health, weights) and is then only read. What a request costs does not
//! depend on how many endpoints are down: they are not in any tier.

use crate::breaker::{Phase, Trial};
use crate::endpoint_state::{Bar, EndpointState, Seat};
use crate::here::Here;
use crate::order::hashed::digest;
use crate::order::ranked::RANKING;
use crate::order::{Order, mix};
use crate::picker::Picker;
use crate::zone::Nearness;
use routing_table::policy::Balancing;
use routing_table::{Endpoint, Policy, Serving};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What an endpoint begins its slow start with, and has while it wants less, in percent of its share.
const LITTLE: u64 = 10;
/// In how many steps an endpoint rises during its slow start.
const STEPS: u32 = 10;

/// One endpoint in one set.
#[derive(Debug)]
pub struct Member {
    /// As it was declared.
    pub endpoint: Endpoint,
    /// What is known of it; outlives the set.
    pub state: Arc<EndpointState>,
    /// Its share among those of its tier: 100 times the declared weight, unless it has less at the moment.
    pub weight: u64,
}

/// Members that get requests at the same time.
#[derive(Debug)]
struct Tier {
    members: Vec<Member>,
    order: Order,
}

/// All endpoints of a cluster at one moment.
#[derive(Debug, Default)]
pub struct EndpointSet {
    all: Vec<Arc<EndpointState>>,
    /// As they were declared, in the same order.
    declared: Vec<Endpoint>,
    /// The first that has room gets the request.
    tiers: Vec<Tier>,
    /// Nearly always none: those whose breaker lets one request try.
    trials: Vec<Member>,
    policy: Arc<Policy>,
    judges: bool,
    made_at: Duration,
    changes_at: Option<Duration>,
    in_panic: bool,
}

/// What one request asks of a set.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Endpoints that were tried already: they get it only when there is no other.
    pub tried: &'a [SocketAddr],
    /// Most requests in progress at one endpoint.
    pub limit: u32,
    /// Hash of what the policy hashes on, where the request has it.
    pub hash: Option<u64>,
    /// [`digest`] of the endpoint it should stay at.
    pub stay_at: Option<u64>,
    /// What it costs while it is in progress.
    pub cost: u64,
    /// The number of the worker that asks. No two threads may ask with the same one at a time.
    pub worker: usize,
    /// The time.
    pub now: Duration,
}

impl Ask<'_> {
    /// A request without wishes.
    pub fn new(now: Duration) -> Self {
        Self {
            tried: &[],
            limit: u32::MAX,
            hash: None,
            stay_at: None,
            cost: 0,
            worker: 0,
            now,
        }
    }
}

/// Why no endpoint can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// There is none.
    Empty,
    /// All have as many requests in progress as they may.
    Full,
}

/// An endpoint, and where the request is counted there.
#[derive(Debug)]
pub struct Picked<'a> {
    /// The endpoint.
    pub member: &'a Member,
    /// For [`EndpointState::leave`], which ends the request.
    pub seat: Seat,
    /// It is the one request that tries an endpoint whose breaker was open.
    pub trial: Option<Trial>,
}

impl Picked<'_> {
    /// Ends the request; `cost` is what is left of its cost.
    pub fn leave(self, cost: u64) {
        if let Some(trial) = self.trial {
            self.member.state.conduct().breaker.give_back(trial);
        }
        self.member.state.leave(cost, self.seat);
    }
}

impl EndpointSet {
    /// The set for these endpoints by this policy. State is taken over from `previous` by address; `here` is the replica
    /// that will pick.
    pub fn new(
        endpoints: &[Endpoint],
        policy: &Arc<Policy>,
        previous: &EndpointSet,
        here: &Here,
        now: Duration,
    ) -> Self {
        let states = states(endpoints, policy, previous, now);
        let all: Vec<_> = states.iter().map(|(_, state)| Arc::clone(state)).collect();
        let declared = states.iter().map(|(endpoint, _)| (*endpoint).clone());
        let declared = declared.collect();
        let mut changes_at = None;
        let mut changes = |at: Duration| {
            changes_at = Some(changes_at.map_or(at, |known: Duration| known.min(at)));
        };
        all.iter()
            .flat_map(|state| [state.passed_over_until(), state.eased_until()])
            .filter(|until| *until > now)
            .for_each(&mut changes);
        if policy.balancing == Balancing::LatencyRank {
            changes(now + RANKING);
        }
        let trials = trials(&states, policy, now);
        let known = states.iter();
        let known = known.map(|(endpoint, state)| {
            let has_share = endpoint.weight > 0 && state.weight_percent() > 0;
            (*endpoint, has_share && state.is_available(now))
        });
        let nearness = Nearness::new(known, policy, here);
        let (mut usable, in_panic) = usable(states, policy, now);
        if let Some(most) = policy.subset {
            usable.sort_by_cached_key(|(endpoint, _)| {
                let drawn = mix(digest(endpoint.addr) ^ here.number);
                (nearness.is_far(endpoint), drawn)
            });
            usable.truncate(most.max(1) as usize);
            usable.sort_by_cached_key(|(endpoint, _)| rank(endpoint));
        }
        let members: Vec<Member> = usable
            .into_iter()
            .map(|(endpoint, state)| {
                let weight = weight(endpoint, &state, policy, now, &mut changes);
                Member {
                    endpoint: endpoint.clone(),
                    state,
                    weight,
                }
            })
            .collect();
        let tiers = tiers(members, policy, nearness, here, now);
        Self {
            all,
            declared,
            tiers,
            trials,
            judges: policy.judges_traffic(),
            policy: Arc::clone(policy),
            made_at: now.max(previous.made_at),
            changes_at,
            in_panic,
        }
    }

    /// The endpoint for one request, which is counted there from now on.
    ///
    /// The first tier with room has it. Those who were tried get it only when there is no other. Before all, an endpoint whose
    /// breaker lets one request try has one, but none that has its place elsewhere.
    ///
    /// # Errors
    /// See [`NoPick`].
    pub fn pick(&self, picker: &Picker, ask: &Ask<'_>) -> Result<Picked<'_>, NoPick> {
        if !self.trials.is_empty()
            && let Some(trial) = self.pick_trial(ask)
        {
            return Ok(trial);
        }
        if self.tiers.is_empty() {
            return Err(NoPick::Empty);
        }
        let order = &self.tiers[0].order;
        let turn = picker.turn(
            ask.worker,
            order.cycle(self.tiers[0].members.len()),
            ask.now,
        );
        // What is compared has to be counted in one place.
        let seat = match turn.is_busy && !order.compares() {
            true => Seat::Own(ask.worker),
            false => Seat::Shared,
        };
        let mut taker = Taker {
            ask,
            accepts_tried: false,
            seat: Cell::new(seat),
        };
        let picked = |member, taker: &Taker<'_>| Picked {
            member,
            seat: taker.seat.get(),
            trial: None,
        };
        if let Some(place) = ask.stay_at {
            let stays = self.member_at(place);
            if let Some(member) = stays.filter(|member| taker.take(member)) {
                return Ok(picked(member, &taker));
            }
        }
        loop {
            for tier in &self.tiers {
                if let Some(index) = tier.order.pick(&tier.members, turn.number, &taker) {
                    return Ok(picked(&tier.members[index], &taker));
                }
            }
            if ask.tried.is_empty() || taker.accepts_tried {
                return Err(NoPick::Full);
            }
            taker.accepts_tried = true;
        }
    }

    fn member_at(&self, place: u64) -> Option<&Member> {
        self.members()
            .find(|member| digest(member.endpoint.addr) == place)
    }

    /// Whether the endpoint of this [`digest`] gets requests.
    pub fn has_place(&self, place: u64) -> bool {
        self.member_at(place).is_some()
    }

    fn pick_trial(&self, ask: &Ask<'_>) -> Option<Picked<'_>> {
        if ask
            .stay_at
            .is_some_and(|place| self.member_at(place).is_some())
        {
            return None;
        }
        let taker = Taker {
            ask,
            accepts_tried: false,
            seat: Cell::new(Seat::Shared),
        };
        self.trials.iter().find_map(|member| {
            if !taker.may(member) {
                return None;
            }
            let breaker = &member.state.conduct().breaker;
            let trial = breaker.try_trial(ask.now)?;
            if !taker.take(member) {
                breaker.give_back(trial);
                return None;
            }
            Some(Picked {
                member,
                seat: taker.seat.get(),
                trial: Some(trial),
            })
        })
    }

    /// Whether what becomes of its requests has to be remembered: see [`EndpointState::conduct`].
    pub fn judges(&self) -> bool {
        self.judges
    }

    /// Every endpoint, also those that get nothing.
    pub fn all(&self) -> &[Arc<EndpointState>] {
        &self.all
    }

    /// Every endpoint as it was declared, with what is known of it.
    pub fn known(&self) -> impl Iterator<Item = (&Endpoint, &Arc<EndpointState>)> {
        self.declared.iter().zip(&self.all)
    }

    /// Those that get requests, the tier that gets them first in front.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.tiers.iter().flat_map(|tier| &tier.members)
    }

    /// The policy it was made by.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The latest time by which it, or one before it, was made.
    pub fn made_at(&self) -> Duration {
        self.made_at
    }

    /// When the set has to be made anew even if nothing happens: somebody's time is up then.
    pub fn changes_at(&self) -> Option<Duration> {
        self.changes_at
    }

    /// Whether so few are available that health is ignored.
    pub fn is_in_panic(&self) -> bool {
        self.in_panic
    }
}

/// Decides whether a member may have a request, and enters it there.
pub(crate) struct Taker<'a> {
    pub(crate) ask: &'a Ask<'a>,
    accepts_tried: bool,
    /// Where it is counted without a limit; once it is entered, where it is counted.
    seat: Cell<Seat>,
}

impl Taker<'_> {
    fn limit(&self, member: &Member) -> u32 {
        let declared = member.endpoint.max_requests.unwrap_or(u32::MAX);
        self.ask.limit.min(declared).min(member.state.most())
    }

    fn is_wanted(&self, member: &Member) -> bool {
        self.accepts_tried || !self.ask.tried.contains(&member.endpoint.addr)
    }

    /// Whether it may have it, at this moment.
    pub(crate) fn may(&self, member: &Member) -> bool {
        self.is_wanted(member) && member.state.has_room(self.limit(member))
    }

    /// Enters it there if it may have it.
    pub(crate) fn take(&self, member: &Member) -> bool {
        if !self.is_wanted(member) {
            return false;
        }
        let limit = self.limit(member);
        let entered = member
            .state
            .try_enter(limit, self.ask.cost, self.seat.get());
        entered.inspect(|seat| self.seat.set(*seat)).is_some()
    }
}

type Known<'a> = (&'a Endpoint, Arc<EndpointState>);

/// The order of endpoints of one kind: what comes first among equals does not depend on the order they came in.
fn rank(endpoint: &Endpoint) -> (u16, Option<Arc<str>>, SocketAddr) {
    (endpoint.priority, endpoint.name.clone(), endpoint.addr)
}

/// Each endpoint once, ready ones first, with what is known of it.
fn states<'a>(
    endpoints: &'a [Endpoint],
    policy: &Policy,
    previous: &EndpointSet,
    now: Duration,
) -> Vec<Known<'a>> {
    let known: HashMap<SocketAddr, &Arc<EndpointState>> = previous
        .all
        .iter()
        .map(|state| (state.addr(), state))
        .collect();
    let mut sorted: Vec<&Endpoint> = endpoints.iter().collect();
    sorted.sort_by_cached_key(|endpoint| (endpoint.serving, rank(endpoint)));
    let mut seen = HashSet::new();
    sorted.retain(|endpoint| seen.insert(endpoint.addr));
    let check = policy.active_check.as_ref();
    let is_barred = check.is_some_and(|check| !check.starts_healthy);
    sorted
        .into_iter()
        .map(|endpoint| match known.get(&endpoint.addr) {
            Some(state) => (endpoint, Arc::clone(state)),
            None => {
                let state = EndpointState::new(endpoint.addr, now);
                if is_barred {
                    state.bar_because(Bar::Probe, "not checked yet", now);
                }
                (endpoint, Arc::new(state))
            }
        })
        .collect()
}

/// Those whose breaker lets one request try, and that would get requests without it.
fn trials(known: &[Known<'_>], policy: &Policy, now: Duration) -> Vec<Member> {
    if policy.breaker.is_none() {
        return Vec::new();
    }
    let may_try = |(endpoint, state): &&Known<'_>| {
        endpoint.serving == Serving::Ready
            && endpoint.weight > 0
            && state.has_only(Bar::Breaker, now)
            && state.conduct().breaker.phase() == Phase::HalfOpen
    };
    let member = |(endpoint, state): &Known<'_>| Member {
        endpoint: (*endpoint).clone(),
        state: Arc::clone(state),
        weight: 0,
    };
    known.iter().filter(may_try).map(member).collect()
}

/// Those that may get requests, and whether that is in spite of their health: of the ready ones those that are available, or
/// all when too few are; of the draining ones when there is no other. Those that were drained, or whose breaker is open, are
/// not among them even then: for the latter that nobody asks is what it is for.
fn usable<'a>(known: Vec<Known<'a>>, policy: &Policy, now: Duration) -> (Vec<Known<'a>>, bool) {
    let (ready, draining): (Vec<_>, Vec<_>) = known
        .into_iter()
        .filter(|(_, state)| !state.is_drained() && !state.has(Bar::Breaker))
        .partition(|(endpoint, _)| endpoint.serving == Serving::Ready);
    for group in [ready, draining] {
        if group.is_empty() {
            continue;
        }
        let available = group
            .iter()
            .filter(|(_, state)| state.is_available(now))
            .count();
        let too_few = available * 100 < group.len() * usize::from(policy.panic_threshold);
        if available == 0 || too_few {
            return (group, true);
        }
        let (up, _): (Vec<_>, Vec<_>) = group
            .into_iter()
            .partition(|(_, state)| state.is_available(now));
        return (up, false);
    }
    (Vec::new(), false)
}

/// The share of a member at this moment; tells when it will be another.
fn weight(
    endpoint: &Endpoint,
    state: &EndpointState,
    policy: &Policy,
    now: Duration,
    changes: &mut impl FnMut(Duration),
) -> u64 {
    let mut percent = u64::from(state.weight_percent());
    if let Some(whole) = policy.slow_start {
        let age = now.saturating_sub(state.since());
        if age < whole {
            let step = (age.as_secs_f64() / whole.as_secs_f64() * f64::from(STEPS)) as u32;
            changes(state.since() + whole * (step + 1) / STEPS);
            percent = percent * u64::from(step.max(1)) / u64::from(STEPS);
        }
    }
    if policy.heeds_retry_after && state.eased_until() > now {
        percent = percent * LITTLE / 100;
    }
    // Whoever has some weight keeps some.
    let least = u64::from(state.weight_percent() > 0 && endpoint.weight > 0);
    (u64::from(endpoint.weight) * percent).max(least)
}

/// Members by priority, in each the near ones first. In each tier those without weight get nothing, unless nobody has any.
fn tiers(
    mut members: Vec<Member>,
    policy: &Policy,
    nearness: Nearness<'_>,
    here: &Here,
    now: Duration,
) -> Vec<Tier> {
    let one_for_all = policy.balancing == Balancing::SrvPriorityCycle;
    let tier = |member: &Member| {
        let priority = (!one_for_all).then_some(member.endpoint.priority);
        (priority, nearness.is_far(&member.endpoint))
    };
    members.sort_by_key(tier);
    let mut grouped: Vec<Vec<Member>> = Vec::new();
    for member in members {
        match grouped.last_mut() {
            Some(group) if tier(&group[0]) == tier(&member) => group.push(member),
            _ => grouped.push(vec![member]),
        }
    }
    grouped
        .into_iter()
        .map(|mut members| {
            if members.iter().any(|member| member.weight > 0) {
                members.retain(|member| member.weight > 0);
            }
            let order = Order::new(policy, &members, here, now);
            Tier { members, order }
        })
        .collect()
}

#[cfg(test)]
#[path = "tests/endpoint_set.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/many_down.rs"]
mod many_down;
