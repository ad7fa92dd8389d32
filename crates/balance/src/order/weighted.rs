//! At random, in proportion to weight.

use crate::endpoint_set::Member;

/// The sums of the weights up to each member, which a number drawn below the last falls into.
#[derive(Debug)]
pub(crate) struct Weighted(Box<[u64]>);

impl Weighted {
    pub(crate) fn new(members: &[Member]) -> Self {
        let all_zero = members.iter().all(|member| member.weight == 0);
        let weights = members.iter().map(|member| member.weight);
        Self::of(weights.map(|weight| if all_zero { 1 } else { weight }))
    }

    /// By these weights, of which one is more than zero.
    pub(crate) fn of(weights: impl Iterator<Item = u64>) -> Self {
        let mut sum = 0;
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self(sums.collect())
    }

    /// The member for these random bits.
    pub(crate) fn draw(&self, bits: u64) -> usize {
        let total = self.0.last().copied().unwrap_or(1);
        // As even as the bits are, for totals far below 2^64. Drawn from [0, total): RFC 2782's [0, total] favours the first.
        let drawn = ((u128::from(bits) * u128::from(total)) >> 64) as u64;
        self.0.partition_point(|sum| *sum <= drawn)
    }
}
