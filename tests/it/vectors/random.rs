//! Random numbers that can be had again: the seed is printed, and `TIDEGATE_SEED` sets it.

use std::hash::BuildHasher;

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    /// `TIDEGATE_SEED`, or one that differs from run to run.
    pub(crate) fn seed() -> u64 {
        let given = std::env::var("TIDEGATE_SEED").ok();
        given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            // The standard library seeds its hash tables at random.
            std::hash::RandomState::new().hash_one("seed") >> 16
        })
    }

    /// Its own sequence for each name, so that one row can be run alone with the same numbers.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mixed = name.bytes().fold(seed, |seed, byte| {
            seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
        });
        Self(mixed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
