//! What the guard lets through, as a reader gets it.

use super::{Guard, too_many_continuations};
use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

/// What a client sends, on its way to who reads it.
#[derive(Debug)]
pub(crate) struct Reader {
    guard: Guard,
    /// Came, and is still to be passed on: less than a frame, and what came in the same read as its end.
    waiting: BytesMut,
    /// So many of them were looked at.
    ready: usize,
}

impl Reader {
    /// For a connection of which these bytes were read already.
    pub(crate) fn new(begun: BytesMut) -> Self {
        let mut reader = Self {
            guard: Guard::new(),
            waiting: begun,
            ready: 0,
        };
        reader.ready = reader.guard.look(&mut reader.waiting);
        reader
    }

    /// Whether nothing more is passed on, whatever comes.
    pub(crate) fn has_ended(&self) -> bool {
        self.ready == 0 && self.guard.has_ended()
    }

    /// Has the client told to calm down when it sends more, instead of passing that on.
    pub(crate) fn calm(&mut self) {
        self.guard.calm = true;
    }

    /// Puts what makes `h2` say so in the place of what came.
    fn put_calm(&mut self) {
        if self.guard.has_ended() && self.guard.must_calm() {
            // Once.
            self.guard.calm = false;
            self.waiting.truncate(self.ready);
            self.waiting.extend_from_slice(&too_many_continuations());
            self.ready = self.waiting.len();
        }
    }

    /// Gives what is ready; says whether there was any.
    pub(crate) fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let take = self.ready.min(buffer.remaining());
        buffer.put_slice(&self.waiting[..take]);
        self.waiting.advance(take);
        self.ready -= take;
        if self.waiting.is_empty() {
            // A connection at rest holds no buffer.
            self.waiting = BytesMut::new();
        }
        take > 0
    }

    /// Takes what was read behind the first `before` bytes of a buffer, when nothing was ready. Leaves there what may be passed
    /// on; says whether there is any.
    pub(crate) fn take(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> bool {
        if self.waiting.is_empty() {
            let read = &mut buffer.filled_mut()[before..];
            let passed = self.guard.look(read);
            self.waiting.extend_from_slice(&read[passed..]);
            buffer.set_filled(before + passed);
            self.put_calm();
            return passed > 0;
        }
        self.waiting.extend_from_slice(&buffer.filled()[before..]);
        buffer.set_filled(before);
        self.ready = self.guard.look(&mut self.waiting);
        self.put_calm();
        self.give(buffer)
    }

    /// Bytes that there is room for.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.waiting.capacity()
    }
}
