//! Bodies stream: however many and however large, the proxy holds little of them, and less than 1 MiB of one that its reader
//! has stopped reading.

use crate::load_stand::{Hosts, LoadStand, Reader, connect, mib, scaled, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_support::{TlsClient, h2_raw, h2c};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;

const HOST: &str = "bodies.test";
/// No limit on bodies, and time for everybody to wait for everybody.
const ANNOTATIONS: &str = "tidegate.dev/max-request-body: '0'";
/// Bytes that are moved at once.
const PIECE: usize = 16 * 1024;
/// A prime, so that no buffer of the proxy has it as its size: a piece that is lost, doubled or moved is seen.
const PERIOD: usize = 8191;

/// Two periods and a piece, to compare with from every place in the period.
static PATTERN: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
    let byte = |at: usize| {
        ((at % PERIOD) as u32)
            .wrapping_mul(2_654_435_761)
            .to_le_bytes()[3]
    };
    (0..PERIOD + PIECE).map(byte).collect()
});

/// What belongs at this place of every body.
fn expected(at: usize, length: usize) -> &'static [u8] {
    &PATTERN[at % PERIOD..][..length]
}

/// Sends the part of a body between two places.
async fn send_part(io: &mut (impl AsyncWriteExt + Unpin), from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        let length = PIECE.min(to - at);
        if io.write_all(expected(at, length)).await.is_err() {
            return false;
        }
        at += length;
    }
    true
}

/// Reads the part of a body between two places; says what is wrong with it.
async fn read_part(
    io: &mut (impl AsyncReadExt + Unpin),
    from: usize,
    to: usize,
) -> Result<(), String> {
    let mut piece = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let room = PIECE.min(to - at);
        let count = match io.read(&mut piece[..room]).await {
            Ok(0) => return Err(format!("ended at {at} of {to}")),
            Ok(count) => count,
            Err(error) => return Err(format!("{error} at {at} of {to}")),
        };
        if piece[..count] != *expected(at, count) {
            return Err(format!("other bytes at {at}"));
        }
        at += count;
    }
    Ok(())
}

/// Swallows a body and says so, or sends one of the length that the path names.
async fn backend() -> u16 {
    serve(async |stream| {
        let mut reader = Reader::new(stream);
        while let Ok(Some(head)) = reader.head().await {
            let length = head.length();
            let early = reader.take_early();
            if early[..] != *expected(0, early.len()) {
                return;
            }
            if let Err(error) = read_part(&mut reader.io, early.len(), length).await {
                let length = error.len();
                let answer = format!(
                    "HTTP/1.1 500 Bad\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{error}"
                );
                let _ = reader.send(answer.as_bytes()).await;
                return;
            }
            let size: usize = head.second()[1..].parse().unwrap_or(0);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            if reader.send(answer.as_bytes()).await.is_err()
                || !send_part(&mut reader.io, 0, size).await
            {
                return;
            }
        }
    })
    .await
}

/// How many bytes of a body go before all others are as far: half of it, and so little that nobody waits for as long as someone who
/// has stopped.
fn first_part(size: usize) -> usize {
    (size / 2).min(1 << 20)
}

async fn upload(addr: SocketAddr, size: usize, under_way: Arc<Barrier>) -> Result<(), String> {
    let mut reader = connect(addr).await.map_err(|error| error.to_string())?;
    let head = format!("POST /0 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n");
    let begun = reader.send(head.as_bytes()).await.is_ok()
        && send_part(&mut reader.io, 0, first_part(size)).await;
    under_way.wait().await;
    if !begun || !send_part(&mut reader.io, first_part(size), size).await {
        return Err("could not be sent".into());
    }
    let head = reader.answer().await.map_err(|error| error.to_string())?;
    match head.second() {
        "200" => Ok(()),
        status => Err(format!("status {status}")),
    }
}

