//! Backends that cut connections, close them while they rest, or refuse them: no POST is executed twice, and nobody notices a
//! connection that was merely old.

use crate::load_stand::{Hosts, LoadStand, Reader, connect, scaled, serve};
use crate::vectors::random::Random;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

const HOST: &str = "lossy.test";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
const CLIENTS: usize = 96;

/// What happened at the backends.
struct Ledger {
    random: Mutex<Random>,
    /// How often each request was executed, by its id.
    executed: Mutex<Vec<u8>>,
    /// Connections that were cut in a request, or closed while one was on its way to them.
    cut: AtomicU64,
    raced: AtomicU64,
    /// Connections that were closed at rest.
    closed: AtomicU64,
}

impl Ledger {
    fn new(seed: u64, requests: usize) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(Random::new(seed, "lossy")),
            executed: Mutex::new(vec![0; requests]),
            cut: AtomicU64::new(0),
            raced: AtomicU64::new(0),
            closed: AtomicU64::new(0),
        })
    }

    fn below(&self, end: usize) -> usize {
        self.random.lock().unwrap().below(end)
    }

    /// How long a backend waits for the next request: 0 to 50 ms, every other time 0 to 2, since with less the races are more.
    fn patience(&self) -> Duration {
        let most = [50, 2][self.below(2)];
        Duration::from_millis(self.below(most + 1) as u64)
    }

    fn execute(&self, id: usize) {
        let mut executed = self.executed.lock().unwrap();
        executed[id] = executed[id].saturating_add(1);
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Executes POSTs. Of a hundred requests it cuts one, at one of three places; after every second answer it closes the
/// connection if nothing comes soon.
async fn fickle(stream: TcpStream, ledger: Arc<Ledger>) {
    let mut reader = Reader::new(stream);
    let mut patience = None;
    loop {
        let head = match patience {
            None => reader.head().await,
            Some(patience) => match tokio::time::timeout(patience, reader.head()).await {
                Ok(head) => head,
                Err(_) => return close_at_rest(reader, &ledger).await,
            },
        };
        let Ok(Some(head)) = head else { return };
        let id: usize = head.second()[1..].parse().unwrap();
        let cut = ledger.below(100) == 0;
        let place = ledger.below(3);
        if cut {
            Ledger::count(&ledger.cut);
        }
        if cut && place == 0 {
            let _ = reader.io.set_zero_linger();
            return;
        }
        if reader.body(head.length()).await.is_err() {
            return;
        }
        ledger.execute(id);
        if cut {
            // Without a word, or in the middle of it.
            if place == 1 {
                let _ = reader.send(&ANSWER[..ANSWER.len() - 2]).await;
            }
            return;
        }
        if reader.send(ANSWER).await.is_err() {
            return;
        }
        patience = (ledger.below(2) == 0).then(|| ledger.patience());
    }
}

/// Ends our side, and then looks whether a request was on its way: that one is lost, whoever is to blame.
async fn close_at_rest(mut reader: Reader<TcpStream>, ledger: &Ledger) {
    use tokio::io::AsyncWriteExt;
    Ledger::count(&ledger.closed);
    let early = !reader.take_early().is_empty();
    let _ = reader.io.shutdown().await;
    let mut piece = [0; 512];
    let late = tokio::time::timeout(Duration::from_millis(200), reader.io.read(&mut piece)).await;
    if early || matches!(late, Ok(Ok(1..))) {
        Ledger::count(&ledger.raced);
    }
}

/// A port that refuses every connection for as long as this lives.
fn refusing() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// What the clients saw.
#[derive(Default)]
struct Saw {
    ok: Vec<usize>,
    failed: BTreeMap<String, u64>,
}

impl Saw {
    fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// Sends requests `0..count` from clients that rest up to so many milliseconds before each, and never retry.
async fn ask(
    addr: SocketAddr,
    count: usize,
    rest: usize,
    seed: u64,
    bytes: impl Fn(usize) -> String + Clone + Send + 'static,
) -> Saw {
    let next = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (next, bytes) = (Arc::clone(&next), bytes.clone());
            let mut random = Random::new(seed, &format!("client {number}"));
            tokio::spawn(async move {
                let mut saw = Saw::default();
                let mut connection = None;
                loop {
                    let pause = random.below(rest + 1) as u64;
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    let id = next.fetch_add(1, Ordering::Relaxed) as usize;
                    if id >= count {
                        return saw;
                    }
                    match one_request(addr, &mut connection, &bytes(id)).await {
                        Ok(200) => saw.ok.push(id),
                        Ok(status) => {
                            *saw.failed.entry(format!("status {status}")).or_default() += 1
                        }
                        Err(error) => {
                            connection = None;
                            *saw.failed.entry(error.to_string()).or_default() += 1;
                        }
                    }
                }
            })
        })
        .collect();
    let mut all = Saw::default();
    for client in clients {
        let saw = client.await.unwrap();
        all.ok.extend(saw.ok);
        for (what, count) in saw.failed {
            *all.failed.entry(what).or_default() += count;
        }
    }
    all
}

