//! What an upstream is told about the client, and which of the client's fields it never sees.
//!
//! Fields of the connection are stripped before anything else, so `Connection: X-Forwarded-For` cannot remove ours. Fields
//! that carry our own word are dropped from untrusted clients under any spelling that some server folds into the same name
//! (`X_Forwarded_For`).

use crate::client::ClientConnection;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use routing_table::filter::folded;
use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Our name in `CDN-Loop` (RFC 8586).
const LOOP_ID: &[u8] = b"tidegate";
/// How often a request may pass through us.
const MAX_HOPS: usize = 10;

/// What happens to a field of the client's on its way upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Sent as it is.
    Pass,
    /// Belongs to the connection, or is written anew.
    Drop,
    /// Ours: passed or extended only when the client is trusted.
    Ours,
}

/// Whether a client may send this field behind its body as it may in front of it.
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    fate(name.as_str()) == Fate::Pass
}

/// Decides by name alone. Names are lower case.
fn fate(name: &str) -> Fate {
    // A server that folds `_` into `-` would take such a name for another: for one of ours, or for one that frames.
    match folded(name) {
        Cow::Borrowed(name) => fate_of_plain(name),
        Cow::Owned(other) if fate_of_plain(&other) != Fate::Pass => Fate::Drop,
        Cow::Owned(_) => Fate::Pass,
    }
}

fn fate_of_plain(name: &str) -> Fate {
    match name.as_bytes().first() {
        Some(b'c') => match name {
            "connection" | "content-length" | "cdn-loop" | "cookie" => Fate::Drop,
            _ => Fate::Pass,
        },
        Some(b'h') => match name {
            "host" | "http2-settings" => Fate::Drop,
            _ => Fate::Pass,
        },
        Some(b't') => match name {
            "te" | "trailer" | "transfer-encoding" => Fate::Drop,
            _ => Fate::Pass,
        },
        Some(b'k') if name == "keep-alive" => Fate::Drop,
        Some(b'u') if name == "upgrade" => Fate::Drop,
        Some(b'e') if name == "expect" => Fate::Drop,
        Some(b'p') => match name {
            "proxy" | "proxy-connection" | "proxy-authenticate" | "proxy-authorization" => {
                Fate::Drop
            }
            _ => Fate::Pass,
        },
        // We do not write it, so what is in it is somebody's word that nobody checked.
        Some(b'f') if name == "forwarded" => Fate::Drop,
        Some(b's') if is_certificate_field(name) => Fate::Ours,
        Some(b'x') => fate_of_x(name),
        _ => Fate::Pass,
    }
}

/// What ingress-nginx tells of a client's certificate.
fn is_certificate_field(name: &str) -> bool {
    name.starts_with("ssl-client-")
}

fn fate_of_x(name: &str) -> Fate {
    match name {
        "x-forwarded-for"
        | "x-forwarded-proto"
        | "x-forwarded-host"
        | "x-forwarded-port"
        | "x-forwarded-scheme"
        | "x-scheme"
        | "x-real-ip"
        | "x-request-id"
        | "x-original-forwarded-for" => Fate::Ours,
        _ => Fate::Pass,
    }
}

/// What is known about the client of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'a> {
    /// Its address, in text.
    pub(crate) addr: &'a str,
    /// Whether its own word about earlier hops counts.
    pub(crate) trusted: bool,
    /// Whose word counts, among the hops that a trusted client names.
    pub(crate) trusted_networks: &'a [IpNet],
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The port it connected to.
    pub(crate) port: u16,
    /// Its certificate is told in `ssl-client-*` fields of ours, which replace even a trusted client's.
    pub(crate) certificate_fields: bool,
}

