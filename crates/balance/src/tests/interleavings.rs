//! Every interleaving of two or three threads at what requests share without a lock, reorderings of memory included.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p balance --lib interleavings` in a target directory of its own.

use crate::breaker::{Change, Phase};
use crate::waiting::Waits;
use crate::{Breaker, EndpointState, Picker, Reply, Seat};
use loom::sync::Arc;
use loom::thread;
use routing_table::policy::CircuitBreaker;
use std::net::SocketAddr;
use std::time::Duration;

const LATER: Duration = Duration::from_secs(60);

fn config() -> CircuitBreaker {
    CircuitBreaker {
        latency: None,
        error_ratio: Some(50),
        min_requests: 1,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
    }
}

fn endpoint() -> EndpointState {
    EndpointState::new(SocketAddr::from(([127, 0, 0, 1], 1)), Duration::ZERO)
}

/// A breaker that is open, and whose time for a trial has come.
fn ready() -> Breaker {
    let breaker = Breaker::default();
    let opened = breaker.came(
        Reply::of(503),
        None,
        Duration::ZERO,
        &config(),
        Duration::ZERO,
    );
    assert!(matches!(opened, Some(Change::Opened(_))));
    let due = breaker.look(Waits::default(), &config(), LATER);
    assert_eq!(due, Some(Change::HalfOpened));
    breaker
}

#[test]
fn no_turn_is_given_twice_and_none_is_lost() {
    loom::model(|| {
        let picker = Arc::new(Picker::new(2));
        let turns = |worker: usize| {
            let picker = Arc::clone(&picker);
            // From the second on a worker takes a block.
            move || [0; 3].map(|_| picker.turn(worker, 1, Duration::ZERO).number)
        };
        let other = thread::spawn(turns(1));
        let mut all = turns(0)().to_vec();
        all.extend(other.join().unwrap());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        // What is not given yet is what is left of two blocks.
        assert!(all[5] < 2 + 2 * 2, "{all:?}");
    });
}

#[test]
fn a_limit_is_never_passed_and_every_seat_comes_back() {
    loom::model(|| {
        let endpoint = Arc::new(endpoint());
        let enter = {
            let endpoint = Arc::clone(&endpoint);
            move || {
                let seat = endpoint.try_enter(1, 3, Seat::Shared)?;
                assert_eq!(endpoint.in_flight(), 1);
                endpoint.leave(3, seat);
                Some(())
            }
        };
        let other = thread::spawn(enter.clone());
        let mine = enter();
        let theirs = other.join().unwrap();
        assert!(mine.or(theirs).is_some(), "whoever is first has it");
        assert_eq!((endpoint.in_flight(), endpoint.cost()), (0, 0));
    });
}

#[test]
fn one_request_has_the_trial() {
    loom::model(|| {
        let breaker = Arc::new(ready());
        let ask = {
            let breaker = Arc::clone(&breaker);
            move || breaker.try_trial(LATER)
        };
        let others = [thread::spawn(ask.clone()), thread::spawn(ask.clone())];
        let mut trials: Vec<_> = ask().into_iter().collect();
        trials.extend(others.into_iter().filter_map(|other| other.join().unwrap()));
        assert_eq!(trials.len(), 1);
        let tried = breaker.tried(trials[0], Reply::of(200), None, &config(), LATER);
        assert_eq!(tried, Some(Change::Closed));
    });
}

/// Of a trial that ends well and a thread that closes the breaker, or whose old errors come late: it closes once, and old
/// errors do not open it again.
#[test]
fn what_began_before_it_closed_does_not_open_it() {
    loom::model(|| {
        let breaker = Arc::new(ready());
        let trial = breaker.try_trial(LATER).unwrap();
        let late = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                breaker.came(Reply::of(503), None, Duration::ZERO, &config(), LATER)
            })
        };
        let tried = breaker.tried(trial, Reply::of(200), None, &config(), LATER);
        assert_eq!(tried, Some(Change::Closed));
        assert_eq!(late.join().unwrap(), None);
        assert_eq!(breaker.phase(), Phase::Closed);
    });
}

#[test]
fn it_opens_once_however_many_see_it_fail() {
    loom::model(|| {
        let breaker = Arc::new(Breaker::default());
        let fail = {
            let breaker = Arc::clone(&breaker);
            move || {
                let now = Duration::from_secs(1);
                breaker.came(Reply::of(503), None, now, &config(), now)
            }
        };
        let other = thread::spawn(fail.clone());
        let changes = [fail(), other.join().unwrap()];
        let opened = changes.iter().flatten().count();
        assert_eq!(opened, 1, "{changes:?}");
        assert_eq!(breaker.phase(), Phase::Open);
    });
}
