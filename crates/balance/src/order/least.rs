//! The endpoint with the least of something. Equals take turns.

use super::{in_turn, mix};
use crate::endpoint_set::{Member, Taker};
use crate::endpoint_state::EndpointState;

/// Up to so many endpoints are all looked at; of more, two at random, which comes near for a fraction of the price.
const FEW: usize = 16;

/// Candidates: all of a small tier, else two.
pub(super) fn few(count: usize, turn: u64) -> impl Iterator<Item = usize> {
    let (all, two) = if count <= FEW {
        (Some(in_turn(count, turn)), None)
    } else {
        let (bits, count) = (mix(turn), count as u64);
        let one = bits % count;
        let other = (one + 1 + (bits >> 32) % (count - 1)) % count;
        (None, Some([one as usize, other as usize]))
    };
    all.into_iter().flatten().chain(two.into_iter().flatten())
}

/// The candidate with the least load, in proportion to weight, of those that may have the request.
pub(super) fn least(
    candidates: impl Iterator<Item = usize>,
    members: &[Member],
    taker: &Taker<'_>,
    load: impl Fn(&EndpointState) -> f64,
) -> Option<usize> {
    let may = candidates.filter(|index| taker.may(&members[*index]));
    let loads = may.map(|index| {
        let member = &members[index];
        // One more, so that those without load share by weight.
        let load = (load(&member.state) + 1.0) / member.weight.max(1) as f64;
        (load, index)
    });
    loads
        .reduce(|a, b| if b.0 < a.0 { b } else { a })
        .map(|(_, index)| index)
}
