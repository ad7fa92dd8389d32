//! The endpoints of a cluster as the picker sees them, and the state of each that outlives any update.

use routing_table::{Endpoint, Serving};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// One endpoint. Kept by address across updates, so whatever is learnt about it survives them.
#[derive(Debug)]
pub struct EndpointState {
    addr: SocketAddr,
    /// Requests in progress that asked to be counted.
    in_flight: AtomicU32,
    /// Until when it is passed over, in milliseconds since any fixed moment, because it could not be connected to.
    passed_over_until: AtomicU64,
}

impl EndpointState {
    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Counts one more request in progress, unless there are as many as `limit` already. [`EndpointState::leave`] ends it.
    pub fn try_enter(&self, limit: u32) -> bool {
        // Relaxed: the number itself is all that is shared.
        let entered = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < limit).then_some(count + 1)
            });
        entered.is_ok()
    }

    /// Ends a request that was counted.
    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests in progress that are counted.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Passes it over until this time (since the moment that all callers count from), while there are others.
    pub fn pass_over_until(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.passed_over_until.store(millis, Ordering::Relaxed);
    }

    /// Whether it is passed over.
    pub fn is_passed_over(&self, now: Duration) -> bool {
        let until = self.passed_over_until.load(Ordering::Relaxed);
        until != 0 && u128::from(until) > now.as_millis()
    }
}

/// All endpoints of a cluster at one moment, those that should get requests first.
#[derive(Debug, Default)]
pub struct EndpointSet {
    all: Vec<Arc<EndpointState>>,
    /// How many of `all`, from the front, get requests.
    eligible: usize,
}

impl EndpointSet {
    /// The set for these endpoints. State is taken over from `previous` by address. Draining endpoints get requests only
    /// when no endpoint is ready.
    pub fn new(endpoints: &[Endpoint], previous: &EndpointSet) -> Self {
        let known: std::collections::HashMap<SocketAddr, &Arc<EndpointState>> = previous
            .all
            .iter()
            .map(|state| (state.addr, state))
            .collect();
        let mut sorted: Vec<&Endpoint> = endpoints.iter().collect();
        sorted.sort_by_key(|endpoint| (endpoint.serving, endpoint.addr));
        sorted.dedup_by_key(|endpoint| endpoint.addr);
        let all = sorted
            .iter()
            .map(|endpoint| match known.get(&endpoint.addr) {
                Some(state) => Arc::clone(state),
                None => Arc::new(EndpointState {
                    addr: endpoint.addr,
                    in_flight: AtomicU32::new(0),
                    passed_over_until: AtomicU64::new(0),
                }),
            })
            .collect();
        let ready = sorted
            .iter()
            .filter(|endpoint| endpoint.serving == Serving::Ready)
            .count();
        Self {
            all,
            eligible: if ready > 0 { ready } else { sorted.len() },
        }
    }

    /// The endpoints that get requests.
    pub fn eligible(&self) -> &[Arc<EndpointState>] {
        &self.all[..self.eligible]
    }

    /// Every endpoint, also those that only finish what they have.
    pub fn all(&self) -> &[Arc<EndpointState>] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn endpoint(port: u16, serving: Serving) -> Endpoint {
        Endpoint {
            addr: SocketAddr::from(([10, 0, 0, 1], port)),
            serving,
        }
    }

    fn ports(states: &[Arc<EndpointState>]) -> Vec<u16> {
        states.iter().map(|state| state.addr().port()).collect()
    }

    #[test]
    fn draining_endpoints_are_used_only_when_nothing_is_ready() {
        let none = EndpointSet::default();
        let mixed = EndpointSet::new(
            &[endpoint(1, Serving::Draining), endpoint(2, Serving::Ready)],
            &none,
        );
        assert_eq!(ports(mixed.eligible()), [2]);
        assert_eq!(ports(mixed.all()), [2, 1]);
        let only = EndpointSet::new(&[endpoint(1, Serving::Draining)], &none);
        assert_eq!(ports(only.eligible()), [1]);
        assert!(EndpointSet::new(&[], &only).eligible().is_empty());
    }

    #[test]
    fn state_is_kept_by_address() {
        let before = EndpointSet::new(
            &[endpoint(1, Serving::Ready), endpoint(2, Serving::Ready)],
            &EndpointSet::default(),
        );
        let after = EndpointSet::new(
            &[endpoint(2, Serving::Draining), endpoint(3, Serving::Ready)],
            &before,
        );
        let kept = after
            .all()
            .iter()
            .find(|state| state.addr().port() == 2)
            .unwrap();
        assert!(Arc::ptr_eq(kept, &before.all()[1]));
    }

    #[test]
    fn the_same_address_twice_counts_once() {
        let set = EndpointSet::new(
            &[endpoint(1, Serving::Draining), endpoint(1, Serving::Ready)],
            &EndpointSet::default(),
        );
        assert_eq!(ports(set.all()), [1]);
        assert_eq!(set.eligible().len(), 1);
    }
}
