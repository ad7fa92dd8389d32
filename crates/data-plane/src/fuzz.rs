//! Everything that reads bytes of strangers, as functions that a fuzzer can call, each with what must hold for any input.
//!
//! `tests/fuzz` has a target for each row of [`TARGETS`]; its corpora are replayed by the ordinary test run.

use crate::h1::chunked::{Decoded, Decoder};
use crate::h1::head;
use crate::h1::request::{Framing, HeadReader, Read, RequestError, RequestHead};
use crate::h2_guard::reader::Reader;
use crate::health_probe;
use crate::l4::client_hello::{HelloReader, Progress};
use crate::proxy_header;
use balance::agent_check::{AgentWord, MOST_PERCENT};
use bytes::BytesMut;
use http::{Method, Version};
use routing_table::HostMatch;
use routing_table::matcher::host::normal_host;
use routing_table::matcher::path::normal_path;
use tokio::io::ReadBuf;

/// A target: its name, and what is done with an input. It panics when something does not hold.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunked_body", chunked_body),
    ("proxy_header", proxy_header),
    ("client_hello", client_hello),
    ("host_and_path", host_and_path),
    ("health_answers", health_answers),
    ("h2_guard", h2_guard),
];

/// Runs one target. Panics when something does not hold, or when there is no such target.
pub fn run(target: &str, input: &[u8]) {
    match TARGETS.iter().find(|(name, _)| *name == target) {
        Some((_, check)) => check(input),
        None => panic!("no target is called {target}"),
    }
}

/// Any number of pieces; the first byte of an input says how long they are.
fn pieces(input: &[u8]) -> (&[u8], usize) {
    match input.split_first() {
        Some((step, rest)) => (rest, usize::from(*step) + 1),
        None => (input, 1),
    }
}

fn feed(input: &[u8], step: usize) -> Result<Option<(RequestHead, BytesMut)>, RequestError> {
    let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        match reader.read(&mut buffer, false)? {
            Read::Head(head) => return Ok(Some((*head, buffer))),
            Read::NeedMore | Read::Http2 => {}
        }
    }
    Ok(None)
}

/// What is read whole is read the same in pieces, and written again it is the same request to the same reader.
fn request_head(input: &[u8]) {
    let (input, step) = pieces(input);
    let whole = feed(input, input.len().max(1));
    let split = feed(input, step);
    match (&whole, &split) {
        (Ok(Some((a, _))), Ok(Some((b, _)))) => {
            assert_eq!((a.framing, a.keep_alive), (b.framing, b.keep_alive));
            assert_eq!(a.parts.headers, b.parts.headers);
        }
        // In pieces it may be refused before it is whole; it may never be taken then.
        (Ok(Some(_)), other) | (other, Ok(Some(_))) => panic!("whole or split: {other:?}"),
        _ => {}
    }
    let Ok(Some((head, _))) = whole else { return };
    let target = head.parts.uri.to_string();
    let mut again = format!("{} {target} ", head.parts.method).into_bytes();
    again.extend_from_slice(match head.parts.version {
        Version::HTTP_10 => b"HTTP/1.0\r\n",
        _ => b"HTTP/1.1\r\n",
    });
    for (name, value) in &head.parts.headers {
        again.extend_from_slice(name.as_str().as_bytes());
        again.extend_from_slice(b": ");
        again.extend_from_slice(value.as_bytes());
        again.extend_from_slice(b"\r\n");
    }
    match head.framing {
        Framing::Length(0) => {}
        Framing::Length(length) => {
            again.extend_from_slice(format!("content-length: {length}\r\n").as_bytes())
        }
        Framing::Chunked => again.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    again.extend_from_slice(b"\r\n");
    match feed(&again, again.len()) {
        Ok(Some((read, rest))) => {
            assert!(rest.is_empty(), "one request became two");
            assert_eq!(read.framing, head.framing);
            assert_eq!(read.parts.method, head.parts.method);
            assert_eq!(read.parts.uri, head.parts.uri);
            assert_eq!(read.parts.headers, head.parts.headers);
        }
        // Spelt out it may be longer than a head may be.
        Err(RequestError::TooLarge | RequestError::TargetTooLong) => {}
        other => panic!("written again it is {other:?}"),
    }
}

/// Never panics, and what is taken off the buffer is a head.
fn response_head(input: &[u8]) {
    for (method, upgrade) in [
        (Method::GET, false),
        (Method::HEAD, false),
        (Method::GET, true),
    ] {
        let mut buffer = BytesMut::from(input);
        if let Ok(Some(head)) = head::parse(&mut buffer, &method, upgrade) {
            let taken = input.len() - buffer.len();
            assert!(input[..taken].ends_with(b"\r\n\r\n"));
            assert!((100..600).contains(&head.status.as_u16()));
        }
    }
}

/// A body and what is left behind it are the same in pieces.
fn chunked_body(input: &[u8]) {
    fn decode(input: &[u8], step: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut decoder, mut buffer, mut body) = (Decoder::new(), BytesMut::new(), Vec::new());
        let mut pieces = input.chunks(step);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Decoded::Data(data)) => body.extend_from_slice(&data),
                Ok(Decoded::End) => {
                    let rest = pieces.flatten().copied();
                    return Some((body, buffer.iter().copied().chain(rest).collect()));
                }
                Ok(Decoded::NeedMore) => buffer.extend_from_slice(pieces.next()?),
                Err(_) => return None,
            }
        }
    }
    let (input, step) = pieces(input);
    assert_eq!(decode(input, input.len().max(1)), decode(input, step));
}

