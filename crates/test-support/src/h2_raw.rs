//! HTTP/2 as raw frames: writes what it is told to, right or wrong, and reads what comes back.
//!
//! Header blocks are written as literals without Huffman coding and without the dynamic table. The peer is told that our
//! table has size 0, so of its header blocks only `:status`, always first, needs to be understood.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 section 6).
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of the RFC")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// END_STREAM, and ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 0x1;
/// END_HEADERS.
pub const END_HEADERS: u8 = 0x4;
/// PADDED.
pub const PADDED: u8 = 0x8;

/// A frame with this payload, whatever its type allows.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A SETTINGS frame.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in values {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// An integer with a prefix of 7 bits (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        out.push(value as u8);
        return;
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push((value % 128) as u8 | 128);
        value /= 128;
    }
    out.push(value as u8);
}

/// A header block of literals that are not indexed (RFC 7541 section 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(&mut out, text.len());
            out.extend_from_slice(text);
        }
    }
    out
}

/// A header block as HEADERS and as many CONTINUATION frames as it takes.
pub fn headers(stream: u32, end_stream: bool, block: &[u8]) -> Vec<u8> {
    const MOST: usize = 16_384;
    let end_stream = if end_stream { END_STREAM } else { 0 };
    let mut pieces: Vec<&[u8]> = block.chunks(MOST).collect();
    if pieces.is_empty() {
        pieces.push(b"");
    }
    let last = pieces.len() - 1;
    let mut out = Vec::new();
    for (number, piece) in pieces.into_iter().enumerate() {
        let end = if number == last { END_HEADERS } else { 0 };
        out.extend(match number {
            0 => frame(kind::HEADERS, end | end_stream, stream, piece),
            _ => frame(kind::CONTINUATION, end, stream, piece),
        });
    }
    out
}

/// A DATA frame.
pub fn data(stream: u32, end_stream: bool, bytes: &[u8]) -> Vec<u8> {
    let flags = if end_stream { END_STREAM } else { 0 };
    frame(kind::DATA, flags, stream, bytes)
}

/// A RST_STREAM frame.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// What came back on one stream.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Status of the final answer.
    pub status: Option<u16>,
    /// Bytes of DATA.
    pub body: Vec<u8>,
    /// Frames of DATA, empty ones included.
    pub pieces: usize,
    /// The peer ended it.
    pub ended: bool,
    /// The peer reset it, with this code.
    pub reset: Option<u32>,
}

impl Stream {
    /// Whether nothing more comes on it.
    pub fn is_over(&self) -> bool {
        self.ended || self.reset.is_some()
    }
}

/// What came back so far.
#[derive(Debug, Clone, Default)]
pub struct Got {
    /// Streams by their id.
    pub streams: BTreeMap<u32, Stream>,
    /// Code of the last GOAWAY.
    pub goaway: Option<u32>,
    /// The connection has ended.
    pub closed: bool,
    /// SETTINGS of the peer came, so it speaks HTTP/2.
    pub settings: bool,
    /// PING and SETTINGS that were acknowledged.
    pub acknowledged: u64,
}

impl Got {
    /// A stream, or one on which nothing came.
    pub fn stream(&self, id: u32) -> Stream {
        self.streams.get(&id).cloned().unwrap_or_default()
    }

    /// Whether the connection is given up.
    pub fn is_over(&self) -> bool {
        self.closed || self.goaway.is_some_and(|code| code != 0)
    }

    /// In a line, for a failure.
    pub fn summary(&self, id: u32) -> String {
        let stream = self.stream(id);
        format!(
            "status {:?}, reset {:?}, goaway {:?}, closed {}",
            stream.status, stream.reset, self.goaway, self.closed
        )
    }
}

/// A connection to a server.
pub struct Connection<S> {
    io: S,
    buffer: Vec<u8>,
    got: Got,
    /// Gives the peer room for what it sent.
    replenish: bool,
    acknowledge: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sends the preface and SETTINGS: no header table, and these.
    pub async fn open(io: S, values: &[(u16, u32)]) -> Self {
        const HEADER_TABLE_SIZE: u16 = 1;
        let mut connection = Self {
            io,
            buffer: Vec::new(),
            got: Got::default(),
            replenish: true,
            acknowledge: true,
        };
        let mut all = vec![(HEADER_TABLE_SIZE, 0)];
        all.extend_from_slice(values);
        connection.send(PREFACE).await;
        connection.send(&settings(&all)).await;
        connection
    }

    /// From now on gives the peer no room and acknowledges nothing.
    pub fn fall_silent(&mut self) {
        self.replenish = false;
        self.acknowledge = false;
    }

    /// Sends bytes; says whether they could be. A peer that does not read is given up after a while.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let write = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        let sent = tokio::time::timeout(Duration::from_secs(10), write).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Sends much while reading what comes; ends early when the peer gives the connection up.
    pub async fn pour(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(16 * 1024) {
            if self.got.is_over() || !self.send(piece).await {
                return;
            }
            self.read(Duration::ZERO, |_| false).await;
        }
    }

