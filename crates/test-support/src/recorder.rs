//! A backend that records every byte and every connection, and answers with the bytes a script gives it.
//!
//! It reads requests with a parser of its own that takes only the plainest form, because what a proxy sends upstream must
//! have exactly one reading. Whatever has another is kept as [`Seen::malformed`].

use crate::raw::{Field, chunked, field, fields};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes kept of one connection or one body; the rest is only counted.
const KEPT: usize = 2 * 1024 * 1024;

/// What is done about one request.
#[derive(Debug, Clone)]
pub struct Act {
    early: bool,
    steps: Vec<Step>,
}

/// One thing done to a connection.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<u8>),
    /// Writes 200 with the name of the backend, or what the request asks to be echoed.
    Answer(Answer),
    Pause(Duration),
    /// Writes these bytes one by one, with a pause after each, again and again.
    Drip(Vec<u8>, Duration),
    Close,
    Reset,
    /// Passes what comes back to where it came from, until the end.
    Tunnel,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Name,
    Target,
    Body,
}

impl Act {
    fn of(step: Step) -> Self {
        Self {
            early: false,
            steps: vec![step],
        }
    }

    /// 200 with the backend's name.
    pub fn ok() -> Self {
        Self::of(Step::Answer(Answer::Name))
    }

    /// 200 with the target of the request.
    pub fn echo_target() -> Self {
        Self::of(Step::Answer(Answer::Target))
    }

    /// 200 with the body of the request.
    pub fn echo() -> Self {
        Self::of(Step::Answer(Answer::Body))
    }

    /// These bytes.
    pub fn reply(bytes: impl Into<Vec<u8>>) -> Self {
        Self::of(Step::Write(bytes.into()))
    }

    /// Nothing, while reading on.
    pub fn silence() -> Self {
        Self {
            early: false,
            steps: Vec::new(),
        }
    }

    /// These bytes over and over, one at a time.
    pub fn drip(bytes: impl Into<Vec<u8>>, pause: Duration) -> Self {
        Self::of(Step::Drip(bytes.into(), pause))
    }

    /// As soon as the head of the request is there, instead of after its body.
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Then waits.
    pub fn pause(self, time: Duration) -> Self {
        self.then(Step::Pause(time))
    }

    /// Then writes these bytes.
    pub fn write(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Step::Write(bytes.into()))
    }

    /// Then closes the connection.
    pub fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// Then resets the connection.
    pub fn reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// Then sends back whatever comes.
    pub fn tunnel(self) -> Self {
        self.then(Step::Tunnel)
    }
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The connection it came on.
    pub connection: usize,
    /// Method.
    pub method: String,
    /// Target as it stood in the request line.
    pub target: String,
    /// Fields in order, names in lower case.
    pub fields: Vec<Field>,
    /// Body without its framing.
    pub body: Vec<u8>,
    /// Fields after the last chunk.
    pub trailers: Vec<Field>,
    /// Whether its end came.
    pub complete: bool,
}

impl Request {
    /// Every value of a field, in order.
    pub fn values(&self, name: &str) -> Vec<String> {
        let named = self.fields.iter().filter(|field| field.name == name);
        named
            .map(|field| String::from_utf8_lossy(&field.value).into_owned())
            .collect()
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The proxy closed it.
    Closed,
    /// The proxy reset it.
    Reset,
    /// The script ended it.
    ByScript,
}

/// One connection since the script was set.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Its number.
    pub id: usize,
    /// Bytes that came on it, the first of them kept.
    pub bytes: Vec<u8>,
    /// How many came.
    pub count: u64,
    /// Whether and how it ended.
    pub ended: Option<Ended>,
}

/// What came since the script was set.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Requests whose head was complete, in order.
    pub requests: Vec<Request>,
    /// Connections that carried a byte or were opened, in order.
    pub connections: Vec<Connection>,
    /// What could not be read as a request.
    pub malformed: Vec<String>,
}

