//! What is near, what is quick, and what a client had before: choices that are made of more than the endpoints' names.

use super::{Proxy, host, serve, serve_with};
use crate::Settings;
use routing_table::policy::Balancing;
use routing_table::{Endpoint, Policy};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use test_support::Backend;
use test_support::client::get;

async fn text(proxy: &Proxy) -> String {
    get(proxy.addr, "a.test", "/").await.unwrap().text()
}

async fn shares(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        *shares.entry(text(proxy).await).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn the_own_zone_has_all_requests_until_it_is_gone() {
    let (near, far) = (Backend::start("near").await, Backend::start("far").await);
    let endpoint = |backend: &Backend, zone: &str| Endpoint {
        zone: Some(zone.into()),
        ..Endpoint::ready(backend.addr)
    };
    let endpoints = vec![endpoint(&far, "a"), endpoint(&near, "b")];
    let policy = Policy {
        prefers_zone: true,
        ..Policy::default()
    };
    let settings = Settings {
        workers: 2,
        zone: Some("b".into()),
        ..Settings::default()
    };
    let rule = host("a.test", &[]).endpoints(endpoints).policy(policy);
    let proxy = serve_with(&[rule], settings);
    assert_eq!(shares(&proxy, 20).await, [("near".to_owned(), 20)].into());
    drop(near);
    assert_eq!(shares(&proxy, 20).await, [("far".to_owned(), 20)].into());
}

fn by_address(sticky_for: Option<Duration>) -> Policy {
    Policy {
        balancing: Balancing::SourceIp,
        sticky_for,
        ..Policy::default()
    }
}

#[tokio::test]
async fn a_client_stays_where_it_was_until_it_is_silent() {
    let mut backends = Vec::new();
    for n in 1..=4 {
        backends.push(Backend::start(&format!("b{n}")).await);
    }
    let all: Vec<SocketAddr> = backends.iter().map(|backend| backend.addr).collect();
    let proxy = serve(&[host("a.test", &all).policy(by_address(None))]);
    let own = text(&proxy).await;
    let other = usize::from(own == "b1");
    // Without memory the client moves when its own endpoint comes; with it, it stays.
    for (sticky_for, stays) in [(None, false), (Some(Duration::from_millis(600)), true)] {
        let few = [all[other]];
        let mut proxy = serve(&[host("a.test", &few).policy(by_address(sticky_for))]);
        let first = text(&proxy).await;
        let more = super::table(&[host("a.test", &all).policy(by_address(sticky_for))]);
        proxy.publisher.apply(more).unwrap();
        let expected = if stays { &first } else { &own };
        for _ in 0..5 {
            assert_eq!(text(&proxy).await, *expected);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(text(&proxy).await, own);
    }
}

#[tokio::test]
async fn a_client_that_lost_its_endpoint_stays_at_the_next() {
    let (one, other) = (Backend::start("one").await, Backend::start("other").await);
    let hour = Some(Duration::from_secs(3600));
    let addrs = [one.addr, other.addr];
    let proxy = serve(&[host("a.test", &addrs).policy(by_address(hour))]);
    let first = text(&proxy).await;
    let (gone, left) = if first == "one" {
        (one, other)
    } else {
        (other, one)
    };
    let addr = gone.addr;
    drop(gone);
    let next = text(&proxy).await;
    assert_ne!(next, first);
    let _back = Backend::start_at(&first, addr, Duration::ZERO).await;
    // It was passed over for a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(shares(&proxy, 10).await, [(next, 10)].into());
    drop(left);
}

#[tokio::test]
async fn the_quick_endpoint_gets_nearly_all() {
    let at = SocketAddr::from(([127, 0, 0, 1], 0));
    let slow = Backend::start_at("slow", at, Duration::from_millis(50)).await;
    let quick = Backend::start_at("quick", at, Duration::from_millis(5)).await;
    let policy = Policy {
        balancing: Balancing::LatencyRank,
        ..Policy::default()
    };
    let proxy = serve(&[host("a.test", &[slow.addr, quick.addr]).policy(policy)]);
    let start = Instant::now();
    while shares(&proxy, 50)
        .await
        .get("quick")
        .is_none_or(|got| *got < 45)
    {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
