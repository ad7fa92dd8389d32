//! When a breaker opens, who tries, and when it closes: the tables of `docs/outliers.md`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::conduct::Conduct;
use crate::{Ask, Bar, EndpointSet, EndpointState, Here, NoPick, Picker};
use routing_table::{Endpoint, Policy};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

const NOW: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn by_errors(ratio: u8) -> CircuitBreaker {
    CircuitBreaker {
        error_ratio: Some(ratio),
        ..CircuitBreaker::default()
    }
}

fn by_latency(most: Duration) -> CircuitBreaker {
    CircuitBreaker {
        latency: Some(most),
        ..CircuitBreaker::default()
    }
}

/// What `good` replies and then `bad` ones come to; all took `took`.
fn opened(config: &CircuitBreaker, good: usize, bad: usize, took: Duration) -> Option<Change> {
    let breaker = Breaker::default();
    let mut last = None;
    for n in 0..good + bad {
        assert_eq!(last, None, "opened before reply {n}");
        let reply = if n < good { Reply::Good } else { Reply::Error };
        last = breaker.came(reply, Some(took), NOW, config, NOW);
    }
    let expected = if last.is_some() {
        Phase::Open
    } else {
        Phase::Closed
    };
    assert_eq!(breaker.phase(), expected);
    last
}

#[test]
fn it_opens_at_its_limits_and_not_before_there_are_enough() {
    for (ratio, good, bad, expected) in [
        (50, 10, 9, None),
        (50, 10, 10, Some(50)),
        (50, 0, 9, None),
        (50, 0, 10, Some(100)),
        (100, 1, 30, None),
        (0, 30, 0, None),
        (0, 30, 1, Some(3)),
    ] {
        let why = expected.map(|percent| Change::Opened(Why::Errors(percent)));
        assert_eq!(
            opened(&by_errors(ratio), good, bad, ms(1)),
            why,
            "{ratio} {good} {bad}"
        );
    }
    let limit = by_latency(ms(500));
    assert_eq!(opened(&limit, 50, 0, ms(500)), None);
    assert_eq!(opened(&limit, 9, 0, SECOND), None);
    assert_eq!(
        opened(&limit, 10, 0, SECOND),
        Some(Change::Opened(Why::Latency(SECOND)))
    );
    assert_eq!(opened(&CircuitBreaker::default(), 0, 99, SECOND), None);
}

#[test]
fn answers_that_break_off_are_errors() {
    let (breaker, config) = (Breaker::default(), by_errors(50));
    for _ in 0..9 {
        breaker.came(Reply::Good, None, NOW, &config, NOW);
        assert_eq!(breaker.broke_off(NOW, &config, NOW), None);
    }
    let last = breaker.came(Reply::Good, None, NOW, &config, NOW);
    assert_eq!(last, Some(Change::Opened(Why::Errors(90))));
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let (breaker, config) = (Breaker::default(), by_errors(50));
    let look = |at| breaker.look(Waits::default(), &config, at);
    let mut now = NOW;
    for _ in 0..9 {
        assert_eq!(breaker.came(Reply::Error, None, now, &config, now), None);
    }
    // Ticks go on; the errors stay within the window for ten seconds and at most a step more.
    for _ in 0..46 {
        assert_eq!(look(now), None);
        now += ms(250);
    }
    for _ in 0..9 {
        assert_eq!(breaker.came(Reply::Error, None, now, &config, now), None);
    }
    assert!(
        breaker
            .came(Reply::Error, None, now, &config, now)
            .is_some()
    );
}

#[test]
fn who_waits_counts_with_what_it_has_waited() {
    let (conduct, config) = (Conduct::default(), by_latency(ms(500)));
    for _ in 0..5 {
        let breaker = &conduct.breaker;
        assert_eq!(
            breaker.came(Reply::Good, Some(ms(10)), NOW, &config, NOW),
            None
        );
        conduct.asked(NOW);
    }
    let look = |after| {
        let at = NOW + after;
        conduct.breaker.look(conduct.waiting.waits(at), &config, at)
    };
    assert_eq!(look(ms(900)), None);
    let Some(Change::Opened(Why::Latency(average))) = look(ms(1200)) else {
        panic!("five answers of 10 ms and five that wait for 1.2 s take 0.6 s on average");
    };
    assert!(average > ms(590) && average <= ms(605), "{average:?}");
}

