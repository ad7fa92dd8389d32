//! Host names: the one normal form used for matching, and the patterns that match it.
//!
//! The normal form is lower case, without port and without a trailing dot. It is decided here once, for `Host`,
//! `:authority` and SNI alike, so that they can never disagree about what a name is.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

/// What hosts a virtual host serves. Names are in normal form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostMatch {
    /// One name.
    Exact(Box<str>),
    /// `*.` and this suffix: exactly one label in front of it (Ingress v1, `IngressRule.host`).
    Wildcard(Box<str>),
    /// Every host that nothing else matches.
    Any,
}

/// Why a string is not a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Longer than 253 bytes, or a label longer than 63 (RFC 1035, section 2.3.4).
    #[error("the host or one of its labels is too long")]
    TooLong,
    /// A byte that no host name has.
    #[error("the host has a character that no host name has")]
    Character,
    /// A URL where a name is needed.
    #[error("the host is a URL, a DNS name is needed: without scheme, port and path")]
    Url,
    /// The port is not a number from 1 to 65535.
    #[error("the port of the host is not a number from 1 to 65535")]
    Port,
    /// A wildcard that is not `*.` in front of a name.
    #[error("a wildcard must be '*.' in front of a host name, with no other '*'")]
    Wildcard,
    /// An IP address where a name is needed.
    #[error("the host is an IP address, a DNS name is needed")]
    Address,
}

impl HostMatch {
    /// Reads a pattern as Ingress writes it: empty for any host, `*.name` for one label in front of a name, else a name.
    pub fn parse(pattern: &str) -> Result<Self, HostError> {
        if pattern.is_empty() {
            return Ok(Self::Any);
        }
        let (wildcard, name) = match pattern.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        if name.contains('*') {
            return Err(HostError::Wildcard);
        }
        if name.contains("://") {
            return Err(HostError::Url);
        }
        if name.contains(':') {
            return Err(HostError::Character);
        }
        let name = normal_host(name)?;
        if name.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(HostError::Address);
        }
        let name = name.into_owned().into_boxed_str();
        Ok(if wildcard {
            Self::Wildcard(name)
        } else {
            Self::Exact(name)
        })
    }

    /// Whether a host in normal form matches.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => parent(host).is_some_and(|p| *p == **suffix),
            Self::Any => true,
        }
    }

    /// Whether some host is matched by both patterns. [`HostMatch::Any`] is only the rest of the hosts and overlaps
    /// with itself alone.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) => true,
            (Self::Any, _) | (_, Self::Any) => false,
            (Self::Exact(name), pattern) | (pattern, Self::Exact(name)) => pattern.matches(name),
            (Self::Wildcard(a), Self::Wildcard(b)) => a == b,
        }
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// What stands behind the first label: `b.c` for `a.b.c`. A name that starts with a dot has no first label.
pub fn parent(host: &str) -> Option<&str> {
    match host.split_once('.') {
        Some((label, rest)) if !label.is_empty() && !rest.is_empty() => Some(rest),
        _ => None,
    }
}

/// The normal form of a `Host` header or `:authority` (RFC 9110 section 7.2): lower case, without port and trailing dot.
///
/// Borrows when the input is in normal form already, which is the usual case.
///
/// # Errors
/// Anything that is not `uri-host [":" port]` with a DNS name or an IP address: user info, spaces, commas, paths, bytes
/// outside ASCII, port 0, labels over 63 bytes.
pub fn normal_host(host: &str) -> Result<Cow<'_, str>, HostError> {
    if host.starts_with('[') {
        return address_literal(host);
    }
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    if let Some(port) = port {
        check_port(port)?;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > 253 {
        return Err(HostError::TooLong);
    }
    let mut label = 0usize;
    let mut upper = false;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                upper = true;
                label += 1;
            }
            b'.' if label > 0 => label = 0,
            _ => return Err(HostError::Character),
        }
        if label > 63 {
            return Err(HostError::TooLong);
        }
    }
    if label == 0 {
        // A second trailing dot: an empty label.
        return Err(HostError::Character);
    }
    Ok(if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// `[v6]` with an optional port.
fn address_literal(host: &str) -> Result<Cow<'_, str>, HostError> {
    let (inside, rest) = host[1..].split_once(']').ok_or(HostError::Character)?;
    inside
        .parse::<Ipv6Addr>()
        .map_err(|_| HostError::Character)?;
    match rest.strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if rest.is_empty() => {}
        None => return Err(HostError::Character),
    }
    let literal = &host[..inside.len() + 2];
    Ok(if literal.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(literal.to_ascii_lowercase())
    } else {
        Cow::Borrowed(literal)
    })
}

