//! What SIGTERM does under load: whatever is in progress is brought to its end, clients are told to go elsewhere, and then the
//! process ends, at once when nothing is left, at the deadline when something is.

use crate::load_stand::{Canary, Hosts, LoadStand, Reader, connect, full, scaled, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_support::{TlsClient, h2_raw, h2c};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

const WEB: &str = "web.test";
const SOCKET: &str = "socket.test";
const CALLS: &str = "calls.test";
/// Time for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes a moment over each answer, so that some are always in progress.
async fn web_backend() -> u16 {
    serve(async |stream| {
        let mut reader = Reader::new(stream);
        while let Ok(Some(_)) = reader.head().await {
            tokio::time::sleep(Duration::from_millis(15)).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if reader.send(answer).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// A WebSocket server, as far as a proxy can tell: it sends everything back.
async fn socket_backend() -> u16 {
    serve(async |stream| {
        let mut reader = Reader::new(stream);
        let Ok(Some(_)) = reader.head().await else {
            return;
        };
        let switching =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        if reader.send(switching).await.is_err() {
            return;
        }
        let mut piece = [0; 512];
        while let Ok(count @ 1..) = reader.io.read(&mut piece).await {
            if reader.io.write_all(&piece[..count]).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Never answers; counts who waits.
async fn silent_backend(waiting: Arc<AtomicU64>) -> u16 {
    serve(move |stream| {
        let waiting = Arc::clone(&waiting);
        async move {
            let mut reader = Reader::new(stream);
            while let Ok(Some(_)) = reader.head().await {
                waiting.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await
}

/// What a client did, in whole exchanges; an error is a failure.
type Done = Result<u64, String>;

/// Asks again and again on one connection, until it is told to go.
async fn keep_alive_client(addr: SocketAddr) -> Done {
    let mut reader = connect(addr)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let mut done = 0;
    loop {
        let head = reader.get(WEB, "/").await;
        let head = head.map_err(|error| format!("request {done}: {error}"))?;
        if head.second() != "200" {
            return Err(format!("request {done}: {}", head.line()));
        }
        done += 1;
        if head.closes() {
            return Ok(done);
        }
    }
}

async fn http2(
    addr: SocketAddr,
    host: &str,
) -> h2_raw::Connection<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<>> {
    let io = TlsClient::new(None).alpn("h2").connect(addr, host).await;
    h2_raw::Connection::open(io.expect("a handshake"), &[]).await
}

fn head_of(method: &str, host: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "https"),
        (":authority", host),
        (":path", "/"),
    ];
    fields.extend_from_slice(more);
    h2_raw::block(&fields)
}

/// The same on streams of one connection, until GOAWAY.
async fn http2_client(addr: SocketAddr) -> Done {
    let mut connection = http2(addr, WEB).await;
    for id in (1u32..).step_by(2) {
        let sent = connection
            .send(&h2_raw::headers(id, true, &head_of("GET", WEB, &[])))
            .await;
        let got = connection
            .read(PATIENCE, |got| got.stream(id).is_over())
            .await;
        let stream = got.stream(id);
        if !sent || stream.status != Some(200) || !stream.ended {
            return Err(format!("stream {id}: {}", got.summary(id)));
        }
        if got.goaway.is_some() {
            return Ok(u64::from(id).div_ceil(2));
        }
    }
    Err("out of streams".to_owned())
}

/// Sends something and waits for it to come back, until told to end.
async fn socket_client(addr: SocketAddr, until: watch::Receiver<bool>) -> Done {
    let mut reader = connect(addr)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {SOCKET}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    reader
        .send(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let head = reader.head().await.map_err(|error| error.to_string())?;
    if head.as_ref().map(|head| head.second()) != Some("101") {
        return Err(format!(
            "no WebSocket: {:?}",
            head.map(|head| head.line().to_owned())
        ));
    }
    let mut done = 0;
    while !*until.borrow() {
        // A text frame, masked with nothing.
        let frame = b"\x81\x85\0\0\0\0hello";
        let sent = reader.send(frame).await;
        sent.map_err(|error| format!("frame {done}: {error}"))?;
        let back = reader.body(frame.len()).await;
        let back = back.map_err(|error| format!("frame {done}: {error}"))?;
        if back != frame {
            return Err(format!("frame {done} came back as {}", back.escape_ascii()));
        }
        done += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(done)
}

/// A call that streams in both directions, until told to end.
async fn call_client(addr: SocketAddr, until: watch::Receiver<bool>) -> Done {
    let mut connection = http2(addr, CALLS).await;
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let head = head_of("POST", CALLS, &fields);
    let mut sent = connection.send(&h2_raw::headers(1, false, &head)).await;
    // A message of gRPC: not compressed, five bytes long.
    let message = b"\0\0\0\0\x05hello";
    let mut done = 0;
    while !*until.borrow() {
        sent &= connection.send(&h2_raw::data(1, false, message)).await;
        done += 1;
        let wanted = done * message.len();
        let whole =
            |got: &h2_raw::Got| got.stream(1).body.len() >= wanted || got.stream(1).is_over();
        let got = connection.read(PATIENCE, whole).await;
        let stream = got.stream(1);
        if !sent || stream.body.len() != wanted || stream.is_over() {
            return Err(format!("message {done}: {}", got.summary(1)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    connection.send(&h2_raw::data(1, true, b"")).await;
    let got = connection
        .read(PATIENCE, |got| got.stream(1).is_over())
        .await;
    let stream = got.stream(1);
    if stream.status != Some(200) || !stream.ended || stream.body != message.repeat(done) {
        return Err(format!("end after {done}: {}", got.summary(1)));
    }
    Ok(done as u64)
}

/// Many clients of a kind.
struct Clients {
    kind: &'static str,
    tasks: Vec<tokio::task::JoinHandle<Done>>,
}

impl Clients {
    fn start<F>(kind: &'static str, count: usize, one: impl Fn() -> F) -> Self
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let tasks = (0..count).map(|_| tokio::spawn(one())).collect();
        Self { kind, tasks }
    }

    /// Waits for their end; describes it, and gives what failed.
    async fn finish(self) -> (String, Vec<String>) {
        let (clients, mut done, mut failed) = (self.tasks.len(), 0, Vec::new());
        for task in self.tasks {
            match tokio::time::timeout(2 * PATIENCE, task).await {
                Ok(ended) => match ended.unwrap() {
                    Ok(count) => done += count,
                    Err(error) => failed.push(format!("{}: {error}", self.kind)),
                },
                Err(_) => failed.push(format!("{}: never told to go", self.kind)),
            }
        }
        let text = format!(
            "{} {}: {done} exchanges, {} failed",
            clients,
            self.kind,
            failed.len()
        );
        (text, failed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_progress_fails_and_then_it_ends() {
    let (count, long_lived) = scaled((8, 4), (64, 50));
    let lameduck = Duration::from_secs(scaled(1, 3));
    let hosts = Hosts::default()
        .host(WEB, "", &[web_backend().await])
        .host(SOCKET, "", &[socket_backend().await])
        .h2c(CALLS, h2c::echo().await.port());
    let flag = format!("--lameduck={}s", lameduck.as_secs());
    let flags = [&*flag, "--drain-timeout=60s"];
    let mut stand = LoadStand::start("drain", hosts, &flags).await;
    let (plain, tls) = (stand.tidegate.http, stand.tidegate.https);
    let (end, until) = watch::channel(false);
    let told_to_go = [
        Clients::start("HTTP/1.1 clients", count, || keep_alive_client(plain)),
        Clients::start("HTTP/2 clients", count, || http2_client(tls)),
    ];
    let told_by_us = [
        Clients::start("WebSockets", long_lived, || {
            socket_client(plain, until.clone())
        }),
        Clients::start("streaming calls", long_lived, || {
            call_client(tls, until.clone())
        }),
    ];
    tokio::time::sleep(Duration::from_secs(scaled(1, 3))).await;
    let newcomer = Canary::start(plain, WEB, Duration::from_millis(20), true);
    stand.tidegate.terminate();
    let stopping = Instant::now();
    tokio::time::sleep(lameduck / 2).await;
    let newcomers = newcomer.stop().await;
    let (mut texts, mut failed) = (Vec::new(), newcomers.failed.clone());
    for clients in told_to_go {
        let (text, errors) = clients.finish().await;
        texts.push(text);
        failed.extend(errors);
    }
    let gone = stopping.elapsed();
    tokio::time::sleep(Duration::from_secs(scaled(1, 5))).await;
    assert!(stand.tidegate.is_running(), "{}", stand.tidegate.logged());
    end.send(true).unwrap();
    for clients in told_by_us {
        let (text, errors) = clients.finish().await;
        texts.push(text);
        failed.extend(errors);
    }
    let last = Instant::now();
    let status = stand.tidegate.wait(PATIENCE).await;
    let after = last.elapsed();
    println!(
        "drain: {}; {} newcomers during lameduck; clients gone {gone:.1?} after SIGTERM; ended {after:.1?} after the last ({status})",
        texts.join(", "),
        newcomers.answered()
    );
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
    assert!(newcomers.answered() > 0 && status.success());
    if full() {
        assert!(after <= Duration::from_secs(1), "{after:?}");
    }
}

/// A stand with one request that nobody will answer.
async fn waiting_for_ever(name: &str, flags: &[&str]) -> (LoadStand, impl Sized + use<>) {
    let waiting = Arc::default();
    let hosts = Hosts::default().host(WEB, "", &[silent_backend(Arc::clone(&waiting)).await]);
    let stand = LoadStand::start(name, hosts, flags).await;
    let mut reader = connect(stand.tidegate.http).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {WEB}\r\n\r\n");
    reader.send(request.as_bytes()).await.unwrap();
    let start = Instant::now();
    while waiting.load(Ordering::Relaxed) == 0 {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (stand, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for flags in [
        ["--lameduck=60s", "--drain-timeout=60s"],
        ["--lameduck=0s", "--drain-timeout=60s"],
    ] {
        let (mut stand, _client) = waiting_for_ever("second-signal", &flags).await;
        stand.tidegate.terminate();
        stand.tidegate.until_logged("stopping").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(stand.tidegate.is_running(), "{}", stand.tidegate.logged());
        stand.tidegate.terminate();
        let start = Instant::now();
        let status = stand.tidegate.wait(PATIENCE).await;
        let took = start.elapsed();
        println!(
            "second SIGTERM ({}): ended after {took:.1?} ({status})",
            flags[0]
        );
        if full() {
            assert!(took <= Duration::from_secs(1), "{took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_cut_at_the_deadline() {
    let seconds = scaled(1, 5);
    let flag = format!("--drain-timeout={seconds}s");
    let (mut stand, _client) = waiting_for_ever("deadline", &["--lameduck=0s", &flag]).await;
    stand.tidegate.terminate();
    let start = Instant::now();
    let status = stand.tidegate.wait(PATIENCE).await;
    let took = start.elapsed().as_secs_f64();
    println!("deadline of {seconds} s: ended after {took:.2} s ({status})");
    assert!(took > seconds as f64 - 0.1, "{took}");
    if full() {
        assert!(took < seconds as f64 + 1.0, "{took}");
    }
}
