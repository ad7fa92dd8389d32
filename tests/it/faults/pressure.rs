//! A backend with a limit and a queue: who comes too much is told so at once, and nobody else notices.

use super::process::BackendProcess;
use super::stand::{Clusters, Stand, WEB};
use super::traffic::{Plan, Traffic, ask_once};
use super::{millis, within, within_millis};
use std::time::Instant;
use test_support::client::get;

#[tokio::test(flavor = "multi_thread")]
async fn the_thirteenth_request_is_told_to_come_again() {
    let mut slow = BackendProcess::start("slow", &["delay 600"]);
    let other = BackendProcess::start("other", &["delay 2"]);
    let policy = "maxInFlight: 4, maxQueue: 8, queueTimeout: 10s";
    let clusters = Clusters::new("", policy, &[slow.addr.to_string()]).and(
        "other",
        "",
        "",
        &[other.addr.to_string()],
    );
    let stand = Stand::start("pressure", clusters).await;
    let others = Traffic::start(Plan {
        addr: stand.addr,
        host: "other.test",
        path: "/",
        rate: 200,
        posts: true,
        most: 20_000,
    });
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let queued = async || {
            stand
                .tidegate
                .metric("tidegate_requests_queued_total")
                .await
        };
        let before = queued().await;
        let twelve: Vec<_> = (0..12)
            .map(|_| tokio::spawn(ask_once(stand.addr, WEB, "/", "POST")))
            .collect();
        let start = Instant::now();
        while queued().await < before + 8.0 {
            assert!(start.elapsed() < within(millis(500)), "8 do not wait");
            tokio::time::sleep(millis(2)).await;
        }
        let asked = Instant::now();
        let refused = get(stand.addr, WEB, "/").await.unwrap();
        let took = asked.elapsed();
        assert_eq!(refused.status, 503);
        let again = refused
            .headers
            .get("retry-after")
            .expect("when to come again");
        assert!(again.to_str().unwrap().parse::<u64>().unwrap() >= 1);
        for one in twelve {
            assert_eq!(one.await.unwrap().0, Ok("slow".to_owned()));
        }
        rounds.push((took, again.to_str().unwrap().to_owned()));
    }
    let others = others.stop().await;
    let counts = slow.counts();
    println!(
        "HN1 limit 4, queue 8: the 13th is answered 503 in {:.1?}, Retry-After {:?}; the backend saw {} at once at most, {} in all; the others' p99 {:.1} ms, {} of {} failed",
        rounds.iter().map(|(took, _)| took).collect::<Vec<_>>(),
        rounds[0].1,
        counts.most_in_flight,
        counts.requests,
        others.percentile(99),
        others.failed().len(),
        others.len(),
    );
    assert!(rounds.iter().all(|(took, _)| *took < within(millis(50))));
    assert_eq!((counts.most_in_flight, counts.requests), (4, 36));
    assert_eq!(others.failed().len(), 0, "{:?}", others.failed().failures());
    assert!(others.percentile(99) <= within_millis(50));
}
