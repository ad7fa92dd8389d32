//! Lines for people: the combined format of web servers, then what a proxy knows besides, as `name=value`.

use super::{Line, RelayLine, address, escaped, number, seconds};
use std::net::SocketAddr;

pub(super) fn request(out: &mut Vec<u8>, time: &[u8], line: &Line<'_>) {
    begin(out, time, line.client);
    out.extend_from_slice(line.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(line.scheme.as_bytes());
    out.extend_from_slice(b"://");
    escaped(out, line.host);
    escaped(out, line.path.as_bytes());
    out.push(b' ');
    out.extend_from_slice(line.protocol.as_bytes());
    number(out, "\" ", line.status.into());
    number(out, " ", line.response_bytes);
    quoted(out, " ", line.referer);
    quoted(out, " ", line.user_agent);
    number(out, " request_bytes=", line.request_bytes);
    seconds(out, " duration=", line.duration);
    if let Some((namespace, name)) = line.route_name {
        place(out, " route=", namespace, name);
    }
    upstream(out, line.upstream, line.attempts);
    if let Some(duration) = line.upstream_duration {
        seconds(out, " upstream_duration=", duration);
    }
    quoted(out, " id=", line.request_id);
    end(out, line.flag);
}

pub(super) fn relay(out: &mut Vec<u8>, time: &[u8], line: &RelayLine<'_>) {
    begin(out, time, line.client);
    out.extend_from_slice(line.protocol.as_bytes());
    out.push(b' ');
    escaped(out, line.listener.as_bytes());
    if let Some(name) = line.server_name {
        out.push(b' ');
        escaped(out, name.as_bytes());
    }
    number(out, "\" received_bytes=", line.received);
    number(out, " sent_bytes=", line.sent);
    seconds(out, " duration=", line.duration);
    place(out, " service=", line.namespace, line.service);
    upstream(out, line.upstream, line.attempts);
    end(out, line.flag);
}

/// Up to the opening quote. There is neither an identity nor a user to tell of.
fn begin(out: &mut Vec<u8>, time: &[u8], client: &str) {
    out.extend_from_slice(client.as_bytes());
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(time);
    out.extend_from_slice(b"] \"");
}

fn upstream(out: &mut Vec<u8>, upstream: Option<SocketAddr>, attempts: u32) {
    if let Some(upstream) = upstream {
        out.extend_from_slice(b" upstream=");
        address(out, upstream);
        number(out, " attempts=", attempts.into());
    }
}

fn end(out: &mut Vec<u8>, flag: &str) {
    if !flag.is_empty() {
        out.extend_from_slice(b" flag=");
        out.extend_from_slice(flag.as_bytes());
    }
    out.push(b'\n');
}

/// What has a name in a namespace.
fn place(out: &mut Vec<u8>, key: &str, namespace: &str, name: &str) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'"');
    escaped(out, namespace.as_bytes());
    out.push(b'/');
    escaped(out, name.as_bytes());
    out.push(b'"');
}

/// A value in quotes; `-` where there is none.
fn quoted(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'"');
    match value {
        [] => out.push(b'-'),
        value => escaped(out, value),
    }
    out.push(b'"');
}
