//! A backend that is a process of its own, so that it can be killed and stopped: this very test binary, started again.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use test_support::process::free_port;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// `NAME PORT DELAY_MS`; set in a process that is to be one.
const TOLD: &str = "TIDEGATE_TEST_BACKEND";

/// A running one. Dropped, it is killed.
pub(super) struct Process {
    child: Child,
    pub(super) name: String,
    pub(super) addr: SocketAddr,
}

impl Process {
    /// Answers every request with its name after `delay`.
    pub(super) fn start(name: &str, delay: Duration) -> Self {
        Self::start_at(name, free_port(), delay)
    }

    pub(super) fn start_at(name: &str, port: u16, delay: Duration) -> Self {
        let told = format!("{name} {port} {}", delay.as_millis());
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "faults::backend::serves_when_told_to",
            ])
            .env(TOLD, told)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let begun = Instant::now();
        while std::net::TcpStream::connect(addr).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} is late");
            std::thread::sleep(Duration::from_millis(5));
        }
        let name = name.to_owned();
        Self { child, name, addr }
    }

    /// Sends it a signal: `KILL`, `STOP`, `CONT`.
    pub(super) fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        let status = kill
            .arg(format!("-{signal}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.unwrap().success());
    }

    /// Asks it directly.
    async fn control(&self, what: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let head =
            format!("GET /control/{what} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        body.to_owned()
    }

    /// From now on it takes so long, and up to `jitter` longer.
    pub(super) async fn take(&self, delay: Duration, jitter: Duration) {
        let (delay, jitter) = (delay.as_millis(), jitter.as_millis());
        self.control(&format!("delay/{delay}/{jitter}")).await;
    }

    /// Connections it has accepted, ours aside.
    pub(super) async fn connections(&self) -> u64 {
        self.control("connections").await.parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Told {
    name: String,
    delay: AtomicU64,
    jitter: AtomicU64,
    connections: AtomicU64,
    requests: AtomicU64,
}

/// No test: what a [`Process`] runs.
#[tokio::test]
#[ignore = "other tests start it as a process of its own"]
async fn serves_when_told_to() {
    let Ok(told) = std::env::var(TOLD) else {
        return;
    };
    let mut words = told.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    let name = word();
    let port: u16 = word().parse().unwrap();
    let delay: u64 = word().parse().unwrap();
    let told = Arc::new(Told {
        name,
        delay: AtomicU64::new(delay),
        ..Told::default()
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream, Arc::clone(&told)));
    }
}

/// One connection, request by request. Whatever ends it ends it in silence.
async fn serve(stream: TcpStream, told: Arc<Told>) {
    told.connections.fetch_add(1, Ordering::Relaxed);
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0usize);
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or_default();
            }
            if line == "\r\n" {
                break;
            }
            if first.is_empty() {
                first = line;
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let answer = match path.strip_prefix("/control/") {
            Some("connections") => {
                // This one is for control.
                (told.connections.fetch_sub(1, Ordering::Relaxed) - 1).to_string()
            }
            Some(delay) => {
                told.connections.fetch_sub(1, Ordering::Relaxed);
                let mut numbers = delay.split('/').skip(1).filter_map(|n| n.parse().ok());
                told.delay
                    .store(numbers.next().unwrap_or(0), Ordering::Relaxed);
                told.jitter
                    .store(numbers.next().unwrap_or(0), Ordering::Relaxed);
                String::new()
            }
            None => {
                let number = told.requests.fetch_add(1, Ordering::Relaxed);
                let jitter = told.jitter.load(Ordering::Relaxed);
                let late = number.wrapping_mul(7919) % (jitter + 1);
                let delay = told.delay.load(Ordering::Relaxed) + late;
                if delay > 0 {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                }
                told.name.clone()
            }
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let is_control = path.starts_with("/control/");
        if stream.write_all(head.as_bytes()).await.is_err() || is_control {
            return;
        }
    }
}
