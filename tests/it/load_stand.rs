//! What the tests of behaviour under load share: one tidegate, backends that cost next to nothing, and clients that never
//! retry.
//!
//! Each of these tests has a short form, which always runs, and with `TIDEGATE_FULL=1` a full one with the real numbers. Only
//! the full form holds figures of time against their bars: it is meant for a machine that does nothing else.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use test_support::Tidegate;
use test_support::process::Surroundings;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};

/// They would disturb each other's figures.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Whether the full form is asked for.
pub(crate) fn full() -> bool {
    std::env::var_os("TIDEGATE_FULL").is_some_and(|value| value == "1")
}

/// A number of the short form or of the full one.
pub(crate) fn scaled<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

/// Manifests, host by host.
#[derive(Default)]
pub(crate) struct Hosts(String);

impl Hosts {
    /// A host with annotations (in braces' form, without the braces) and backends at these ports.
    pub(crate) fn host(self, host: &str, annotations: &str, ports: &[u16]) -> Self {
        self.with(host, annotations, "", ports)
    }

    /// A host whose backend speaks HTTP/2 without TLS.
    pub(crate) fn h2c(self, host: &str, port: u16) -> Self {
        self.with(host, "", ", appProtocol: kubernetes.io/h2c", &[port])
    }

    fn with(mut self, host: &str, annotations: &str, port_fields: &str, ports: &[u16]) -> Self {
        let name = host.replace('.', "-");
        let _ = write!(
            self.0,
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
             spec:\n  rules:\n  - host: {host}\n    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: \
             {name}, port: {{number: 80}}}}}}}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: p, port: 80{port_fields}}}]}}\n---\n"
        );
        for port in ports {
            let _ = write!(
                self.0,
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{port}, labels: \
                 {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: p, port: {port}{port_fields}}}]\n\
                 endpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
            );
        }
        self
    }
}

/// A running tidegate with two workers.
pub(crate) struct LoadStand {
    pub(crate) tidegate: Tidegate,
    /// Removed when the stand is dropped.
    _directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl LoadStand {
    /// Starts it and waits until it is ready. Without `--access-log` among the flags there is none.
    pub(crate) async fn start(name: &str, hosts: Hosts, flags: &[&str]) -> Self {
        Self::start_in(name, hosts, flags, Surroundings::default()).await
    }

    /// As [`LoadStand::start`], in these surroundings.
    pub(crate) async fn start_in(
        name: &str,
        hosts: Hosts,
        flags: &[&str],
        surroundings: Surroundings,
    ) -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), hosts.0).unwrap();
        let manifests = format!("--manifests={}", directory.path().display());
        let mut args = vec!["serve", &manifests, "--workers=2"];
        if !flags.iter().any(|flag| flag.starts_with("--access-log")) {
            args.push("--access-log=off");
        }
        args.extend(flags);
        let tidegate = start_anywhere(name, &args, surroundings)
            .await
            .ready()
            .await;
        Self {
            tidegate,
            _directory: directory,
            _alone: alone,
        }
    }

    /// Watches its memory until the watch is ended.
    pub(crate) fn watch_memory(&self) -> MemoryWatch {
        MemoryWatch {
            before: self.tidegate.resident(),
            highest: std::cell::Cell::new(0),
        }
    }
}

/// Where there are many connections, a port that was free may be the near end of one a moment later; then others are tried.
async fn start_anywhere(name: &str, args: &[&str], surroundings: Surroundings) -> Tidegate {
    for _ in 0..5 {
        let tidegate = Tidegate::start_in(name, Ipv4Addr::LOCALHOST, args, surroundings.clone());
        while tidegate.is_running() {
            if tidegate.logged().contains(" ready") {
                return tidegate;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let logged = tidegate.logged();
        assert!(logged.contains("in use"), "it did not start:\n{logged}");
    }
    panic!("no free ports");
}

/// How far memory rose.
pub(crate) struct MemoryWatch {
    before: u64,
    highest: std::cell::Cell<u64>,
}

impl MemoryWatch {
    /// Looks once.
    pub(crate) fn look(&self, stand: &LoadStand) {
        let now = stand.tidegate.resident();
        self.highest.set(self.highest.get().max(now));
    }

    /// Looks every few milliseconds while something runs.
    pub(crate) async fn during<T>(&self, stand: &LoadStand, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.look(stand);
                    return done;
                }
                () = tokio::time::sleep(Duration::from_millis(20)) => self.look(stand),
            }
        }
    }

    /// The most it rose by, in bytes.
    pub(crate) fn growth(&self) -> u64 {
        self.highest.get().saturating_sub(self.before)
    }
}

