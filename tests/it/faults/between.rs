//! What stands between the proxy and its backends: it cuts connections, or makes them slow.

use super::millis;
use super::process::BackendProcess;
use super::stand::{Clusters, Stand, at};
use crate::load_stand::{scaled, serve};
use crate::vectors::random::Random;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

/// Where a relay listens.
fn at_relays(ports: &[u16]) -> Vec<String> {
    let addrs = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    addrs.collect()
}

/// What relays that cut share.
struct Shears {
    random: Mutex<Random>,
    connections: AtomicU64,
    cuts: AtomicU64,
}

/// Of a hundred connections one is cut: before the request arrives, when it has arrived, or in the answer.
async fn cut_one_of_a_hundred(mut near: TcpStream, addr: SocketAddr, shears: Arc<Shears>) {
    shears.connections.fetch_add(1, Ordering::Relaxed);
    let (is_cut, place) = {
        let mut random = shears.random.lock().unwrap();
        (random.below(100) == 0, random.below(3))
    };
    let mut far = TcpStream::connect(addr).await.expect("a backend listens");
    if !is_cut {
        let _ = copy_bidirectional(&mut near, &mut far).await;
        return;
    }
    shears.cuts.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0; 4096];
    let count = near.read(&mut bytes).await.unwrap_or(0);
    if place > 0 {
        let _ = far.write_all(&bytes[..count]).await;
        let count = far.read(&mut bytes).await.unwrap_or(0);
        if place == 2 {
            let _ = near.write_all(&bytes[..count / 2]).await;
        }
    }
    let _ = near.set_zero_linger();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_connections_that_are_cut_no_more_requests_fail_than_were_on_them() {
    let seed = Random::seed();
    println!("TIDEGATE_SEED={seed}");
    // A connection for each request, so that many can be cut.
    let mut backends = BackendProcess::several(["one", "two"], &["act close"]);
    let shears = Arc::new(Shears {
        random: Mutex::new(Random::new(seed, "relay")),
        connections: AtomicU64::new(0),
        cuts: AtomicU64::new(0),
    });
    let mut ports = Vec::new();
    for backend in &backends {
        let (addr, shears) = (backend.addr, Arc::clone(&shears));
        let cut = move |near| cut_one_of_a_hundred(near, addr, Arc::clone(&shears));
        ports.push(serve(cut).await);
    }
    let clusters = Clusters::new("", "", &at_relays(&ports));
    let stand = Stand::start("cuts", clusters).await;
    let rate = scaled(600, 1_000);
    let traffic = stand.traffic(rate, true, scaled(2_400, 30_000));
    let shots = traffic.finish().await;
    let failed = shots.failed();
    let gets = failed.only(|shot| !shot.is_post).len();
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (connections, cuts) = (load(&shears.connections), load(&shears.cuts));
    let retries = stand
        .tidegate
        .metric("tidegate_upstream_retries_total")
        .await;
    let posts: u64 = backends.iter_mut().map(|one| one.counts().posts).sum();
    let seconds = shots.len() as f64 / f64::from(rate);
    // One for every five requests and ten a second, with a second's worth to begin with, for each of two workers.
    let budget = shots.len() as f64 / 5.0 + 2.0 * 10.0 * (seconds + 1.0);
    println!(
        "E8 1 % of connections cut: {} requests, {connections} connections, {cuts} cut; {} failed {:?}, of which {gets} GETs; {retries} retries within a budget of {budget:.0}; {posts} POSTs executed of {}",
        shots.len(),
        failed.len(),
        failed.failures(),
        shots.len() / 2,
    );
    assert!(cuts > 0, "nothing was tried");
    assert!(failed.len() as u64 <= cuts, "{:?}", failed.failures());
    assert!(retries <= budget && retries <= cuts as f64);
    assert!(posts <= shots.len() as u64 / 2, "a POST was executed twice");
}

/// Answers come 100 to 300 ms late.
async fn delay(mut near: TcpStream, addr: SocketAddr, random: Arc<Mutex<Random>>) {
    let mut far = TcpStream::connect(addr).await.expect("a backend listens");
    let (mut read, mut written) = far.split();
    let (mut asked, mut answered) = near.split();
    let forth = tokio::io::copy(&mut asked, &mut written);
    let back = async {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = read.read(&mut bytes).await {
            let late = 100 + random.lock().unwrap().below(201) as u64;
            tokio::time::sleep(millis(late)).await;
            if answered.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { _ = forth => {}, () = back => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_becomes_far_away_is_asked_less() {
    let seed = Random::seed();
    println!("TIDEGATE_SEED={seed}");
    let backends = BackendProcess::several(["far", "one", "two", "three"], &["delay 10"]);
    let random = Arc::new(Mutex::new(Random::new(seed, "far")));
    let addr = backends[0].addr;
    let port = serve(move |near| delay(near, addr, Arc::clone(&random))).await;
    let mut endpoints = at_relays(&[port]);
    endpoints.extend(at(&backends[1..]));
    let clusters = Clusters::new("", "balancing: peak_ewma", &endpoints);
    let stand = Stand::start("far", clusters).await;
    let traffic = stand.traffic(300, true, 300 * scaled(7, 30));
    let shots = traffic.finish().await;
    let second = Duration::from_secs(1);
    let share = |from: u32, to: u32| shots.begun(from * second, to * second).share("far") * 100.0;
    println!(
        "E9 200 +-100 ms added to one of 4, peak_ewma: {} requests, its share by the second {:?} %; of all after 5 s {:.1} %; {} failed",
        shots.len(),
        (0..5).map(|n| share(n, n + 1).round()).collect::<Vec<_>>(),
        share(5, 60),
        shots.failed().len(),
    );
    assert_eq!(shots.failed().len(), 0, "{:?}", shots.failed().failures());
    assert!(share(5, 60) < 10.0);
}