async fn one_request(
    addr: SocketAddr,
    connection: &mut Option<Reader<TcpStream>>,
    bytes: &str,
) -> std::io::Result<u16> {
    if connection.is_none() {
        *connection = Some(connect(addr).await?);
    }
    let open = connection
        .as_mut()
        .ok_or(std::io::ErrorKind::NotConnected)?;
    open.send(bytes.as_bytes()).await?;
    let head = open.answer().await?;
    let status = head.second().parse().map_err(std::io::Error::other)?;
    if head.closes() {
        *connection = None;
    }
    Ok(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_post_is_executed_twice() {
    let count = scaled(4_000, 100_000);
    let seed = Random::seed();
    println!("TIDEGATE_SEED={seed}");
    let ledger = Ledger::new(seed, count);
    let mut ports = Vec::new();
    for _ in 0..2 {
        let ledger = Arc::clone(&ledger);
        ports.push(serve(move |stream| fickle(stream, Arc::clone(&ledger))).await);
    }
    let (_refusing, port) = refusing();
    ports.push(port);
    let hosts = Hosts::default().host(HOST, "", &ports);
    let stand = LoadStand::start("lossy-posts", hosts, &[]).await;
    let start = Instant::now();
    let saw = ask(stand.tidegate.http, count, 50, seed, |id| {
        format!("POST /{id} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 7\r\n\r\npayload")
    })
    .await;
    let took = start.elapsed();
    let executed = ledger.executed.lock().unwrap().clone();
    let twice = executed.iter().filter(|times| **times > 1).count();
    let lost = saw.ok.iter().filter(|id| executed[**id] != 1).count();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (cut, raced, closed) = (load(&ledger.cut), load(&ledger.raced), load(&ledger.closed));
    let refused = stand
        .tidegate
        .metric("tidegate_upstream_connect_errors_total")
        .await;
    let retries = stand
        .tidegate
        .metric("tidegate_upstream_retries_total")
        .await;
    println!(
        "lossy POSTs: {count} in {took:.1?}: {twice} executed twice, {lost} answered and not executed; {cut} cut, {closed} closed at rest of which {raced} with a request on its way, {refused} connects refused, {retries} retries; {} failed {:?}",
        saw.failures(),
        saw.failed
    );
    assert_eq!((twice, lost), (0, 0), "executed twice, and never");
    assert_eq!(saw.ok.len() + saw.failures() as usize, count);
    assert!(cut > 0 && closed > 0 && refused > 0.0, "nothing was tried");
    assert!(saw.failures() <= cut + raced, "{:?}", saw.failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_merely_old_is_not_noticed() {
    let count = scaled(2_000, 50_000);
    let seed = Random::seed();
    println!("TIDEGATE_SEED={seed}");
    let ledger = Ledger::new(seed, 0);
    let mut ports = Vec::new();
    for _ in 0..2 {
        let ledger = Arc::clone(&ledger);
        let hasty = move |stream| {
            let ledger = Arc::clone(&ledger);
            async move {
                let mut reader = Reader::new(stream);
                let mut patience = Duration::from_secs(60);
                // What comes after that is reset: nobody reads it any more.
                while let Ok(Ok(Some(_))) = tokio::time::timeout(patience, reader.head()).await {
                    if reader.send(ANSWER).await.is_err() {
                        return;
                    }
                    patience = ledger.patience();
                }
                Ledger::count(&ledger.closed);
            }
        };
        ports.push(serve(hasty).await);
    }
    let hosts = Hosts::default().host(HOST, "", &ports);
    let stand = LoadStand::start("lossy-gets", hosts, &[]).await;
    let start = Instant::now();
    let saw = ask(stand.tidegate.http, count, 50, seed, |id| {
        format!("GET /{id} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
    })
    .await;
    let closed = ledger.closed.load(Ordering::Relaxed);
    let reused = stand
        .tidegate
        .metric("tidegate_upstream_reused_total")
        .await;
    let retries = stand
        .tidegate
        .metric("tidegate_upstream_retries_total")
        .await;
    println!(
        "stale connections: {count} GETs in {:.1?}: {} failed {:?}; {closed} connections closed at rest, {reused} reused, {retries} retries",
        start.elapsed(),
        saw.failures(),
        saw.failed
    );
    assert_eq!(saw.failures(), 0, "{:?}", saw.failed);
    assert_eq!(saw.ok.len(), count);
    assert!(closed > 0 && reused > 0.0, "nothing was tried");
}
