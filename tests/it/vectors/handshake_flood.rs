//! T2: a peer that offers 2,000 handshakes a second, for seconds.
//!
//! Each is a TCP connection of its own that sends a whole ClientHello and waits for what the server answers, whose making is
//! what costs the server; its client then goes. They are due at fixed times, whether or not those before were answered. A few
//! handshakes a second beside them are whole ones. Who floods, who is measured and who is flooded are a thread each.
//!
//! "At once" is what `--max-handshakes` bounds: answers that are being computed. A handshake that waits for its client holds
//! nothing that others need, so it does not count (T1 would keep everybody out otherwise).
//!
//! What is asserted always: never more than 64 at once, nothing refused to others, a plain connection accepted and answered
//! all the while. What has to do with time is held to the catalogue's bar in the full form; the short one adds [`FLOOR`] to it,
//! because a build without optimisation cannot answer 2,000 a second, and what it cannot answer queues.

use super::canary::{self, percentile};
use super::hello::Hello;
use super::stand::Stand;
use super::tls_client::client;
use crate::load_stand::{full, scaled};
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use test_support::raw::{self, Plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Handshakes offered in a second.
const RATE: u64 = 2_000;
/// Of these so many are due at once, because a timer has steps of a millisecond.
const TOGETHER: u64 = 4;
/// Most that are in progress on the client's side: descriptors have a bound. What is due beyond is not offered, and said.
const IN_PROGRESS: usize = 4_000;
/// Most answers that may be computed at once.
const AT_ONCE: f64 = 64.0;
/// How much longer than three times its usual p99 an existing connection may take in the short form.
const FLOOR: Duration = Duration::from_secs(5);
/// Between two requests of the existing connection.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two handshakes that are completed.
const WHOLE: Duration = Duration::from_millis(50);

/// What the flood came to.
#[derive(Debug, Default)]
struct Offered {
    /// Connections begun.
    begun: AtomicUsize,
    /// Those whose hello was answered.
    answered: AtomicUsize,
    /// Those that were due while too many were in progress.
    dropped: AtomicUsize,
}

pub(crate) async fn flood(stand: &Stand) -> Result<(), String> {
    let https = stand.tidegate.https;
    let length = Duration::from_secs(scaled(3, 10));
    let usual = on_thread(move || existing(https, length)).await?;
    let start = Instant::now();
    let offered = Arc::new(Offered::default());
    let counts = Arc::clone(&offered);
    let (flooded, whole, during, most) = tokio::join!(
        on_thread(move || offer(https, length, counts)),
        on_thread(move || whole_handshakes(https, length)),
        on_thread(move || existing(https, length)),
        most_at_once(stand, start + length),
    );
    flooded?;
    let (whole, during) = (whole?, during?);
    let (usual, during) = (percentile(&usual, 99), percentile(&during, 99));
    let plain = stand.canary.figures(Some(start));
    let rate = |count: &AtomicUsize| count.load(Ordering::Relaxed) as f64 / length.as_secs_f64();
    let (begun, answered) = (rate(&offered.begun), rate(&offered.answered));
    println!(
        "    T2: {begun:.0} handshakes/s offered, {answered:.0}/s answered, {:.0}/s not offered for want of room; at most {most} \
         at once; an existing connection's p99 {during:.1?}, {usual:.1?} before; {} whole ones, p99 {:.1?}; {} plain \
         connections, worst {:.1?}",
        rate(&offered.dropped),
        whole.len(),
        percentile(&whole, 99),
        plain.asked,
        plain.worst,
    );
    if !(1.0..=AT_ONCE).contains(&most) {
        return Err(format!("{most} handshakes at once"));
    }
    if let Some(why) = plain.failures.first() {
        return Err(format!("a plain connection: {why}"));
    }
    if full() && begun < 0.95 * RATE as f64 {
        return Err(format!("only {begun:.0} handshakes/s could be offered"));
    }
    let bar = 3 * usual + scaled(FLOOR, Duration::ZERO);
    match during <= bar {
        true => Ok(()),
        false => Err(format!(
            "an existing connection's p99 is {during:?}, {usual:?} before"
        )),
    }
}

/// The most answers that were computed at once: what was seen while the flood went on, and what the proxy itself says.
async fn most_at_once(stand: &Stand, until: Instant) -> f64 {
    let mut most = 0.0f64;
    while Instant::now() < until {
        most = most.max(
            stand
                .tidegate
                .metric("tidegate_tls_handshakes_active")
                .await,
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let peak = "tidegate_tls_handshakes_active_max";
    most.max(stand.tidegate.metric(peak).await)
}

/// Runs something on a thread and a runtime of its own.
async fn on_thread<T, F>(make: impl FnOnce() -> F + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + 'static,
{
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .unwrap();
        let _ = done.send(runtime.block_on(make()));
    });
    result.await.map_err(|_| "a thread panicked".to_owned())?
}

/// Offers handshakes for so long.
async fn offer(https: SocketAddr, length: Duration, counts: Arc<Offered>) -> Result<(), String> {
    let hello: Arc<[u8]> = Hello::named("a.test").bytes().into();
    let mut due = interval(Duration::from_secs(1) * TOGETHER as u32 / RATE as u32);
    // What is late is offered all the same.
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let in_progress = Arc::new(());
    let start = Instant::now();
    while start.elapsed() < length {
        due.tick().await;
        for _ in 0..TOGETHER {
            if Arc::strong_count(&in_progress) > IN_PROGRESS {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (hello, counts, held) =
                (Arc::clone(&hello), Arc::clone(&counts), in_progress.clone());
            tokio::task::spawn_local(async move {
                if answered(https, &hello, &counts).await.unwrap_or(false) {
                    counts.answered.fetch_add(1, Ordering::Relaxed);
                }
                drop(held);
            });
        }
    }
    Ok(())
}

/// Says whether a hello was answered with a handshake message. Then the client is gone without a word.
async fn answered(https: SocketAddr, hello: &[u8], counts: &Offered) -> std::io::Result<bool> {
    const HANDSHAKE: u8 = 22;
    let mut stream = TcpStream::connect(https).await?;
    counts.begun.fetch_add(1, Ordering::Relaxed);
    stream.set_zero_linger()?;
    stream.write_all(hello).await?;
    Ok(stream.read_u8().await? == HANDSHAKE)
}

/// A whole handshake with the other tenant's host.
async fn connect(https: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect(https)
        .await
        .map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(canary::CANARY).map_err(|error| error.to_string())?;
    let connecting = TlsConnector::from(Arc::new(client("http/1.1"))).connect(name, stream);
    let connected = timeout(Duration::from_secs(5), connecting).await;
    let connected = connected.map_err(|_| "a handshake took more than 5 s".to_owned())?;
    connected.map_err(|error| format!("a handshake failed: {error}"))
}

/// Makes whole handshakes, one after the other; how long each took, sorted.
async fn whole_handshakes(https: SocketAddr, length: Duration) -> Result<Vec<Duration>, String> {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < length {
        let begun = Instant::now();
        connect(https).await?;
        times.push(begun.elapsed());
        tokio::time::sleep(WHOLE).await;
    }
    times.sort_unstable();
    Ok(times)
}

/// Asks on a connection that exists; how long each answer took, sorted. Time counts from when a request is due.
async fn existing(https: SocketAddr, length: Duration) -> Result<Vec<Duration>, String> {
    let mut stream = connect(https).await?;
    let mut times = Vec::new();
    let mut due = interval(PAUSE);
    let start = Instant::now();
    while start.elapsed() < length {
        let due = due.tick().await;
        let request = canary::request("", "/existing");
        let got = raw::exchange(&mut stream, Plan::new(request)).await;
        if got.statuses() != [200] {
            return Err(format!("an existing connection got {}", got.summary()));
        }
        times.push(due.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}
