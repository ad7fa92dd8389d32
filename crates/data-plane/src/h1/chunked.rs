//! Reads the chunked transfer coding (RFC 9112 section 7.1). Pure: it is fed a buffer and says what to do with its front.
//!
//! Stricter than the grammar asks a recipient to be: lines end in CRLF, a size is hexadecimal digits and nothing else
//! before `;` or the line end. Extensions are read, bounded and dropped; trailer fields are kept, but for those that would
//! change how a message is framed, routed or understood (RFC 9110 section 6.5.1).

use crate::answer_fields::may_be_trailer;
use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Most bytes of one size line with its extension.
const MAX_LINE: usize = 1024;
/// Most bytes of the extensions of a whole body.
const MAX_EXTENSIONS: usize = 1024;
/// Most bytes of all trailer lines together, and most lines.
const MAX_TRAILERS: usize = 8 * 1024;
const MAX_TRAILER_LINES: usize = 32;

/// Where in the coding the next byte stands.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Bytes of extensions read so far.
    extensions: usize,
    trailer_lines: usize,
    trailers: Option<Box<HeaderMap>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At a size line.
    Size,
    /// This many bytes of data are left.
    Data(u64),
    /// At the CRLF behind the data.
    DataEnd,
    /// At a trailer line or the empty line; this many bytes of trailers were read.
    Trailers(usize),
    /// All read.
    Done,
}

/// What the front of the buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// A piece of the body.
    Data(Bytes),
    /// Nothing until more bytes come.
    NeedMore,
    /// The body has ended.
    End,
}

/// The coding is malformed, or a limit was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub(crate) struct ChunkError;

impl Decoder {
    /// At the first size line.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Size,
            extensions: 0,
            trailer_lines: 0,
            trailers: None,
        }
    }

    /// Takes what it can off the front of `buffer`.
    pub(crate) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, ChunkError> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = take_line(buffer, MAX_LINE)? else {
                        return Ok(Decoded::NeedMore);
                    };
                    let (size, extension) = size_of(&line)?;
                    self.extensions += extension;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(ChunkError);
                    }
                    self.state = if size == 0 {
                        State::Trailers(0)
                    } else {
                        State::Data(size)
                    };
                }
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::NeedMore);
                    }
                    let take = usize::try_from(left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    let left = left - take as u64;
                    self.state = if left == 0 {
                        State::DataEnd
                    } else {
                        State::Data(left)
                    };
                    return Ok(Decoded::Data(buffer.split_to(take).freeze()));
                }
                State::DataEnd => match buffer.get(..2) {
                    None if buffer.is_empty() || buffer[0] == b'\r' => {
                        return Ok(Decoded::NeedMore);
                    }
                    Some(b"\r\n") => {
                        let _ = buffer.split_to(2);
                        self.state = State::Size;
                    }
                    _ => return Err(ChunkError),
                },
                State::Trailers(before) => {
                    let Some(line) = take_line(buffer, MAX_TRAILERS.saturating_sub(before))? else {
                        return Ok(Decoded::NeedMore);
                    };
                    self.state = if line.is_empty() {
                        State::Done
                    } else {
                        let length = line.len() + 2;
                        self.trailer(line.freeze())?;
                        State::Trailers(before + length)
                    };
                }
                State::Done => return Ok(Decoded::End),
            }
        }
    }

    /// Whether the whole body was read.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields, once the body has ended.
    pub(crate) fn take_trailers(&mut self) -> Option<Box<HeaderMap>> {
        self.trailers.take()
    }

    fn trailer(&mut self, line: Bytes) -> Result<(), ChunkError> {
        self.trailer_lines += 1;
        let colon = memchr::memchr(b':', &line).ok_or(ChunkError)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| ChunkError)?;
        let value = line.slice_ref(line[colon + 1..].trim_ascii());
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| ChunkError)?;
        if self.trailer_lines > MAX_TRAILER_LINES {
            return Err(ChunkError);
        }
        if may_be_trailer(&name) {
            self.trailers.get_or_insert_default().append(name, value);
        }
        Ok(())
    }
}

/// One line without its CRLF, when it is there.
fn take_line(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, ChunkError> {
    let Some(end) = buffer.iter().take(limit + 2).position(|b| *b == b'\n') else {
        return if buffer.len() > limit {
            Err(ChunkError)
        } else {
            Ok(None)
        };
    };
    if end == 0 || buffer[end - 1] != b'\r' {
        return Err(ChunkError);
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end - 1);
    if line.contains(&b'\r') {
        Err(ChunkError)
    } else {
        Ok(Some(line))
    }
}

/// The size, and how many bytes of extension stand behind it. Leading zeros do not count as digits, but there may not be
/// more of them than any sender has a reason for.
fn size_of(line: &[u8]) -> Result<(u64, usize), ChunkError> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    let zeros = line[..digits].iter().take_while(|b| **b == b'0').count();
    let controls = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if digits == 0
        || digits - zeros > 16
        || zeros > 32
        || !(rest.is_empty() || rest.starts_with(b";"))
        || rest.iter().any(controls)
    {
        return Err(ChunkError);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| ChunkError)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| ChunkError)?;
    if size > i64::MAX as u64 {
        return Err(ChunkError);
    }
    Ok((size, rest.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// Feeds `input` in pieces of `step` bytes; gives the body and what is left behind it.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, bool), ChunkError> {
        let (mut decoder, mut buffer, mut body) = (Decoder::new(), BytesMut::new(), Vec::new());
        let mut pieces = input.chunks(step);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::End => {
                    let rest = pieces.flatten().copied();
                    return Ok((body, buffer.iter().copied().chain(rest).collect(), true));
                }
                Decoded::NeedMore => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok((body, buffer.to_vec(), false)),
                },
            }
        }
    }

    #[test]
    fn whole_and_byte_by_byte() {
        let input =
            b"4\r\nWiki\r\n6;x=y\r\npedia \r\n0A \r\nin chunks.\r\n0\r\nExpires: now\r\n\r\nHTTP";
        for step in 1..=input.len() {
            let (body, rest, ended) = decode(input, step).unwrap();
            assert_eq!(body, b"Wikipedia in chunks.");
            assert_eq!(rest, b"HTTP");
            assert!(ended);
        }
    }

    #[test]
    fn a_cut_body_has_not_ended() {
        let input = b"4\r\nWiki\r\n0\r\n\r\n";
        for cut in 0..input.len() {
            assert!(!decode(&input[..cut], 1).unwrap().2, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_size() {
        for bad in [
            "0x2\r\nab\r\n",
            "+2\r\nab\r\n",
            " 2\r\nab\r\n",
            "2_0\r\n",
            "\r\n",
            "11111111111111111\r\n",
            "2\nab\n",
            "2\r\nabc\r\n",
            "2\r\nab\n0\r\n\r\n",
            "2\rx\nab",
            "2 x\r\nab\r\n",
            "-1\r\n",
        ] {
            assert_eq!(decode(bad.as_bytes(), 1), Err(ChunkError), "{bad:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_LINE));
        assert_eq!(decode(extension.as_bytes(), 64), Err(ChunkError));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILERS / 4));
        assert_eq!(decode(trailers.as_bytes(), 64), Err(ChunkError));
    }
}
