//! Paths: the one normal form used for matching and forwarding, and the patterns that match it.
//!
//! What is routed is what is forwarded: [`normal_path`] either gives the only spelling of a path that routing, policy and
//! the upstream will all see, or refuses the request. Anything that two parsers could read differently is refused.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// What paths a route matches. All are case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// This path only.
    Exact(Box<str>),
    /// This path and what lies below it, element by element. Kept without a trailing slash; `/` is the empty string.
    Prefix(Box<str>),
    /// Every path that starts with these characters (how ingress-nginx reads `ImplementationSpecific`).
    StartsWith(Box<str>),
}

impl PathMatch {
    /// An element-wise prefix. A trailing slash makes no difference (Ingress v1, the `/aaa/bbb/` examples).
    pub fn prefix(path: &str) -> Self {
        Self::Prefix(path.strip_suffix('/').unwrap_or(path).into())
    }

    /// The characters to look a path up by.
    pub fn key(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) | Self::StartsWith(path) => path,
        }
    }

    /// Whether a path in normal form matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::StartsWith(start) => path.starts_with(&**start),
        }
    }

    /// [`Ordering::Less`] wins: exact, then the longer path, then element-wise before character-wise.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let exact = |m: &Self| !matches!(m, Self::Exact(_));
        let characters = |m: &Self| matches!(m, Self::StartsWith(_));
        let length = |m: &Self| m.key().len();
        exact(self)
            .cmp(&exact(other))
            .then(length(other).cmp(&length(self)))
            .then(characters(self).cmp(&characters(other)))
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "exact {path}"),
            Self::Prefix(path) if path.is_empty() => f.write_str("prefix /"),
            Self::Prefix(path) => write!(f, "prefix {path}"),
            Self::StartsWith(path) => write!(f, "starts-with {path}"),
        }
    }
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not start with a slash.
    #[error("the path does not start with '/'")]
    NoSlash,
    /// A byte that RFC 3986 does not allow in a path: a space, a control, a quote, a backslash, anything beyond ASCII.
    #[error("the path has a character that must be percent-encoded")]
    Character,
    /// `%` without two hexadecimal digits.
    #[error("the path has a '%' without two hexadecimal digits")]
    Escape,
    /// An encoded slash, backslash, or control character.
    #[error("the path has an encoded slash, backslash or control character")]
    EncodedSeparator,
    /// A `.` or `..` element, plain, encoded or with a `;` parameter.
    #[error("the path has a '.' or '..' element")]
    Dots,
}

/// Bytes of a path in normal form: RFC 3986 `pchar` without `%`, and `/`.
const fn plain(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// RFC 3986 section 2.3: the same character, encoded or not.
const fn unreserved(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

/// The only spelling of a path that is matched and forwarded.
///
/// Encoded unreserved characters are decoded (`%61` is `a`), other escapes keep their meaning with upper-case digits;
/// nothing is decoded twice. Empty elements (`//`) are kept. `[`, `]` and `|` are kept though RFC 3986 wants them encoded,
/// because browsers send them bare. Borrows when the input is in normal form, the usual case.
///
/// # Errors
/// See [`PathError`]: whatever two readers could understand differently is refused rather than repaired.
pub fn normal_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::NoSlash);
    }
    let mut escaped = false;
    let mut dots = false;
    let mut before = 0u8;
    for &byte in bytes {
        if !plain(byte) {
            match byte {
                b'%' => escaped = true,
                b'[' | b']' | b'|' => {}
                _ => return Err(PathError::Character),
            }
        }
        // Only an element that starts with a dot can be `.` or `..`.
        dots |= byte == b'.' && before == b'/';
        before = byte;
    }
    let normal = if escaped {
        Cow::Owned(decode_unreserved(bytes)?)
    } else {
        Cow::Borrowed(path)
    };
    if (dots || escaped) && normal.split('/').any(is_dots) {
        return Err(PathError::Dots);
    }
    Ok(normal)
}

/// `.`, `..`, and both with a parameter (`..;x`), which some servers drop before they resolve the dots, and some after they have
/// decoded it (`..%3Bx`).
fn is_dots(element: &str) -> bool {
    let dots = element.trim_start_matches('.');
    let ends = dots.is_empty() || dots.starts_with(';') || dots.starts_with("%3B");
    ends && matches!(element.len() - dots.len(), 1 | 2)
}