async fn download(addr: SocketAddr, size: usize, under_way: Arc<Barrier>) -> Result<(), String> {
    let begun = async {
        let mut reader = connect(addr).await.map_err(|error| error.to_string())?;
        let request = format!("GET /{size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let sent = reader.send(request.as_bytes()).await;
        sent.map_err(|error| error.to_string())?;
        let head = reader.head().await.map_err(|error| error.to_string())?;
        let head = head.ok_or("no answer")?;
        if head.second() != "200" || head.length() != size {
            return Err(format!("{} with {}", head.line(), head.length()));
        }
        let early = reader.take_early();
        if early[..] != *expected(0, early.len()) {
            return Err("other bytes behind the head".into());
        }
        let taken = early.len() + first_part(size - early.len());
        read_part(&mut reader.io, early.len(), taken).await?;
        Ok((reader, taken))
    };
    let begun = begun.await;
    under_way.wait().await;
    let (mut reader, taken) = begun?;
    read_part(&mut reader.io, taken, size).await
}

/// Runs so many at once; all have their first part behind them before one goes on.
async fn all_at_once<F>(count: usize, one: impl Fn(Arc<Barrier>) -> F)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let under_way = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|_| tokio::spawn(one(Arc::clone(&under_way))))
        .collect();
    let mut failed = Vec::new();
    for task in tasks {
        failed.extend(task.await.unwrap().err());
    }
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        failed.first()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_bodies_take_little_memory() {
    const MOST: u64 = 64 << 20;
    // How many at once, and how long each is: one of 1 GiB, and a thousand of them, which take the better part of half
    // an hour.
    let full: &[(usize, usize)] = &[(1, 1 << 30), (1000, 1 << 30)];
    let hosts = Hosts::default().host(HOST, ANNOTATIONS, &[backend().await]);
    let stand = LoadStand::start("bodies", hosts, &[]).await;
    let addr = stand.tidegate.http;
    let memory = stand.watch_memory();
    for &(count, size) in scaled(&[(100, 256 << 10)][..], full) {
        let (start, processor) = (Instant::now(), stand.tidegate.processor_time());
        let work = all_at_once(count, |under_way| upload(addr, size, under_way));
        memory.during(&stand, work).await;
        let (up, up_time) = (memory.growth(), start.elapsed());
        let up_processor = stand.tidegate.processor_time() - processor;
        let start = Instant::now();
        let work = all_at_once(count, |under_way| download(addr, size, under_way));
        memory.during(&stand, work).await;
        println!(
            "bodies: {count} x {:.2} MiB at once, up in {up_time:.1?} ({up_processor:.1?} of processor), down in {:.1?} ({:.1?}); memory grew by {:.1} MiB, then {:.1} MiB in all",
            mib(size as u64),
            start.elapsed(),
            stand.tidegate.processor_time() - processor - up_processor,
            mib(up),
            mib(memory.growth())
        );
    }
    let growth = memory.growth();
    assert!(growth <= MOST, "memory grew by {:.1} MiB", mib(growth));
}

/// Counts what an endless sender got rid of.
#[derive(Clone, Default)]
struct Sent(Arc<AtomicU64>);

