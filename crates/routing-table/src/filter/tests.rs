//! What filters do, as tables.

use super::*;
use crate::matcher::PathMatch;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn list(deny: &[&str], allow: &[&str]) -> AccessList {
    let read = |all: &[&str]| all.iter().map(|one| network(one).unwrap()).collect();
    AccessList {
        deny: read(deny),
        allow: read(allow),
    }
}

#[test]
fn who_is_served() {
    let both = list(&["10.0.0.1"], &["10.0.0.0/8", "2001:db8::/32"]);
    for (client, expected) in [
        ("10.0.0.1", false),
        ("10.0.0.2", true),
        ("11.0.0.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ] {
        assert_eq!(both.permits(addr(client)), expected, "{client}");
    }
    let deny = list(&["192.0.2.0/24", "::/0"], &[]);
    for (client, expected) in [("192.0.2.9", false), ("192.0.3.9", true), ("::1", false)] {
        assert_eq!(deny.permits(addr(client)), expected, "{client}");
    }
}

#[test]
fn networks() {
    for (text, expected) in [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
    ] {
        assert_eq!(network(text).unwrap().to_string(), expected, "{text}");
    }
    for bad in [
        "",
        "10.0.0.0/33",
        "10.0.0",
        "a",
        "10.0.0.0/8;",
        "::ffff:0.0.0.0/90",
        "fe80::1%eth0",
    ] {
        assert!(network(bad).is_err(), "{bad}");
    }
}

#[track_caller]
fn rewritten(rewrite: PathRewrite, matched: &PathMatch, path: &str, expected: Option<&str>) {
    let rewrite = UrlRewrite {
        path: Some(rewrite),
        host: None,
    };
    let new = rewrite.apply(matched, path).unwrap();
    assert_eq!(new.as_deref().ok(), expected, "{matched} {rewrite} {path}");
}

#[test]
fn paths_are_rewritten_and_stay_readable() {
    let api = PathMatch::prefix("/api");
    let whole = |path: &str| PathRewrite::Whole(path.into());
    rewritten(whole("/x"), &api, "/api/y", Some("/x"));
    for (to, path, expected) in [
        ("/v2", "/api", Some("/v2")),
        ("/v2", "/api/", Some("/v2/")),
        ("/v2/", "/api/x", Some("/v2/x")),
        ("/", "/api", Some("/")),
        ("/", "/api/x", Some("/x")),
        // R8.
        ("/", "/api//evil.test", None),
        ("/v2", "/api//evil.test", Some("/v2//evil.test")),
    ] {
        rewritten(PathRewrite::prefix(to), &api, path, expected);
    }
    let letters = PathMatch::StartsWith("/api".into());
    rewritten(PathRewrite::prefix("/"), &letters, "/api..", None);
    rewritten(PathRewrite::prefix("/x/"), &letters, "/apis", Some("/xs"));
    rewritten(PathRewrite::prefix("/a/"), &letters, "/api/../x", None);
    let root = PathMatch::prefix("/");
    rewritten(PathRewrite::base("/base"), &root, "/x", Some("/base/x"));
    rewritten(PathRewrite::base("/base/"), &api, "/api", Some("/base/api"));
    rewritten(PathRewrite::base("/base"), &root, "/", Some("/base/"));
    rewritten(
        PathRewrite::prefix("/v2"),
        &PathMatch::Exact("/a".into()),
        "/a",
        Some("/v2"),
    );
}

fn passage<'a>(
    path: &'a str,
    is_https: bool,
    matched: &'a PathMatch,
    sent: &'a HeaderMap,
) -> Passage<'a> {
    Passage {
        client: addr("192.0.2.1"),
        is_https,
        host: "a.test",
        path: path.into(),
        query: Some("q=1"),
        matched,
        sent,
        headers: None,
        upstream_host: None,
    }
}

#[track_caller]
fn redirected(to: RedirectTo, path: &str, is_https: bool, expected: Option<&str>) {
    let (matched, sent) = (PathMatch::prefix("/"), HeaderMap::new());
    let filter = Filter::Redirect(Redirect { status: 308, to });
    let mut passage = passage(path, is_https, &matched, &sent);
    let location = match filter.as_apply().on_request(&mut passage) {
        ControlFlow::Break(Ending::Redirect { location, .. }) => Some(location),
        _ => None,
    };
    assert_eq!(
        location.as_ref().map(|value| value.to_str().unwrap()),
        expected
    );
}

#[test]
fn clients_are_sent_elsewhere() {
    let https = || RedirectTo::Https { port: 443 };
    redirected(https(), "/x/", false, Some("https://a.test/x/?q=1"));
    redirected(https(), "/x", true, None);
    redirected(https(), "/.well-known/acme-challenge/t", false, None);
    // R9: the same host, whatever the path looks like.
    redirected(
        https(),
        "//evil.test/",
        false,
        Some("https://a.test//evil.test/?q=1"),
    );
    redirected(
        RedirectTo::Https { port: 8443 },
        "/",
        false,
        Some("https://a.test:8443/?q=1"),
    );
    let root = || RedirectTo::FromRoot("/app".into());
    redirected(root(), "/", false, Some("/app"));
    redirected(root(), "/x", false, None);
    let url = |with_path| RedirectTo::Url {
        url: "https://b.test".into(),
        with_path,
    };
    redirected(url(false), "/x", false, Some("https://b.test"));
    redirected(url(true), "/x", true, Some("https://b.test/x?q=1"));
}

#[test]
fn where_clients_may_be_sent() {
    for fine in ["https://b.test", "http://b.test:80/x?y=z#f", "/x?y"] {
        assert_eq!(redirect_url(fine), Ok(fine));
    }
    for bad in [
        "",
        "b.test",
        "//b.test/",
        "/\\b.test",
        "javascript:alert(1)",
        "https://b.test/$uri",
        "https://u@b.test/",
        "https://b.test/\r\nx: y",
        "ftp://b.test/",
        "/../x",
    ] {
        assert!(redirect_url(bad).is_err(), "{bad}");
    }
}

#[test]
fn fields_are_changed() {
    let (matched, mut sent) = (PathMatch::prefix("/"), HeaderMap::new());
    sent.append("a", HeaderValue::from_static("1"));
    sent.append("a", HeaderValue::from_static("2"));
    sent.insert("b", HeaderValue::from_static("3"));
    let changes = HeaderChanges {
        remove: vec!["b".parse().unwrap()],
        set: vec![("a".parse().unwrap(), HeaderValue::from_static("4"))],
    };
    let filter = Filter::RequestHeaders(RequestHeaders(changes.clone()));
    let mut passage = passage("/", true, &matched, &sent);
    assert!(filter.as_apply().on_request(&mut passage).is_continue());
    let mut expected = HeaderMap::new();
    expected.insert("a", HeaderValue::from_static("4"));
    let changed = passage.headers.unwrap();
    assert_eq!(changed.fields, expected);
    assert_eq!(changed.decided, ["b", "a"]);
    let mut answer = sent.clone();
    let filter = Filter::ResponseHeaders(ResponseHeaders(changes));
    filter.as_apply().on_response(&mut answer, None);
    assert_eq!(answer, expected);
    for name in [
        "content-length",
        "x-forwarded-for",
        "x_forwarded_for",
        "host",
        "ssl-client-verify",
    ] {
        assert!(!may_be_changed(&name.parse().unwrap()), "{name}");
    }
}