/// Bytes as MiB, for a line of figures.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Accepts on a port of its own and serves each connection on a task of its own.
pub(crate) async fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    serve_on(TcpSocket::new_v4().unwrap(), handle)
}

/// As [`serve`], on a socket that is set up already.
pub(crate) fn serve_on<F>(
    socket: TcpSocket,
    handle: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    const BACKLOG: u32 = 4096;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(BACKLOG).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(handle(stream));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    port
}

/// Reads heads and counted bodies off a stream, and keeps what came too early.
pub(crate) struct Reader<S> {
    pub(crate) io: S,
    buffer: Vec<u8>,
}

/// A head as it came.
pub(crate) struct Head(Vec<u8>);

impl Head {
    /// The first line.
    pub(crate) fn line(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == b'\r');
        std::str::from_utf8(&self.0[..end.unwrap_or(0)]).unwrap_or_default()
    }

    /// The second word of the first line: a target, or a status.
    pub(crate) fn second(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// Value of a field, whatever the case of its name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.0).ok()?;
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// Length of the body; 0 where nothing says it.
    pub(crate) fn length(&self) -> usize {
        self.field("content-length")
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    }

    /// Whether the connection ends after it.
    pub(crate) fn closes(&self) -> bool {
        self.field("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    pub(crate) fn new(io: S) -> Self {
        Self {
            io,
            buffer: Vec::new(),
        }
    }

    /// The next head. `None` when the connection ended before its first byte.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                return Ok(Some(Head(self.buffer.drain(..end + 4).collect())));
            }
            if self.more().await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let count = self.io.read(&mut piece).await?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    /// A short body, whole.
    pub(crate) async fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Bytes that came before they were asked for.
    pub(crate) fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// GETs a path whose answer has a short body with a length; gives the head.
    pub(crate) async fn get(&mut self, host: &str, path: &str) -> io::Result<Head> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.send(request.as_bytes()).await?;
        self.answer().await
    }

    /// The next answer, whose body is short and has a length.
    pub(crate) async fn answer(&mut self) -> io::Result<Head> {
        let head = self.head().await?;
        let head = head.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.body(head.length()).await?;
        Ok(head)
    }
}

/// A plain connection to the proxy.
pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Reader<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let _ = stream.set_nodelay(true);
    Ok(Reader::new(stream))
}

/// A backend that answers every request with `ok`, whatever body it has to swallow first.
pub(crate) async fn ok_backend() -> u16 {
    serve(async |stream| {
        let mut reader = Reader::new(stream);
        while let Ok(Some(head)) = reader.head().await {
            let answered = async {
                reader.body(head.length()).await?;
                reader
                    .send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
            };
            if answered.await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Somebody who asks at a steady pace on one connection and must always be answered.
pub(crate) struct Canary {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Sung>,
}

/// What came of it.
pub(crate) struct Sung {
    times: Vec<Duration>,
    pub(crate) failed: Vec<String>,
}

impl Canary {
    /// Starts to GET `/` of a host; `fresh`: each time on a new connection.
    pub(crate) fn start(addr: SocketAddr, host: &str, every: Duration, fresh: bool) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let host = host.to_owned();
        let task = tokio::spawn(async move {
            let mut sung = Sung {
                times: Vec::new(),
                failed: Vec::new(),
            };
            let mut connection = None;
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => return sung,
                }
                let start = Instant::now();
                let asked = async {
                    if fresh || connection.is_none() {
                        connection = Some(connect(addr).await?);
                    }
                    let open = connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
                    let head = open.get(&host, "/").await?;
                    if head.closes() {
                        connection = None;
                    }
                    match head.second() {
                        "200" => Ok(()),
                        status => Err(io::Error::other(format!("status {status}"))),
                    }
                };
                let asked = tokio::time::timeout(Duration::from_secs(10), asked).await;
                match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(()) => sung.times.push(start.elapsed()),
                    Err(error) => {
                        sung.failed.push(error.to_string());
                        connection = None;
                    }
                }
            }
        });
        Self { stop, task }
    }

    /// Ends it.
    pub(crate) async fn stop(self) -> Sung {
        let _ = self.stop.send(());
        self.task.await.expect("a canary does not panic")
    }
}

impl Sung {
    /// How many were answered.
    pub(crate) fn answered(&self) -> usize {
        self.times.len()
    }

    /// A percentile of the times, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times
            .get(at)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}
