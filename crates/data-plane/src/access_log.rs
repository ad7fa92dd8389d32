//! The access log: one JSON object, or line of text, a request or relayed connection, formatted on the worker, written by a thread
//! of its own.
//!
//! A slow disk or a blocked pipe costs log lines, which are counted, never requests.

mod relay_line;
mod text_line;

pub(crate) use relay_line::RelayLine;

use crate::metrics::WorkerStats;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes a worker collects before it hands them over.
const BATCH: usize = 32 * 1024;
/// Batches that may wait for the writer.
const QUEUE: usize = 64;
/// Written batches that are kept for reuse.
const SPARE: usize = 4;
/// Longest value of a field that a client chooses, in bytes.
const MAX_VALUE: usize = 1024;

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// A JSON object, with everything that is known. The default.
    #[default]
    Json,
    /// The combined format of web servers, and times and endpoint as `name=value`.
    Text,
}

/// Where batches of lines go. Cheap to clone; the writer ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct AccessLogSink {
    batches: SyncSender<Vec<u8>>,
    /// Batches that were written, for reuse: they are large, and come back from another thread.
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    format: AccessLogFormat,
}

impl AccessLogSink {
    /// Starts the thread that writes batches to `out`. Returns also what waits for it to end.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        mut out: impl Write + Send + 'static,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (sender, receiver) = sync_channel::<Vec<u8>>(QUEUE);
        let spare: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let returned = Arc::clone(&spare);
        let write = move || {
            for mut batch in receiver {
                // A closed pipe or a full disk must not end the process; the lines are lost either way.
                let _ = out.write_all(&batch).and_then(|()| out.flush());
                batch.clear();
                let mut spare = returned.lock().unwrap_or_else(PoisonError::into_inner);
                if spare.len() < SPARE {
                    spare.push(batch);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(write)?;
        Ok((
            Self {
                batches: sender,
                spare,
                format: AccessLogFormat::default(),
            },
            thread,
        ))
    }

    /// The same with lines of this form.
    pub fn with_format(self, format: AccessLogFormat) -> Self {
        Self { format, ..self }
    }
}

/// One worker's end of the log.
pub(crate) struct AccessLog {
    sink: Option<AccessLogSink>,
    lines: RefCell<Vec<u8>>,
    clock: Clock,
    stats: Arc<WorkerStats>,
}

/// What a line says. Times are of the monotonic clock; text comes from the client unless said otherwise.
pub(crate) struct Line<'a> {
    pub(crate) client: &'a str,
    pub(crate) request_id: &'a [u8],
    pub(crate) method: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) host: &'a [u8],
    pub(crate) path: &'a str,
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) user_agent: &'a [u8],
    pub(crate) referer: &'a [u8],
    /// What [`RouteLine::format`] made of the route; empty where there is none.
    pub(crate) route: &'a [u8],
    /// Its namespace and name.
    pub(crate) route_name: Option<(&'a str, &'a str)>,
    /// Why there was no answer from an upstream, or not all of one.
    pub(crate) flag: &'static str,
    pub(crate) attempts: u32,
    /// Address of the last endpoint tried.
    pub(crate) upstream: Option<SocketAddr>,
    /// Until the head of the answer.
    pub(crate) upstream_duration: Option<Duration>,
}

/// The part of a line that names the route.
pub(crate) struct RouteLine<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) ingress: &'a str,
    pub(crate) rule: &'a str,
    pub(crate) service: &'a str,
}

impl RouteLine<'_> {
    /// As it stands in a line. Every request of a route says the same, so that is written once.
    pub(crate) fn format(&self) -> Box<[u8]> {
        let mut out = Vec::new();
        text(&mut out, ",\"namespace\":\"", self.namespace.as_bytes());
        text(&mut out, ",\"ingress\":\"", self.ingress.as_bytes());
        text(&mut out, ",\"rule\":\"", self.rule.as_bytes());
        text(&mut out, ",\"service\":\"", self.service.as_bytes());
        out.into()
    }
}

impl AccessLog {
    /// A log; without a sink it does nothing.
    pub(crate) fn new(sink: Option<AccessLogSink>, stats: Arc<WorkerStats>) -> Self {
        Self {
            sink,
            lines: RefCell::default(),
            clock: Clock::default(),
            stats,
        }
    }

    /// Whether lines go anywhere.
    pub(crate) fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Adds the line of a request.
    pub(crate) fn write(&self, line: &Line<'_>) {
        self.write_with(|lines, time| match self.is_text() {
            false => format_line(lines, time, line),
            true => text_line::request(lines, time, line),
        });
    }

    /// Adds the line of a relayed connection or session.
    pub(crate) fn write_relay(&self, line: &RelayLine<'_>) {
        self.write_with(|lines, time| match self.is_text() {
            false => relay_line::format(lines, time, line),
            true => text_line::relay(lines, time, line),
        });
    }

    fn is_text(&self) -> bool {
        let format = self.sink.as_ref().map(|sink| sink.format);
        format == Some(AccessLogFormat::Text)
    }

    #[inline]
    fn write_with(&self, format: impl FnOnce(&mut Vec<u8>, &[u8])) {
        let mut lines = self.lines.borrow_mut();
        format(&mut lines, &self.clock.now());
        if lines.len() >= BATCH {
            let batch = std::mem::replace(&mut *lines, self.spare());
            self.send(batch);
        }
    }

