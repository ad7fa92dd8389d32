//! What a route wants of a request beyond its host and path: method, header fields, query parameters, cookies, the client's
//! address.
//!
//! Everything is compared as it stands, without allocating: names of fields in any case, all else exactly. Routes without
//! conditions, and hosts that have only such, never come here; cookies and addresses are read for those only that want them.

use http::{HeaderMap, HeaderName, Method, header};
use ipnet::IpNet;
use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::net::IpAddr;

/// What a request is matched on besides listener, host and path.
#[derive(Debug, Clone, Copy)]
pub struct RequestFields<'a> {
    /// The method.
    pub method: &'a Method,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
    /// Who asks.
    pub client: &'a dyn ClientAddress,
}

/// Who asks, found out when a route wants to know.
pub trait ClientAddress: fmt::Debug {
    /// The address of the client of a request with these header fields, behind proxies that are believed; an IPv4 address is
    /// never mapped into IPv6. `None` is nobody that a network could have.
    fn address(&self, headers: &HeaderMap) -> Option<IpAddr>;
}

/// A client that is known, or not.
impl ClientAddress for Option<IpAddr> {
    fn address(&self, _: &HeaderMap) -> Option<IpAddr> {
        *self
    }
}

/// What must be true of a request; all of it. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The method. Default: any.
    pub method: Option<Method>,
    /// Header fields.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
    /// Cookies.
    pub cookies: Vec<CookieMatch>,
    /// Networks, one of which the client must be in. Default: it may be anywhere.
    pub clients: Vec<IpNet>,
}

/// A header field that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// What one of its lines must be.
    pub value: ValueMatch,
}

/// A query parameter that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryMatch {
    /// Its name, decoded.
    pub name: Box<str>,
    /// What it must be, where it stands first.
    pub value: ValueMatch,
}

/// A cookie that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieMatch {
    /// Its name, exactly.
    pub name: Box<str>,
    /// What it must be, where it stands first.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// Anything.
    Present,
    /// This.
    Exact(Box<str>),
}

impl Conditions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.method.is_none()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.cookies.is_empty()
            && self.clients.is_empty()
    }

    /// Whether a request meets all of them.
    pub fn meets(&self, fields: &RequestFields<'_>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|method| method == fields.method)
            && self.headers.iter().all(|one| one.matches(fields.headers))
            && self.query.iter().all(|one| one.matches(fields.query))
            && self.cookies.iter().all(|one| one.matches(fields.headers))
            && (self.clients.is_empty() || self.serves(fields))
    }

    fn serves(&self, fields: &RequestFields<'_>) -> bool {
        let client = fields.client.address(fields.headers);
        client.is_some_and(|addr| self.clients.iter().any(|network| network.contains(&addr)))
    }

    /// [`Ordering::Less`] wins: with a method, then more header fields, then more query parameters, then more cookies, then
    /// for some clients only.
    ///
    /// Gateway API, `HTTPRouteRule.matches`: after the path, "Method match. Largest number of header matches. Largest number
    /// of query param matches." It has neither cookies nor clients.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let rank = |one: &Self| {
            Reverse((
                one.method.is_some(),
                one.headers.len(),
                one.query.len(),
                one.cookies.len(),
                !one.clients.is_empty(),
            ))
        };
        rank(self).cmp(&rank(other))
    }
}

impl HeaderMatch {
    fn matches(&self, headers: &HeaderMap) -> bool {
        match &self.value {
            ValueMatch::Present => headers.contains_key(&self.name),
            ValueMatch::Exact(wanted) => headers
                .get_all(&self.name)
                .iter()
                .any(|value| value.as_bytes() == wanted.as_bytes()),
        }
    }
}

impl QueryMatch {
    fn matches(&self, query: Option<&str>) -> bool {
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        let mut named = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .filter(|(name, _)| decoded(name).eq(self.name.bytes()));
        match (named.next(), &self.value) {
            (None, _) => false,
            (Some(_), ValueMatch::Present) => true,
            (Some((_, value)), ValueMatch::Exact(wanted)) => decoded(value).eq(wanted.bytes()),
        }
    }
}

impl CookieMatch {
    fn matches(&self, headers: &HeaderMap) -> bool {
        match (cookies(headers, &self.name).next(), &self.value) {
            (None, _) => false,
            (Some(_), ValueMatch::Present) => true,
            (Some(value), ValueMatch::Exact(wanted)) => value == wanted.as_bytes(),
        }
    }
}

/// The values of the cookies with a name (RFC 6265 section 5.4), in the order they came in.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.get_all(header::COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

/// The bytes of a part of a query: `+` is a space, `%41` is `A`, a `%` without two digits is itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let bytes = text.as_bytes();
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        at += 1;
        Some(match byte {
            b'+' => b' ',
            b'%' => match (digit(bytes.get(at)), digit(bytes.get(at + 1))) {
                (Some(high), Some(low)) => {
                    at += 2;
                    (high * 16 + low) as u8
                }
                _ => b'%',
            },
            other => other,
        })
    })
}