impl Seen {
    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.connections.iter().map(|one| one.count).sum()
    }
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    script: Vec<Act>,
    /// Requests that were given an act.
    acted: usize,
    /// Connections accepted since the start.
    accepted: usize,
    open: usize,
    /// Changed by every [`Recorder::begin`]; a request is recorded where it began.
    epoch: usize,
}

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A running recorder. Dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct Recorder {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Recorder {
    /// Starts on a port of its own. Answers every request with its name until a script is set.
    pub async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let stop = CancellationToken::new();
        let (accepting, stopped) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopped.cancelled() => return,
                };
                let Ok((stream, _)) = stream else { return };
                let _ = stream.set_nodelay(true);
                let (shared, stopped) = (Arc::clone(&accepting), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(stream, &shared) => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Self { addr, shared, stop }
    }

    /// The name it answers with.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Forgets what it saw. From now on the n-th request gets the n-th act; the last act is repeated; with none, it is
    /// [`Act::ok`].
    pub fn begin(&self, script: Vec<Act>) {
        let mut state = self.shared.state();
        state.seen = Seen::default();
        state.script = script;
        state.acted = 0;
        state.epoch += 1;
    }

    /// What came since [`Recorder::begin`].
    pub fn seen(&self) -> Seen {
        self.shared.state().seen.clone()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.state().open
    }

    /// Waits until what came is as wanted; gives the last state either way.
    pub async fn wait(&self, most: Duration, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let until = Instant::now() + most;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let seen = self.seen();
            let left = until.saturating_duration_since(Instant::now());
            if wanted(&seen) || left.is_zero() {
                return seen;
            }
            let _ = tokio::time::timeout(left, changed).await;
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One connection of a recorder.
struct Reader<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    id: usize,
    buffer: Vec<u8>,
}

async fn serve(stream: TcpStream, shared: &Shared) {
    let id = {
        let mut state = shared.state();
        state.accepted += 1;
        state.open += 1;
        let id = state.accepted;
        connection(&mut state.seen, id);
        id
    };
    let mut reader = Reader {
        stream,
        shared,
        id,
        buffer: Vec::new(),
    };
    let ended = reader.requests().await;
    let mut state = shared.state();
    state.open -= 1;
    connection(&mut state.seen, id).ended = Some(ended);
    shared.changed.notify_waiters();
}

fn connection(seen: &mut Seen, id: usize) -> &mut Connection {
    let position = seen.connections.iter().position(|one| one.id == id);
    let position = position.unwrap_or_else(|| {
        seen.connections.push(Connection {
            id,
            ..Connection::default()
        });
        seen.connections.len() - 1
    });
    &mut seen.connections[position]
}

impl Reader<'_> {
    /// Reads some bytes; `Err` is the end of the connection.
    async fn fill(&mut self) -> Result<(), Ended> {
        let mut piece = vec![0; 64 * 1024];
        let count = match self.stream.read(&mut piece).await {
            Ok(0) => return Err(Ended::Closed),
            Ok(count) => count,
            Err(_) => return Err(Ended::Reset),
        };
        let mut state = self.shared.state();
        let recorded = connection(&mut state.seen, self.id);
        recorded.count += count as u64;
        let room = KEPT.saturating_sub(recorded.bytes.len()).min(count);
        recorded.bytes.extend_from_slice(&piece[..room]);
        drop(state);
        self.shared.changed.notify_waiters();
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(())
    }

    async fn requests(&mut self) -> Ended {
        loop {
            match self.request().await {
                Ok(()) => {}
                Err(ended) => return ended,
            }
        }
    }

    async fn request(&mut self) -> Result<(), Ended> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let Some(mut request) = parse(&head) else {
            return Err(self.malformed(&head));
        };
        request.connection = self.id;
        let (act, epoch, place) = {
            let mut state = self.shared.state();
            let act = state.script.get(state.acted).or(state.script.last());
            let act = act.cloned().unwrap_or_else(Act::ok);
            state.acted += 1;
            state.seen.requests.push(request.clone());
            (act, state.epoch, state.seen.requests.len() - 1)
        };
        self.shared.changed.notify_waiters();
        if act.early {
            self.perform(&act, &request).await?;
        }
        self.body(&mut request).await?;
        request.complete = true;
        {
            let mut state = self.shared.state();
            if state.epoch == epoch {
                state.seen.requests[place] = request.clone();
            }
        }
        self.shared.changed.notify_waiters();
        if !act.early {
            self.perform(&act, &request).await?;
        }
        Ok(())
    }

    fn malformed(&self, what: &[u8]) -> Ended {
        let text = what[..what.len().min(200)].escape_ascii().to_string();
        self.shared.state().seen.malformed.push(text);
        Ended::ByScript
    }

    async fn body(&mut self, request: &mut Request) -> Result<(), Ended> {
        let length = field(&request.fields, "content-length");
        let coding = field(&request.fields, "transfer-encoding");
        match (length, coding) {
            (None, None) => Ok(()),
            (Some(length), None) => {
                let Some(mut left) = decimal(length) else {
                    return Err(self.malformed(length));
                };
                while left > 0 {
                    if self.buffer.is_empty() {
                        self.fill().await?;
                    }
                    let count = self
                        .buffer
                        .len()
                        .min(usize::try_from(left).unwrap_or(usize::MAX));
                    let room = KEPT.saturating_sub(request.body.len()).min(count);
                    request.body.extend_from_slice(&self.buffer[..room]);
                    self.buffer.drain(..count);
                    left -= count as u64;
                }
                Ok(())
            }
            (None, Some(b"chunked")) => loop {
                match chunked(&self.buffer) {
                    Ok(Some(decoded)) => {
                        request.body = decoded.body;
                        request.trailers = decoded.trailers;
                        self.buffer.drain(..decoded.length);
                        return Ok(());
                    }
                    Ok(None) => self.fill().await?,
                    Err(why) => return Err(self.malformed(why.as_bytes())),
                }
            },
            _ => Err(self.malformed(b"Content-Length beside Transfer-Encoding, or another coding")),
        }
    }

    async fn perform(&mut self, act: &Act, request: &Request) -> Result<(), Ended> {
        for step in &act.steps {
            match step {
                Step::Write(bytes) => self.write(bytes).await?,
                Step::Answer(answer) => {
                    let body = match answer {
                        Answer::Name => self.shared.name.as_bytes(),
                        Answer::Target => request.target.as_bytes(),
                        Answer::Body => &request.body,
                    };
                    let mut bytes =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())
                            .into_bytes();
                    if request.method != "HEAD" {
                        bytes.extend_from_slice(body);
                    }
                    self.write(&bytes).await?;
                }
                Step::Pause(time) => tokio::time::sleep(*time).await,
                Step::Drip(bytes, pause) => loop {
                    for byte in bytes {
                        self.write(&[*byte]).await?;
                        tokio::time::sleep(*pause).await;
                    }
                },
                Step::Close => {
                    let _ = self.stream.shutdown().await;
                    return Err(Ended::ByScript);
                }
                Step::Reset => {
                    let _ = self.stream.set_zero_linger();
                    return Err(Ended::ByScript);
                }
                Step::Tunnel => loop {
                    let bytes = std::mem::take(&mut self.buffer);
                    self.write(&bytes).await?;
                    self.fill().await?;
                },
            }
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.stream.write_all(bytes).await.map_err(|_| Ended::Reset)
    }
}

/// A head in its plainest form: one space between the parts of the request line, `HTTP/1.1`, fields that are tokens.
fn parse(head: &[u8]) -> Option<Request> {
    let text = head.strip_suffix(b"\r\n\r\n")?;
    let line_end = text.windows(2).position(|two| two == b"\r\n");
    let (line, rest) = match line_end {
        Some(end) => (&text[..end], &text[end + 2..]),
        None => (text, &b""[..]),
    };
    let line = std::str::from_utf8(line).ok()?;
    let mut parts = line.split(' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_plain = parts.next().is_none() && version == "HTTP/1.1" && target.starts_with('/');
    let is_clean = line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_plain || !is_clean || method.is_empty() {
        return None;
    }
    Some(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        fields: fields(rest)?,
        ..Request::default()
    })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
