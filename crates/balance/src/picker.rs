//! Round robin: each endpoint in turn, exact over all threads.

use crate::endpoint_set::{EndpointSet, EndpointState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The position of one cluster's round. It outlives endpoint sets and tables, so an update does not start over.
#[derive(Debug, Default)]
pub struct Picker {
    next: AtomicU64,
}

impl Picker {
    /// The endpoint for one request: the next in turn. The first pick of a cluster is its first endpoint.
    pub fn pick<'a>(&self, set: &'a EndpointSet) -> Option<&'a Arc<EndpointState>> {
        self.pick_other(set, &[])
    }

    /// As [`Picker::pick`], passing over endpoints that were tried already; when all were, the next in turn after all.
    pub fn pick_other<'a>(
        &self,
        set: &'a EndpointSet,
        tried: &[SocketAddr],
    ) -> Option<&'a Arc<EndpointState>> {
        let eligible = set.eligible();
        if eligible.is_empty() {
            return None;
        }
        // Relaxed: the number must be unique, nothing else hangs on it.
        let turn = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let in_turn = |offset: usize| &eligible[turn.wrapping_add(offset) % eligible.len()];
        (0..eligible.len())
            .map(in_turn)
            .find(|state| !tried.contains(&state.addr()))
            .or_else(|| Some(in_turn(0)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use routing_table::Endpoint;
    use std::collections::BTreeMap;

    fn set(n: u16) -> EndpointSet {
        let endpoints: Vec<_> = (1..=n)
            .map(|port| Endpoint::ready(([10, 0, 0, 1], port).into()))
            .collect();
        EndpointSet::new(&endpoints, &EndpointSet::default())
    }

    #[test]
    fn the_first_pick_is_the_first_endpoint_and_then_each_in_turn() {
        let (picker, set) = (Picker::default(), set(3));
        let picks: Vec<u16> = (0..7)
            .map(|_| picker.pick(&set).unwrap().addr().port())
            .collect();
        assert_eq!(picks, [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn nothing_to_pick_from() {
        assert!(Picker::default().pick(&set(0)).is_none());
    }

    #[test]
    fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
        let (picker, set) = (Picker::default(), set(2));
        let first = picker.pick(&set).unwrap().addr();
        assert_ne!(picker.pick_other(&set, &[first]).unwrap().addr(), first);
        let all: Vec<_> = set.all().iter().map(|state| state.addr()).collect();
        assert!(picker.pick_other(&set, &all).is_some());
    }

    #[test]
    fn shares_are_exact_over_16_threads() {
        for n in [3, 11, 12] {
            let (picker, set) = (Picker::default(), set(n));
            let per_thread = 900 * usize::from(n);
            let counts = std::sync::Mutex::new(BTreeMap::new());
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| {
                        for _ in 0..per_thread {
                            let port = picker.pick(&set).unwrap().addr().port();
                            *counts.lock().unwrap().entry(port).or_insert(0usize) += 1;
                        }
                    });
                }
            });
            let counts = counts.into_inner().unwrap();
            let total = 16 * per_thread;
            assert_eq!(counts.len(), usize::from(n));
            assert!(
                counts.values().all(|c| *c == total / usize::from(n)),
                "{n}: {counts:?}"
            );
        }
    }
}