    /// Reads until what came is as wanted, the connection ends, or nothing came for so long. Gives what came so far.
    pub async fn read(&mut self, patience: Duration, wanted: impl Fn(&Got) -> bool) -> Got {
        let mut until = Instant::now() + patience;
        let mut piece = vec![0; 64 * 1024];
        while !wanted(&self.got) && !self.got.closed {
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.io.read(&mut piece)).await {
                Err(_) => break,
                Ok(Ok(0) | Err(_)) => self.got.closed = true,
                Ok(Ok(count)) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    let answer = self.frames();
                    if !answer.is_empty() && !self.send(&answer).await {
                        // What was on its way may still be read.
                        self.acknowledge = false;
                        self.replenish = false;
                    }
                    until = Instant::now() + patience;
                }
            }
        }
        self.got.clone()
    }

    /// Takes whole frames off the buffer; gives what is to be sent in return.
    fn frames(&mut self) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut at = 0;
        while let Some(head) = self.buffer.get(at..at + 9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some(payload) = self.buffer.get(at + 9..at + 9 + length) else {
                break;
            };
            let payload = payload.to_vec();
            at += 9 + length;
            self.frame(kind, flags, stream, &payload, &mut answer);
        }
        self.buffer.drain(..at);
        answer
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8], answer: &mut Vec<u8>) {
        let code = |bytes: &[u8]| {
            let bytes: Option<[u8; 4]> = bytes.get(..4).and_then(|four| four.try_into().ok());
            bytes.map_or(u32::MAX, u32::from_be_bytes)
        };
        match kind {
            kind::SETTINGS | kind::PING if flags & END_STREAM != 0 => self.got.acknowledged += 1,
            kind::SETTINGS => {
                self.got.settings = true;
                if self.acknowledge {
                    answer.extend(frame(kind::SETTINGS, END_STREAM, 0, b""));
                }
            }
            kind::PING if self.acknowledge => {
                answer.extend(frame(kind::PING, END_STREAM, 0, payload));
            }
            kind::GOAWAY => self.got.goaway = Some(code(payload.get(4..).unwrap_or_default())),
            kind::RST_STREAM => {
                self.got.streams.entry(id).or_default().reset = Some(code(payload));
            }
            kind::DATA | kind::HEADERS => {
                let stream = self.got.streams.entry(id).or_default();
                stream.ended |= flags & END_STREAM != 0;
                if kind == kind::DATA {
                    stream.pieces += 1;
                    stream.body.extend_from_slice(payload);
                    if self.replenish && !payload.is_empty() {
                        let size = (payload.len() as u32).to_be_bytes();
                        answer.extend(frame(kind::WINDOW_UPDATE, 0, 0, &size));
                        answer.extend(frame(kind::WINDOW_UPDATE, 0, id, &size));
                    }
                } else if let Some(status) = status(payload).filter(|status| *status >= 200) {
                    stream.status.get_or_insert(status);
                }
            }
            _ => {}
        }
    }
}

/// The status at the front of a header block. `None` for trailers.
fn status(block: &[u8]) -> Option<u16> {
    // Changes of the table's size may come before it.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let block = &block[start..];
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block[0] {
        first @ 0x88..=0x8e => Some(STATIC[usize::from(first - 0x88)]),
        // A literal whose name is entry 8 to 14 of the static table, all of them `:status`; indexed or not.
        first
            if (8..=14).contains(&(first & 0x3f)) && first & 0xc0 == 0x40
                || (8..=14).contains(&first) =>
        {
            let length = *block.get(1)?;
            let bytes = block.get(2..2 + usize::from(length & 0x7f))?;
            let text = if length & 0x80 == 0 {
                String::from_utf8_lossy(bytes).into_owned()
            } else {
                digits(bytes)
            };
            text.parse().ok()
        }
        _ => None,
    }
}

/// Digits in the Huffman code of RFC 7541 appendix B: 0 to 2 have 5 bits, 3 to 9 have 6.
fn digits(bytes: &[u8]) -> String {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut text, mut at) = (String::new(), 0);
    let number = |from: usize, to: usize| {
        let part = bits.get(from..to)?;
        u8::from_str_radix(part, 2).ok()
    };
    loop {
        match (number(at, at + 5), number(at, at + 6)) {
            (Some(short @ 0..=2), _) => {
                text.push(char::from(b'0' + short));
                at += 5;
            }
            (_, Some(long @ 0b01_1001..=0b01_1111)) => {
                text.push(char::from(b'3' + long - 0b01_1001));
                at += 6;
            }
            _ => return text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_every_form() {
        assert_eq!(status(b"\x88"), Some(200));
        assert_eq!(status(b"\x20\x8d\x40"), Some(404));
        assert_eq!(status(b"\x48\x03421"), Some(421));
        assert_eq!(status(b"\x08\x03503"), Some(503));
        // RFC 7541 appendix C.6.1: 302 in the Huffman code.
        assert_eq!(status(b"\x48\x82\x64\x02"), Some(302));
        assert_eq!(status(b"\x00\x01a\x01b"), None);
    }

    #[test]
    fn a_frame_has_length_type_flags_and_stream() {
        assert_eq!(data(1, true, b"hi"), b"\0\0\x02\0\x01\0\0\0\x01hi");
        assert_eq!(headers(3, false, b""), b"\0\0\0\x01\x04\0\0\0\x03");
        assert_eq!(block(&[("a", "b")]), b"\0\x01a\x01b");
    }
}
