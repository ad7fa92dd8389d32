//! A guard in front of hyper's HTTP/2 server: it sees what a client sends and mends what `h2` and `http` would pass over in
//! silence, so that they refuse it (`docs/decisions/006-http2-stays-with-hyper.md`).
//!
//! - A `#` in `:path` becomes a `>`, which no path may have. The `http` crate would cut it off with what follows.
//! - Trailers with pseudo-fields lose their END_STREAM, without which trailers are malformed. `h2` would drop the fields.
//!
//! Both are changed in place and where they are, so nothing else of the connection, above all the state of HPACK, is touched.
//! For this the guard follows frames and header blocks ([`hpack`]) but builds nothing. It and `h2` must never disagree about
//! where a field begins: what the guard cannot follow becomes a frame that is an error of the connection to anybody, and
//! nothing behind it is passed on. So an error of the guard can refuse too much, not too little.
//!
//! It also is how a client is told to calm down (RFC 9113 section 7, ENHANCE_YOUR_CALM), for which hyper has no call: in place of
//! its next frame come so many CONTINUATION that `h2` says so and ends the connection ([`Guard::calm`]).
//!
//! [`reader`] is the bytes themselves: frames with a header block are passed on when they are whole.

mod hpack;
mod huffman;
pub(crate) mod reader;

use hpack::Hpack;

/// What a client sends first (RFC 9113 section 3.4). `h2` compares it; here it is only passed over.
const PREFACE: usize = 24;
/// What a frame begins with: length, type, flags, stream (section 4.1).
const HEAD: usize = 9;
/// Longest payload: hyper announces no other.
const LONGEST: usize = 16_384;

// Types of frames (section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

// Flags.
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A header block that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken;

/// A header block of which more is to come.
#[derive(Debug, Clone, Copy)]
struct Block {
    stream: u32,
    /// It must not have pseudo-fields, and its stream would be ended by it.
    closing_trailers: bool,
}

/// Pieces of bodies that are next to nothing, and came together. Each costs us as much as a large one, and an endpoint a write.
///
/// `h2` has a budget for them, but gives it back as they are passed on, so who is slow enough never spends it.
#[derive(Debug, Default)]
struct Crumbs {
    /// Behind each other, of what is looked at now.
    in_a_row: u32,
    /// On this connection.
    all: u32,
}

impl Crumbs {
    /// Smaller than the smallest message of gRPC, which has five bytes in front.
    const LARGEST: usize = 4;
    /// So many may come in a row: a WebSocket's frame in pieces, and the next.
    const IN_A_ROW: u32 = 8;
    /// So many may come on a connection beyond that.
    const MOST: u32 = 1_000;

    fn are_too_many(&mut self, kind: u8, flags: u8, length: usize) -> bool {
        if kind != DATA || length > Self::LARGEST || flags & END_STREAM != 0 {
            self.in_a_row = 0;
            return false;
        }
        self.in_a_row += 1;
        if self.in_a_row > Self::IN_A_ROW {
            self.all += 1;
        }
        self.all > Self::MOST
    }
}

/// Where a connection is.
#[derive(Debug)]
struct Guard {
    /// Bytes to come that nobody looks at.
    pass: usize,
    /// Nothing is passed on behind these.
    last: bool,
    /// The client is to be told to calm down.
    calm: bool,
    crumbs: Crumbs,
    /// The largest stream that was begun: a block on this or a smaller one is trailers.
    largest: u32,
    /// The stream that its client ended last. Trailers on it are refused for that, with an error of their own.
    ended: u32,
    block: Option<Block>,
    hpack: Hpack,
}

impl Guard {
    fn new() -> Self {
        Self {
            pass: PREFACE,
            last: false,
            calm: false,
            crumbs: Crumbs::default(),
            largest: 0,
            ended: 0,
            block: None,
            hpack: Hpack::default(),
        }
    }

    /// Whether nothing more is passed on.
    fn has_ended(&self) -> bool {
        self.last && self.pass == 0
    }

    /// Looks at the next bytes of the connection, and mends them. Gives how many may be passed on; the others come again, in
    /// front of what follows them.
    fn look(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        self.crumbs.in_a_row = 0;
        while !self.has_ended() {
            let rest = &mut bytes[at..];
            if self.pass > 0 {
                let take = self.pass.min(rest.len());
                (self.pass, at) = (self.pass - take, at + take);
                if take == 0 {
                    break;
                }
            } else if self.must_calm() {
                self.last = true;
            } else {
                let Some(take) = self.frame(rest) else { break };
                at += take;
            }
        }
        at
    }

