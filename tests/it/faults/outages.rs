//! All backends are gone for a while, fifty come and go, or the proxy itself is stopped.

use super::process::BackendProcess;
use super::stand::{Clusters, Stand, at};
use super::{millis, within, within_millis};
use crate::load_stand::scaled;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn connections(backends: &mut [BackendProcess]) -> u64 {
    let counts = backends.iter_mut().map(BackendProcess::counts);
    counts.map(|counts| counts.connections).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_at_once_and_over_at_once() {
    let names = ["one", "two", "three", "four"];
    let mut backends = BackendProcess::several(names, &["delay 5"]);
    let policy = "outlierDetection: {}, activeCheck: {path: /healthz, interval: 500ms}";
    let clusters = Clusters::new("", policy, &at(&backends));
    let stand = Stand::start("outage", clusters).await;
    let traffic = stand.traffic(200, true, 200 * 120);
    // Counted from the first connection on, as after the outage.
    tokio::time::sleep(2 * SECOND).await;
    let steady = connections(&mut backends);
    let resident = stand.tidegate.resident();
    backends.iter_mut().for_each(BackendProcess::kill);
    let down = traffic.now();
    tokio::time::sleep(scaled(5 * SECOND, 30 * SECOND)).await;
    let errors = "tidegate_upstream_connect_errors_total";
    let refused = stand.tidegate.metric(errors).await;
    let grown = stand.tidegate.resident().saturating_sub(resident);
    let up = traffic.now();
    backends
        .iter_mut()
        .for_each(|backend| backend.start_again(&["delay 5"]));
    let started = traffic.now();
    tokio::time::sleep(2 * SECOND).await;
    let again = connections(&mut backends);
    tokio::time::sleep(scaled(SECOND, 5 * SECOND)).await;
    let shots = traffic.stop().await;
    let meanwhile = shots.begun(down, up);
    let after = shots.begun(started, 300 * SECOND);
    let back = after.failed().0.iter().map(|shot| shot.begun).max();
    let back = back.unwrap_or(started) - started;
    println!(
        "E10 all of 4 down for {:.0?}: {} requests, {:?}, p99 {:.1} ms, {:.1} connects refused for each; back after {back:.2?}, {} failed after that {:?}; {steady} connections in the first 2 s, {again} in the 2 s after the return; memory grew by {:.1} MiB meanwhile",
        up - down,
        meanwhile.len(),
        meanwhile.failures(),
        meanwhile.percentile(99),
        refused / meanwhile.len() as f64,
        after.failed().len(),
        after.failures(),
        grown as f64 / 1048576.0,
    );
    assert!(grown <= 16 << 20, "what cannot be sent is not kept");
    let before = shots.begun(Duration::ZERO, down - millis(100));
    assert_eq!(before.failed().len(), 0, "{:?}", before.failures());
    assert!(meanwhile.percentile(99) <= within_millis(100));
    let said = |what: &&str| ["status 502", "status 503"].contains(what);
    assert!(
        meanwhile.failures().keys().all(said),
        "{:?}",
        meanwhile.failures()
    );
    assert!(back <= 3 * SECOND);
    assert!(again <= 2 * steady, "connections in a storm");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_come_and_go_by_fifty_and_no_request_fails() {
    const RELOADS: &str = "tidegate_config_reloads_total{result=\"success\"}";
    let names: Vec<String> = (0..50).map(|n| format!("b{n}")).collect();
    let start = |name: &String| BackendProcess::start(name, &["delay 5"]);
    let mut backends: Vec<_> = names.iter().map(start).collect();
    let fifty = |backends: &[BackendProcess]| Clusters::new("", "", &at(backends));
    let stand = Stand::start("fifty", fifty(&backends)).await;
    let traffic = stand.traffic(400, true, scaled(20_000, 24_000));
    let reloaded = async |clusters: &Clusters| {
        let before = stand.series(RELOADS).await;
        let start = Instant::now();
        stand.replace(clusters);
        while stand.series(RELOADS).await == before {
            assert!(start.elapsed() < within(2 * SECOND), "the file is not read");
            tokio::time::sleep(millis(10)).await;
        }
    };
    let rounds = scaled(4, 25);
    for round in 0..rounds {
        // Another one stays each time. The others have as long as the slowest request for what they are at, and are killed.
        let stays = round * 7 % 50;
        tokio::time::sleep(scaled(millis(300), SECOND)).await;
        reloaded(&fifty(&backends[stays..=stays])).await;
        tokio::time::sleep(scaled(millis(300), SECOND)).await;
        for (n, backend) in backends.iter_mut().enumerate() {
            if n != stays {
                backend.kill();
                backend.start_again(&["delay 5"]);
            }
        }
        reloaded(&fifty(&backends)).await;
    }
    tokio::time::sleep(millis(300)).await;
    let reached = backends
        .iter_mut()
        .filter_map(|one| (one.counts().requests > 0).then_some(()));
    let reached = reached.count();
    let shots = traffic.stop().await;
    println!(
        "E11 50-1-50 {rounds} times, 49 killed and started again each time: {} requests, {} failed {:?}; p99 {:.1} ms; {reached} of 50 asked at the end",
        shots.len(),
        shots.failed().len(),
        shots.failures(),
        shots.percentile(99),
    );
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
    assert!(shots.len() > 1_000, "{} are too few to tell", shots.len());
    assert!(reached >= 45, "{reached}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_was_stopped_blames_nobody_for_it() {
    let names = ["one", "two", "three", "four"];
    let mut backends = BackendProcess::several(names, &["delay 200"]);
    // All that could take an endpoint out, and easily.
    let policy = "activeCheck: {path: /healthz, interval: 300ms, timeout: 1s, unhealthyAfter: 1}, \
                  outlierDetection: {consecutiveErrors: 2, unanswered: 1s}, \
                  circuitBreaker: {latency: 1s, errorRatio: 20, minRequests: 5}";
    let clusters = Clusters::new("timeouts: {firstByte: 2s}", policy, &at(&backends));
    let stand = Stand::start("proxy-stopped", clusters).await;
    let traffic = stand.traffic(100, true, 100 * 60);
    tokio::time::sleep(SECOND).await;
    stand.signal("-STOP");
    let stopped = traffic.now();
    tokio::time::sleep(scaled(4 * SECOND, 10 * SECOND)).await;
    stand.signal("-CONT");
    let resumed = traffic.now();
    tokio::time::sleep(2 * SECOND).await;
    let shots = traffic.stop().await;
    let under_way = shots.only(|shot| shot.begun < stopped && shot.begun + shot.took >= stopped);
    let mut out = Vec::new();
    for check in ["active", "passive", "breaker", "connect"] {
        out.push((check, stand.taken_out(check).await));
    }
    let asked = backends.each_mut().map(|backend| backend.counts().requests);
    println!(
        "E25 proxy stopped for {:.1?}: {} requests, {} of them under way then, {} begun meanwhile; {} failed {:?}; taken out {out:?}; each backend was asked {asked:?} times",
        resumed - stopped,
        shots.len(),
        under_way.len(),
        shots.begun(stopped, resumed).len(),
        shots.failed().len(),
        shots.failures(),
    );
    assert!(under_way.len() >= 5, "nothing was tried");
    assert!(out.iter().all(|(_, count)| *count == 0), "{out:?}");
    // No backend took longer than 200 ms, so none was a real timeout.
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
}