impl Sent {
    fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Waits until nothing more is got rid of.
    async fn settled(&self) -> u64 {
        let mut before = u64::MAX;
        for _ in 0..100 {
            let now = self.0.load(Ordering::Relaxed);
            if now == before && now > 0 {
                return now;
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        panic!("still sending: {before} bytes");
    }
}

/// Sends an endless body to everybody.
async fn endless_backend(sent: Sent) -> u16 {
    serve(move |stream| {
        let sent = sent.clone();
        async move {
            let mut reader = Reader::new(stream);
            let Ok(Some(_)) = reader.head().await else {
                return;
            };
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
            if reader.send(head).await.is_err() {
                return;
            }
            while let Ok(count) = reader.io.write(expected(0, PIECE)).await {
                sent.add(count);
            }
        }
    })
    .await
}

/// Reads a head and nothing after it.
async fn stopped_backend() -> u16 {
    serve(async |stream| {
        let mut reader = Reader::new(stream);
        if let Ok(Some(_)) = reader.head().await {
            // Until the proxy has gone; the connection is open as long.
            let () = std::future::pending().await;
        }
    })
    .await
}

/// What one stream may hold.
const MOST_HELD: u64 = 1 << 20;

fn judge(what: &str, streams: usize, grown: u64, sent: u64) {
    let each = grown / streams as u64;
    println!(
        "stopped {what}: {streams} streams, {:.2} MiB held for each, {:.1} MiB on the way for each",
        mib(each),
        mib(sent / streams as u64)
    );
    assert!(each <= MOST_HELD, "{what}: {:.2} MiB for each", mib(each));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_holds_little() {
    let streams = scaled(10, 40);
    let sent = Sent::default();
    let hosts = Hosts::default().host(HOST, ANNOTATIONS, &[endless_backend(sent.clone()).await]);
    let stand = LoadStand::start("stopped-readers", hosts, &["--client-write-timeout=5m"]).await;
    let memory = stand.watch_memory();
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut reader = connect(stand.tidegate.http).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        reader.send(request.as_bytes()).await.unwrap();
        open.push(reader);
    }
    let total = memory.during(&stand, sent.settled()).await;
    judge("readers of HTTP/1.1", streams, memory.growth(), total);
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_http2_that_stops_holds_little() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const STREAMS: u32 = 5;
    let connections = scaled(4, 20);
    let sent = Sent::default();
    let hosts = Hosts::default().host(HOST, ANNOTATIONS, &[endless_backend(sent.clone()).await]);
    let stand = LoadStand::start("stopped-http2", hosts, &["--client-write-timeout=5m"]).await;
    // The first handshake fills tables that stay.
    drop(
        TlsClient::new(None)
            .alpn("h2")
            .connect(stand.tidegate.https, HOST)
            .await,
    );
    let memory = stand.watch_memory();
    let mut open = Vec::new();
    for _ in 0..connections {
        let tls = TlsClient::new(None).alpn("h2");
        let io = tls.connect(stand.tidegate.https, HOST).await.unwrap();
        // The windows are wide open, so only what the socket takes is in the way.
        let widest = (1 << 31) - 1;
        let mut connection = h2_raw::Connection::open(io, &[(INITIAL_WINDOW_SIZE, widest)]).await;
        let more = (widest - 65_535).to_be_bytes();
        connection
            .send(&h2_raw::frame(h2_raw::kind::WINDOW_UPDATE, 0, 0, &more))
            .await;
        for number in 0..STREAMS {
            let fields = [
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", HOST),
                (":path", "/"),
            ];
            let block = h2_raw::block(&fields);
            connection
                .send(&h2_raw::headers(2 * number + 1, true, &block))
                .await;
        }
        open.push(connection);
    }
    let total = memory.during(&stand, sent.settled()).await;
    let streams = connections * STREAMS as usize;
    judge(
        "readers of HTTP/2 over TLS",
        streams,
        memory.growth(),
        total,
    );
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_stops_reading_holds_little() {
    let streams = scaled(10, 40);
    let hosts = Hosts::default().host(HOST, ANNOTATIONS, &[stopped_backend().await]);
    let stand = LoadStand::start("stopped-upstream", hosts, &["--client-body-timeout=5m"]).await;
    let memory = stand.watch_memory();
    let sent = Sent::default();
    let mut senders = Vec::new();
    for _ in 0..streams {
        let mut reader = connect(stand.tidegate.http).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000000000\r\n\r\n");
        reader.send(head.as_bytes()).await.unwrap();
        let sent = sent.clone();
        senders.push(tokio::spawn(async move {
            while let Ok(count) = reader.io.write(expected(0, PIECE)).await {
                sent.add(count);
            }
        }));
    }
    let total = memory.during(&stand, sent.settled()).await;
    judge("upstreams", streams, memory.growth(), total);
    senders.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Readers share connections to a backend that speaks HTTP/2, so one that stops could hold up the others.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_connection_do_not_hold_each_other_up() {
    let streams = scaled(40, 400);
    let hosts = Hosts::default().h2c(HOST, h2c::echo().await.port());
    let stand = LoadStand::start("stopped-h2c", hosts, &["--client-write-timeout=5m"]).await;
    let memory = stand.watch_memory();
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut reader = connect(stand.tidegate.http).await.unwrap();
        let request = format!("GET /endless HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        reader.send(request.as_bytes()).await.unwrap();
        assert_eq!(reader.head().await.unwrap().unwrap().second(), "200");
        open.push(reader);
    }
    // The kernel's buffers take some megabytes for each before anything stops.
    let settled = async {
        let mut before = 0;
        for _ in 0..100 {
            let now = stand.tidegate.processor_time().as_millis();
            if now <= before + 20 {
                return;
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("still sending");
    };
    memory.during(&stand, settled).await;
    judge("readers of answers by h2c", streams, memory.growth(), 0);
    let start = std::time::Instant::now();
    // Enough to meet every worker.
    for number in 0..20 {
        let asked = async {
            let mut reader = connect(stand.tidegate.http).await?;
            let request =
                format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello");
            reader.send(request.as_bytes()).await?;
            let head = reader
                .head()
                .await?
                .ok_or(std::io::ErrorKind::UnexpectedEof)?;
            let chunked = head.field("transfer-encoding").is_some();
            let body = reader
                .body(if chunked { 10 } else { head.length() })
                .await?;
            Ok::<_, std::io::Error>((head.second().to_owned(), body))
        };
        let (status, body) = tokio::time::timeout(Duration::from_secs(10), asked)
            .await
            .unwrap_or_else(|_| panic!("request {number} is held up by others"))
            .unwrap();
        assert_eq!(status, "200");
        assert!(
            body.windows(5).any(|five| five == b"hello"),
            "{}",
            body.escape_ascii()
        );
    }
    println!(
        "stopped readers of answers by h2c: 20 others answered in {:.1?}",
        start.elapsed()
    );
    drop(open);
}
