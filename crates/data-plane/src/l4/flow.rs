//! One direction of a relay: bytes from one socket to another, with the end of them passed on.
//!
//! There is a buffer only while there are bytes in it, so a relay at rest costs no more than its two sockets, and one whose
//! reader has stopped costs one buffer, since nothing is read before the last bytes are written.

use socket2::SockRef;
use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// Bytes moved in one go.
const CHUNK: usize = 16 * 1024;
/// Empty buffers a worker keeps.
const SPARE: usize = 16;

/// The buffers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.borrow_mut().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE && buffer.capacity() == CHUNK {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Read and not yet written, from `written` on. No memory when there is nothing.
    buffer: Vec<u8>,
    written: usize,
    state: State,
    /// Bytes written.
    pub(super) bytes: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// There is nothing more to read, but perhaps to write.
    Ending,
    /// The end was passed on.
    Ended,
}

impl Flow {
    /// A direction in which `first` is written before anything that is read. It does not count as relayed.
    pub(super) fn beginning_with(first: Vec<u8>) -> Self {
        Self {
            buffer: first,
            ..Self::default()
        }
    }

    /// Moves what can be moved; ready when the end was passed on. `moved` is set if any byte was.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        buffers: &Buffers,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.buffer.len() {
                match to.try_write(&self.buffer[self.written..]) {
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Ok(count) => {
                        self.written += count;
                        self.bytes += count as u64;
                        *moved = true;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(to.poll_write_ready(cx))?;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if self.buffer.capacity() > 0 {
                buffers.give(std::mem::take(&mut self.buffer));
                self.written = 0;
            }
            match self.state {
                State::Open => {}
                State::Ending => {
                    self.state = State::Ended;
                    return Poll::Ready(shut_down(to));
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
            // Counts against the task's budget, so that a busy relay lets others have their turn.
            ready!(from.poll_read_ready(cx))?;
            let mut buffer = buffers.take();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => {
                    self.state = State::Ending;
                    buffers.give(buffer);
                }
                Ok(_) => self.buffer = buffer,
                Err(error) => {
                    buffers.give(buffer);
                    if error.kind() != io::ErrorKind::WouldBlock {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }
}

/// Passes on that nothing more comes. That the other side has closed everything already is no error.
fn shut_down(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}
