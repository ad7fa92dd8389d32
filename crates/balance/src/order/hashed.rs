//! The same endpoint for the same hash, on every replica: what an endpoint's place is made of is its address alone.

use super::mix;
use crate::endpoint_set::{Member, Taker};
use std::hash::Hasher;
use std::net::SocketAddr;

/// Places on the ring for the heaviest endpoint.
const PLACES: u64 = 160;
/// Most places on a ring, about.
const MOST_PLACES: u64 = 64 * 1024;
/// Places in a Maglev table: a prime, far above the number of endpoints.
const TABLE: usize = 65_537;

/// A hash of bytes that is the same in every process and on every machine.
pub fn hash(bytes: &[u8]) -> u64 {
    // FNV-1a, and mixed, because its high bits hardly differ for short texts.
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(bytes);
    mix(hasher.finish())
}

/// A number for an endpoint that is the same everywhere and says nothing of its address.
pub fn digest(addr: SocketAddr) -> u64 {
    let ip = match addr.ip() {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        std::net::IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
    hash(&bytes)
}

/// Consistent hashing: who comes next on the ring.
#[derive(Debug)]
pub(crate) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    pub(crate) fn new(members: &[Member]) -> Self {
        let heaviest = members.iter().map(|member| member.weight).max();
        let heaviest = heaviest.filter(|weight| *weight > 0);
        let most = PLACES.min(MOST_PLACES / members.len() as u64).max(1);
        let mut ring: Vec<(u64, u32)> = members
            .iter()
            .enumerate()
            .flat_map(|(index, member)| {
                // In proportion to the heaviest, not to all, so that who stays keeps its places when another goes.
                let places = heaviest.map_or(most, |heaviest| most * member.weight / heaviest);
                let own = digest(member.endpoint.addr);
                (0..places.max(1)).map(move |k| (mix(own ^ mix(k)), index as u32))
            })
            .collect();
        ring.sort_unstable();
        Self(ring.into())
    }

    /// Members from the place of this hash on, once around.
    pub(crate) fn pick(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = self.0.partition_point(|(place, _)| *place < hash);
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|(_, index)| *index as usize)
    }
}

/// Maglev's table (Eisenbud et al., NSDI 2016, section 3.4): every endpoint fills places by a permutation of its own, in turn.
#[derive(Debug)]
pub(crate) struct Maglev(Box<[u32]>);

impl Maglev {
    pub(crate) fn new(members: &[Member]) -> Self {
        const FREE: u32 = u32::MAX;
        let most = members.iter().map(|member| member.weight).max();
        let most = most.filter(|most| *most > 0);
        struct Filler {
            offset: u64,
            skip: u64,
            next: u64,
            /// Turns it has had, in parts of the heaviest's.
            credit: u64,
        }
        let mut fillers: Vec<Filler> = members
            .iter()
            .map(|member| {
                let own = digest(member.endpoint.addr);
                Filler {
                    offset: own % TABLE as u64,
                    skip: mix(own) % (TABLE as u64 - 1) + 1,
                    next: 0,
                    credit: 0,
                }
            })
            .collect();
        let mut table = vec![FREE; TABLE];
        let mut free = TABLE;
        while free > 0 {
            for (index, filler) in fillers.iter_mut().enumerate() {
                if let Some(most) = most {
                    filler.credit += members[index].weight;
                    if filler.credit < most {
                        continue;
                    }
                    filler.credit -= most;
                }
                let place = loop {
                    let place = (filler.offset + filler.next * filler.skip) % TABLE as u64;
                    filler.next += 1;
                    if table[place as usize] == FREE {
                        break place as usize;
                    }
                };
                table[place] = index as u32;
                free -= 1;
                if free == 0 {
                    break;
                }
            }
        }
        Self(table.into())
    }

    pub(crate) fn pick(&self, hash: u64) -> usize {
        self.0[(hash % TABLE as u64) as usize] as usize
    }
}

/// Highest random weight: every member draws a number for this hash, the highest has it. Weighted as in "weighted rendezvous".
pub(super) fn rendezvous(members: &[Member], hash: u64, taker: &Taker<'_>) -> Option<usize> {
    let score = |member: &Member| {
        let bits = mix(digest(member.endpoint.addr) ^ hash) >> 11;
        // In (0, 1): 53 bits are what a float holds.
        let drawn = (bits as f64 + 0.5) / (1u64 << 53) as f64;
        member.weight.max(1) as f64 / -drawn.ln()
    };
    let may = (0..members.len()).filter(|index| taker.may(&members[*index]));
    may.max_by(|a, b| score(&members[*a]).total_cmp(&score(&members[*b])))
}
