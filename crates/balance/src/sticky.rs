//! Which endpoint a client had last, for as long as it is not silent for too long.
//!
//! Only where a policy asks for it, so a lock is taken by its requests alone: one of many, for the time of a look. Who the
//! client gets when nothing is remembered is up to the order of the cluster.

use crate::endpoint_state::millis;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most clients that are remembered.
pub const MOST: usize = 100_000;
/// Parts, each with a lock of its own.
const SHARDS: usize = 64;
/// Clients that were silent for too long are forgotten at this many for each that is new, so that the table shrinks again.
const SWEEP: usize = 2;

/// The clients of one cluster.
#[derive(Debug)]
pub struct Sticky {
    shards: Box<[Mutex<Shard>]>,
    /// Most clients of a shard.
    most: usize,
}

#[derive(Debug, Default)]
struct Shard {
    clients: HashMap<u64, Client>,
    /// Each client once, with when it was seen last at the time of its entry: the first is the oldest, unless it has been seen
    /// since.
    queue: VecDeque<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    /// [`crate::order::hashed::digest`] of its endpoint.
    place: u64,
    /// In milliseconds.
    seen: u64,
}

impl Default for Sticky {
    fn default() -> Self {
        Self::holding(MOST)
    }
}

impl Sticky {
    /// Remembers so many clients, about: each shard has its part.
    fn holding(most: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            most: (most / SHARDS).max(1),
        }
    }

    /// The endpoint of the client with this hash, unless it was silent for longer than `keep`. It is not silent any more.
    pub fn place(&self, client: u64, keep: Duration, now: Duration) -> Option<u64> {
        let (keep, now) = (millis(keep), millis(now));
        let mut shard = self.shard(client);
        let known = shard.clients.get_mut(&client)?;
        if now.saturating_sub(known.seen) > keep {
            return None;
        }
        known.seen = known.seen.max(now);
        Some(known.place)
    }

    /// Remembers the client's endpoint from now on.
    pub fn remember(&self, client: u64, place: u64, keep: Duration, now: Duration) {
        let (keep, now) = (millis(keep), millis(now));
        let mut shard = self.shard(client);
        if let Some(known) = shard.clients.get_mut(&client) {
            *known = Client { place, seen: now };
            return;
        }
        for _ in 0..SWEEP {
            shard.forget_first(|seen| now.saturating_sub(seen) > keep);
        }
        while shard.clients.len() >= self.most {
            shard.forget_first(|_| true);
        }
        shard.clients.insert(client, Client { place, seen: now });
        shard.queue.push_back((client, now));
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| lock(shard).clients.len()).sum()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, client: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[(client % SHARDS as u64) as usize])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// Forgets the client at the front if it was seen last when this says so; one that was seen since it was put there goes to
    /// the end instead.
    fn forget_first(&mut self, goes: impl Fn(u64) -> bool) {
        let Some((client, queued)) = self.queue.pop_front() else {
            return;
        };
        let Some(known) = self.clients.get(&client) else {
            return;
        };
        if known.seen > queued {
            self.queue.push_back((client, known.seen));
        } else if goes(known.seen) {
            self.clients.remove(&client);
        } else {
            self.queue.push_front((client, queued));
        }
    }
}

#[cfg(test)]
#[path = "tests/sticky.rs"]
mod tests;
