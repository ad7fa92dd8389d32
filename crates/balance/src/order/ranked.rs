//! By how quick endpoints are: nearly everything goes to the best, a little to the second, and to all others just enough that
//! their answer times are known.

use super::weighted::Weighted;
use crate::endpoint_set::Member;
use std::time::Duration;

/// How often endpoints are ranked.
pub(crate) const RANKING: Duration = Duration::from_secs(2);

/// Weight of the best and of the second; others have none.
const BEST: u64 = 256;
const SECOND: u64 = 1;
/// All but the best share one of so many requests on top, so that their answer times are known.
const PROBES: u64 = 100;
/// Weights of endpoints above this are taken for it, so that no sum overflows.
const MOST_WEIGHT: u64 = 1_000_000;

/// Shares of these members, whose answer times are given where they are known.
pub(crate) fn ranked(members: &[Member], now: Duration) -> Weighted {
    let known = members.iter().map(|member| member.state.p90(now));
    let shares = shares(&known.collect::<Vec<_>>());
    let own = members
        .iter()
        .map(|member| member.weight.clamp(1, MOST_WEIGHT));
    Weighted::of(own.zip(shares).map(|(weight, share)| weight * share))
}

/// The share of each; equal ones until one of them is known. What is not known yet is behind all that is.
fn shares(took: &[Option<u32>]) -> Vec<u64> {
    if took.iter().all(Option::is_none) || took.len() == 1 {
        return vec![1; took.len()];
    }
    let mut ranks: Vec<usize> = (0..took.len()).collect();
    // Stable: of equals the first in the set goes before.
    ranks.sort_by_key(|index| took[*index].unwrap_or(u32::MAX));
    let others = took.len() as u64 - 1;
    // In units that make the least share, of one probe, a whole number.
    let mut shares = vec![BEST + SECOND; took.len()];
    shares[ranks[0]] = BEST * PROBES * others;
    if took[ranks[1]].is_some() {
        shares[ranks[1]] += SECOND * PROBES * others;
    }
    shares
}

#[cfg(test)]
#[path = "../tests/ranked.rs"]
mod tests;
