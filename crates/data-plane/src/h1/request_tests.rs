//! What is a request, and what is refused.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;

/// Feeds `input` in pieces of `step` bytes, until it is a head, or refused, or all was fed.
fn feed(input: &[u8], step: usize) -> Result<Option<RequestHead>, RequestError> {
    let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        match reader.read(&mut buffer, false)? {
            Read::Head(head) => return Ok(Some(*head)),
            Read::NeedMore => {}
            Read::Http2 => unreachable!("HTTP/2 was not allowed"),
        }
    }
    Ok(None)
}

/// The verdict on a request line and fields, which must be the same however the bytes come.
#[track_caller]
fn check(head: &str, expected: Result<Framing, RequestError>) {
    let input = format!("{head}\r\n\r\n");
    for step in [input.len(), 1, 7] {
        let read = feed(input.as_bytes(), step).map(|head| head.unwrap().framing);
        assert_eq!(read, expected, "{head:?} in pieces of {step}");
    }
}

#[track_caller]
fn line(line: &str, expected: Option<RequestError>) {
    let expected = expected.map_or(Ok(Framing::Length(0)), Err);
    check(&format!("{line}\r\nHost: a"), expected);
}

#[track_caller]
fn fields(fields: &str, expected: Result<Framing, RequestError>) {
    check(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}"), expected);
}

#[test]
fn request_lines() {
    for fine in [
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "get /a?b=c%20{d} HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://a/b HTTP/1.1",
    ] {
        line(fine, None);
    }
    for bad in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /",
        "GET /\u{e9} HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET / HTTP/11",
        "G@T / HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "ATTACKATTACKATTACKATTACKATTACKATTACK / HTTP/1.1",
        "SSH-2.0-OpenSSH_9.2",
    ] {
        line(bad, Some(RequestError::Malformed));
    }
    line("GET / HTTP/1.2", Some(RequestError::Version));
    line("GET / HTTP/2.0", Some(RequestError::Version));
    line(
        &format!("GET /{} HTTP/1.1", "a".repeat(MAX_TARGET - 1)),
        None,
    );
    line(
        &format!("GET /{} HTTP/1.1", "a".repeat(MAX_TARGET)),
        Some(RequestError::TargetTooLong),
    );
}

#[test]
fn one_field_frames_a_body() {
    let framing = Err(RequestError::Framing);
    fields("Content-Length: 2", Ok(Framing::Length(2)));
    fields("Content-Length: 002", Ok(Framing::Length(2)));
    fields(
        "Content-Length: 2\r\nContent-Length: 2",
        Ok(Framing::Length(2)),
    );
    fields("Transfer-Encoding: chunked", Ok(Framing::Chunked));
    fields("Transfer-Encoding: Chunked ", Ok(Framing::Chunked));
    for bad in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -1",
        "Content-Length: 0x2",
        "Content-Length: 1_0",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
    ] {
        fields(bad, framing);
    }
    fields(
        "Transfer-Encoding: gzip, chunked",
        Err(RequestError::Coding),
    );
    fields(
        "Content-Length: 9223372036854775808",
        Err(RequestError::Length),
    );
    check(
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked",
        framing,
    );
}

#[test]
fn field_lines() {
    for bad in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \u{b}chunked",
        "X: a\r\n b",
        " X: a",
        "X",
        ": a",
        "X Y: a",
        "X: a\u{0}b",
        "X: a\u{1}b",
        "X: a\rb",
        "X: a\nTransfer-Encoding: chunked",
    ] {
        fields(bad, Err(RequestError::Malformed));
    }
    fields("X: caf\u{e9}", Ok(Framing::Length(0)));
    let many = |count: usize| vec!["X: y"; count].join("\r\n");
    fields(&many(MAX_FIELDS - 1), Ok(Framing::Length(0)));
    fields(&many(MAX_FIELDS), Err(RequestError::TooLarge));
}

#[test]
fn expectations() {
    let head = |fields: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        feed(head.as_bytes(), head.len()).map(|head| head.unwrap().expects_continue)
    };
    assert_eq!(head("Expect: 100-Continue\r\nContent-Length: 1"), Ok(true));
    assert_eq!(head("Expect: 100-continue"), Ok(false), "there is no body");
    assert_eq!(head("Expect: other"), Err(RequestError::Expectation));
}

#[test]
fn sizes() {
    let head = |padding: usize| {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "a".repeat(padding)
        );
        (
            head.len(),
            feed(head.as_bytes(), 1024).map(|head| head.is_some()),
        )
    };
    let (empty, _) = head(0);
    assert_eq!(head(MAX_HEAD - empty), (MAX_HEAD, Ok(true)));
    assert_eq!(head(MAX_HEAD - empty + 1).1, Err(RequestError::TooLarge));
    assert_eq!(
        feed("a".repeat(100).as_bytes(), 1).err(),
        Some(RequestError::Malformed),
        "no method is that long"
    );
}

#[test]
fn what_can_never_be_a_request_is_refused_at_once() {
    for start in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"SSH-2.0-x\r\n",
        b"GET / HTTP/1.1\n",
        b"\r\n\r\n\r\n",
        b"\n",
    ] {
        assert_eq!(
            feed(start, 1).err(),
            Some(RequestError::Malformed),
            "{start:?}"
        );
    }
    assert!(
        feed(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1)
            .unwrap()
            .is_some()
    );
}

#[test]
fn http2_is_told_by_its_whole_preface() {
    let read = |input: &[u8]| HeadReader::default().read(&mut BytesMut::from(input), true);
    assert!(matches!(read(HTTP2_PREFACE), Ok(Read::Http2)));
    assert!(matches!(read(b"PRI * H"), Ok(Read::NeedMore)));
    assert_eq!(
        read(b"PRI * HTTP/2.0\r\n\r\nXX").err(),
        Some(RequestError::Version)
    );
    let late = feed(HTTP2_PREFACE, HTTP2_PREFACE.len());
    assert_eq!(
        late.err(),
        Some(RequestError::Version),
        "not on a connection that spoke HTTP/1.1"
    );
}

#[test]
fn connections_that_go_on() {
    let goes_on = |version: &str, connection: &str| {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        feed(head.as_bytes(), head.len())
            .unwrap()
            .unwrap()
            .keep_alive
    };
    assert!(goes_on("1.1", "x"));
    assert!(!goes_on("1.1", "x, Close"));
    assert!(!goes_on("1.0", "x"));
    assert!(goes_on("1.0", "Keep-Alive"));
    assert!(!goes_on("1.0", "keep-alive, close"));
}