#[test]
fn many_that_wait_open_it_whatever_was_quick_before() {
    let (conduct, config) = (Conduct::default(), by_latency(ms(500)));
    for _ in 0..1000 {
        let breaker = &conduct.breaker;
        assert_eq!(
            breaker.came(Reply::Good, Some(ms(1)), NOW, &config, NOW),
            None
        );
    }
    for _ in 0..10 {
        conduct.asked(NOW);
    }
    let look = |at| conduct.breaker.look(conduct.waiting.waits(at), &config, at);
    assert_eq!(look(NOW + ms(500)), None);
    assert!(look(NOW + ms(520)).is_some());
}

/// A breaker that opened at `NOW`.
fn open(config: &CircuitBreaker) -> Conduct {
    let conduct = Conduct::default();
    while conduct.breaker.phase() == Phase::Closed {
        conduct
            .breaker
            .came(Reply::Error, Some(SECOND), NOW, config, NOW);
    }
    conduct
}

#[test]
fn it_goes_from_open_by_a_trial_to_closed_or_open_again() {
    let config = by_errors(50);
    let conduct = open(&config);
    let breaker = &conduct.breaker;
    let look = |at| breaker.look(Waits::default(), &config, at);
    assert_eq!(breaker.try_trial(NOW), None);
    assert_eq!(look(NOW + config.open - ms(1)), None);
    let mut now = NOW + config.open;
    assert_eq!(look(now), Some(Change::HalfOpened));
    assert_eq!(breaker.phase(), Phase::HalfOpen);
    let first = breaker.try_trial(now).unwrap();
    assert_eq!(breaker.try_trial(now), None, "there is one");
    let failed = conduct.tried(first, Reply::GatewayError, None, &config, now);
    assert_eq!(failed, Some(Change::StaysOpen));
    assert_eq!(breaker.phase(), Phase::Open);
    assert_eq!(look(now + config.open - ms(1)), None);
    now += config.open;
    assert_eq!(look(now), Some(Change::HalfOpened));
    // One whose client leaves is none.
    breaker.give_back(breaker.try_trial(now).unwrap());
    let second = breaker.try_trial(now).unwrap();
    assert_eq!(conduct.tried(first, Reply::Good, None, &config, now), None);
    let went_well = conduct.tried(second, Reply::Good, Some(ms(1)), &config, now);
    assert_eq!(went_well, Some(Change::Closed));
    assert_eq!(breaker.phase(), Phase::Closed);
    // The window is empty, and what was sent before does not count.
    for n in 0..20 {
        let late = breaker.came(Reply::Error, None, NOW, &config, now);
        assert_eq!(late, None, "{n}");
    }
    for n in 0..9 {
        let next = breaker.came(Reply::Error, None, now, &config, now);
        assert_eq!(next, None, "{n}");
        assert_eq!(look(now + ms(n * 250)), None);
    }
    assert!(
        breaker
            .came(Reply::Error, None, now, &config, now)
            .is_some()
    );
}