    /// Whether what `h2` answers with ENHANCE_YOUR_CALM can come now: between frames, and not inside a header block.
    fn must_calm(&self) -> bool {
        self.calm && self.pass == 0 && self.block.is_none()
    }

    /// A frame at the front of these bytes. Gives how many of them to pass on, or nothing when there are too few.
    fn frame(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let head = bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        // The first bit means nothing.
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        if length > LONGEST {
            // An error as soon as it is announced.
            self.last = true;
            return Some(HEAD);
        }
        if kind != HEADERS && kind != CONTINUATION {
            // Nothing may come inside a block, and no client pushes.
            self.last = self.block.is_some() || kind == PUSH_PROMISE;
            self.calm |= self.crumbs.are_too_many(kind, flags, length);
            if kind == RST_STREAM || kind == DATA && flags & END_STREAM != 0 {
                self.ended = stream;
            }
            self.pass = length;
            return Some(HEAD);
        }
        let frame = bytes.get_mut(..HEAD + length)?;
        let followed = match kind {
            HEADERS => self.headers(frame, flags, stream),
            _ => self.continuation(frame, flags, stream),
        };
        if followed.is_err() {
            // A header block on stream 0 is an error of the connection (sections 6.2 and 6.10).
            frame[5..HEAD].fill(0);
            self.last = true;
        }
        Some(frame.len())
    }

    fn headers(&mut self, frame: &mut [u8], flags: u8, stream: u32) -> Result<(), Broken> {
        if self.block.is_some() || stream == 0 {
            return Err(Broken);
        }
        self.hpack.begin();
        self.hpack.follow(fragment(frame, flags, stream)?)?;
        let trailers = stream <= self.largest;
        self.largest = self.largest.max(stream);
        let mut closing = flags & END_STREAM != 0;
        if trailers && closing && stream != self.ended && self.hpack.pseudo {
            frame[4] &= !END_STREAM;
            closing = false;
        }
        let block = Block {
            stream,
            closing_trailers: trailers && closing && stream != self.ended,
        };
        if closing {
            self.ended = stream;
        }
        self.go_on(block, flags)
    }

    fn continuation(&mut self, frame: &mut [u8], flags: u8, stream: u32) -> Result<(), Broken> {
        let block = self.block.take().ok_or(Broken)?;
        if block.stream != stream {
            return Err(Broken);
        }
        self.hpack.follow(&mut frame[HEAD..])?;
        if block.closing_trailers && self.hpack.pseudo {
            // Where the flag was is gone by now.
            return Err(Broken);
        }
        self.go_on(block, flags)
    }

    fn go_on(&mut self, block: Block, flags: u8) -> Result<(), Broken> {
        if flags & END_HEADERS == 0 {
            self.block = Some(block);
            return Ok(());
        }
        self.hpack.end()
    }
}

/// Frames that `h2` answers with ENHANCE_YOUR_CALM: a header block in more pieces than it takes, each of them empty.
fn too_many_continuations() -> Vec<u8> {
    /// `h2` takes 5 with the limits that we set; were it more, the connection would end without the word.
    const PIECES: usize = 64;
    let piece = |kind: u8| [0, 0, 0, kind, 0, 0, 0, 0, 1];
    let mut frames = piece(HEADERS).to_vec();
    for _ in 0..PIECES {
        frames.extend_from_slice(&piece(CONTINUATION));
    }
    frames
}

/// The part of a header block that is in a HEADERS frame.
fn fragment(frame: &mut [u8], flags: u8, stream: u32) -> Result<&mut [u8], Broken> {
    let mut rest = &mut frame[HEAD..];
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (first, behind) = rest.split_first_mut().ok_or(Broken)?;
        (padding, rest) = (usize::from(*first), behind);
    }
    if flags & PRIORITY != 0 {
        let (priority, behind) = rest.split_at_mut_checked(5).ok_or(Broken)?;
        let on = [priority[0] & 0x7f, priority[1], priority[2], priority[3]];
        if u32::from_be_bytes(on) == stream {
            // h2 resets a stream that depends on itself without a look at its fields, so whoever looks has another table.
            return Err(Broken);
        }
        rest = behind;
    }
    let length = rest.len().checked_sub(padding).ok_or(Broken)?;
    Ok(&mut rest[..length])
}

#[cfg(test)]
mod tests;
