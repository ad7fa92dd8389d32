//! A client that sends bytes as they are given, and reads answers with a strict parser of its own.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A field line. The name is in lower case, the value without the white space around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Value.
    pub value: Vec<u8>,
}

/// The one value of a field; what several lines say together is none.
pub fn field<'a>(fields: &'a [Field], name: &str) -> Option<&'a [u8]> {
    let mut named = fields.iter().filter(|field| field.name == name);
    match (named.next(), named.next()) {
        (Some(field), None) => Some(&field.value),
        (Some(_), Some(_)) => Some(b"(several lines)"),
        _ => None,
    }
}

/// Reads field lines, without the empty line after them. `None` when one is not in its plain form.
pub fn fields(lines: &[u8]) -> Option<Vec<Field>> {
    let mut found = Vec::new();
    if lines.is_empty() {
        return Some(found);
    }
    let text = lines.strip_suffix(b"\r\n").unwrap_or(lines);
    let mut rest = text;
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let text = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
        if name.is_empty() || !name.iter().all(token) || !value.iter().all(text) {
            return None;
        }
        found.push(Field {
            name: String::from_utf8_lossy(name).to_ascii_lowercase(),
            value: value.to_vec(),
        });
        match end {
            Some(end) => rest = &rest[end + 2..],
            None => return Some(found),
        }
    }
}

/// A body that came in chunks.
#[derive(Debug, Clone)]
pub struct Chunked {
    /// Its bytes.
    pub body: Vec<u8>,
    /// Fields after the last chunk.
    pub trailers: Vec<Field>,
    /// Bytes it took with its framing.
    pub length: usize,
}

/// Reads a chunked body in its plainest form: no extensions, no needless zeros. `None`: more bytes are needed.
///
/// # Errors
/// What is wrong with it.
pub fn chunked(bytes: &[u8]) -> Result<Option<Chunked>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else {
            return if bytes.len() - at > 32 {
                Err("a chunk size that does not end".into())
            } else {
                Ok(None)
            };
        };
        let line = &bytes[at..at + end];
        let text = String::from_utf8_lossy(line);
        let plain = !line.is_empty() && line.len() <= 16 && line.iter().all(u8::is_ascii_hexdigit);
        let size = usize::from_str_radix(&text, 16).ok().filter(|_| plain);
        let Some(size) = size else {
            return Err(format!("chunk size {:?}", text));
        };
        at += end + 2;
        if size == 0 {
            break;
        }
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err("a chunk without CRLF behind it".into());
        }
        at += size + 2;
    }
    let rest = &bytes[at..];
    if rest.starts_with(b"\r\n") {
        return Ok(Some(Chunked {
            body,
            trailers: Vec::new(),
            length: at + 2,
        }));
    }
    let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let trailers = fields(&rest[..end]).ok_or("malformed trailers")?;
    Ok(Some(Chunked {
        body,
        trailers,
        length: at + end + 4,
    }))
}

/// An answer as it came.
#[derive(Debug, Clone, Default)]
pub struct RawAnswer {
    /// Status.
    pub status: u16,
    /// Fields in order.
    pub fields: Vec<Field>,
    /// Body without its framing.
    pub body: Vec<u8>,
    /// Whether its end came. Without a length and without chunks the end of the connection is the end.
    pub complete: bool,
}

impl RawAnswer {
    /// Whether it says that the connection ends.
    pub fn closes(&self) -> bool {
        field(&self.fields, "connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
    }
}

/// How the connection is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Still open.
    Open,
    /// Closed by the proxy.
    Closed,
    /// Reset by the proxy.
    Reset,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Final answers, in order.
    pub answers: Vec<RawAnswer>,
    /// Statuses of interim answers (1xx), in order.
    pub interim: Vec<u16>,
    /// Bytes that belong to no whole answer head.
    pub rest: Vec<u8>,
    /// How the connection is left.
    pub end: End,
    /// Bytes that could be sent.
    pub sent: usize,
}

impl Exchange {
    /// Statuses of the final answers.
    pub fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|answer| answer.status).collect()
    }

    /// In a line, for a failure.
    pub fn summary(&self) -> String {
        let mut text = format!("answers {:?}", self.statuses());
        if !self.interim.is_empty() {
            text += &format!(", interim {:?}", self.interim);
        }
        if let Some(last) = self.answers.last() {
            let (close, cut) = (last.closes(), !last.complete);
            text += if close { " with Connection: close" } else { "" };
            text += if cut { ", cut short" } else { "" };
        }
        if !self.rest.is_empty() {
            let shown = self.rest[..self.rest.len().min(60)].escape_ascii();
            text += &format!(", then {shown}");
        }
        format!("{text}, connection {:?}", self.end).to_lowercase()
    }
}

/// What to send and what to wait for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sent one after the other, each after its pause.
    pub pieces: Vec<(Duration, Vec<u8>)>,
    /// Final answers to wait for.
    pub wanted: usize,
    /// The requests are HEAD, so answers have no body.
    pub head: bool,
    /// Whether to end our side after the last piece.
    pub half_close: bool,
    /// Longest time without a byte.
    pub patience: Duration,
}