#[test]
fn a_slow_trial_has_failed() {
    let config = by_latency(ms(500));
    let conduct = open(&config);
    let breaker = &conduct.breaker;
    let look = |at| breaker.look(Waits::default(), &config, at);
    let mut now = NOW + config.open;
    assert_eq!(look(now), Some(Change::HalfOpened));
    let slow = breaker.try_trial(now).unwrap();
    let came = conduct.tried(slow, Reply::Good, Some(ms(501)), &config, now);
    assert_eq!(came, Some(Change::StaysOpen));
    // Nor is one waited for for ever.
    now += config.open;
    assert_eq!(look(now), Some(Change::HalfOpened));
    let silent = breaker.try_trial(now).unwrap();
    assert_eq!(look(now + ms(500)), None);
    assert_eq!(look(now + ms(501)), Some(Change::StaysOpen));
    assert_eq!(conduct.tried(silent, Reply::Good, None, &config, now), None);
    breaker.give_back(silent);
    assert_eq!(breaker.phase(), Phase::Open);
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

fn cluster(count: u8, breaker: CircuitBreaker) -> (Vec<Endpoint>, Arc<Policy>) {
    let endpoints = (1..=count).map(|n| Endpoint::ready(addr(n))).collect();
    let policy = Policy {
        breaker: Some(breaker),
        panic_threshold: 100,
        ..Policy::default()
    };
    (endpoints, Arc::new(policy))
}

fn again(before: &EndpointSet, endpoints: &[Endpoint]) -> EndpointSet {
    EndpointSet::new(endpoints, before.policy(), before, &Here::default(), NOW)
}

/// Opens the breaker of an endpoint as whoever judges does.
fn break_open(state: &EndpointState, config: &CircuitBreaker) {
    let breaker = &state.conduct().breaker;
    while breaker.phase() == Phase::Closed {
        breaker.came(Reply::Error, None, NOW, config, NOW);
    }
    state.bar(Bar::Breaker);
}

#[test]
fn an_open_breaker_is_not_ignored_in_panic_and_one_request_tries() {
    let config = by_errors(50);
    let (endpoints, policy) = cluster(2, config.clone());
    let before = EndpointSet::new(
        &endpoints,
        &policy,
        &EndpointSet::default(),
        &Here::default(),
        NOW,
    );
    let picker = Picker::default();
    break_open(&before.all()[0], &config);
    let one = again(&before, &endpoints);
    let ask = Ask::new(NOW);
    for _ in 0..10 {
        let picked = one.pick(&picker, &ask).unwrap();
        assert_eq!(picked.member.endpoint.addr, addr(2));
        picked.leave(0);
    }
    break_open(&before.all()[1], &config);
    let none = again(&one, &endpoints);
    assert!(!none.is_in_panic());
    assert_eq!(none.pick(&picker, &ask).err(), Some(NoPick::Empty));
    for state in before.all() {
        let at = NOW + config.open;
        state.conduct().breaker.look(Waits::default(), &config, at);
    }
    let half = again(&none, &endpoints);
    let picked: Vec<_> = (0..2).map(|_| half.pick(&picker, &ask).unwrap()).collect();
    assert!(picked.iter().all(|picked| picked.trial.is_some()));
    let tried: BTreeSet<_> = picked.iter().map(|one| one.member.endpoint.addr).collect();
    assert_eq!(tried.len(), 2);
    assert_eq!(half.pick(&picker, &ask).err(), Some(NoPick::Empty));
    // A client that leaves gives its place to another.
    picked.into_iter().for_each(|picked| picked.leave(0));
    let tried = [addr(1)];
    let other = Ask {
        tried: &tried,
        ..ask
    };
    let picked = half.pick(&picker, &other).unwrap();
    assert_eq!(picked.member.endpoint.addr, addr(2));
    // What is down for another reason is not tried.
    before.all()[0].bar(Bar::Probe);
    let down = again(&half, &endpoints);
    assert_eq!(down.pick(&picker, &ask).err(), Some(NoPick::Empty));
}

#[test]
fn who_has_its_place_elsewhere_does_not_try() {
    let config = by_errors(50);
    let (endpoints, policy) = cluster(2, config.clone());
    let before = EndpointSet::new(
        &endpoints,
        &policy,
        &EndpointSet::default(),
        &Here::default(),
        NOW,
    );
    let state = &before.all()[0];
    break_open(state, &config);
    let at = NOW + config.open;
    state.conduct().breaker.look(Waits::default(), &config, at);
    let half = again(&before, &endpoints);
    let stays = Ask {
        stay_at: Some(crate::order::hashed::digest(addr(2))),
        ..Ask::new(NOW)
    };
    let picker = Picker::default();
    assert!(half.pick(&picker, &stays).unwrap().trial.is_none());
    let lost = Ask {
        stay_at: Some(crate::order::hashed::digest(addr(1))),
        ..Ask::new(NOW)
    };
    assert!(half.pick(&picker, &lost).unwrap().trial.is_some());
}

#[test]
fn sixteen_threads_report_and_one_of_them_tries() {
    const THREADS: usize = 16;
    const ROUNDS: usize = 200;
    let config = CircuitBreaker {
        min_requests: (THREADS * ROUNDS) as u32,
        ..by_errors(100)
    };
    let conduct = Conduct::default();
    let breaker = &conduct.breaker;
    // Not one report is lost, however they meet: the last one opens it, and it opens once.
    let opened: usize = std::thread::scope(|scope| {
        let report = || {
            let ticket = conduct.asked(NOW);
            let came = breaker.came(Reply::Error, Some(ms(1)), NOW, &config, NOW);
            conduct.left(ticket, NOW);
            usize::from(came.is_some())
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(move || (0..ROUNDS).map(|_| report()).sum::<usize>()))
            .collect();
        threads.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!((opened, breaker.phase()), (1, Phase::Open));
    assert_eq!(conduct.waiting.waits(NOW + SECOND), Waits::default());
    let mut now = NOW;
    for round in 0..ROUNDS {
        now += config.open;
        let look = breaker.look(Waits::default(), &config, now);
        assert_eq!(look, Some(Change::HalfOpened), "{round}");
        let trials: Vec<Trial> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| breaker.try_trial(now)))
                .collect();
            let taken = threads.into_iter().filter_map(|one| one.join().unwrap());
            taken.collect()
        });
        let [trial] = trials[..] else {
            panic!("{round}: {} trials", trials.len());
        };
        let again = conduct.tried(trial, Reply::Nothing, None, &config, now);
        assert_eq!(again, Some(Change::StaysOpen));
    }
}
