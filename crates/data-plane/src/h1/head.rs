//! Reads an upstream's response head and decides how its body is framed (RFC 9112 section 6.3). Pure: bytes in, head out.

use super::{HEAD_END, decimal};
use crate::answer_fields::{LAST_STATUS, Length, ends_here, is_bodiless, is_lengthless};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use std::mem::MaybeUninit;

/// Largest response head in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Most header lines in a response head.
pub(crate) const MAX_FIELDS: usize = 100;

/// A response head as an upstream sent it, without the fields that belong to the connection.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// The status.
    pub(crate) status: StatusCode,
    /// The end-to-end fields.
    pub(crate) headers: HeaderMap,
    /// How the body is framed.
    pub(crate) framing: Framing,
    /// Whether the connection may be used again after the body.
    pub(crate) keep_alive: bool,
    /// How many seconds the upstream says it keeps a connection at rest (`Keep-Alive: timeout=n`).
    pub(crate) idle_seconds: Option<u64>,
}

/// How a message body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// When the connection closes.
    Close,
    /// It does not: from here on the connection speaks another protocol.
    Tunnel,
}

/// What is wrong with a response head. The text is for the log, never for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Not HTTP/1.x, or a malformed line.
    #[error("malformed response head")]
    Malformed,
    /// Over [`MAX_HEAD`] or [`MAX_FIELDS`].
    #[error("response head too large")]
    TooLarge,
    /// Content-Length that is no number, or differs between lines, or stands beside Transfer-Encoding.
    #[error("ambiguous response framing")]
    Framing,
    /// 101 that nobody asked for, or a status outside 100 to 599.
    #[error("unexpected response status")]
    Status,
}

/// Takes one head off the front of `buffer`. `None`: more bytes are needed. `method` is that of the request; `upgrade`: the
/// request asked for another protocol.
///
/// Lines must end in CRLF: a bare LF is one of the ways two readers come to see different fields.
pub(crate) fn parse(
    buffer: &mut BytesMut,
    method: &Method,
    upgrade: bool,
) -> Result<Option<ResponseHead>, HeadError> {
    const START: &[u8] = b"HTTP/1.";
    if buffer[..buffer.len().min(START.len())] != START[..buffer.len().min(START.len())] {
        return Err(HeadError::Malformed);
    }
    let Some(end) = HEAD_END.find(buffer) else {
        return if has_bare_line_feed(buffer) {
            Err(HeadError::Malformed)
        } else if buffer.len() < MAX_HEAD {
            Ok(None)
        } else {
            Err(HeadError::TooLarge)
        };
    };
    if end + 4 > MAX_HEAD {
        return Err(HeadError::TooLarge);
    }
    let head = buffer.split_to(end + 4).freeze();
    if has_bare_line_feed(&head) {
        return Err(HeadError::Malformed);
    }
    let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, &head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        _ => return Err(HeadError::Malformed),
    }
    // httparse only completes a head that has both.
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed);
    };
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Status)?;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    if code > LAST_STATUS || switches && !upgrade {
        return Err(HeadError::Status);
    }
    let version = if minor == 1 {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };
    let mut fields = Fields {
        headers: HeaderMap::with_capacity(response.headers.len()),
        ..Fields::default()
    };
    for field in response.headers.iter() {
        fields.add(field.name, head.slice_ref(field.value))?;
    }
    let (framing, keep_alive) = if switches {
        if !fields.websocket {
            return Err(HeadError::Status);
        }
        // What follows is no content, so nothing may say how long it is (RFC 9110 section 8.6).
        fields.strip(status);
        (Framing::Tunnel, false)
    } else {
        fields.framing(method, status, version)?
    };
    Ok(Some(ResponseHead {
        status,
        headers: fields.headers,
        framing,
        keep_alive,
        idle_seconds: fields.idle_seconds,
    }))
}

fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

/// The fields of a head, those about framing and the connection set apart.
#[derive(Debug, Default)]
struct Fields {
    headers: HeaderMap,
    length: Length,
    transfer_encoding: Option<Bytes>,
    close: bool,
    keep_alive: bool,
    /// Says that it switches to WebSocket.
    websocket: bool,
    idle_seconds: Option<u64>,
    /// Names listed in `Connection`.
    listed: Vec<HeaderName>,
}

