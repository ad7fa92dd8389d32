//! Whoever is slow is closed at their limit, and costs nobody else anything: clients that drip their heads or bodies, that
//! never read what they asked for, that connect for TLS and say nothing, and whoever should read the access log.

use crate::load_stand::{
    Canary, Hosts, LoadStand, Reader, connect, full, ok_backend, scaled, serve, serve_on,
};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use test_support::process::Surroundings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const HEALTHY: &str = "healthy.test";
const SLOW: &str = "slow.test";
const ENDLESS: &str = "endless.test";
/// How much longer than its limit a slow client may stay on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// How much longer who reads nothing may stay in the full form, in seconds: their time begins when all buffers on the way are full,
/// and thousands take a while to fill.
const FILLING: f64 = 4.0;

/// Limits in seconds: of a head, of a body, of reading an answer, of a handshake.
#[derive(Clone, Copy)]
struct Limits {
    head: u64,
    body: u64,
    write: u64,
    handshake: u64,
}

/// How long the slow ones of a kind were let stay.
#[derive(Clone, Default)]
struct Stays(Arc<Mutex<Vec<Duration>>>);

impl Stays {
    fn add(&self, stay: Duration) {
        self.0.lock().unwrap().push(stay);
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Judges and describes them; `slack`: seconds that they may stay longer in the full form.
    fn judge(&self, kind: &str, wanted: usize, limit: u64, slack: f64) -> String {
        let mut all = self.0.lock().unwrap().clone();
        assert_eq!(all.len(), wanted, "{kind}: closed, of those that should be");
        all.sort();
        let (first, last) = (all[0].as_secs_f64(), all[all.len() - 1].as_secs_f64());
        let limit = limit as f64;
        assert!(
            first > limit - 1.0,
            "{kind}: closed after {first:.1} s, before {limit} s"
        );
        if full() {
            assert!(
                last < limit + slack,
                "{kind}: closed after {last:.1} s, long after {limit} s"
            );
        }
        format!("{kind} {first:.1} to {last:.1} s of {limit} s")
    }
}

/// Sends some bytes at once and others one by one, over and over, until the other side closes.
async fn drip(addr: SocketAddr, at_once: String, slowly: String, pause: Duration, stays: Stays) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.set_nodelay(true);
    stream.write_all(at_once.as_bytes()).await.unwrap();
    let start = Instant::now();
    let mut bytes = slowly.bytes().cycle();
    let (mut reading, mut writing) = stream.split();
    let ended = async {
        let mut piece = [0; 512];
        while let Ok(1..) = reading.read(&mut piece).await {}
    };
    let dripping = async {
        loop {
            let byte = bytes.next().unwrap_or(b'x');
            if writing.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! { () = ended => {}, () = dripping => {} }
    stays.add(start.elapsed());
}

/// Says nothing until the other side closes.
async fn silent(addr: SocketAddr, stays: Stays) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let start = Instant::now();
    let mut piece = [0; 512];
    while let Ok(1..) = stream.read(&mut piece).await {}
    stays.add(start.elapsed());
}

/// Asks for much and reads none of it. Whether it was closed is seen at the backend: whoever wants to see it here would have to
/// read.
async fn unreading(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Of thousands of these the kernel's buffers are the larger part.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {ENDLESS}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Sends an endless answer, and tells how long the proxy went on with it after it had stopped taking more.
///
/// Its send buffer is small: thousands of the usual size are more than the kernel has for TCP, and then nothing moves.
fn endless_backend(stays: Stays) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(32 << 10).unwrap();
    serve_on(socket, move |stream| {
        let stays = stays.clone();
        async move {
            let mut reader = Reader::new(stream);
            let Ok(Some(_)) = reader.head().await else {
                return;
            };
            let start = Instant::now();
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
            if reader.send(head).await.is_err() {
                return;
            }
            while reader.send(&[b'x'; 4096]).await.is_ok() {}
            stays.add(start.elapsed());
        }
    })
}

/// Swallows a body of any length, and answers when it is whole.
async fn swallowing_backend() -> u16 {
    serve(async |stream| {
        let mut reader = Reader::new(stream);
        let mut piece = [0; 4096];
        if let Ok(Some(_)) = reader.head().await {
            while let Ok(1..) = reader.io.read(&mut piece).await {}
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_closed_in_time_and_hurt_nobody() {
    // Of those that read nothing there are fewer: each fills buffers of the kernel, which has only so much for TCP.
    let (each, unreading_ones) = scaled((30, 30), (1_600, 200));
    let limits = scaled(
        Limits {
            head: 2,
            body: 2,
            write: 2,
            handshake: 3,
        },
        Limits {
            head: 8,
            body: 10,
            write: 8,
            handshake: 8,
        },
    );
    let [head, body, unread, handshake] = [(); 4].map(|()| Stays::default());
    let hosts = Hosts::default()
        .host(HEALTHY, "", &[ok_backend().await])
        .host(SLOW, "", &[swallowing_backend().await])
        .host(ENDLESS, "", &[endless_backend(unread.clone())]);
    let flags = [
        format!("--client-head-timeout={}s", limits.head),
        // A body that drips is closed for its rate, after twice the time of one that stops.
        format!("--client-body-timeout={}ms", limits.body * 500),
        format!("--client-write-timeout={}s", limits.write),
        format!("--client-handshake-timeout={}s", limits.handshake),
    ];
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.push("--max-connections=40000");
    let stand = LoadStand::start("slow-clients", hosts, &flags).await;
    let (plain, tls) = (stand.tidegate.http, stand.tidegate.https);
    let canary = Canary::start(plain, HEALTHY, Duration::from_millis(10), false);
    let newcomer = Canary::start(plain, HEALTHY, Duration::from_millis(50), true);
    let pause = Duration::from_millis(scaled(200, 1000));
    let mut open = Vec::new();
    let before = "GET / HTTP/1.1\r\n";
    let field = "X-Slow: 0123456789\r\n";
    let post = format!("POST / HTTP/1.1\r\nHost: {SLOW}\r\nContent-Length: 1000000\r\n\r\n");
    for number in 0..each {
        tokio::spawn(drip(
            plain,
            before[..1].to_owned(),
            [&before[1..], field].concat(),
            pause,
            head.clone(),
        ));
        tokio::spawn(drip(
            plain,
            post.clone(),
            "x".to_owned(),
            pause,
            body.clone(),
        ));
        tokio::spawn(silent(tls, handshake.clone()));
        if number < unreading_ones {
            open.push(unreading(plain).await);
        }
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let longest = Duration::from_secs(
        limits
            .head
            .max(limits.body)
            .max(limits.write)
            .max(limits.handshake),
    );
    let start = Instant::now();
    let all = [
        (&head, each),
        (&body, each),
        (&unread, unreading_ones),
        (&handshake, each),
    ];
    while all.iter().any(|(stays, count)| stays.len() < *count)
        && start.elapsed() < longest + PATIENCE
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (sung, fresh) = (canary.stop().await, newcomer.stop().await);
    println!(
        "slow: {} clients; closed: {}, {}, {}, {}; meanwhile {} requests of a healthy client, {} failed, p50 {:.1} ms, p99 {:.1} ms; on new connections {}, {} failed, p99 {:.1} ms",
        3 * each + unreading_ones,
        head.judge("heads", each, limits.head, 1.0),
        body.judge("bodies", each, limits.body, 1.0),
        unread.judge("unread answers", unreading_ones, limits.write, FILLING),
        handshake.judge("handshakes", each, limits.handshake, 1.0),
        sung.answered(),
        sung.failed.len(),
        sung.percentile(50),
        sung.percentile(99),
        fresh.answered(),
        fresh.failed.len(),
        fresh.percentile(99),
    );
    assert!(sung.failed.is_empty(), "{:?}", sung.failed);
    assert!(fresh.failed.is_empty(), "{:?}", fresh.failed);
    if full() {
        assert!(sung.percentile(99) <= 50.0);
    }
    // Reset, so that the kernel forgets what they did not read.
    for mut stream in open {
        let mut piece = [0; 4096];
        let end = loop {
            match stream.read(&mut piece).await {
                Ok(1..) => {}
                end => break end.map_err(|error| error.kind()),
            }
        };
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_standard_output_costs_log_lines_and_nothing_else() {
    const LINES_IN_FLIGHT: u64 = 3 << 20;
    let count: u64 = scaled(4_000, 40_000);
    let hosts = Hosts::default().host(HEALTHY, "", &[ok_backend().await]);
    let surroundings = Surroundings {
        unread_stdout: true,
        ..Surroundings::default()
    };
    let flags = ["--access-log=stdout", "--drain-timeout=2s"];
    let mut stand = LoadStand::start_in("blocked-stdout", hosts, &flags, surroundings).await;
    let addr = stand.tidegate.http;
    // Long lines fill the queue soon.
    let long = "x".repeat(1000);
    let request = format!(
        "GET /{long} HTTP/1.1\r\nHost: {HEALTHY}\r\nUser-Agent: {long}\r\nReferer: {long}\r\n\r\n"
    );
    assert!(count * request.len() as u64 > LINES_IN_FLIGHT);
    let clients = 4;
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move {
                let mut reader = connect(addr).await.unwrap();
                let mut slowest = Duration::ZERO;
                for _ in 0..count / clients {
                    let start = Instant::now();
                    reader.send(request.as_bytes()).await.unwrap();
                    assert_eq!(reader.answer().await.unwrap().second(), "200");
                    slowest = slowest.max(start.elapsed());
                }
                slowest
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for task in tasks {
        slowest = slowest.max(task.await.expect("every request is answered"));
    }
    let start = Instant::now();
    let dropped = loop {
        let dropped = stand
            .tidegate
            .metric("tidegate_access_log_dropped_total")
            .await;
        if dropped > 0.0 {
            break dropped;
        }
        assert!(start.elapsed() < PATIENCE, "no line was counted as dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let resident = stand.tidegate.resident() >> 20;
    stand.tidegate.terminate();
    let start = Instant::now();
    let status = stand.tidegate.wait(PATIENCE).await;
    println!(
        "blocked stdout: {count} requests, 0 failed, slowest {slowest:.1?}; {dropped} log lines dropped and counted; {resident} MiB; stopped in {:.1?} ({status})",
        start.elapsed()
    );
    assert!(status.success(), "{status}");
}