/// Writes every field that goes upstream, as HTTP/1.1 lines. `host` is what the upstream is asked for, `asked` the authority
/// as the client wrote it.
pub(crate) fn write_fields(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    host: &str,
    asked: &str,
    client: Client<'_>,
    request_id: &[u8],
) {
    line(out, b"host", host.as_bytes());
    let listed = listed_in_connection(headers);
    for (name, value) in headers {
        let send = match fate(name.as_str()) {
            Fate::Pass => true,
            Fate::Ours => {
                client.trusted
                    && !replaced(name)
                    && headers.get_all(name).iter().nth(1).is_none()
                    && !(client.certificate_fields && is_certificate_field(name.as_str()))
            }
            Fate::Drop => false,
        };
        if send && (listed.is_empty() || !listed.contains(name)) {
            // HTTP/2 lets spaces stand around a value, HTTP/1.1 reads them off.
            line(out, name.as_str().as_bytes(), value.as_bytes().trim_ascii());
        }
    }
    cookies(out, headers);
    // X-Forwarded-For: extended for a trusted client, else begun anew (as ingress-nginx does by default).
    out.extend_from_slice(b"x-forwarded-for: ");
    if client.trusted {
        for value in headers.get_all(X_FORWARDED_FOR) {
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(client.addr.as_bytes());
    out.extend_from_slice(b"\r\n");
    let behind_proxies = client
        .trusted
        .then(|| last_untrusted(headers, client.trusted_networks));
    match behind_proxies.flatten() {
        Some(addr) => line(out, b"x-real-ip", addr_text(addr).as_bytes()),
        None => line(out, b"x-real-ip", client.addr.as_bytes()),
    }
    // One value is a word; several would be believed by whoever picks the one he likes.
    let told = |name: &str| client.trusted && headers.get_all(name).iter().count() == 1;
    if !told("x-forwarded-proto") {
        line(out, b"x-forwarded-proto", client.scheme.as_bytes());
    }
    if !told("x-forwarded-host") {
        line(out, b"x-forwarded-host", asked.as_bytes());
    }
    if !told("x-forwarded-port") {
        line(
            out,
            b"x-forwarded-port",
            itoa::Buffer::new().format(client.port).as_bytes(),
        );
    }
    line(out, b"x-request-id", request_id);
    out.extend_from_slice(b"cdn-loop: ");
    for value in headers.get_all(CDN_LOOP) {
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(LOOP_ID);
    out.extend_from_slice(b"\r\n");
}

/// Who asks, for rules about addresses: the same as `X-Real-IP` says upstream.
pub(crate) fn client_addr(
    headers: &HeaderMap,
    client: &ClientConnection,
    trusted: &[IpNet],
) -> IpAddr {
    let behind_proxies = client.trusted.then(|| last_untrusted(headers, trusted));
    behind_proxies
        .flatten()
        .unwrap_or_else(|| client.addr.ip().to_canonical())
}

/// Whether a request came by TLS, by the word of a trusted client that says so once.
pub(crate) fn is_https(headers: &HeaderMap, client: &ClientConnection) -> bool {
    let mut told = headers.get_all(X_FORWARDED_PROTO).iter();
    match (told.next(), told.next()) {
        (Some(told), None) if client.trusted => told.as_bytes().eq_ignore_ascii_case(b"https"),
        _ => client.scheme == "https",
    }
}

/// The last hop of `X-Forwarded-For` that is not a trusted proxy itself: whoever stands before it could have written what it
/// liked. `None` where there is none, or something that is no address stands behind it.
fn last_untrusted(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    let hops = lines
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        let addr = hop_addr(std::str::from_utf8(hop).ok()?.trim())?;
        if !is_trusted(addr, trusted) {
            return Some(addr.to_canonical());
        }
    }
    None
}

/// An address with or without a port.
fn hop_addr(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| {
        hop.parse::<std::net::SocketAddr>()
            .ok()
            .map(|addr| addr.ip())
    })
}

/// Ours, and written by [`write_fields`] whoever the client is.
fn replaced(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-forwarded-for" | "x-request-id" | "x-real-ip" | "x-original-forwarded-for"
    )
}

/// HTTP/2 may split `cookie` into crumbs; HTTP/1.1 has one line (RFC 9113 section 8.2.3).
fn cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    out.extend_from_slice(b"cookie: ");
    out.extend_from_slice(first.as_bytes());
    for crumb in crumbs {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(crumb.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The fields of a request without those that `Connection` asks to strip, and without itself: what is added to these is ours, and
/// not the client's to strip.
pub(crate) fn end_to_end(headers: &HeaderMap) -> Cow<'_, HeaderMap> {
    let listed = listed_in_connection(headers);
    if listed.is_empty() {
        return Cow::Borrowed(headers);
    }
    let mut rest = headers.clone();
    rest.remove(header::CONNECTION);
    for name in listed {
        rest.remove(name);
    }
    Cow::Owned(rest)
}

/// Names that `Connection` asks to strip. Those that are not the connection's to strip stay.
fn listed_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut listed = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for option in value
            .as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
        {
            if option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close") {
                continue;
            }
            let Ok(name) = HeaderName::from_bytes(option) else {
                continue;
            };
            // Stripping these would change who a request is from or what it is for.
            if !matches!(
                name,
                header::AUTHORIZATION | header::COOKIE | header::CONTENT_TYPE
            ) {
                listed.push(name);
            }
        }
    }
    listed
}

/// Whether a request has passed through us too often.
pub(crate) fn is_loop(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CDN_LOOP).iter();
    let hops = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    hops.filter(|hop| hop.trim_ascii() == LOOP_ID).count() >= MAX_HOPS
}

/// The id of a request: the client's own if it is trusted and its id is fit for a log, else a new one.
pub(crate) fn request_id(headers: &HeaderMap, trusted: bool, ids: &RequestIds) -> HeaderValue {
    const MAX: usize = 128;
    let fit = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX && bytes.iter().all(u8::is_ascii_graphic)
    };
    let told = trusted.then(|| headers.get(X_REQUEST_ID)).flatten();
    match told.filter(fit) {
        Some(value) => value.clone(),
        None => ids.next(),
    }
}

/// Makes request ids: 32 hexadecimal digits, a random half for the worker and a number that is never used twice by it.
#[derive(Debug)]
pub(crate) struct RequestIds {
    worker: u64,
    count: std::cell::Cell<u64>,
}

impl RequestIds {
    /// `seed` must differ between workers and starts.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            worker: mix(seed),
            count: std::cell::Cell::new(mix(!seed)),
        }
    }

    /// The next id: 32 hexadecimal digits.
    pub(crate) fn next(&self) -> HeaderValue {
        // An odd step visits every number once; mixing hides the order.
        self.count
            .set(self.count.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut text = [0u8; 32];
        hex(&mut text[..16], self.worker);
        hex(&mut text[16..], mix(self.count.get()));
        // Hexadecimal digits are a valid value.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// The finaliser of SplitMix64: a bijection, so different numbers stay different.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// Whether an address is in one of these networks. An IPv4 address mapped into IPv6 is taken as IPv4.
pub(crate) fn is_trusted(addr: IpAddr, networks: &[IpNet]) -> bool {
    let addr = addr.to_canonical();
    networks.iter().any(|network| network.contains(&addr))
}

/// An address as fields and logs show it.
pub(crate) fn addr_text(addr: IpAddr) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{}", addr.to_canonical());
    text
}

#[cfg(test)]
#[path = "tests/forwarded_headers.rs"]
mod tests;
