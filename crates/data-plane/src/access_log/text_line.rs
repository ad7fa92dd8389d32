//! Lines for people: the combined format of web servers, then what a proxy knows besides, as `name=value`.

use super::{Line, RelayLine, address, escaped, number, seconds};
use std::net::SocketAddr;

pub(super) fn request(out: &mut Vec<u8>, time: &[u8], line: &Line<'_>) {
    begin(out, time, line.client);
    out.extend_from_slice(line.method.as_bytes());
    out.push(b' ');
    escaped(out, line.path.as_bytes());
    out.push(b' ');
    out.extend_from_slice(line.protocol.as_bytes());
    number(out, "\" ", line.status.into());
    number(out, " ", line.response_bytes);
    quoted(out, " ", line.referer);
    quoted(out, " ", line.user_agent);
    out.extend_from_slice(b" scheme=");
    out.extend_from_slice(line.scheme.as_bytes());
    quoted(out, " host=", line.host);
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
    time_of_day(out, time);
    out.extend_from_slice(b"] \"");
}

/// The time as the combined format has it, `31/Jan/2026:12:00:00 +0000`, of one like `2026-01-31T12:00:00.123Z`.
fn time_of_day(out: &mut Vec<u8>, time: &[u8]) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let part = |range: std::ops::Range<usize>| time.get(range).unwrap_or_default();
    let digit = |byte: &u8| usize::from(byte.wrapping_sub(b'0'));
    let month = part(5..7)
        .iter()
        .fold(0, |all, byte| all * 10 + digit(byte));
    let month = MONTHS.get(month.wrapping_sub(1)).unwrap_or(&"");
    for (part, after) in [
        (part(8..10), &b"/"[..]),
        (month.as_bytes(), b"/"),
        (part(0..4), b":"),
        (part(11..19), b" +0000"),
    ] {
        out.extend_from_slice(part);
        out.extend_from_slice(after);
    }
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