/// Each beginning of a good header is incomplete, and what is behind it does not change it.
fn proxy_header(input: &[u8]) {
    let whole = proxy_header::parse(input);
    if let Ok(Some(header)) = &whole {
        for cut in 0..header.length {
            let part = proxy_header::parse(&input[..cut]);
            assert!(matches!(part, Ok(None)), "cut at {cut}: {part:?}");
        }
        assert_eq!(&proxy_header::parse(&input[..header.length]), &whole);
    }
}

/// The name is the same however the bytes come, and all bytes are still there to be passed on.
fn client_hello(input: &[u8]) {
    fn peek(input: &[u8], step: usize) -> Progress {
        let mut reader = HelloReader::default();
        let mut progress = Progress::More;
        for piece in input.chunks(step) {
            reader.buffer().extend_from_slice(piece);
            progress = reader.progress();
            if progress != Progress::More {
                break;
            }
        }
        assert!(input.starts_with(&reader.into_seen()));
        progress
    }
    let (input, step) = pieces(input);
    assert_eq!(peek(input, input.len().max(1)), peek(input, step));
}

/// A normal form is its own normal form, and what matches does not depend on the spelling.
fn host_and_path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (host, path) = text.split_once(' ').unwrap_or((text, text));
    if let Ok(normal) = normal_host(host) {
        assert_eq!(normal_host(&normal).as_deref(), Ok(&*normal));
        assert!(!normal.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    if let Ok(pattern) = HostMatch::parse(host) {
        let spelt = pattern.to_string();
        let again = HostMatch::parse(if pattern == HostMatch::Any {
            ""
        } else {
            &spelt
        });
        assert_eq!(again.as_ref(), Ok(&pattern));
    }
    if let Ok(normal) = normal_path(path) {
        assert_eq!(normal_path(&normal).as_deref(), Ok(&*normal));
        assert!(
            !normal
                .split('/')
                .any(|element| element == "." || element == "..")
        );
    }
}

/// What an agent says is its first line, and only that; nothing of it that is kept is large or cannot be printed. Answers to
/// probes are read without a panic.
fn health_answers(input: &[u8]) {
    let said = AgentWord::parse(input);
    let line = input
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    assert_eq!(AgentWord::parse(line), said);
    assert!(
        said.weight_percent
            .is_none_or(|percent| percent <= MOST_PERCENT)
    );
    let reason = said.reason.unwrap_or_default();
    assert!(reason.chars().count() <= 100 && !reason.chars().any(char::is_control));
    health_probe::read_any(input);
}

/// What comes through does not depend on how the bytes come, only single bytes of it are changed, and it comes through again as
/// it is.
fn h2_guard(input: &[u8]) {
    fn through(input: &[u8], step: usize) -> (Vec<u8>, bool) {
        let (mut reader, mut out) = (Reader::new(BytesMut::new()), Vec::new());
        let mut space = vec![0; step];
        for piece in input.chunks(step) {
            let mut buffer = ReadBuf::new(&mut space);
            buffer.put_slice(piece);
            let mut more = reader.take(&mut buffer, 0);
            while more {
                out.extend_from_slice(buffer.filled());
                buffer.clear();
                more = reader.give(&mut buffer);
            }
            if reader.has_ended() {
                break;
            }
        }
        (out, reader.has_ended())
    }
    let (input, step) = pieces(input);
    let (out, ended) = through(input, input.len().max(1));
    assert_eq!(through(input, step), (out.clone(), ended));
    assert!(out.len() <= input.len());
    // A frame is held back until it is whole; no longer than that.
    assert!(ended || input.len() - out.len() < 9 + 16_384);
    for (came, passed) in input
        .iter()
        .zip(&out)
        .filter(|(came, passed)| came != passed)
    {
        // A fragment, raw or coded; a flag; a stream.
        let set = passed & !came;
        let cleared = came & !passed;
        assert!(
            cleared == 0 && set.count_ones() == 1
                || (*came, *passed) == (b'#', b'>')
                || cleared == 1 && set == 0
                || *passed == 0
        );
    }
    assert_eq!(through(&out, out.len().max(1)), (out.clone(), ended));
}
