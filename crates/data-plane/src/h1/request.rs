//! Reads a client's request head and decides how its body is framed (RFC 9112). Pure: bytes in, a head or a refusal out.
//!
//! This is the guard that everything a stranger sends on an HTTP/1.1 connection meets first. It sees the bytes as they came,
//! which a general server's header map no longer shows, and takes only what has one reading: lines end in CRLF, one space
//! stands between the parts of the request line, one field frames the body.

use super::{HEAD_END, decimal};
use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version, request};
use std::mem::MaybeUninit;

/// Largest request head in bytes.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// Most field lines in a request head.
pub(crate) const MAX_FIELDS: usize = 100;
/// Longest request target in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// Longest method. The longest registered one (RFC 9110 section 16.1.1) has 17 letters.
const MAX_METHOD: usize = 32;
/// Empty lines that are skipped before a request line (RFC 9112 section 2.2 asks for at least one).
const MAX_EMPTY_LINES: u8 = 2;
/// How HTTP/2 begins (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request head that has one reading.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Method, target, version and fields, without `Content-Length` and `Transfer-Encoding`.
    pub(crate) parts: request::Parts,
    /// How the body ends.
    pub(crate) framing: Framing,
    /// Whether the client wants to send another request on this connection.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// How a request's body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes; 0 without a body.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// Not HTTP/1.x, or a line that is malformed or has two readings.
    #[error("malformed request head")]
    Malformed,
    /// Another protocol, which would not understand an answer of ours.
    #[error("not HTTP")]
    NotHttp,
    /// `Content-Length` or `Transfer-Encoding` that do not say with one voice where the body ends.
    #[error("ambiguous request framing")]
    Framing,
    /// A transfer coding other than chunked (RFC 9112 section 6.1).
    #[error("unknown transfer coding")]
    Coding,
    /// Longer than [`MAX_TARGET`].
    #[error("request target too long")]
    TargetTooLong,
    /// Over [`MAX_HEAD`] or [`MAX_FIELDS`].
    #[error("request head too large")]
    TooLarge,
    /// An HTTP version other than 1.0 and 1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// `Expect` with anything but `100-continue` (RFC 9110 section 10.1.1).
    #[error("unknown expectation")]
    Expectation,
    /// A length that no body can have.
    #[error("declared length too large")]
    Length,
}

/// What the front of the buffer holds.
#[derive(Debug)]
pub(crate) enum Read {
    /// Nothing until more bytes come.
    NeedMore,
    /// A request head; it was taken off the buffer.
    Head(Box<RequestHead>),
    /// The preface of HTTP/2; it is still in the buffer.
    Http2,
}

/// Reads heads off a buffer, looking at each byte once however slowly they come.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    /// Bytes at the front of the buffer that were looked at and do not end a head.
    scanned: usize,
    empty_lines: u8,
    /// The request line is complete and is one.
    line_read: bool,
}

impl HeadReader {
    /// Looks at the buffer. `may_be_http2`: nothing was read on this connection before, and HTTP/2 is served on it.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a head any more.
    pub(crate) fn read(
        &mut self,
        buffer: &mut BytesMut,
        may_be_http2: bool,
    ) -> Result<Read, RequestError> {
        while self.scanned == 0 && buffer.starts_with(b"\r\n") {
            if self.empty_lines == MAX_EMPTY_LINES {
                return Err(RequestError::Malformed);
            }
            self.empty_lines += 1;
            buffer.advance(2);
        }
        if self.scanned == 0 && buffer[..] == *b"\r" {
            return Ok(Read::NeedMore);
        }
        if may_be_http2 && buffer.starts_with(b"PRI ") {
            let common = buffer.len().min(HTTP2_PREFACE.len());
            return if buffer[..common] != HTTP2_PREFACE[..common] {
                Err(RequestError::Version)
            } else if common == HTTP2_PREFACE.len() {
                Ok(Read::Http2)
            } else {
                Ok(Read::NeedMore)
            };
        }
        let from = self.scanned.saturating_sub(3);
        match HEAD_END.find(&buffer[from..]) {
            Some(end) if from + end + 4 <= MAX_HEAD => {
                *self = Self::default();
                let head = buffer.split_to(from + end + 4).freeze();
                parse(&head).map(|head| Read::Head(Box::new(head)))
            }
            _ => {
                self.look_ahead(buffer)?;
                if buffer.len() >= MAX_HEAD {
                    return Err(RequestError::TooLarge);
                }
                self.scanned = buffer.len();
                Ok(Read::NeedMore)
            }
        }
    }

    /// Refuses what cannot become a head, so that another protocol or a client that waits after bare line feeds is told at
    /// once and not when its time is up.
    fn look_ahead(&mut self, buffer: &[u8]) -> Result<(), RequestError> {
        let bare = memchr::memchr_iter(b'\n', &buffer[self.scanned..])
            .map(|at| self.scanned + at)
            .any(|at| at == 0 || buffer[at - 1] != b'\r');
        if bare {
            return Err(RequestError::Malformed);
        }
        if self.line_read {
            return Ok(());
        }
        if let Some(end) = memchr::memchr(b'\n', buffer) {
            self.line_read = true;
            return request_line(&buffer[..end - 1]).map(drop);
        }
        let visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\r');
        if !buffer[self.scanned..].iter().all(visible)
            || !buffer[..buffer.len().min(MAX_METHOD + 1)].contains(&b' ')
                && (buffer.len() > MAX_METHOD || buffer.starts_with(b" "))
        {
            return Err(RequestError::Malformed);
        }
        if buffer.len() > MAX_TARGET + MAX_METHOD + " HTTP/1.1\r".len() {
            return Err(RequestError::TargetTooLong);
        }
        Ok(())
    }
}

