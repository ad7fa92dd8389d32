//! The server name in a TLS ClientHello, found in bytes as they come. No sockets, no clock, no TLS.
//!
//! It is only looked for, nothing is decided by it but where the bytes go: whoever does TLS with the client reads the whole
//! message again, by its own rules. So whatever cannot be understood here is "no name", and no error. With an encrypted
//! ClientHello (ECH) the name is that of the outer one.

use routing_table::matcher::host::normal_host;

/// Most bytes that are looked at, in records and all. RFC 8446 allows a handshake message of 16 MiB; TLS libraries stop
/// at 64 KiB. That many fit even in records of ten bytes.
pub(crate) const MAX_BYTES: usize = 96 * 1024;
/// Largest body of a record (RFC 8446 section 5.1: 2^14).
const MAX_RECORD: usize = 1 << 14;
/// Record and message headers.
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// Record type of the handshake, and message type of the ClientHello in it.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Extension of the server name (RFC 6066), and the only type of name there is.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What is known of a ClientHello so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed.
    More,
    /// It is whole. The name is in normal form; `None`: there is none, or not a good one.
    Hello(Option<Box<str>>),
    /// Something else, or too much of it.
    Other,
}

/// Reads a ClientHello. Takes the same time for a byte however many came before it.
#[derive(Debug, Default)]
pub(crate) struct HelloReader {
    /// Everything so far, to be passed on.
    seen: Vec<u8>,
    /// Where the next record that was not looked at begins.
    next: usize,
    /// The handshake message, out of its records.
    message: Vec<u8>,
}

impl HelloReader {
    /// Where more bytes are to be appended; then call [`HelloReader::progress`].
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.seen
    }

    /// Everything that was read.
    pub(crate) fn into_seen(self) -> Vec<u8> {
        self.seen
    }

    /// Looks at what has come since the last time. After anything but [`Progress::More`] it is over.
    pub(crate) fn progress(&mut self) -> Progress {
        loop {
            let rest = &self.seen[self.next..];
            // Each byte is judged as soon as it is there: what speaks no TLS may never send more.
            if rest.first().is_some_and(|kind| *kind != HANDSHAKE)
                || rest.get(1).is_some_and(|major| *major != 3)
            {
                return Progress::Other;
            }
            let Some(header) = rest.first_chunk::<RECORD_HEADER>() else {
                return self.more();
            };
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            // RFC 8446 section 5.1: no empty fragments of handshake messages.
            if length == 0 || length > MAX_RECORD {
                return Progress::Other;
            }
            let Some(body) = rest.get(RECORD_HEADER..RECORD_HEADER + length) else {
                return self.more();
            };
            self.message.extend_from_slice(body);
            self.next += RECORD_HEADER + length;
            if self.message[0] != CLIENT_HELLO {
                return Progress::Other;
            }
            if let Some(header) = self.message.first_chunk::<MESSAGE_HEADER>() {
                let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
                if length > MAX_BYTES {
                    return Progress::Other;
                }
                if let Some(hello) = self.message.get(MESSAGE_HEADER..MESSAGE_HEADER + length) {
                    return Progress::Hello(server_name(hello));
                }
            }
        }
    }

    fn more(&self) -> Progress {
        if self.seen.len() >= MAX_BYTES {
            Progress::Other
        } else {
            Progress::More
        }
    }
}

/// The server name in the body of a ClientHello (RFC 8446 section 4.1.2).
fn server_name(hello: &[u8]) -> Option<Box<str>> {
    let mut rest = Bytes(hello);
    rest.take(2 + 32)?;
    rest.take_vector::<1>()?;
    rest.take_vector::<2>()?;
    rest.take_vector::<1>()?;
    let mut extensions = Bytes(rest.take_vector::<2>()?);
    while !extensions.0.is_empty() {
        let kind = extensions.take_number::<2>()?;
        let body = extensions.take_vector::<2>()?;
        if kind != usize::from(SERVER_NAME) {
            continue;
        }
        let mut names = Bytes(Bytes(body).take_vector::<2>()?);
        while !names.0.is_empty() {
            let kind = names.take_number::<1>()?;
            let name = names.take_vector::<2>()?;
            if kind == usize::from(HOST_NAME) {
                let name = std::str::from_utf8(name).ok()?;
                return Some(normal_host(name).ok()?.into());
            }
        }
        return None;
    }
    None
}

/// Bytes taken from the front. `None`: there are not enough.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of `N` bytes, one or two.
    fn take_number<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.take(N)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    }

    /// As many bytes as a number of `N` bytes in front of them says.
    fn take_vector<const N: usize>(&mut self) -> Option<&'a [u8]> {
        let length = self.take_number::<N>()?;
        self.take(length)
    }
}

#[cfg(test)]
#[path = "../tests/client_hello.rs"]
pub(crate) mod tests;
