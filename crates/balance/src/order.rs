//! The order in which the endpoints of one tier get requests: made once for a set of endpoints, asked for every request.
//!
//! A new policy of ours is a file in `order/` with a type of its own, a variant here, and a row in each `match`.

pub mod custom;
pub mod hashed;
pub mod least;
pub mod ranked;
pub mod slots;
pub mod weighted;

use crate::endpoint_set::{Member, Taker};
use crate::endpoint_state::EndpointState;
use crate::here::Here;
use custom::{Arrangement, Choice};
use hashed::{Maglev, Ring};
use routing_table::Policy;
use routing_table::policy::{AffinityMode, Balancing};
use slots::Slots;
use std::time::Duration;
use weighted::Weighted;

/// Members by position in their tier, which must have some.
#[derive(Debug)]
pub(crate) enum Order {
    /// Each in turn.
    Even,
    Slots(Slots),
    Weighted(Weighted),
    LeastRequest,
    LeastConnections,
    PeakEwma,
    LeastBandwidth,
    LeastCost,
    Ring(Ring),
    Maglev(Maglev),
    Rendezvous,
    Custom(Box<dyn Arrangement>),
}

impl Order {
    /// The order of a tier by this policy.
    pub(crate) fn new(policy: &Policy, members: &[Member], here: &Here, now: Duration) -> Self {
        let affinity = policy.affinity.as_ref();
        if affinity.is_some_and(|affinity| affinity.mode == AffinityMode::Balanced) {
            // The cookie is what is hashed.
            return Self::Ring(Ring::new(members));
        }
        match &policy.balancing {
            Balancing::RoundRobin if slots::are_even(members) => Self::Even,
            Balancing::RoundRobin => Self::Slots(Slots::round_robin(members)),
            Balancing::SrvPriorityCycle => Self::Slots(Slots::priority_cycle(members)),
            Balancing::SrvRfc2782 | Balancing::Random => Self::Weighted(Weighted::new(members)),
            Balancing::LatencyRank => Self::Weighted(ranked::ranked(members, now)),
            Balancing::LeastRequest => Self::LeastRequest,
            Balancing::LeastConnections => Self::LeastConnections,
            Balancing::PeakEwma => Self::PeakEwma,
            Balancing::LeastBandwidth => Self::LeastBandwidth,
            Balancing::Cost(_) => Self::LeastCost,
            Balancing::RingHash(_) => Self::Ring(Ring::new(members)),
            Balancing::Maglev(_) => Self::Maglev(Maglev::new(members)),
            Balancing::SourceIp => Self::Rendezvous,
            Balancing::Custom(name) => match here.order(name) {
                Some(order) => Self::Custom(order.arrange(members)),
                // Whoever publishes the table says so.
                None => Self::Even,
            },
        }
    }

    /// How many turns give everybody their share.
    pub(crate) fn cycle(&self, members: usize) -> u64 {
        match self {
            Self::Even => members as u64,
            Self::Slots(slots) => slots.len(),
            _ => 1,
        }
    }

    /// Whether endpoints are compared by what they are doing.
    pub(crate) fn compares(&self) -> bool {
        matches!(
            self,
            Self::LeastRequest
                | Self::LeastConnections
                | Self::PeakEwma
                | Self::LeastBandwidth
                | Self::LeastCost
                | Self::Custom(_)
        )
    }

    /// What they are compared by.
    fn load(&self, state: &EndpointState, now: Duration) -> f64 {
        match self {
            // A microsecond at least, so that those of which nothing is known share by requests in progress.
            Self::PeakEwma => state.latency(now).max(1_000.0) * f64::from(state.in_flight() + 1),
            Self::LeastBandwidth => state.moved_lately(now),
            Self::LeastCost => state.cost() as f64,
            _ => f64::from(state.in_flight()),
        }
    }

    /// The member that gets the request, which is entered there.
    pub(crate) fn pick(&self, members: &[Member], turn: u64, taker: &Taker<'_>) -> Option<usize> {
        let hash = taker.ask.hash;
        let of_all = || in_turn(members.len(), turn);
        let load = |state: &EndpointState| self.load(state, taker.ask.now);
        let take = |index: &usize| taker.take(&members[*index]);
        let chosen = match self {
            Self::Even => None,
            Self::Slots(slots) => slots.pick(turn).find(take),
            Self::Weighted(weighted) => Some(weighted.draw(mix(turn))).filter(take),
            Self::LeastRequest => {
                let few = least::few(members.len(), turn);
                least::least(few, members, taker, load).filter(take)
            }
            Self::LeastConnections | Self::PeakEwma | Self::LeastBandwidth | Self::LeastCost => {
                least::least(of_all(), members, taker, load).filter(take)
            }
            Self::Ring(ring) => hash.and_then(|hash| ring.pick(hash).find(take)),
            Self::Maglev(maglev) => hash.map(|hash| maglev.pick(hash)).filter(take),
            Self::Rendezvous => hash
                .and_then(|hash| hashed::rendezvous(members, hash, taker))
                .filter(take),
            Self::Custom(custom) => {
                let choice = Choice {
                    members,
                    turn,
                    taker,
                };
                let chosen = custom.choose(&choice);
                chosen.filter(|index| *index < members.len()).filter(take)
            }
        };
        // In turn: by policy, or because the one that was chosen cannot take it.
        chosen.or_else(|| of_all().find(take))
    }
}

/// All positions, the one whose turn it is first.
pub(crate) fn in_turn(count: usize, turn: u64) -> impl Iterator<Item = usize> {
    let first = if count == 0 {
        0
    } else {
        (turn % count as u64) as usize
    };
    (first..count).chain(0..first)
}

/// Bits that look random: a number in, each number once (the finalizer of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
