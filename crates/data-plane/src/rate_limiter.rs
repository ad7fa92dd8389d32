//! Remembers how often each client has asked, for the rate limits of one object, exactly and over all workers.
//!
//! For each address there is one time: until when its allowance is used up (GCRA, the leaky bucket as a clock). It is kept in
//! shards, so that workers seldom meet, and under a lock that is held for a look and a store. What is declared is not kept
//! here, so a limit can be changed without forgetting anybody.
//!
//! Memory is bounded: at most [`MOST`] addresses. When they are more, the oldest that is at rest is forgotten, which changes
//! nothing for it; if the oldest few are all in the middle of something, the first of them, which may begin anew.

use foldhash::HashMap;
use routing_table::filter::RateLimit;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most addresses that are remembered.
const MOST: usize = 65_536;
const SHARDS: usize = 16;
const MOST_IN_SHARD: usize = MOST / SHARDS;

/// How many of the oldest are looked at for one that is at rest.
const LOOKS: usize = 8;

/// What is known of the clients of one object.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    /// Until when an address has used up its allowance, in nanoseconds since the data plane started.
    used_until: HashMap<u64, u64>,
    /// All of them, the oldest first.
    by_age: VecDeque<u64>,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl RateLimiter {
    /// Counts a request, unless it is one too many: then it says how long to wait.
    pub(crate) fn admit(
        &self,
        limit: &RateLimit,
        client: IpAddr,
        now: Duration,
    ) -> Result<(), Duration> {
        if limit.exempts(client) {
            return Ok(());
        }
        let key = key(client);
        let shard = &self.shards[shard(key)];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = shard.take(key, limit, nanos(now));
        drop(shard);
        match wait {
            0 => Ok(()),
            wait => Err(Duration::from_nanos(wait)),
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let len = |shard: &Mutex<Shard>| shard.lock().unwrap().used_until.len();
        self.shards.iter().map(len).sum()
    }
}

impl Shard {
    /// How long to wait; 0 if it was counted.
    fn take(&mut self, key: u64, limit: &RateLimit, now: u64) -> u64 {
        let interval = nanos(limit.interval());
        let whole = interval.saturating_mul(u64::from(limit.at_once.max(1)));
        let most = now.saturating_add(whole);
        if let Some(used) = self.used_until.get_mut(&key) {
            // A limit that was lowered just now does not reach further than its own allowance.
            let after = (*used).clamp(now, most).saturating_add(interval);
            if after <= most {
                *used = after;
            }
            return after.saturating_sub(most);
        }
        if self.used_until.len() >= MOST_IN_SHARD {
            self.forget_one(now);
        }
        if let Entry::Vacant(free) = self.used_until.entry(key) {
            free.insert(now.saturating_add(interval));
            self.by_age.push_back(key);
        }
        0
    }

    fn forget_one(&mut self, now: u64) {
        for _ in 1..LOOKS {
            let Some(oldest) = self.by_age.pop_front() else {
                return;
            };
            if self.used_until.get(&oldest).is_none_or(|used| *used <= now) {
                self.used_until.remove(&oldest);
                return;
            }
            self.by_age.push_back(oldest);
        }
        if let Some(oldest) = self.by_age.pop_front() {
            self.used_until.remove(&oldest);
        }
    }
}

/// IPv6 by /64: one customer has as many addresses as it likes.
fn key(client: IpAddr) -> u64 {
    match client {
        // In what would be a multicast network of IPv6, which no client is in.
        IpAddr::V4(client) => 0xffff_ffff_0000_0000 | u64::from(client.to_bits()),
        IpAddr::V6(client) => (client.to_bits() >> 64) as u64,
    }
}

/// Neighbours are spread; who picks addresses for one shard hurts only those in it.
fn shard(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % SHARDS
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "tests/rate_limiter.rs"]
mod tests;
