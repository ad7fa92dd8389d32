//! The header of the PROXY protocol, versions 1 and 2, in bytes: read piece by piece, and written. No sockets, no clock.
//!
//! It says on a plain connection whose connection this was before some proxy. Whether it is to be believed is the caller's
//! business. Rules are those of HAProxy's `proxy-protocol.txt`; what that leaves open is decided for the stricter side.

use routing_table::ProxyVersion;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, its line end included: "a 107 byte buffer is always enough to store all the line".
const MAX_V1: usize = 107;
/// How every header of version 1 begins.
const V1: &[u8] = b"PROXY ";
/// How every header of version 2 begins.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// Most bytes after the fixed part that are read; the protocol would allow 65,535, for fields that we do not use.
const MAX_V2_REST: usize = 4096;

/// The longest header that is read.
#[cfg(test)]
pub(crate) const MAX_HEADER: usize = V2_FIXED + MAX_V2_REST;

/// The two ends of the connection that a header speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Whose connection it was.
    pub(crate) source: SocketAddr,
    /// What it was made to.
    pub(crate) destination: SocketAddr,
}

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// `None`: the proxy speaks for itself (`LOCAL`, as in its health checks) or does not know (`UNKNOWN`), so the socket's
    /// own ends hold.
    pub(crate) ends: Option<Ends>,
    /// How many bytes it took.
    pub(crate) length: usize,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    /// Something else, such as the request of a client that came by itself.
    #[error("no PROXY header")]
    Absent,
    /// More bytes than are read.
    #[error("PROXY header too long")]
    TooLong,
    /// It begins like one.
    #[error("malformed PROXY header")]
    Malformed,
}

/// Reads the header at the start of `bytes`; `None` while it is not whole. Bytes that can no longer become a header are an
/// error at once, however few they are.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(bytes, V2) {
        if bytes.len() < V2_FIXED {
            return Ok(None);
        }
        parse_v2(bytes)
    } else if begins(bytes, V1) {
        parse_v1(bytes)
    } else {
        Err(ProxyHeaderError::Absent)
    }
}

/// Whether the shorter of both is the start of the other.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let common = bytes.len().min(signature.len());
    bytes[..common] == signature[..common]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(end) = bytes.iter().take(MAX_V1).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= MAX_V1 {
            Err(ProxyHeaderError::TooLong)
        } else {
            Ok(None)
        };
    };
    let malformed = ProxyHeaderError::Malformed;
    let line = bytes[..end].strip_suffix(b"\r").ok_or(malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| malformed)?;
    // At least `V1` was there: a line feed is not part of it.
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    let ends = match family {
        // "the receiver must ignore anything presented before the CRLF".
        Some("UNKNOWN") => None,
        Some("TCP4" | "TCP6") => {
            let ends = v1_ends(family == Some("TCP4"), &mut words).ok_or(malformed)?;
            if words.next().is_some() {
                return Err(malformed);
            }
            Some(ends)
        }
        _ => return Err(malformed),
    };
    let length = end + 1;
    Ok(Some(ProxyHeader { ends, length }))
}

fn v1_ends<'a>(v4: bool, words: &mut impl Iterator<Item = &'a str>) -> Option<Ends> {
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        if v4 {
            Some(word.parse::<Ipv4Addr>().ok()?.into())
        } else {
            Some(word.parse::<Ipv6Addr>().ok()?.into())
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        // `parse` would take "+80" and "080".
        let plain = word == "0" || !word.starts_with('0');
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        (plain && digits).then(|| word.parse().ok()).flatten()
    };
    Some(Ends {
        source: SocketAddr::new(source, port()?),
        destination: SocketAddr::new(destination, port()?),
    })
}

/// `bytes` has at least the fixed part.
fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let malformed = Err(ProxyHeaderError::Malformed);
    let local = match bytes[12] {
        0x20 => true,
        0x21 => false,
        _ => return malformed,
    };
    let (family, transport) = (bytes[13] >> 4, bytes[13] & 15);
    if family > 3 || transport > 2 {
        return malformed;
    }
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if rest > MAX_V2_REST {
        return Err(ProxyHeaderError::TooLong);
    }
    let length = V2_FIXED + rest;
    let Some(rest) = bytes.get(V2_FIXED..length) else {
        return Ok(None);
    };
    if local {
        // "The receiver must [...] discard the rest", whatever it is.
        return Ok(Some(ProxyHeader { ends: None, length }));
    }
    let addresses = match family {
        1 => 12,
        2 => 36,
        3 => 216,
        // Unspecified: as many bytes as there are.
        _ => rest.len(),
    };
    let (Some(addresses), Some(fields)) = (rest.get(..addresses), rest.get(addresses..)) else {
        return malformed;
    };
    if !are_fields(fields) {
        return malformed;
    }
    let ends = match (family, transport) {
        (1, 1) => v2_ends::<4>(addresses),
        (2, 1) => v2_ends::<16>(addresses),
        // Datagrams and sockets of a file system have no address that means anything on this connection.
        _ => None,
    };
    Ok(Some(ProxyHeader { ends, length }))
}

/// Two addresses of `N` bytes, then two ports.
fn v2_ends<const N: usize>(bytes: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    Some(Ends {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    })
}

/// Whether these bytes are type-length-value fields (section 2.2), to the last one.
fn are_fields(mut bytes: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(after) = rest.get(length..) else {
            return false;
        };
        bytes = after;
    }
    bytes.is_empty()
}

/// Appends a header. Ends of different families are written as IPv6; an IPv4 address mapped into IPv6 is written as IPv4.
pub(crate) fn write(out: &mut Vec<u8>, version: ProxyVersion, ends: Ends) {
    let (source, destination) = (ends.source.ip(), ends.destination.ip());
    let (source_port, destination_port) = (ends.source.port(), ends.destination.port());
    let (source, destination) = (source.to_canonical(), destination.to_canonical());
    let v4 = source.is_ipv4() && destination.is_ipv4();
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match version {
        ProxyVersion::V1 => {
            // Writing to a Vec cannot fail.
            let _ = if v4 {
                write!(
                    out,
                    "PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n"
                )
            } else {
                write!(
                    out,
                    "PROXY TCP6 {} {} {source_port} {destination_port}\r\n",
                    wide(source),
                    wide(destination)
                )
            };
        }
        ProxyVersion::V2 => {
            out.extend_from_slice(V2);
            out.push(0x21);
            match (source, destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    out.extend_from_slice(&[0x11, 0, 12]);
                    out.extend_from_slice(&source.octets());
                    out.extend_from_slice(&destination.octets());
                }
                _ => {
                    out.extend_from_slice(&[0x21, 0, 36]);
                    out.extend_from_slice(&wide(source).octets());
                    out.extend_from_slice(&wide(destination).octets());
                }
            }
            out.extend_from_slice(&source_port.to_be_bytes());
            out.extend_from_slice(&destination_port.to_be_bytes());
        }
    }
}

/// The header of a connection that we make for ourselves.
pub(crate) fn of_our_own(version: ProxyVersion) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        // LOCAL, of no family, without anything more.
        ProxyVersion::V2 => [&V2[..], &[0x20, 0, 0, 0]].concat(),
    }
}

#[cfg(test)]
#[path = "tests/proxy_header.rs"]
mod tests;