    /// An empty batch.
    fn spare(&self) -> Vec<u8> {
        let spare = self.sink.as_ref().and_then(|sink| {
            sink.spare
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()
        });
        spare.unwrap_or_else(|| Vec::with_capacity(BATCH + 4096))
    }

    /// Hands over what has been collected.
    pub(crate) fn flush(&self) {
        let mut lines = self.lines.borrow_mut();
        if !lines.is_empty() {
            let batch = std::mem::replace(&mut *lines, self.spare());
            self.send(batch);
        }
    }

    fn send(&self, batch: Vec<u8>) {
        let Some(sink) = &self.sink else { return };
        if let Err(std::sync::mpsc::TrySendError::Full(batch)) = sink.batches.try_send(batch) {
            self.stats
                .log_dropped
                .add(memchr::memchr_iter(b'\n', &batch).count() as u64);
        }
    }
}

/// Wall-clock time as text; the date is formatted once a second.
#[derive(Debug, Default)]
struct Clock {
    second: Cell<u64>,
    text: Cell<[u8; 24]>,
}

impl Clock {
    /// `2026-01-31T12:00:00.123Z`.
    fn now(&self) -> [u8; 24] {
        #[allow(
            clippy::disallowed_methods,
            reason = "people read the log by the time of day; nothing is timed with it"
        )]
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut text = self.text.get();
        if now.as_secs() != self.second.get() || text[0] == 0 {
            self.second.set(now.as_secs());
            let stamp = jiff::Timestamp::from_second(now.as_secs() as i64).unwrap_or_default();
            let date = format!("{stamp:.0}");
            text = *b"1970-01-01T00:00:00.000Z";
            if date.len() == 20 {
                text[..19].copy_from_slice(&date.as_bytes()[..19]);
            }
        }
        let millis = now.subsec_millis();
        text[20] = b'0' + (millis / 100) as u8;
        text[21] = b'0' + (millis / 10 % 10) as u8;
        text[22] = b'0' + (millis % 10) as u8;
        self.text.set(text);
        text
    }
}

fn format_line(out: &mut Vec<u8>, time: &[u8], line: &Line<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(time);
    out.push(b'"');
    text(out, ",\"client\":\"", line.client.as_bytes());
    text(out, ",\"request_id\":\"", line.request_id);
    text(out, ",\"method\":\"", line.method.as_bytes());
    text(out, ",\"scheme\":\"", line.scheme.as_bytes());
    text(out, ",\"host\":\"", line.host);
    text(out, ",\"path\":\"", line.path.as_bytes());
    text(out, ",\"protocol\":\"", line.protocol.as_bytes());
    number(out, ",\"status\":", line.status.into());
    number(out, ",\"request_bytes\":", line.request_bytes);
    number(out, ",\"response_bytes\":", line.response_bytes);
    seconds(out, ",\"duration\":", line.duration);
    text(out, ",\"user_agent\":\"", line.user_agent);
    if !line.referer.is_empty() {
        text(out, ",\"referer\":\"", line.referer);
    }
    out.extend_from_slice(line.route);
    if let Some(upstream) = line.upstream {
        out.extend_from_slice(b",\"upstream\":\"");
        address(out, upstream);
        out.push(b'"');
        number(out, ",\"attempts\":", line.attempts.into());
    }
    if let Some(duration) = line.upstream_duration {
        seconds(out, ",\"upstream_duration\":", duration);
    }
    if !line.flag.is_empty() {
        text(out, ",\"flag\":\"", line.flag.as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `192.0.2.1:80` or `[2001:db8::1]:80`. The common form is written by hand: the formatter takes ten times as long.
fn address(out: &mut Vec<u8>, address: SocketAddr) {
    let SocketAddr::V4(v4) = address else {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    let mut digits = itoa::Buffer::new();
    for (octet, after) in v4.ip().octets().into_iter().zip(*b"...:") {
        out.extend_from_slice(digits.format(octet).as_bytes());
        out.push(after);
    }
    out.extend_from_slice(digits.format(v4.port()).as_bytes());
}

/// Seconds with six decimals.
fn seconds(out: &mut Vec<u8>, key: &str, value: Duration) {
    number(out, key, value.as_secs());
    let mut digits = *b".000000";
    let mut micros = value.subsec_micros();
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    out.extend_from_slice(&digits);
}

/// A JSON string, whatever the bytes.
fn text(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend_from_slice(key.as_bytes());
    escaped(out, value);
    out.push(b'"');
}

/// What may stand between quotes: control characters and what is not UTF-8 are escaped, long values are cut.
fn escaped(out: &mut Vec<u8>, value: &[u8]) {
    let value = &value[..value.len().min(MAX_VALUE)];
    let plain = |b: &u8| matches!(b, 0x20..=0x7e) && *b != b'"' && *b != b'\\';
    // Not `all`: looking at every byte, many at once, is quicker than looking for the first that is not plain.
    if value.iter().fold(true, |all, byte| all & plain(byte)) {
        out.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                    '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => escape(out, character as u8),
                    _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            for byte in chunk.invalid() {
                escape(out, *byte);
            }
        }
    }
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "\\u{byte:04x}");
}

#[cfg(test)]
#[path = "tests/access_log.rs"]
mod tests;
