//! Who is near, and when that counts: tables of endpoints, and the tier that has the first request.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::{Ask, Bar, EndpointSet, Here, Picker};
use routing_table::policy::Balancing;
use routing_table::{Endpoint, Policy, Serving};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const NOW: Duration = Duration::from_secs(100);

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

/// Endpoint `n` in a zone, for zones: `a`, or `a>b` for hints; `-` is nowhere.
fn endpoint(n: u8, text: &str) -> Endpoint {
    let (zone, hints) = text.split_once('>').unwrap_or((text, ""));
    let hints: Vec<Arc<str>> = hints.split_terminator('+').map(Arc::from).collect();
    Endpoint {
        zone: (zone != "-").then(|| zone.into()),
        for_zones: (!hints.is_empty()).then(|| hints.into()),
        ..Endpoint::ready(addr(n))
    }
}

fn numbered(texts: &[&str]) -> Vec<Endpoint> {
    let numbers = 1..;
    numbers
        .zip(texts)
        .map(|(n, text)| endpoint(n, text))
        .collect()
}

fn here(zone: &str) -> Here {
    Here {
        zone: (!zone.is_empty()).then(|| zone.into()),
        ..Here::default()
    }
}

fn prefers(balancing: Balancing) -> Arc<Policy> {
    Arc::new(Policy {
        balancing,
        prefers_zone: true,
        ..Policy::default()
    })
}

/// Who gets requests as long as nobody is full.
fn served(set: &EndpointSet) -> Vec<u8> {
    let picker = Picker::default();
    let picked = (0..200).map(|_| {
        let picked = set.pick(&picker, &Ask::new(NOW)).unwrap();
        let SocketAddr::V4(v4) = picked.member.endpoint.addr else {
            panic!("not of these tests")
        };
        picked.leave(0);
        v4.ip().octets()[3]
    });
    picked.collect::<BTreeSet<_>>().into_iter().collect()
}

#[track_caller]
fn check(policy: &Arc<Policy>, zone: &str, texts: &[&str], down: &[u8], expected: &[u8]) {
    let (endpoints, here) = (numbered(texts), here(zone));
    let before = EndpointSet::new(&endpoints, policy, &EndpointSet::default(), &here, NOW);
    for state in before.all() {
        if down.iter().any(|n| addr(*n) == state.addr()) {
            state.bar(Bar::Probe);
        }
    }
    let set = EndpointSet::new(&endpoints, policy, &before, &here, NOW);
    assert_eq!(served(&set), expected, "{zone} {texts:?} without {down:?}");
}

#[test]
fn the_own_zone_goes_first_where_the_policy_says_so() {
    let texts = ["a", "b", "a", "-"];
    for balancing in [
        Balancing::RoundRobin,
        Balancing::SrvPriorityCycle,
        Balancing::LeastRequest,
        Balancing::Random,
    ] {
        check(&prefers(balancing.clone()), "a", &texts, &[], &[1, 3]);
    }
    let prefers = prefers(Balancing::RoundRobin);
    check(&prefers, "b", &texts, &[], &[2]);
    check(&prefers, "c", &texts, &[], &[1, 2, 3, 4]);
    check(&prefers, "", &texts, &[], &[1, 2, 3, 4]);
    check(&Arc::default(), "a", &texts, &[], &[1, 2, 3, 4]);
}

#[test]
fn a_zone_of_which_too_little_is_left_is_not_preferred() {
    let texts = ["a", "a", "a", "b"];
    let prefers = prefers(Balancing::RoundRobin);
    check(&prefers, "a", &texts, &[1], &[2, 3]);
    check(&prefers, "a", &texts, &[1, 2], &[3]);
    let texts = ["a", "a", "a", "a", "b"];
    check(&prefers, "a", &texts, &[1, 2, 3], &[4, 5]);
    check(&prefers, "a", &texts, &[1, 2, 3, 4], &[5]);
    // Nobody is up: all get some.
    check(&prefers, "a", &["a", "b"], &[1, 2], &[1, 2]);
}

#[test]
fn hints_count_when_all_have_some_and_one_is_for_us() {
    let default = Arc::default();
    check(&default, "a", &["a>a", "b>b", "b>a+b"], &[], &[1, 3]);
    check(&default, "a", &["a>a", "b>b", "b"], &[], &[1, 2, 3]);
    check(&default, "c", &["a>a", "b>b"], &[], &[1, 2]);
    check(&default, "", &["a>a", "b>b"], &[], &[1, 2]);
    check(&default, "a", &["a>a", "b>b"], &[1], &[2]);
    // The policy goes before them.
    let prefers = prefers(Balancing::RoundRobin);
    check(&prefers, "a", &["a>b", "b>a"], &[], &[1]);
}

#[test]
fn what_is_draining_needs_no_hint() {
    let mut endpoints = numbered(&["a>a", "b>b", "b"]);
    endpoints[2].serving = Serving::Draining;
    let none = EndpointSet::default();
    let set = EndpointSet::new(&endpoints, &Arc::default(), &none, &here("a"), NOW);
    assert_eq!(served(&set), [1]);
}

#[test]
fn what_the_own_zone_has_no_room_for_goes_elsewhere() {
    let mut endpoints = numbered(&["a", "b"]);
    endpoints[0].max_requests = Some(1);
    let policy = prefers(Balancing::RoundRobin);
    let none = EndpointSet::default();
    let set = EndpointSet::new(&endpoints, &policy, &none, &here("a"), NOW);
    let picker = Picker::default();
    let first = set.pick(&picker, &Ask::new(NOW)).unwrap();
    assert_eq!(first.member.endpoint.addr, addr(1));
    assert_eq!(served(&set), [2]);
    first.leave(0);
    assert_eq!(served(&set), [1]);
    // A retry goes to another endpoint, near or far.
    let tried = [addr(1)];
    let again = Ask {
        tried: &tried,
        ..Ask::new(NOW)
    };
    assert_eq!(
        set.pick(&picker, &again).unwrap().member.endpoint.addr,
        addr(2)
    );
}

#[test]
fn priorities_go_before_zones() {
    let mut endpoints = numbered(&["b", "a"]);
    endpoints[1].priority = 1;
    let none = EndpointSet::default();
    let prefers = prefers(Balancing::RoundRobin);
    let set = EndpointSet::new(&endpoints, &prefers, &none, &here("a"), NOW);
    assert_eq!(served(&set), [1]);
}

#[test]
fn a_near_endpoint_without_a_share_is_none() {
    let mut endpoints = numbered(&["a", "b"]);
    endpoints[0].weight = 0;
    let none = EndpointSet::default();
    let prefers = prefers(Balancing::RoundRobin);
    let set = EndpointSet::new(&endpoints, &prefers, &none, &here("a"), NOW);
    assert_eq!(served(&set), [2]);
}

#[test]
fn a_subset_is_taken_from_what_is_near_first() {
    let endpoints = numbered(&["b", "b", "b", "b", "a", "a"]);
    let policy = Arc::new(Policy {
        subset: Some(3),
        prefers_zone: true,
        ..Policy::default()
    });
    for number in 0..20 {
        let here = Here {
            number,
            ..here("a")
        };
        let set = EndpointSet::new(&endpoints, &policy, &EndpointSet::default(), &here, NOW);
        assert_eq!((served(&set), set.members().count()), (vec![5, 6], 3));
    }
}