impl fmt::Display for Conditions {
    /// In words that tell any two apart, with a space in front of each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = &self.method {
            write!(f, " {method}")?;
        }
        for one in &self.headers {
            write!(f, " header {}{}", one.name, one.value)?;
        }
        for one in &self.query {
            write!(f, " query {}{}", one.name, one.value)?;
        }
        for one in &self.cookies {
            write!(f, " cookie {}{}", one.name, one.value)?;
        }
        for (index, network) in self.clients.iter().enumerate() {
            let before = if index == 0 { " client " } else { "," };
            write!(f, "{before}{network}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => Ok(()),
            Self::Exact(value) => write!(f, "={value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn exact(value: &str) -> ValueMatch {
        ValueMatch::Exact(value.into())
    }

    #[track_caller]
    fn check_query(name: &str, value: ValueMatch, query: Option<&str>, expected: bool) {
        let name = name.into();
        assert_eq!(
            QueryMatch { name, value }.matches(query),
            expected,
            "{query:?}"
        );
    }

    #[test]
    fn query_parameters_are_compared_decoded() {
        check_query("a", exact("1"), Some("a=1"), true);
        check_query("a", exact("1"), Some("b=2&a=1"), true);
        check_query("a", exact("1"), Some("a=2&a=1"), false);
        check_query("a", exact("x y"), Some("a=x+y"), true);
        check_query("a", exact("x y"), Some("%61=x%20y"), true);
        check_query("a", exact("100%"), Some("a=100%"), true);
        check_query("a", exact("\u{e9}"), Some("a=%C3%A9"), true);
        check_query("a", ValueMatch::Present, Some("a"), true);
        check_query("a", exact(""), Some("a="), true);
        check_query("a", ValueMatch::Present, Some("ab=1&A=1"), false);
        check_query("a", ValueMatch::Present, Some(""), false);
        check_query("a", ValueMatch::Present, None, false);
    }

    #[test]
    fn header_fields_match_by_any_of_their_lines() {
        let mut headers = HeaderMap::new();
        headers.append("x-canary", "no".parse().unwrap());
        headers.append("x-canary", "yes".parse().unwrap());
        let check = |name: &'static str, value, expected| {
            let name = HeaderName::from_static(name);
            assert_eq!(HeaderMatch { name, value }.matches(&headers), expected);
        };
        check("x-canary", exact("yes"), true);
        check("x-canary", exact("Yes"), false);
        check("x-canary", ValueMatch::Present, true);
        check("x-other", ValueMatch::Present, false);
    }

    #[test]
    fn the_first_cookie_of_a_name_counts() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "theme=dark; canary=yes;a=".parse().unwrap());
        headers.append("cookie", "canary=no; Beta=1; x".parse().unwrap());
        let check = |name: &str, value, expected| {
            let name = name.into();
            assert_eq!(CookieMatch { name, value }.matches(&headers), expected);
        };
        check("theme", exact("dark"), true);
        check("canary", exact("yes"), true);
        check("canary", exact("no"), false);
        check("Beta", exact("1"), true);
        check("beta", ValueMatch::Present, false);
        check("a", exact(""), true);
        check("a", ValueMatch::Present, true);
        check("the", ValueMatch::Present, false);
        check("x", ValueMatch::Present, false);
    }

    /// Fails when it is asked.
    #[derive(Debug)]
    struct NobodyAsks;

    impl ClientAddress for NobodyAsks {
        fn address(&self, _: &HeaderMap) -> Option<IpAddr> {
            panic!("nobody wants to know")
        }
    }

    #[test]
    fn clients_are_in_one_of_the_networks() {
        let clients = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
        let inside = Conditions {
            clients: clients.to_vec(),
            ..Conditions::default()
        };
        let headers = HeaderMap::new();
        let check = |client: Option<&str>, expected| {
            let client: Option<IpAddr> = client.map(|text| text.parse().unwrap());
            let fields = RequestFields {
                method: &Method::GET,
                headers: &headers,
                query: None,
                client: &client,
            };
            assert_eq!(inside.meets(&fields), expected, "{client:?}");
        };
        check(Some("10.1.2.3"), true);
        check(Some("11.1.2.3"), false);
        check(Some("2001:db8::1"), true);
        check(None, false);
        assert_eq!(inside.to_string(), " client 10.0.0.0/8,2001:db8::/32");
        let anywhere = Conditions::default();
        assert_eq!(inside.precedence(&anywhere), Ordering::Less);
        let fields = RequestFields {
            method: &Method::GET,
            headers: &headers,
            query: None,
            client: &NobodyAsks,
        };
        assert!(anywhere.meets(&fields));
    }

    #[test]
    fn all_conditions_must_be_met() {
        let both = Conditions {
            method: Some(Method::POST),
            query: vec![QueryMatch {
                name: "a".into(),
                value: exact("1"),
            }],
            ..Conditions::default()
        };
        let headers = HeaderMap::new();
        for (method, query, expected) in [
            (Method::POST, Some("a=1"), true),
            (Method::GET, Some("a=1"), false),
            (Method::POST, Some("a=2"), false),
            (Method::POST, None, false),
        ] {
            let fields = RequestFields {
                method: &method,
                headers: &headers,
                query,
                client: &NobodyAsks,
            };
            assert_eq!(both.meets(&fields), expected, "{method} {query:?}");
        }
        assert_eq!(both.to_string(), " POST query a=\"1\"");
    }
}
