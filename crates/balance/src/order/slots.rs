//! A cycle of slots: every endpoint has as many as its weight, spread evenly. One counter over all threads walks through it,
//! so shares are exact.

use crate::endpoint_set::Member;

/// Most slots of a cycle; larger weights are scaled down to it.
const MOST: u64 = 16 * 1024;

/// Positions of members, in the order of their turns.
#[derive(Debug)]
pub(crate) struct Slots(Box<[u32]>);

/// Whether all have the same weight.
pub(crate) fn are_even(members: &[Member]) -> bool {
    members.windows(2).all(|two| two[0].weight == two[1].weight)
}

impl Slots {
    /// Smooth weighted round robin.
    pub(crate) fn round_robin(members: &[Member]) -> Self {
        let shares = shares(members);
        Self(cycle(shares.iter().copied().enumerate()).into())
    }

    /// The priorities one after the other, lowest first; smooth weighted round robin in each.
    pub(crate) fn priority_cycle(members: &[Member]) -> Self {
        let shares = shares(members);
        let mut slots = Vec::new();
        let mut first = 0;
        // Members are sorted by priority.
        for group in members.chunk_by(|a, b| a.endpoint.priority == b.endpoint.priority) {
            let of_group = (first..first + group.len()).map(|index| (index, shares[index]));
            slots.extend(cycle(of_group));
            first += group.len();
        }
        Self(slots.into())
    }

    /// Turns of a whole cycle.
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The slots from this turn on, once around at most.
    pub(crate) fn pick(&self, turn: u64) -> impl Iterator<Item = usize> {
        super::in_turn(self.0.len(), turn).map(|slot| self.0[slot] as usize)
    }
}

/// Weights without their common factor; one each where all are zero.
fn shares(members: &[Member]) -> Vec<u64> {
    let total: u64 = members.iter().map(|member| member.weight).sum();
    if total == 0 {
        return vec![1; members.len()];
    }
    let common = members
        .iter()
        .fold(0, |common, member| gcd(common, member.weight));
    let shares = members.iter().map(|member| member.weight / common);
    let total = total / common;
    if total <= MOST {
        return shares.collect();
    }
    // Nobody with a weight is left without a slot.
    shares
        .map(|share| (u128::from(share) * u128::from(MOST) / u128::from(total)) as u64)
        .zip(members)
        .map(|(share, member)| share.max(u64::from(member.weight > 0)))
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Each position as often as its share. The k-th of n slots of a member is due at (k + 1/2) / n of the cycle, so they are
/// spread as evenly as can be; who comes first in the list comes first of those due at the same time.
fn cycle(shares: impl Iterator<Item = (usize, u64)>) -> Vec<u32> {
    let mut due: Vec<(u64, u32)> = shares
        .flat_map(|(index, share)| {
            (0..share).map(move |k| (((2 * k + 1) << 40) / (2 * share), index as u32))
        })
        .collect();
    due.sort_unstable();
    due.into_iter().map(|(_, index)| index).collect()
}