/// An empty port is allowed by the grammar (`a.test:`) and means the default one.
fn check_port(port: &str) -> Result<(), HostError> {
    let digits = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    match (
        port.is_empty(),
        digits.then(|| port.parse::<u32>().unwrap_or(0)),
    ) {
        (true, _) | (false, Some(1..=65535)) => Ok(()),
        _ => Err(HostError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Result<&str, HostError>) {
        assert_eq!(
            normal_host(input).as_deref(),
            expected.as_ref().map(|s| *s),
            "{input:?}"
        );
    }

    #[test]
    fn one_normal_form() {
        check("a.test", Ok("a.test"));
        check("A.TEST.", Ok("a.test"));
        check("a.test:", Ok("a.test"));
        check("a.test:8080", Ok("a.test"));
        check("[::1]:80", Ok("[::1]"));
        check("[::FFFF:1]", Ok("[::ffff:1]"));
        check("127.0.0.1:80", Ok("127.0.0.1"));
        check("under_score.test", Ok("under_score.test"));
    }

    #[test]
    fn what_is_no_host() {
        for bad in [
            "a,b",
            "a b",
            "u@a.test",
            "a/x",
            "a#x",
            "a\\x",
            "\u{e9}.test",
            "a..b",
            "a..",
            ".a",
            "[::1",
            "[::1]x",
            "[g]",
            "a\0b",
            "*.a",
        ] {
            check(bad, Err(HostError::Character));
        }
        check("", Err(HostError::Empty));
        check(".", Err(HostError::Empty));
        check(":80", Err(HostError::Empty));
        for bad in ["a:0", "a:99999", "a:8o", "a:+80", "a:80:80", "[::1]:0"] {
            check(bad, Err(HostError::Port));
        }
        check(&"a".repeat(64), Err(HostError::TooLong));
        check(&["a"; 128].join("."), Err(HostError::TooLong));
    }

    #[test]
    fn patterns() {
        assert_eq!(HostMatch::parse(""), Ok(HostMatch::Any));
        assert_eq!(
            HostMatch::parse("Shop.Test."),
            Ok(HostMatch::Exact("shop.test".into()))
        );
        assert_eq!(
            HostMatch::parse("*.Shop.test"),
            Ok(HostMatch::Wildcard("shop.test".into()))
        );
        for bad in ["*", "a.*.test", "**.test", "*a.test", "*.*.test"] {
            assert_eq!(HostMatch::parse(bad), Err(HostError::Wildcard), "{bad}");
        }
        assert_eq!(HostMatch::parse("10.0.0.1"), Err(HostError::Address));
        assert_eq!(HostMatch::parse("a.test:80"), Err(HostError::Character));
        assert_eq!(HostMatch::parse("http://a.test"), Err(HostError::Url));
    }

    #[test]
    fn a_wildcard_is_exactly_one_label() {
        let wildcard = HostMatch::Wildcard("a.test".into());
        assert!(wildcard.matches("x.a.test"));
        for other in ["a.test", ".a.test", "x.y.a.test", "xa.test"] {
            assert!(!wildcard.matches(other), "{other}");
        }
    }

    #[test]
    fn overlap() {
        let p = |s| HostMatch::parse(s).unwrap_or(HostMatch::Any);
        assert!(p("*.a.test").overlaps(&p("x.a.test")));
        assert!(p("x.a.test").overlaps(&p("*.a.test")));
        assert!(!p("*.a.test").overlaps(&p("a.test")));
        assert!(!p("*.a.test").overlaps(&p("*.b.a.test")));
        assert!(p("").overlaps(&p("")));
        assert!(!p("").overlaps(&p("a.test")));
    }
}
