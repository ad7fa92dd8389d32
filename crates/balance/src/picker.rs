//! Round robin: each endpoint in turn, exact over all threads.

use crate::endpoint_set::{EndpointSet, EndpointState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The position of one cluster's round. It outlives endpoint sets and tables, so an update does not start over.
#[derive(Debug, Default)]
pub struct Picker {
    next: AtomicU64,
}

impl Picker {
    /// The endpoint for one request: the next in turn. The first pick of a cluster is its first endpoint.
    ///
    /// Endpoints that were `tried` already, or that are passed over `now` because they could not be connected to, get it only
    /// when there is no other.
    pub fn pick<'a>(
        &self,
        set: &'a EndpointSet,
        tried: &[SocketAddr],
        now: Duration,
    ) -> Option<&'a Arc<EndpointState>> {
        let turn = self.turn();
        let mut in_turn = in_turn(set, turn);
        in_turn
            .clone()
            .find(|state| !tried.contains(&state.addr()) && !state.is_passed_over(now))
            .or_else(|| in_turn.clone().find(|state| !tried.contains(&state.addr())))
            .or_else(|| in_turn.next())
    }

    /// As [`Picker::pick`], but only an endpoint with fewer requests in progress than `limit`, where the request is entered:
    /// [`EndpointState::leave`] ends it.
    ///
    /// # Errors
    /// See [`NoPick`].
    pub fn pick_and_enter<'a>(
        &self,
        set: &'a EndpointSet,
        tried: &[SocketAddr],
        now: Duration,
        limit: u32,
    ) -> Result<&'a Arc<EndpointState>, NoPick> {
        let turn = self.turn();
        let mut in_turn = in_turn(set, turn);
        if in_turn.clone().next().is_none() {
            return Err(NoPick::Empty);
        }
        let untried = |state: &&Arc<EndpointState>| !tried.contains(&state.addr());
        in_turn
            .clone()
            .filter(untried)
            .find(|state| !state.is_passed_over(now) && state.try_enter(limit))
            .or_else(|| {
                in_turn
                    .clone()
                    .filter(untried)
                    .find(|state| state.try_enter(limit))
            })
            .or_else(|| in_turn.find(|state| state.try_enter(limit)))
            .ok_or(NoPick::Full)
    }

    fn turn(&self) -> usize {
        // Relaxed: the number must be unique, nothing else hangs on it.
        self.next.fetch_add(1, Ordering::Relaxed) as usize
    }
}

/// Why no endpoint can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// There is none.
    Empty,
    /// All have as many requests in progress as they may.
    Full,
}

/// All that get requests, the one whose turn it is first.
fn in_turn(set: &EndpointSet, turn: usize) -> impl Iterator<Item = &Arc<EndpointState>> + Clone {
    let eligible = set.eligible();
    // Nothing is divided by nothing: the range is empty then.
    (0..eligible.len()).map(move |offset| &eligible[turn.wrapping_add(offset) % eligible.len()])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use routing_table::Endpoint;
    use std::collections::BTreeMap;

    const NOW: Duration = Duration::from_secs(100);

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
            .map(|_| picker.pick(&set, &[], NOW).unwrap().addr().port())
            .collect();
        assert_eq!(picks, [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn nothing_to_pick_from() {
        assert!(Picker::default().pick(&set(0), &[], NOW).is_none());
    }

    #[test]
    fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
        let (picker, set) = (Picker::default(), set(2));
        let first = picker.pick(&set, &[], NOW).unwrap().addr();
        assert_ne!(picker.pick(&set, &[first], NOW).unwrap().addr(), first);
        let all: Vec<_> = set.all().iter().map(|state| state.addr()).collect();
        assert!(picker.pick(&set, &all, NOW).is_some());
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
                            let port = picker.pick(&set, &[], NOW).unwrap().addr().port();
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

    #[test]
    fn an_endpoint_that_refuses_is_passed_over_while_there_are_others() {
        let (picker, set) = (Picker::default(), set(2));
        set.all()[0].pass_over_until(NOW + Duration::from_secs(1));
        let port = |now| picker.pick(&set, &[], now).unwrap().addr().port();
        assert!((0..10).all(|_| port(NOW) == 2));
        let later = NOW + Duration::from_secs(1);
        assert!((0..10).any(|_| port(later) == 1));
        set.all()[1].pass_over_until(later);
        assert!((0..10).any(|_| port(NOW) == 2), "one has to be tried");
    }

    #[test]
    fn no_endpoint_gets_more_than_its_limit() {
        let (picker, set) = (Picker::default(), set(2));
        let enter = || {
            picker
                .pick_and_enter(&set, &[], NOW, 2)
                .map(|state| state.addr().port())
        };
        let mut entered: Vec<_> = (0..4).map(|_| enter().unwrap()).collect();
        entered.sort_unstable();
        assert_eq!(entered, [1, 1, 2, 2]);
        assert_eq!(enter(), Err(NoPick::Full));
        set.all()[1].leave();
        assert_eq!(enter(), Ok(2));
        let none = EndpointSet::default();
        assert_eq!(
            picker.pick_and_enter(&none, &[], NOW, 2).err(),
            Some(NoPick::Empty)
        );
    }
}