impl Plan {
    /// Sends these bytes at once and waits for one answer.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            pieces: vec![(Duration::ZERO, bytes.into())],
            wanted: 1,
            head: false,
            half_close: false,
            patience: Duration::from_secs(4),
        }
    }

    /// Waits for so many answers.
    pub fn wanted(mut self, wanted: usize) -> Self {
        self.wanted = wanted;
        self
    }

    /// Waits so long for the next byte.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends these bytes after a pause.
    pub fn then(mut self, pause: Duration, bytes: impl Into<Vec<u8>>) -> Self {
        self.pieces.push((pause, bytes.into()));
        self
    }

    /// Ends our side after the last piece.
    pub fn half_close(mut self) -> Self {
        self.half_close = true;
        self
    }
}

/// Connects.
pub async fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.expect("the proxy accepts");
    let _ = stream.set_nodelay(true);
    stream
}

/// Sends as planned and reads meanwhile. Ends when the wanted answers are there and the last does not announce the end of
/// the connection, when the connection ends, or when nothing has come for the plan's patience.
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, plan: Plan) -> Exchange {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let sent = std::cell::Cell::new(0);
    let send = async {
        for (pause, piece) in &plan.pieces {
            if !pause.is_zero() {
                tokio::time::sleep(*pause).await;
            }
            for part in piece.chunks(64 * 1024) {
                if writing.write_all(part).await.is_err() {
                    return;
                }
                sent.set(sent.get() + part.len());
            }
            let _ = writing.flush().await;
        }
        if plan.half_close {
            let _ = writing.shutdown().await;
        }
    };
    let mut answers = Answers::new(plan.head);
    let read = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            if answers.has(plan.wanted) {
                return End::Open;
            }
            match tokio::time::timeout(plan.patience, reading.read(&mut piece)).await {
                Err(_) => return End::Open,
                Ok(Ok(0)) => return End::Closed,
                Ok(Ok(count)) => answers.add(&piece[..count]),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return End::Closed;
                }
                Ok(Err(_)) => return End::Reset,
            }
        }
    };
    let end = {
        tokio::pin!(read, send);
        tokio::select! {
            end = &mut read => end,
            () = &mut send => read.await,
        }
    };
    answers.finish(end, sent.get())
}

/// Reads answers off the bytes as they come.
struct Answers {
    head: bool,
    buffer: Vec<u8>,
    answers: Vec<RawAnswer>,
    interim: Vec<u16>,
    /// Length of the body that is awaited, and whether an answer is open.
    open: Option<Body>,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Length(usize),
    Chunked,
    Close,
}

impl Answers {
    fn new(head: bool) -> Self {
        Self {
            head,
            buffer: Vec::new(),
            answers: Vec::new(),
            interim: Vec::new(),
            open: None,
        }
    }

    fn has(&self, wanted: usize) -> bool {
        let enough = self.answers.len() >= wanted && self.open.is_none();
        enough && !self.answers.last().is_some_and(RawAnswer::closes)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        loop {
            let Some(body) = self.open else {
                if !self.read_head() {
                    return;
                }
                continue;
            };
            let Some(answer) = self.answers.last_mut() else {
                return;
            };
            match body {
                Body::Length(length) => {
                    if self.buffer.len() < length {
                        return;
                    }
                    answer.body = self.buffer.drain(..length).collect();
                }
                Body::Chunked => match chunked(&self.buffer) {
                    Ok(Some(decoded)) => {
                        answer.body = decoded.body;
                        self.buffer.drain(..decoded.length);
                    }
                    _ => return,
                },
                Body::Close => return,
            }
            answer.complete = true;
            self.open = None;
        }
    }

    /// Takes one head off the buffer, if there is a whole one.
    fn read_head(&mut self) -> bool {
        let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return false;
        };
        let head = self.buffer[..end + 2].to_vec();
        let line_end = head.windows(2).position(|two| two == b"\r\n").unwrap_or(0);
        let status = head[..line_end]
            .strip_prefix(b"HTTP/1.1 ")
            .or(head[..line_end].strip_prefix(b"HTTP/1.0 "))
            .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
        let (Some(status), Some(fields)) = (status, fields(&head[line_end + 2..])) else {
            return false;
        };
        self.buffer.drain(..end + 4);
        if (100..200).contains(&status) && status != 101 {
            self.interim.push(status);
            return true;
        }
        let length = field(&fields, "content-length")
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let bodiless = self.head || matches!(status, 101 | 204 | 304);
        self.open = Some(
            match (bodiless, field(&fields, "transfer-encoding"), length) {
                (true, ..) => Body::Length(0),
                (_, Some(b"chunked"), None) => Body::Chunked,
                (_, None, Some(length)) => Body::Length(length),
                _ => Body::Close,
            },
        );
        self.answers.push(RawAnswer {
            status,
            fields,
            ..RawAnswer::default()
        });
        true
    }

    fn finish(mut self, end: End, sent: usize) -> Exchange {
        if let (Some(body), Some(answer)) = (self.open, self.answers.last_mut()) {
            answer.body = std::mem::take(&mut self.buffer);
            answer.complete = matches!(body, Body::Close) && end == End::Closed;
        }
        Exchange {
            answers: self.answers,
            interim: self.interim,
            rest: self.buffer,
            end,
            sent,
        }
    }
}
