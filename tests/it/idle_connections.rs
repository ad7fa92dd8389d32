//! Connections that do nothing cost little, more of them than there are file descriptors do no lasting harm, and neither do
//! connections that are gone as soon as they are made.

use crate::load_stand::{Canary, Hosts, LoadStand, Reader, connect, full, mib, ok_backend, scaled};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_support::TlsClient;
use test_support::process::Surroundings;
use tokio::net::TcpStream;

const HOST: &str = "idle.test";
/// Clients that connect at the same time.
const AT_ONCE: usize = 16;
/// Time for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes so many connections, a few at a time.
async fn many<T: Send + 'static, F>(
    count: usize,
    one: impl Fn() -> F + Clone + Send + 'static,
) -> Vec<T>
where
    F: Future<Output = std::io::Result<T>> + Send,
{
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let one = one.clone();
            let mine = count / AT_ONCE + usize::from(number < count % AT_ONCE);
            tokio::spawn(async move {
                let mut made = Vec::new();
                for _ in 0..mine {
                    made.push(one().await.expect("a connection and a request"));
                }
                made
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

fn must_be_200(status: &str) -> std::io::Result<()> {
    match status {
        "200" => Ok(()),
        other => Err(std::io::Error::other(format!("status {other}"))),
    }
}

const IDLE_FLAGS: &[&str] = &["--client-idle-timeout=10m", "--max-connections=40000"];

#[tokio::test(flavor = "multi_thread")]
async fn idle_tls_connections_fit_into_memory() {
    const MOST: u64 = 400 << 20;
    let count = scaled(150, 10_000);
    let hosts = Hosts::default().host(HOST, "", &[ok_backend().await]);
    let stand = LoadStand::start("idle-tls", hosts, IDLE_FLAGS).await;
    let memory = stand.watch_memory();
    let (addr, client) = (stand.tidegate.https, TlsClient::new(None));
    let start = Instant::now();
    let one = move || {
        let client = client.clone();
        async move {
            let mut reader = Reader::new(client.connect(addr, HOST).await?);
            must_be_200(reader.get(HOST, "/").await?.second())?;
            Ok(reader)
        }
    };
    let mut open = many(count, one).await;
    let took = start.elapsed();
    memory.look(&stand);
    let (all, grown) = (stand.tidegate.resident(), memory.growth());
    println!(
        "idle TLS: {count} connections, made in {took:.1?}: {:.1} MiB resident in all, {:.1} KiB each",
        mib(all),
        grown as f64 / 1024.0 / count as f64
    );
    assert!(all <= MOST, "{:.1} MiB", mib(all));
    for reader in open.iter_mut().step_by(count / 50) {
        let head = reader.get(HOST, "/").await.unwrap();
        assert_eq!(head.second(), "200");
    }
    assert_eq!(
        stand
            .tidegate
            .metric("tidegate_connections_shed_total")
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_plain_connections_cost_next_to_nothing() {
    // For each connection, with what the process needs anyway spread over few of them in the short form.
    let most = scaled(64 << 10, 6 << 10);
    let count = scaled(200, 10_000);
    let hosts = Hosts::default().host(HOST, "", &[ok_backend().await]);
    let stand = LoadStand::start("idle-plain", hosts, IDLE_FLAGS).await;
    let addr = stand.tidegate.http;
    let one = move || async move {
        let mut reader = connect(addr).await?;
        must_be_200(reader.get(HOST, "/").await?.second())?;
        Ok(reader)
    };
    let memory = stand.watch_memory();
    let mut open = many(count, one).await;
    memory.look(&stand);
    let each = memory.growth() / count as u64;
    println!(
        "idle plain: {count} connections: {:.1} MiB resident in all, {:.1} KiB each",
        mib(stand.tidegate.resident()),
        each as f64 / 1024.0
    );
    assert!(each <= most, "{each} bytes each");
    for reader in open.iter_mut().step_by(count / 50) {
        let head = reader.get(HOST, "/").await.unwrap();
        assert_eq!(head.second(), "200");
    }
}

/// Whether a new connection is answered soon.
async fn answers(addr: SocketAddr) -> bool {
    let asked = async {
        let mut reader = connect(addr).await?;
        must_be_200(reader.get(HOST, "/").await?.second())
    };
    let asked = tokio::time::timeout(Duration::from_millis(500), asked).await;
    asked.is_ok_and(|asked| asked.is_ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_descriptors_is_survived() {
    const LIMIT: u64 = 256;
    let hosts = Hosts::default().host(HOST, "", &[ok_backend().await]);
    let surroundings = Surroundings {
        descriptors: Some(LIMIT),
        ..Surroundings::default()
    };
    let stand = LoadStand::start_in("descriptors", hosts, &[], surroundings).await;
    let addr = stand.tidegate.http;
    let mut kept = Vec::new();
    for _ in 0..20 {
        let mut reader = connect(addr).await.unwrap();
        reader.get(HOST, "/").await.unwrap();
        kept.push(reader);
    }
    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(TcpStream::connect(addr).await.unwrap());
    }
    let start = Instant::now();
    while stand.tidegate.descriptors() < LIMIT as usize {
        assert!(
            start.elapsed() < PATIENCE,
            "{} open",
            stand.tidegate.descriptors()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let processor = stand.tidegate.processor_time();
    let (start, mut asked, mut failed) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < Duration::from_secs(scaled(2, 5)) {
        for reader in &mut kept {
            let got = reader
                .get(HOST, "/")
                .await
                .map(|head| head.second().to_owned());
            asked += 1;
            match got {
                Ok(status) if status == "200" => {}
                other => failed.push(format!("{other:?}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let used =
        (stand.tidegate.processor_time() - processor).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(stand.tidegate.is_running(), "{}", stand.tidegate.logged());
    drop(crowd);
    let freed = Instant::now();
    while !answers(addr).await {
        assert!(freed.elapsed() < PATIENCE, "accepts nothing any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let back = freed.elapsed();
    let lines = stand.tidegate.logged().lines().count();
    println!(
        "descriptors: {LIMIT} for 400 clients: {asked} requests on open connections, {} failed, {:.0} % of a core; accepts again after {back:.1?}; {lines} log lines",
        failed.len(),
        100.0 * used
    );
    assert!(
        failed.is_empty(),
        "{} failed, first {}",
        failed.len(),
        failed[0]
    );
    assert!(lines < 100, "{lines} log lines");
    if full() {
        assert!(back <= Duration::from_secs(2), "{back:?}");
        assert!(used < 0.2, "{used}");
    }
}

/// Connects and resets at once, so many times a second, from a few tasks.
async fn connect_and_reset(addr: SocketAddr, rate: u64, time: Duration) -> u64 {
    let made = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let made = Arc::clone(&made);
            tokio::spawn(async move {
                let start = Instant::now();
                while start.elapsed() < time {
                    let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
                    if made.fetch_add(1, Ordering::Relaxed) >= due {
                        made.fetch_sub(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    if let Ok(stream) = TcpStream::connect(addr).await {
                        let _ = stream.set_zero_linger();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    made.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_at_once_disturb_nobody() {
    let hosts = Hosts::default().host(HOST, "", &[ok_backend().await]);
    let stand = LoadStand::start("resets", hosts, &[]).await;
    let (plain, tls) = (stand.tidegate.http, stand.tidegate.https);
    let canary = Canary::start(plain, HOST, Duration::from_millis(20), true);
    let (rate, time) = scaled(
        (500, Duration::from_secs(1)),
        (5_000, Duration::from_secs(5)),
    );
    let first = connect_and_reset(plain, rate, time).await;
    let second = connect_and_reset(tls, rate, time).await;
    let sung = canary.stop().await;
    let start = Instant::now();
    // The one that asks is counted too.
    while stand.tidegate.metric("tidegate_connections_open").await > 1.0 {
        assert!(start.elapsed() < PATIENCE, "connections stay open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lines = stand.tidegate.logged().lines().count();
    println!(
        "resets: {first} plain and {second} TLS connections in {time:?} each; canary on new connections: {} answered, {} failed, p50 {:.1} ms, p99 {:.1} ms; {lines} log lines",
        sung.answered(),
        sung.failed.len(),
        sung.percentile(50),
        sung.percentile(99)
    );
    assert!(sung.failed.is_empty(), "{:?}", sung.failed);
    assert!(sung.answered() > 0);
    assert!(lines < 120, "{lines} log lines");
}
