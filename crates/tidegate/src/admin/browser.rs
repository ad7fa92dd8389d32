//! Keeps pages in a browser out of the admin port. Who can reach it by a browser has more rights than the pages in it: of an
//! operator with `kubectl port-forward`, any page could ask `localhost`, and read the answer by a name of its own that the DNS
//! makes lead there (DNS rebinding).

use http::{HeaderMap, Uri, header};
use std::net::IpAddr;

/// Why a request for more than probes and scrapers want is refused, as far as it comes from a page, or may. `knows_token`: it
/// has shown a token, which no page knows, so the name it asks by does not matter.
pub(super) fn refusal(uri: &Uri, headers: &HeaderMap, knows_token: bool) -> Option<&'static str> {
    let fetched = headers.get("sec-fetch-site");
    // What somebody typed into the address bar is no page's request.
    let by_a_page = fetched.is_some_and(|site| site != "none" && site != "same-origin");
    if headers.contains_key(header::ORIGIN) || by_a_page {
        return Some("a page in a browser asks for this: it is for programs only");
    }
    let hosts = headers.get_all(header::HOST).iter();
    let mut hosts = hosts.map(|host| host.to_str().ok());
    let target = uri.authority().map(|authority| authority.as_str());
    let is_known = |host: Option<&str>| host.is_some_and(is_no_public_name);
    let all_known = hosts.all(is_known) && target.is_none_or(is_no_public_name);
    if knows_token || all_known {
        return None;
    }
    Some(
        "this is not answered by every name, which could be one of a page in a browser: ask by address, as localhost, or \
         by a name without a dot, or have a token asked for (--admin-token-file)",
    )
}

/// Whether nobody can make a page of this authority: it is an address, or a name that the public DNS does not have.
fn is_no_public_name(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse::<IpAddr>().is_ok() || !host.contains('.')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn is_refused(fields: &[(&'static str, &str)], knows_token: bool) -> bool {
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers = HeaderMap::from_iter(fields);
        refusal(&Uri::from_static("/backends"), &headers, knows_token).is_some()
    }

    #[test]
    fn pages_are_refused_by_what_browsers_say() {
        for (name, value, refused) in [
            ("origin", "http://localhost:10254", true),
            ("origin", "null", true),
            ("sec-fetch-site", "cross-site", true),
            ("sec-fetch-site", "same-site", true),
            ("sec-fetch-site", "same-origin", false),
            ("sec-fetch-site", "none", false),
        ] {
            for knows_token in [false, true] {
                let fields = [("host", "localhost:10254"), (name, value)];
                assert_eq!(is_refused(&fields, knows_token), refused, "{name}: {value}");
            }
        }
    }

    #[test]
    fn names_of_the_public_dns_are_refused() {
        for (host, refused) in [
            ("127.0.0.1:10254", false),
            ("10.1.2.3", false),
            ("[::1]:10254", false),
            ("[fd00::1]", false),
            ("localhost:10254", false),
            ("tidegate:10254", false),
            ("evil.test:10254", true),
            ("evil.test.", true),
            ("127.0.0.1.evil.test", true),
            ("127.0.0.1:10254.evil.test", true),
            ("localhost.evil.test:80", true),
        ] {
            assert_eq!(is_refused(&[("host", host)], false), refused, "{host}");
            assert!(!is_refused(&[("host", host)], true), "{host}");
        }
        assert!(!is_refused(&[], false), "a program of HTTP/1.0");
        assert!(is_refused(&[("host", "a"), ("host", "b.test")], false));
        let absolute = Uri::from_static("http://evil.test/backends");
        assert!(refusal(&absolute, &HeaderMap::new(), false).is_some());
    }
}
