//! Bytes on their way in.
//!
//! A head is short, and what is allocated for it lives as long as the request does: its fields are pieces of it. So a head is
//! read onto the stack and only what came is kept. An allocation of a few hundred bytes costs a tenth of one of four
//! kilobytes, and a request that waits for its endpoint holds no more memory than was sent.

use bytes::BytesMut;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes asked for in one read of a head: enough for most, with a small body behind it.
pub(super) const READ_HEAD: usize = 4 * 1024;

/// Reads some bytes behind what `buffer` holds, with room for as many as are wanted. `Ok(0)`: the other side has closed.
pub(super) fn poll_fill(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    want: usize,
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    if want > READ_HEAD {
        if buffer.capacity() - buffer.len() < want / 4 {
            buffer.reserve(want);
        }
        return poll_read_buf(io, cx, buffer);
    }
    let mut space = [MaybeUninit::uninit(); READ_HEAD];
    let mut read = ReadBuf::uninit(&mut space);
    ready!(io.poll_read(cx, &mut read))?;
    if buffer.is_empty() {
        *buffer = BytesMut::from(read.filled());
    } else {
        buffer.extend_from_slice(read.filled());
    }
    Poll::Ready(Ok(read.filled().len()))
}