/// Takes a request line apart: method, target, version.
fn request_line(line: &[u8]) -> Result<(Method, &[u8], Version), RequestError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(target), Some(version), None) => (method, target, version),
        _ => return Err(RequestError::Malformed),
    };
    if method.is_empty() || method.len() > MAX_METHOD {
        return Err(RequestError::Malformed);
    }
    let method = Method::from_bytes(method).map_err(|_| RequestError::Malformed)?;
    if target.len() > MAX_TARGET {
        return Err(RequestError::TargetTooLong);
    }
    // A fragment is never sent (RFC 9110 section 7.1), and `Uri` would cut it off in silence.
    if target.is_empty()
        || !target
            .iter()
            .all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#')
    {
        return Err(RequestError::Malformed);
    }
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(RequestError::Version);
        }
        _ if !is_registered(&method) && !version.to_ascii_uppercase().starts_with(b"HTTP/") => {
            return Err(RequestError::NotHttp);
        }
        _ => return Err(RequestError::Malformed),
    };
    Ok((method, target, version))
}

/// Whether a method is one that a client of HTTP begins with.
fn is_registered(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
            | Method::CONNECT
            | Method::TRACE
    )
}

/// Reads a whole head, its empty line included.
fn parse(head: &Bytes) -> Result<RequestHead, RequestError> {
    let two_readings = memchr::memchr2_iter(b'\r', b'\n', head).any(|at| match head[at] {
        b'\n' => at == 0 || head[at - 1] != b'\r',
        _ => head.get(at + 1) != Some(&b'\n'),
    });
    if two_readings {
        return Err(RequestError::Malformed);
    }
    let line_end = memchr::memchr(b'\r', head).ok_or(RequestError::Malformed)?;
    let (method, target, version) = request_line(&head[..line_end])?;
    let uri =
        Uri::from_maybe_shared(head.slice_ref(target)).map_err(|_| RequestError::Malformed)?;

    let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut parsed,
        head,
        &mut lines,
    ) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooLarge),
        _ => return Err(RequestError::Malformed),
    }
    let mut fields = Fields {
        headers: HeaderMap::with_capacity(parsed.headers.len() + 2),
        version,
        ..Fields::default()
    };
    for line in parsed.headers.iter() {
        fields.add(line.name, head.slice_ref(line.value))?;
    }
    let framing = fields.framing()?;
    let expects_continue = fields.expects_continue && framing != Framing::Length(0);
    let keep_alive = if version == Version::HTTP_11 {
        !fields.close
    } else {
        fields.keep_alive && !fields.close
    };
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = fields.headers;
    Ok(RequestHead {
        parts,
        framing,
        keep_alive,
        expects_continue,
    })
}

/// The fields of a head, those about framing set apart.
#[derive(Debug, Default)]
struct Fields {
    headers: HeaderMap,
    version: Version,
    length: Option<u64>,
    transfer_encoding: Option<Bytes>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn add(&mut self, name: &str, bytes: Bytes) -> Result<(), RequestError> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| RequestError::Malformed)?;
        match name {
            header::CONTENT_LENGTH => {
                let length = decimal(&bytes).ok_or(RequestError::Framing)?;
                if self
                    .length
                    .replace(length)
                    .is_some_and(|before| before != length)
                {
                    return Err(RequestError::Framing);
                }
                return Ok(());
            }
            header::TRANSFER_ENCODING => {
                return match self.transfer_encoding.replace(bytes) {
                    Some(_) => Err(RequestError::Framing),
                    None => Ok(()),
                };
            }
            header::CONNECTION => {
                for option in bytes.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // RFC 9110 section 10.1.1: ignored from an HTTP/1.0 client.
            header::EXPECT if self.version != Version::HTTP_10 => {
                if self.expects_continue || !bytes.eq_ignore_ascii_case(b"100-continue") {
                    return Err(RequestError::Expectation);
                }
                self.expects_continue = true;
            }
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(bytes).map_err(|_| RequestError::Malformed)?;
        self.headers.append(name, value);
        Ok(())
    }

    fn framing(&self) -> Result<Framing, RequestError> {
        match (&self.transfer_encoding, self.length) {
            (None, None) => Ok(Framing::Length(0)),
            // More than any file system holds; arithmetic on lengths stays far from overflow.
            (None, Some(length)) if length > i64::MAX as u64 => Err(RequestError::Length),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), Some(_)) => Err(RequestError::Framing),
            (Some(_), None) if self.version == Version::HTTP_10 => Err(RequestError::Framing),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(coding), None) => Err(match coding.split(|byte| *byte == b',').next() {
                Some(b"gzip" | b"x-gzip" | b"deflate" | b"compress" | b"x-compress") => {
                    RequestError::Coding
                }
                _ => RequestError::Framing,
            }),
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