fn decode_unreserved(bytes: &[u8]) -> Result<String, PathError> {
    let digit = |byte: Option<&u8>| {
        byte.and_then(|b| (*b as char).to_digit(16))
            .ok_or(PathError::Escape)
    };
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            out.push(byte as char);
            at += 1;
            continue;
        }
        let value = (digit(bytes.get(at + 1))? * 16 + digit(bytes.get(at + 2))?) as u8;
        match value {
            b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(PathError::EncodedSeparator),
            _ if unreserved(value) => out.push(value as char),
            _ => {
                out.push('%');
                out.push(bytes[at + 1].to_ascii_uppercase() as char);
                out.push(bytes[at + 2].to_ascii_uppercase() as char);
            }
        }
        at += 3;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Result<&str, PathError>) {
        assert_eq!(
            normal_path(input).as_deref(),
            expected.as_ref().map(|s| *s),
            "{input:?}"
        );
    }

    #[test]
    fn one_normal_form() {
        for same in [
            "/",
            "/a/b",
            "//a//b",
            "/a/",
            "/.well-known/x",
            "/a.b/..c",
            "/a;v=1/b",
            "/x[1]|y",
            "/%25",
            "/%252e",
            "/..%253b/",
            "/...%3B/",
            "/..a%3B/",
        ] {
            check(same, Ok(same));
        }
        check("/%61dmin", Ok("/admin"));
        check("/%c3%a9", Ok("/%C3%A9"));
        check("/a%3Bb", Ok("/a%3Bb"));
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "/a/../admin",
            "/./admin",
            "/a/%2e%2e/admin",
            "/%2E/",
            "/..",
            "/public/..;/admin",
            "/..;",
            "/.;x/",
            "/x/..%3b/admin",
            "/x/..%3B",
            "/%2e%2e%3bx",
            "/.%3b;/",
        ] {
            check(bad, Err(PathError::Dots));
        }
        for bad in ["/a%2fadmin", "/a%5Cb", "/a%00", "/a%0d%0a", "/%7f"] {
            check(bad, Err(PathError::EncodedSeparator));
        }
        for bad in ["/%zz", "/%", "/%2", "/%+1"] {
            check(bad, Err(PathError::Escape));
        }
        for bad in [
            "/a b", "/a\\b", "/a\"", "/<", "/{x}", "/^", "/\u{e9}", "/a\tb",
        ] {
            check(bad, Err(PathError::Character));
        }
        for bad in ["", "a", "*", "http://a/"] {
            check(bad, Err(PathError::NoSlash));
        }
    }

    /// The table of examples in the Ingress documentation, "Examples" under "Path types".
    #[test]
    fn the_examples_of_ingress_v1() {
        let exact = |p: &str| PathMatch::Exact(p.into());
        let prefix = PathMatch::prefix;
        for (matcher, path, expected) in [
            (prefix("/"), "/anything", true),
            (exact("/foo"), "/foo", true),
            (exact("/foo"), "/bar", false),
            (exact("/foo"), "/foo/", false),
            (exact("/foo/"), "/foo", false),
            (prefix("/foo"), "/foo", true),
            (prefix("/foo"), "/foo/", true),
            (prefix("/foo/"), "/foo", true),
            (prefix("/foo/"), "/foo/", true),
            (prefix("/aaa/bb"), "/aaa/bbb", false),
            (prefix("/aaa/bbb"), "/aaa/bbb", true),
            (prefix("/aaa/bbb/"), "/aaa/bbb", true),
            (prefix("/aaa/bbb"), "/aaa/bbb/", true),
            (prefix("/aaa/bbb"), "/aaa/bbb/ccc", true),
            (prefix("/aaa/bbb"), "/aaa/bbbxyz", false),
        ] {
            assert_eq!(matcher.matches(path), expected, "{matcher} on {path}");
        }
        assert!(PathMatch::StartsWith("/foo".into()).matches("/foobar"));
        assert!(!PathMatch::StartsWith("/foo".into()).matches("/FOO"));
    }
}
