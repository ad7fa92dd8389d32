//! What endpoints say of themselves: by active checks, and by their agents.

use super::process::BackendProcess;
use super::stand::{Clusters, Stand, at, gets_requests, is_out_by};
use super::{millis, within};
use crate::load_stand::scaled;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_comes_back_serves_after_its_passes_and_nobody_noticed() {
    let mut backends = BackendProcess::several(["one", "two"], &[]);
    let addr = backends[0].addr;
    // Twice in a row, each after 400 ms give or take a tenth.
    let policy =
        "activeCheck: {path: /healthz, interval: 400ms, healthyAfter: 2, unhealthyAfter: 2}";
    let stand = Stand::start("restart", Clusters::new("", policy, &at(&backends))).await;
    let passes = 2 * millis(440);
    let traffic = stand.traffic(200, false, 200 * 60);
    tokio::time::sleep(millis(300)).await;
    let mut took = Vec::new();
    for _ in 0..scaled(2, 10) {
        backends[0].kill();
        let out = stand
            .until(addr, within(passes), |shown| is_out_by(shown, "active"))
            .await;
        backends[0].start_again(&[]);
        let start = Instant::now();
        while backends[0].counts().requests == 0 {
            assert!(start.elapsed() < within(passes), "it is not asked");
            tokio::time::sleep(millis(5)).await;
        }
        took.push((out, start.elapsed()));
        assert!(backends[0].counts().probes >= 2);
    }
    let shots = traffic.stop().await;
    println!(
        "active check, 2 passes of 400 ms: out and serving again after {took:.0?}; {} GETs, {} failed {:?}",
        shots.len(),
        shots.failed().len(),
        shots.failures(),
    );
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
    // One interval at least: it cannot have passed twice before.
    assert!(
        took.iter().all(|(_, back)| *back >= millis(300)),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_has_its_share_changed_and_its_endpoint_drained() {
    const AGENT: u16 = 8001;
    let mut backends = ["one", "two"].map(|name| BackendProcess::start(name, &[]));
    let agents = backends.each_ref().map(|one| (one.addr.ip(), AGENT));
    for (backend, (ip, port)) in backends.iter_mut().zip(agents) {
        backend.tell(&format!("agent {ip}:{port} 100%"));
    }
    let (ip, port) = agents[0];
    let addr = backends[0].addr;
    let interval = millis(400);
    let endpoints = backends
        .each_ref()
        .map(|one| format!("{} weight=100", one.addr));
    let policy = format!("agentCheck: {{port: {AGENT}, interval: 400ms}}");
    let stand = Stand::start("agent", Clusters::new("", &policy, &endpoints)).await;
    let traffic = stand.traffic(200, true, 200 * 60);
    tokio::time::sleep(millis(500)).await;

    let told = traffic.now();
    backends[0].tell(&format!("agent {ip}:{port} 25%"));
    let heard = stand
        .until(addr, within(interval), |shown| {
            shown["agent_weight_percent"] == 25
        })
        .await;
    let from = traffic.now();
    tokio::time::sleep(SECOND).await;
    let to = traffic.now();

    backends[0].tell(&format!("agent {ip}:{port} drain"));
    stand
        .until(addr, within(interval), |shown| {
            shown["state"] == "draining" && shown["in_flight"] == 0
        })
        .await;
    let before = backends[0].counts().requests;
    tokio::time::sleep(millis(700)).await;
    let new = backends[0].counts().requests - before;
    backends[0].tell(&format!("agent {ip}:{port} ready 100%"));
    stand.until(addr, within(interval), gets_requests).await;
    let again = traffic.now();
    tokio::time::sleep(millis(500)).await;
    let shots = traffic.stop().await;
    let share = |from, to| shots.begun(from, to).share("one") * 100.0;
    println!(
        "agent: 25% of weight 100 heard after {heard:.0?}, share {:.1} % before, {:.1} % then, of {} requests; drained: {new} new requests; ready again: {:.1} %; {} failed {:?}",
        share(Duration::ZERO, told),
        share(from, to),
        shots.begun(from, to).len(),
        share(again, 60 * SECOND),
        shots.failed().len(),
        shots.failures(),
    );
    // One of five; the round may be anywhere in its cycle at both ends.
    assert!((share(from, to) - 20.0).abs() <= 2.0);
    assert_eq!(new, 0);
    assert!((share(again, 60 * SECOND) - 50.0).abs() <= 3.0);
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
}