impl Fields {
    fn add(&mut self, name: &str, bytes: Bytes) -> Result<(), HeadError> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeadError::Malformed)?;
        match name {
            header::CONTENT_LENGTH => {
                let is_first = self.length.value.is_none();
                self.length.agree(&bytes)?;
                // Kept for the client: for HEAD and 304 it is the length the body would have.
                if let Some(length) = self.length.value.filter(|_| is_first) {
                    let value = match self.length.plain {
                        true => {
                            HeaderValue::from_maybe_shared(bytes).map_err(|_| HeadError::Framing)?
                        }
                        false => length.into(),
                    };
                    self.headers.append(name, value);
                }
            }
            header::TRANSFER_ENCODING => {
                if self.transfer_encoding.replace(bytes).is_some() {
                    return Err(HeadError::Framing);
                }
            }
            header::CONNECTION => {
                for option in bytes.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    } else if let Ok(name) = HeaderName::from_bytes(option) {
                        self.listed.push(name);
                    }
                }
            }
            header::UPGRADE => self.websocket |= bytes.eq_ignore_ascii_case(b"websocket"),
            name if name == "keep-alive" => {
                let parameter = bytes
                    .split(|b| *b == b',')
                    .find_map(|p| p.trim_ascii().strip_prefix(b"timeout="));
                self.idle_seconds = parameter.and_then(decimal);
            }
            name if ends_here(&name) => {}
            name => {
                let value =
                    HeaderValue::from_maybe_shared(bytes).map_err(|_| HeadError::Malformed)?;
                self.headers.append(name, value);
            }
        }
        Ok(())
    }

    /// Removes what `Connection` lists, and a length that the status must not have.
    fn strip(&mut self, status: StatusCode) {
        // What frames the body is not for `Connection` to take away.
        let listed = std::mem::take(&mut self.listed);
        for name in listed
            .iter()
            .filter(|name| **name != header::CONTENT_LENGTH)
        {
            self.headers.remove(name);
        }
        if is_lengthless(status) {
            self.headers.remove(header::CONTENT_LENGTH);
        }
    }

    fn framing(
        &mut self,
        method: &Method,
        status: StatusCode,
        version: Version,
    ) -> Result<(Framing, bool), HeadError> {
        self.strip(status);
        if self.transfer_encoding.is_some()
            && (self.length.value.is_some() || version == Version::HTTP_10)
        {
            return Err(HeadError::Framing);
        }
        let keep_alive = if version == Version::HTTP_11 {
            !self.close
        } else {
            self.keep_alive && !self.close
        };
        if is_bodiless(method, status) {
            return Ok((Framing::Length(0), keep_alive));
        }
        match (&self.transfer_encoding, self.length.value) {
            (Some(coding), _) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
                Ok((Framing::Chunked, keep_alive))
            }
            (Some(_), _) => Err(HeadError::Framing),
            (None, Some(length)) => Ok((Framing::Length(length), keep_alive)),
            (None, None) => Ok((Framing::Close, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn read(method: Method, bytes: &str) -> Result<Option<ResponseHead>, HeadError> {
        parse(&mut BytesMut::from(bytes), &method, false)
    }

    #[track_caller]
    fn framing(method: Method, fields: &str, expected: Result<(Framing, bool), HeadError>) {
        let head = read(method, &format!("HTTP/1.1 {fields}\r\n\r\n"));
        assert_eq!(
            head.map(|h| h.map(|h| (h.framing, h.keep_alive)).unwrap()),
            expected,
            "{fields}"
        );
    }

    #[test]
    fn one_rule_frames_a_body() {
        let get = || Method::GET;
        framing(
            get(),
            "200 OK\r\nContent-Length: 5",
            Ok((Framing::Length(5), true)),
        );
        framing(
            get(),
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
            Ok((Framing::Length(5), true)),
        );
        framing(
            get(),
            "200 OK\r\nTransfer-Encoding: Chunked",
            Ok((Framing::Chunked, true)),
        );
        framing(get(), "200 OK", Ok((Framing::Close, false)));
        framing(
            get(),
            "204 No\r\nContent-Length: 5",
            Ok((Framing::Length(0), true)),
        );
        framing(
            get(),
            "304 No\r\nContent-Length: 5\r\nConnection: close",
            Ok((Framing::Length(0), false)),
        );
        framing(
            Method::HEAD,
            "200 OK\r\nContent-Length: 5",
            Ok((Framing::Length(0), true)),
        );
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for bad in [
            "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            "200 OK\r\nTransfer-Encoding: gzip",
            "200 OK\r\nTransfer-Encoding: chunked, chunked",
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
            "200 OK\r\nContent-Length: -1",
            "200 OK\r\nContent-Length: +1",
            "200 OK\r\nContent-Length: 5, 5",
            "200 OK\r\nContent-Length: 99999999999999999999",
            "200 OK\r\nContent-Length:",
        ] {
            framing(Method::GET, bad, Err(HeadError::Framing));
        }
        let old = read(
            Method::GET,
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        assert_eq!(old.map(|_| ()), Err(HeadError::Framing));
    }

    #[test]
    fn odd_heads_are_refused() {
        for (bytes, error) in [
            ("HTTP/1.1 101 Switching\r\n\r\n", HeadError::Status),
            ("HTTP/1.1 999 What\r\n\r\n", HeadError::Status),
            ("HTTP/1.1 099 What\r\n\r\n", HeadError::Status),
            ("HTTP/1.1 200 OK\nA: b\r\n\r\n", HeadError::Malformed),
            ("HTTP/2.0 200 OK\r\n\r\n", HeadError::Malformed),
            ("junk", HeadError::Malformed),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
                HeadError::Malformed,
            ),
            ("HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n", HeadError::Malformed),
        ] {
            assert_eq!(
                read(Method::GET, bytes).map(|_| ()),
                Err(error),
                "{bytes:?}"
            );
        }
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_FIELDS + 1)
        );
        assert_eq!(
            read(Method::GET, &many).map(|_| ()),
            Err(HeadError::TooLarge)
        );
        let large = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD));
        assert_eq!(
            read(Method::GET, &large).map(|_| ()),
            Err(HeadError::TooLarge)
        );
    }

    #[test]
    fn fields_of_the_connection_stay_behind() {
        let head = read(
            Method::GET,
            "HTTP/1.1 200 OK\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nTrailer: X\r\n\
             Upgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\nrest",
        );
        let head = head.unwrap().unwrap();
        let fields = head.headers.iter();
        let fields: Vec<_> = fields
            .map(|(n, v)| format!("{n}={}", v.to_str().unwrap()))
            .collect();
        assert_eq!(
            fields,
            ["content-length=0", "set-cookie=a=1", "set-cookie=b=2"]
        );
        assert!(head.keep_alive);
        assert_eq!(head.idle_seconds, Some(5));
    }

    #[test]
    fn the_length_is_told_once_and_plainly() {
        let length = |method, fields: &str| {
            let head = read(method, &format!("HTTP/1.1 {fields}\r\n\r\n"));
            let headers = head.unwrap().unwrap().headers;
            let mut all = headers.get_all(header::CONTENT_LENGTH).iter();
            let first = all.next().map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(all.next(), None, "{fields}");
            first
        };
        for (fields, expected) in [
            ("200 OK\r\nContent-Length: 5", Some("5")),
            ("200 OK\r\nContent-Length: 007", Some("7")),
            (
                "200 OK\r\nContent-Length: 5\r\nContent-Length: 05",
                Some("5"),
            ),
            (
                "200 OK\r\nConnection: content-length\r\nContent-Length: 5",
                Some("5"),
            ),
            ("304 No\r\nContent-Length: 5", Some("5")),
            ("204 No\r\nContent-Length: 5", None),
            ("103 Hints\r\nContent-Length: 5", None),
            ("200 OK", None),
        ] {
            assert_eq!(
                length(Method::HEAD, fields).as_deref(),
                expected,
                "{fields}"
            );
        }
    }

    #[test]
    fn more_bytes_are_asked_for() {
        assert!(
            read(Method::GET, "HTTP/1.1 200 OK\r\nContent-Le")
                .unwrap()
                .is_none()
        );
        assert!(read(Method::GET, "").unwrap().is_none());
    }
}
