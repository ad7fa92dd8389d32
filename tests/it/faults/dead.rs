//! One of four backends is killed, stopped, behind a host that drops its packets, or not there at all.

use super::process::BackendProcess;
use super::stand::{Clusters, Stand, WEB, at, gets_requests, is_out_by};
use super::traffic::ask_once;
use super::{millis, within, within_millis};
use crate::load_stand::scaled;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

#[tokio::test(flavor = "multi_thread")]
async fn of_a_backend_that_is_killed_only_posts_under_way_fail() {
    let mut backends = BackendProcess::several(NAMES, &["delay 20"]);
    let clusters = Clusters::new("", "", &at(&backends));
    let stand = Stand::start("killed", clusters).await;
    let traffic = stand.traffic(800, true, scaled(2_400, 40_000));
    tokio::time::sleep(millis(700)).await;
    let victim = backends[0].addr;
    backends[0].kill();
    let (killed, start) = (traffic.now(), Instant::now());
    let out = stand
        .until(victim, within(Duration::from_secs(1)), |shown| {
            !gets_requests(shown)
        })
        .await;
    println!(
        "E1: out {out:.0?} after kill -9, {:.0?} after it was gone",
        start.elapsed()
    );
    let shots = traffic.finish().await;
    let failed = shots.failed();
    let gets = failed.only(|shot| !shot.is_post).len();
    println!(
        "E1 kill -9 of one of 4: {} requests, half of them GETs: {gets} GETs failed, {} POSTs failed {:?}; p99 {:.0} ms",
        shots.len(),
        failed.len() - gets,
        failed.failures(),
        shots.percentile(99),
    );
    assert_eq!(gets, 0, "{:?}", failed.failures());
    let late = failed.only(|shot| shot.begun > killed);
    assert_eq!(
        late.len(),
        0,
        "POSTs failed that were not under way: {late:?}"
    );
    // Of 800 a second it has a quarter, half of them POSTs, for 20 ms each: 2 on average.
    assert!(failed.len() <= 30, "{:?}", failed.failures());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_stopped_is_ejected_before_any_timeout() {
    let backends = BackendProcess::several(NAMES, &["delay 2"]);
    let policy = "outlierDetection: {ejection: 60s}";
    let clusters = Clusters::new("timeouts: {firstByte: 20s}", policy, &at(&backends));
    let stand = Stand::start("stopped", clusters).await;
    let traffic = stand.traffic(300, true, 60_000);
    tokio::time::sleep(millis(500)).await;
    let victim = &backends[0];
    let stopped = traffic.now();
    victim.stop();
    let out = stand
        .until(victim.addr, within(Duration::from_secs(3)), |shown| {
            is_out_by(shown, "passive")
        })
        .await;
    let ejected = traffic.now();
    tokio::time::sleep(scaled(millis(1500), Duration::from_secs(15))).await;
    let waits = stand.endpoint(victim.addr).await["in_flight"].as_u64();
    let after = traffic.now();
    victim.go_on();
    let shots = traffic.stop().await;
    let waited = shots.only(|shot| shot.took > millis(500));
    let (meanwhile, then) = (shots.begun(stopped, ejected), shots.begun(ejected, after));
    // The tick in which it was ejected may have been on its way to it.
    let to_it = then.share("one");
    println!(
        "E2 kill -STOP of one of 4: ejected after {out:.2?}; {} requests until then, {} waited for it ({waits:?} in flight); then {} requests, its share {:.2} %, p99 {:.0} ms; {} failed {:?}",
        meanwhile.len(),
        waited.len(),
        then.len(),
        to_it * 100.0,
        then.percentile(99),
        shots.failed().len(),
        shots.failed().failures(),
    );
    assert!(to_it <= 0.01, "{to_it}");
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failed().failures());
    // Those it had, and none besides. When its queue of connections is full it is as if its host dropped packets, and others
    // answer after the connect timeout.
    assert!(waited.len() <= meanwhile.len() / 4 + 3, "others waited too");
    assert!(waited.len() >= 3, "nothing was tried");
}

/// Listens and drops each SYN: its queue of connections that nobody accepts is full, and then Linux does not answer.
async fn drops_packets(addr: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    for _ in 0..16 {
        match timeout(millis(300), TcpStream::connect(addr)).await {
            Ok(stream) => queued.push(stream.expect("it is not refused")),
            Err(_) => return (listener, queued),
        }
    }
    panic!(
        "{} connections are made and no packet dropped",
        queued.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drops_packets_costs_a_connect_timeout_and_then_nothing() {
    let mut backends = BackendProcess::several(NAMES, &[]);
    // Ejected for longer than this takes: what it is asked when its time is up is not of interest.
    let policy = "outlierDetection: {ejection: 60s}";
    let clusters = Clusters::new("", policy, &at(&backends));
    let stand = Stand::start("dropped", clusters).await;
    // Each second the host is asked until one attempt has ended, so this needs no more than a steady trickle.
    let traffic = stand.traffic(scaled(300, 500), true, scaled(2_500, 5_000));
    tokio::time::sleep(millis(500)).await;
    backends[0].kill();
    let dropping = drops_packets(backends[0].addr).await;
    let from = traffic.now();
    let shots = traffic.finish().await;
    let second = Duration::from_secs(1);
    let early = shots.begun(from, from + 3 * second);
    let late = shots.begun(from + 3 * second, 60 * second);
    println!(
        "E3 SYNs dropped by one of 4: {} requests, {} failed {:?}; first 3 s p99 {:.0} ms, p50 {:.0} ms; then p99 {:.0} ms of {}; ejected {}",
        shots.len(),
        shots.failed().len(),
        shots.failed().failures(),
        early.percentile(99),
        early.percentile(50),
        late.percentile(99),
        late.len(),
        stand.taken_out("passive").await,
    );
    drop(dropping);
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failed().failures());
    // The connect timeout is 2 s: nobody waits for two of them.
    assert!(early.percentile(99) <= 2200.0 + within_millis(200));
    assert!(late.percentile(99) <= within_millis(50));
    assert!(late.len() > 500, "{} are too few to tell", late.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_refuses_costs_nobody_a_request() {
    let mut backends = BackendProcess::several(NAMES, &[]);
    backends[0].kill();
    let clusters = Clusters::new("", "", &at(&backends));
    let stand = Stand::start("refused", clusters).await;
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    let start = Instant::now();
    let last = scaled(Duration::from_secs(3), Duration::from_secs(30));
    while start.elapsed() < last {
        for method in methods {
            let (answer, took) = ask_once(stand.addr, WEB, "/", method).await;
            times.push(took);
            failed.extend(answer.err().map(|error| format!("{method}: {error}")));
        }
    }
    times.sort();
    let refused = stand
        .tidegate
        .metric("tidegate_upstream_connect_errors_total")
        .await;
    println!(
        "E4 one of 4 refuses: {} requests of {} methods, {} failed; {refused} connects refused; p99 {:.1?}, longest {:.1?}",
        times.len(),
        methods.len(),
        failed.len(),
        times[times.len() * 99 / 100],
        times[times.len() - 1],
    );
    assert_eq!(failed, Vec::<String>::new());
    assert!(refused >= 1.0, "nothing was tried");
    assert!(
        times[times.len() * 99 / 100] <= within(millis(50)),
        "at once"
    );
}
