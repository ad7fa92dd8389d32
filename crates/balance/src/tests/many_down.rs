//! A thousand endpoints of which ten are up cost a pick what ten endpoints do.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "time is what is tested")]

use super::*;
use routing_table::policy::HashOn;
use std::time::Instant;

const NOW: Duration = Duration::from_secs(100);
const UP: u16 = 10;

fn set_of(count: u16, balancing: &Balancing) -> EndpointSet {
    let endpoint = |n: u16| {
        let [high, low] = n.to_be_bytes();
        Endpoint::ready(SocketAddr::from(([10, 0, high, low], 80)))
    };
    let endpoints: Vec<_> = (0..count).map(endpoint).collect();
    let policy = Arc::new(Policy {
        balancing: balancing.clone(),
        ..Policy::default()
    });
    let all = EndpointSet::new(
        &endpoints,
        &policy,
        &EndpointSet::default(),
        &Here::default(),
        NOW,
    );
    // Those that are up stand anywhere among the others.
    let every = usize::from(count / UP);
    for (n, state) in all.all().iter().enumerate() {
        if n % every != 0 {
            state.bar(Bar::Probe);
        }
    }
    EndpointSet::new(&endpoints, &policy, &all, &Here::default(), NOW)
}

/// The least of several rounds: nothing but the picks themselves.
fn time(set: &EndpointSet) -> Duration {
    let picker = Picker::default();
    let round = |_| {
        let start = Instant::now();
        for n in 0..2000 {
            let ask = Ask {
                hash: Some(n),
                ..Ask::new(NOW)
            };
            set.pick(&picker, &ask).unwrap().leave(0);
        }
        start.elapsed()
    };
    (0..15).map(round).min().unwrap()
}

#[test]
fn a_pick_costs_the_same_however_many_are_down() {
    for balancing in [
        Balancing::RoundRobin,
        Balancing::LeastRequest,
        Balancing::LeastConnections,
        Balancing::PeakEwma,
        Balancing::Random,
        Balancing::SourceIp,
        Balancing::RingHash(HashOn::ClientIp),
    ] {
        let (few, many) = (set_of(UP, &balancing), set_of(1000, &balancing));
        assert_eq!(many.members().count(), usize::from(UP));
        // Again where the machine did something else at the wrong moment.
        let ratio = || time(&many).as_secs_f64() / time(&few).as_secs_f64();
        let least = (0..3).map(|_| ratio()).fold(f64::MAX, f64::min);
        println!("{balancing:?}: {least:.2} times");
        assert!(least <= 2.0, "{balancing:?}: {least:.2} times");
    }
}
