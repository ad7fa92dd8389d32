//! The line of a relayed connection or session. Its fields are its own: there is no request to speak of.

use super::{address, number, seconds, text};
use std::net::SocketAddr;
use std::time::Duration;

/// What a line says.
pub(crate) struct RelayLine<'a> {
    pub(crate) client: &'a str,
    pub(crate) listener: &'a str,
    /// `TCP`, `TLS` (passed on) or `UDP`.
    pub(crate) protocol: &'static str,
    /// The TLS server name, which the client chose.
    pub(crate) server_name: Option<&'a str>,
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    pub(crate) duration: Duration,
    pub(crate) namespace: &'a str,
    pub(crate) service: &'a str,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) attempts: u32,
    /// Why it ended, if not by itself.
    pub(crate) flag: &'static str,
}

pub(super) fn format(out: &mut Vec<u8>, time: &[u8], line: &RelayLine<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(time);
    out.push(b'"');
    text(out, ",\"client\":\"", line.client.as_bytes());
    text(out, ",\"listener\":\"", line.listener.as_bytes());
    text(out, ",\"protocol\":\"", line.protocol.as_bytes());
    if let Some(name) = line.server_name {
        text(out, ",\"server_name\":\"", name.as_bytes());
    }
    number(out, ",\"received_bytes\":", line.received);
    number(out, ",\"sent_bytes\":", line.sent);
    seconds(out, ",\"duration\":", line.duration);
    text(out, ",\"namespace\":\"", line.namespace.as_bytes());
    text(out, ",\"service\":\"", line.service.as_bytes());
    if let Some(upstream) = line.upstream {
        out.extend_from_slice(b",\"upstream\":\"");
        address(out, upstream);
        out.push(b'"');
        number(out, ",\"attempts\":", line.attempts.into());
    }
    if !line.flag.is_empty() {
        text(out, ",\"flag\":\"", line.flag.as_bytes());
    }
    out.extend_from_slice(b"}\n");
}
