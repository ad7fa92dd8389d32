//! How long a pick takes: by policy, by threads while a writer publishes, and with most endpoints down.
//!
//! `cargo bench -p balance`. It prints ratios; a shared machine's absolute times say little.
#![allow(clippy::unwrap_used, reason = "a failed unwrap ends the bench")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use arc_swap::ArcSwap;
use balance::{Ask, Bar, EndpointSet, Here, Picker};
use routing_table::policy::{Balancing, HashOn};
use routing_table::{Endpoint, Policy};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NOW: Duration = Duration::from_secs(100);

fn endpoints(count: u16) -> Vec<Endpoint> {
    let addr = |n: u16| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 80));
    (0..count)
        .map(|n| Endpoint {
            weight: [30, 20, 40][usize::from(n % 3)],
            ..Endpoint::ready(addr(n))
        })
        .collect()
}

fn set(count: u16, policy: &Arc<Policy>, up: u16) -> EndpointSet {
    let endpoints = endpoints(count);
    let all = EndpointSet::new(
        &endpoints,
        policy,
        &EndpointSet::default(),
        &Here::default(),
        NOW,
    );
    for state in &all.all()[usize::from(up)..] {
        state.bar(Bar::Probe);
    }
    EndpointSet::new(&endpoints, policy, &all, &Here::default(), NOW)
}

fn pick(set: &EndpointSet, picker: &Picker, worker: usize, n: u64) {
    let ask = Ask {
        hash: Some(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        worker,
        ..Ask::new(NOW)
    };
    set.pick(picker, &ask).unwrap().leave(0);
}

/// Nanoseconds of one pick: the best of five.
fn nanos(set: &EndpointSet) -> f64 {
    const PICKS: u64 = 200_000;
    let picker = Picker::default();
    let once = || {
        let start = Instant::now();
        (0..PICKS).for_each(|n| pick(set, &picker, 0, n));
        start.elapsed().as_nanos() as f64 / PICKS as f64
    };
    (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Picks a second of so many threads, a writer publishing 100 times a second meanwhile.
fn rate(threads: usize) -> f64 {
    const TIME: Duration = Duration::from_millis(700);
    let policy = Arc::default();
    let current = ArcSwap::from_pointee(set(3, &policy, 3));
    let (picker, stop) = (Picker::new(threads), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let picking: Vec<_> = (0..threads)
            .map(|worker| {
                let (picker, stop, current) = (&picker, &stop, &current);
                scope.spawn(move || {
                    let mut count = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        for n in 0..64 {
                            pick(&current.load(), picker, worker, n);
                        }
                        count += 64;
                    }
                    count
                })
            })
            .collect();
        let start = Instant::now();
        while start.elapsed() < TIME {
            std::thread::sleep(Duration::from_millis(10));
            let next = EndpointSet::new(
                &endpoints(3),
                &policy,
                &current.load(),
                &Here::default(),
                NOW,
            );
            current.store(Arc::new(next));
        }
        stop.store(true, Ordering::Relaxed);
        let took = start.elapsed().as_secs_f64();
        let total: u64 = picking
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        total as f64 / took
    })
}

fn main() {
    println!(
        "| policy | 10 endpoints, ns a pick | 1,000 of which 990 are down | ratio |\n|---|---|---|---|"
    );
    for balancing in [
        Balancing::RoundRobin,
        Balancing::SrvRfc2782,
        Balancing::SrvPriorityCycle,
        Balancing::LeastRequest,
        Balancing::LeastConnections,
        Balancing::PeakEwma,
        Balancing::LatencyRank,
        Balancing::Random,
        Balancing::RingHash(HashOn::Path),
        Balancing::Maglev(HashOn::Path),
        Balancing::SourceIp,
        Balancing::LeastBandwidth,
    ] {
        let name = balancing.as_str();
        let policy = Arc::new(Policy {
            balancing,
            ..Policy::default()
        });
        let (few, down) = (nanos(&set(10, &policy, 10)), nanos(&set(1000, &policy, 10)));
        println!("| `{name}` | {few:.0} | {down:.0} | {:.2} |", down / few);
    }
    println!("\n| threads | picks a second | ratio to one |\n|---|---|---|");
    let one = rate(1);
    for threads in [1, 2, 4, 16] {
        let rate = if threads == 1 { one } else { rate(threads) };
        println!(
            "| {threads} | {:.1} million | {:.2} |",
            rate / 1e6,
            rate / one
        );
    }
}
