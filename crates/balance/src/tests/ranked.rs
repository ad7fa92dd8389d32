//! What ranks come to, and two endpoints that swap their answer times, on a simulated clock.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::{Ask, Bar, EndpointSet, Here, Picker};
use routing_table::policy::Balancing;
use routing_table::{Endpoint, Policy};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

/// A cluster whose endpoints take so many milliseconds, asked 100 times a second.
struct Simulated {
    set: EndpointSet,
    picker: Picker,
    endpoints: Vec<Endpoint>,
    now: Duration,
}

impl Simulated {
    fn new(count: u8) -> Self {
        let endpoints: Vec<_> = (1..=count).map(|n| Endpoint::ready(addr(n))).collect();
        let policy = Arc::new(Policy {
            balancing: Balancing::LatencyRank,
            ..Policy::default()
        });
        let mut this = Self {
            set: EndpointSet::default(),
            picker: Picker::default(),
            endpoints,
            now: Duration::from_secs(1),
        };
        this.set = this.make(&policy);
        this
    }

    fn make(&self, policy: &Arc<Policy>) -> EndpointSet {
        EndpointSet::new(
            &self.endpoints,
            policy,
            &self.set,
            &Here::default(),
            self.now,
        )
    }

    fn refresh(&mut self) {
        self.set = self.make(&Arc::clone(self.set.policy()));
    }

    /// Who got how many requests.
    fn run(&mut self, time: Duration, millis: &[u64]) -> BTreeMap<u8, u32> {
        let end = self.now + time;
        let mut counts = BTreeMap::new();
        while self.now < end {
            if self.set.changes_at().is_some_and(|at| at <= self.now) {
                self.refresh();
            }
            let picked = self.set.pick(&self.picker, &Ask::new(self.now)).unwrap();
            let SocketAddr::V4(v4) = picked.member.endpoint.addr else {
                panic!("not of these tests")
            };
            let n = v4.ip().octets()[3];
            let took = Duration::from_millis(millis[usize::from(n) - 1]);
            picked.member.state.took(took, self.now);
            picked.leave(0);
            *counts.entry(n).or_default() += 1;
            self.now += Duration::from_millis(10);
        }
        counts
    }
}

const SECOND_LONG: Duration = Duration::from_secs(1);

#[test]
fn shares_of_ranks() {
    let some = Some;
    for (took, expected) in [
        (&[][..], &[][..]),
        (&[None], &[1]),
        (&[some(5)], &[1]),
        (&[None, None, None], &[1, 1, 1]),
        (&[some(50), some(5)], &[357, 25_600]),
        (&[some(5), some(5)], &[25_600, 357]),
        (&[None, some(5)], &[257, 25_600]),
        // 256 and 1, and to each of the two that are not the best half of one in a hundred on top.
        (&[some(50), some(5), some(70)], &[457, 51_200, 257]),
        (&[some(50), None, some(70)], &[51_200, 257, 457]),
    ] {
        assert_eq!(shares(took), expected, "{took:?}");
    }
}

#[test]
fn the_quick_one_gets_nearly_all_and_soon_when_they_swap() {
    let mut two = Simulated::new(2);
    two.run(5 * SECOND_LONG, &[5, 50]);
    let settled = two.run(20 * SECOND_LONG, &[5, 50]);
    assert!(settled[&1] >= 1940 && settled[&2] >= 8, "{settled:?}");
    for millis in [[50, 5], [5, 50], [50, 5]] {
        let quick = if millis[0] < millis[1] { 1 } else { 2 };
        let mut seconds = 0;
        while two
            .run(SECOND_LONG, &millis)
            .get(&quick)
            .is_none_or(|got| *got <= 80)
        {
            seconds += 1;
            assert!(seconds < 10, "{millis:?}");
        }
        let settled = two.run(20 * SECOND_LONG, &millis);
        assert!(settled[&quick] >= 1900, "{millis:?}: {settled:?}");
    }
}

#[test]
fn all_others_are_probed() {
    let mut six = Simulated::new(6);
    let millis = [60, 50, 5, 20, 30, 40];
    six.run(60 * SECOND_LONG, &millis);
    let counts = six.run(200 * SECOND_LONG, &millis);
    // 256 : 1, and one in a hundred over the five.
    assert!((19_600..19_850).contains(&counts[&3]), "{counts:?}");
    assert!((80..170).contains(&counts[&4]), "{counts:?}");
    for other in [1, 2, 5, 6] {
        assert!((15..70).contains(&counts[&other]), "{counts:?}");
    }
}

#[test]
fn when_the_best_is_gone_the_second_is_the_best() {
    let mut three = Simulated::new(3);
    three.run(60 * SECOND_LONG, &[50, 5, 20]);
    let state = three.set.all().iter().find(|state| state.addr() == addr(2));
    state.unwrap().bar(Bar::Probe);
    three.refresh();
    let counts = three.run(SECOND_LONG, &[50, 5, 20]);
    assert!(counts[&3] >= 90 && !counts.contains_key(&2), "{counts:?}");
}
