//! Bytes on their way out: a head or a chunk's size line, a piece of a body, and what follows it, in as few writes as
//! possible.

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// A piece up to this long is copied behind what stands in front of it: cheaper than the kernel's look at a list of pieces.
const SMALL: usize = 2048;

/// What is to be written next.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    prefix: Vec<u8>,
    /// Bytes of `prefix` that were written.
    at: usize,
    piece: Bytes,
    suffix: &'static [u8],
}

impl Outgoing {
    /// Begins with a head.
    pub(super) fn new(head: Vec<u8>) -> Self {
        Self {
            prefix: head,
            ..Self::default()
        }
    }

    /// Whether all was written.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.prefix.len() && self.piece.is_empty() && self.suffix.is_empty()
    }

    /// Whether a piece can be taken now: at most one waits behind the prefix.
    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.suffix.is_empty()
    }

    /// Bytes to be written behind what is there, to be written to. Only while there is room.
    pub(super) fn prefix(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.has_room(), "bytes would overtake a piece");
        if self.at == self.prefix.len() {
            self.prefix.clear();
            self.at = 0;
        }
        &mut self.prefix
    }

    /// Adds a piece of a body. Only while there is room.
    pub(super) fn push(&mut self, piece: Bytes, chunked: bool) {
        let small = piece.len() <= SMALL;
        let prefix = self.prefix();
        if chunked {
            // Writing to a Vec cannot fail.
            let _ = write!(prefix, "{:x}\r\n", piece.len());
        }
        if small {
            prefix.extend_from_slice(&piece);
            if chunked {
                prefix.extend_from_slice(b"\r\n");
            }
        } else {
            self.piece = piece;
            self.suffix = if chunked { b"\r\n" } else { b"" };
        }
    }

    /// Adds the last chunk, with trailer fields.
    pub(super) fn end_chunks(&mut self, trailers: Option<&HeaderMap>) {
        let prefix = self.prefix();
        prefix.extend_from_slice(b"0\r\n");
        if let Some(trailers) = trailers {
            write_fields(prefix, trailers);
        }
        prefix.extend_from_slice(b"\r\n");
    }

    /// Writes some of it; how many bytes the socket took.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        let written = if self.has_room() {
            io.poll_write(cx, &self.prefix[self.at..])
        } else {
            let pieces = [
                IoSlice::new(&self.prefix[self.at..]),
                IoSlice::new(&self.piece),
                IoSlice::new(self.suffix),
            ];
            io.poll_write_vectored(cx, &pieces)
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => {
                self.advance(count);
                Poll::Ready(Ok(count))
            }
        }
    }

    fn advance(&mut self, mut count: usize) {
        let prefix = count.min(self.prefix.len() - self.at);
        self.at += prefix;
        count -= prefix;
        let piece = count.min(self.piece.len());
        self.piece.advance(piece);
        if self.piece.is_empty() {
            // An empty piece would hold the whole buffer that it was read into, and keep the next read from using it again.
            self.piece = Bytes::new();
        }
        count -= piece;
        self.suffix = &self.suffix[count..];
    }

    /// The buffer, for another head.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.prefix
    }
}

/// Writes the status line of a response.
pub(super) fn write_status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes fields as they are, without the empty line.
pub(super) fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}
