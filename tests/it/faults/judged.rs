//! A circuit breaker over a backend that becomes slow, and clients that leave: for those nobody is blamed.

use super::millis;
use super::process::BackendProcess;
use super::stand::{Clusters, Stand, at, is_out_by};
use super::traffic::ask_once;
use crate::load_stand::connect;
use serde_json::Value;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_before_the_timeout_and_lets_one_try() {
    let mut backends = BackendProcess::several(["slow", "other"], &["delay 10"]);
    let addr = backends[0].addr;
    let policy = "circuitBreaker: {latency: 300ms, minRequests: 5, window: 2s, open: 1s}";
    let clusters = Clusters::new("timeouts: {firstByte: 10s}", policy, &at(&backends));
    let stand = Stand::start("breaker", clusters).await;
    let series = format!(
        "tidegate_circuit_breaker_state{{endpoint=\"{addr}\",namespace=\"{}\",port=\"{}\",service=\"web\"}}",
        stand.cluster().await["namespace"]
            .as_str()
            .unwrap_or_default(),
        stand.cluster().await["port"],
    );
    let state = async || stand.series(&series).await;
    let until = async |wanted: f64, within: Duration| {
        let start = Instant::now();
        while state().await != wanted {
            assert!(
                start.elapsed() < within,
                "the breaker is {} and not {wanted}",
                state().await
            );
            tokio::time::sleep(millis(5)).await;
        }
        start.elapsed()
    };
    let traffic = stand.traffic(100, true, 100 * 60);
    tokio::time::sleep(millis(500)).await;
    assert_eq!(state().await, 0.0);
    // It rises until it is far beyond the latency, and as far below the timeout.
    let mut delay = 50;
    let ramp = Instant::now();
    while state().await != 2.0 {
        assert!(ramp.elapsed() < 9 * SECOND, "it does not open");
        backends[0].tell(&format!("delay {delay}"));
        delay = (delay * 5 / 4).min(2_000);
        tokio::time::sleep(millis(100)).await;
    }
    let opened = ramp.elapsed();
    let shown = stand.endpoint(addr).await;
    assert!(
        is_out_by(&shown, "breaker") && shown["gets_requests"] == false,
        "{shown}"
    );
    // Open: not one request, until one tries.
    backends[0].tell("delay 1000");
    let before = at_rest(&mut backends[0]).await;
    let mut while_open = 0;
    while state().await == 2.0 {
        while_open = backends[0].counts().requests - before;
        tokio::time::sleep(millis(20)).await;
    }
    // Half-open, it is too slow still: open again, and the next one tries a second later.
    let half_open = until(2.0, 3 * SECOND).await;
    let tried = backends[0].counts().requests - before;
    backends[0].tell("delay 10");
    let closed = until(0.0, 4 * SECOND).await;
    let shown = stand.endpoint(addr).await;
    assert!(
        shown["state"] == "available" && shown["gets_requests"] == true,
        "{shown}"
    );
    tokio::time::sleep(millis(500)).await;
    let shots = traffic.stop().await;
    println!(
        "breaker: opened {opened:.2?} after the delay began to rise, at {delay} ms, before the timeout of 10 s; {while_open} requests while open, {tried} tried and was too slow after {half_open:.2?}, closed {closed:.2?} after it was quick again; {} requests, {} failed {:?}, longest {:.0} ms",
        shots.len(),
        shots.failed().len(),
        shots.failures(),
        shots.percentile(100),
    );
    // The moment in which it half-opens may be between two looks.
    assert!(while_open <= 1, "{while_open}");
    assert_eq!(tried, 1, "one tries");
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
    assert_eq!(stand.taken_out("breaker").await, 1);
}

/// How many requests it has had, once what was on its way has arrived.
async fn at_rest(backend: &mut BackendProcess) -> u64 {
    let mut before = backend.counts().requests;
    for _ in 0..20 {
        tokio::time::sleep(millis(40)).await;
        let now = backend.counts().requests;
        if now == before {
            break;
        }
        before = now;
    }
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_take_no_endpoint_out() {
    let mut backends = BackendProcess::several(["one", "two"], &[]);
    let policy = "outlierDetection: {consecutiveErrors: 2, unanswered: 1s, successRate: 99, minRequests: 2, interval: 500ms}, \
                  activeCheck: {path: /healthz, interval: 200ms, unhealthyAfter: 1}, \
                  circuitBreaker: {errorRatio: 10, minRequests: 2}";
    let clusters = Clusters::new("", policy, &at(&backends));
    let stand = Stand::start("aborted", clusters).await;
    let traffic = stand.traffic(50, true, 50 * 60);
    for _ in 0..5 {
        let mut leaving = Vec::new();
        for _ in 0..20 {
            let mut client = connect(stand.addr).await.unwrap();
            let request = b"GET /sleep/1500 HTTP/1.1\r\nHost: web.test\r\n\r\n";
            client.send(request).await.unwrap();
            leaving.push(client);
        }
        // Until they have arrived.
        let start = Instant::now();
        while backends
            .iter_mut()
            .map(|one| one.counts().in_flight)
            .sum::<u64>()
            < 20
        {
            assert!(start.elapsed() < 5 * SECOND);
            tokio::time::sleep(millis(5)).await;
        }
        for client in &leaving {
            client.io.set_zero_linger().unwrap();
        }
        drop(leaving);
        tokio::time::sleep(millis(200)).await;
    }
    // Longer than any interval that could judge.
    tokio::time::sleep(millis(1_200)).await;
    let mut out = Vec::new();
    for check in ["active", "passive", "breaker"] {
        out.push((check, stand.taken_out(check).await));
    }
    for backend in &backends {
        let is_well = |shown: &Value| shown["state"] == "available" && shown["in_flight"] == 0;
        stand.until(backend.addr, 5 * SECOND, is_well).await;
    }
    let shots = traffic.stop().await;
    println!(
        "100 slow requests whose clients left: taken out {out:?}; of {} others {} failed {:?}",
        shots.len(),
        shots.failed().len(),
        shots.failures(),
    );
    assert!(out.iter().all(|(_, count)| *count == 0), "{out:?}");
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failures());
    assert!(ask_once(stand.addr, "web.test", "/", "GET").await.0.is_ok());
}
