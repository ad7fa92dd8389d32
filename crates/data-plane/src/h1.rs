//! HTTP/1.1 on both sides, driven on the task of the request it serves.
//!
//! A general client needs a second task per connection and a channel between the two; a general server hides the bytes a head
//! was made of and keeps buffers for clients at rest (`docs/decisions/002-own-upstream-codec.md`,
//! `docs/decisions/005-own-downstream-codec.md`). These codecs are also stricter: a message is framed by exactly one rule or
//! refused.
//!
//! - Pure, bytes in and values out: [`request`] reads a request head, [`head`] a response head, [`chunked`] the chunked
//!   coding.
//! - Towards clients: [`wire`] is a connection, [`server`] its loop.
//! - Towards endpoints: [`connection`] is a connection, [`exchange`] one request and its response on it.
//! - Both: [`incoming`] and [`outgoing`] are bytes on their way, [`deadline`] is how long something may take.

pub(crate) mod chunked;
pub(crate) mod connection;
pub(crate) mod deadline;
pub(crate) mod exchange;
pub(crate) mod head;
mod incoming;
mod outgoing;
pub(crate) mod request;
pub(crate) mod server;
pub(crate) mod wire;

use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Where a head ends.
pub(crate) static HEAD_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Digits only: no sign, no list, no space inside.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}
