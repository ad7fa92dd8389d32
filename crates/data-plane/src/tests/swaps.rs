//! Tables are swapped while requests run: none fails, and none sees half of one table and half of another.

use super::{host, serve, table};
use routing_table::{ClusterId, Endpoint, EndpointSets, Update};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::get;
use test_support::load::{Load, Plan};

/// Two tables alternate. Each sends both hosts to a cluster that the other does not have, so a route of one table with an
/// upstream of the other could only answer 503, and every table that was published must be the one that answers at once.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_swaps_a_second_for_ten_seconds() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let tables = [("one", one.addr), ("two", two.addr)];
    let rules = |which: usize| {
        let (name, addr) = tables[which];
        [
            host("a.test", &[addr]).cluster(name),
            host("b.test", &[addr]).cluster(name),
        ]
    };
    let mut proxy = serve(&rules(0));
    let plan = |host: &str| Plan {
        addrs: vec![proxy.addr],
        host: host.into(),
        path: "/".into(),
        posts: true,
        clients: 8,
        rate: 1_000,
        limit: 100_000,
    };
    let loads = [Load::start(plan("a.test")), Load::start(plan("b.test"))];
    let start = Instant::now();
    let (mut swaps, mut probes, mut mixed) = (0usize, 0u32, 0u32);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while swaps < 2_000 {
        ticks.tick().await;
        swaps += 1;
        proxy.publisher.apply(table(&rules(swaps % 2))).unwrap();
        if swaps.is_multiple_of(10) {
            for host in ["a.test", "b.test"] {
                probes += 1;
                let answer = get(proxy.addr, host, "/").await.unwrap();
                mixed += u32::from(answer.text() != tables[swaps % 2].0);
            }
        }
    }
    let took = start.elapsed();
    let (mut total, mut failed) = (0, 0);
    for load in loads {
        let outcome = load.stop().await;
        total += outcome.total();
        failed += outcome.failures();
        assert_eq!(outcome.failures(), 0, "{:?}", outcome.failed);
        assert!(
            outcome
                .bodies
                .keys()
                .all(|body| body == "one" || body == "two"),
            "{:?}",
            outcome.bodies
        );
    }
    println!(
        "{swaps} swaps in {took:?}: {total} requests, {failed} failed; {mixed} of {probes} probes answered by another table"
    );
    assert_eq!(mixed, 0);
    assert!(total > 10_000, "{total} requests are too few to tell");
}

/// The place in the round lives as long as the cluster, so shares stay exact over swaps.
#[tokio::test]
async fn shares_stay_exact_over_swaps() {
    let backends = [
        Backend::start("a").await,
        Backend::start("b").await,
        Backend::start("c").await,
    ];
    let addrs = backends.each_ref().map(|backend| backend.addr);
    let mut proxy = serve(&[host("a.test", &addrs)]);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        proxy
            .publisher
            .apply(table(&[host("a.test", &addrs)]))
            .unwrap();
        *counts
            .entry(get(proxy.addr, "a.test", "/").await.unwrap().text())
            .or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100, 100, 100]);
}

#[tokio::test]
async fn endpoints_change_without_a_table() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let mut proxy = serve(&[host("a.test", &[one.addr])]);
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().text(), "one");
    let set = |addr| {
        Update::Endpoints(EndpointSets::from([(
            ClusterId::new("test", "a.test", 80),
            vec![Endpoint::ready(addr)],
        )]))
    };
    proxy.publisher.apply(set(two.addr)).unwrap();
    for _ in 0..10 {
        assert_eq!(
            get(proxy.addr, "a.test", "/").await.unwrap().text(),
            "two",
            "a removed endpoint gets nothing more"
        );
    }
    let unknown = EndpointSets::from([(ClusterId::new("test", "nobody", 80), vec![])]);
    proxy.publisher.apply(Update::Endpoints(unknown)).unwrap();
    assert_eq!(get(proxy.addr, "a.test", "/").await.unwrap().text(), "two");
}

#[tokio::test]
async fn a_listener_that_stays_keeps_its_connections() {
    let backend = Backend::start("a").await;
    let mut proxy = serve(&[host("a.test", &[backend.addr])]);
    let mut client = test_support::Client::connect(proxy.addr).await.unwrap();
    for _ in 0..20 {
        proxy
            .publisher
            .apply(table(&[host("a.test", &[backend.addr])]))
            .unwrap();
        assert_eq!(client.get("a.test", "/").await.unwrap().text(), "a");
    }
    assert_eq!(proxy.publisher.addresses()[0].1, proxy.addr);
    assert_eq!(proxy.metric("tidegate_connections_accepted_total"), 1.0);
}
