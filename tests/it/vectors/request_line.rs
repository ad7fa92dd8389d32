//! Request line, host and fields of HTTP/1.1 requests: B7 to B19, and expectations in B23.
//!
//! Where the catalogue leaves room:
//! - A path with a byte that RFC 3986 does not allow is refused. In a query, browsers send `\ ^ { } | '` and the backtick
//!   as they are (WHATWG URL, query percent-encode set), and broken escapes such as `100%` are common; those pass as they
//!   are. What no browser sends bare, `< > "`, is refused in both.
//! - An unknown minor version (`HTTP/1.2`) is refused like an unknown major one.

use super::vector::{Check, Expect, Row, Vector, get, get_target, join, post, request, row};
use test_support::recorder::Act;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        b7(),
        b8(),
        b9(),
        b10(),
        b11(),
        b12(),
        b13(),
        b14(),
        b15(),
        b16(),
        b17(),
        b18(),
        b19(),
        b23(),
    ]
}

fn with_host(host: &[u8]) -> Vec<u8> {
    join(&[b"GET /v HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"])
}

fn b7() -> Row {
    row("B7", "no host, or two")
        .refused("none", "GET /v HTTP/1.1\r\n\r\n", &[400])
        .refused(
            "none, other fields",
            "GET /v HTTP/1.1\r\nX-A: b\r\n\r\n",
            &[400],
        )
        .refused("two equal", get("Host: a.test\r\n"), &[400])
        .refused("two that differ", get("Host: b.test\r\n"), &[400])
        .refused("two, odd case", get("hOST: b.test\r\n"), &[400])
        .refused("two, one empty", get("Host:\r\n"), &[400])
        .refused(
            "a space before the colon",
            "GET /v HTTP/1.1\r\nHost : a.test\r\n\r\n",
            &[400],
        )
}

fn b8() -> Row {
    let mut b8 = row("B8", "hosts that are none");
    for host in [
        &b"a.test,b.test"[..],
        b"a.test, b.test",
        b"a test",
        b"u@a.test",
        b"a.test/x",
        b"a.test#x",
        b"a.test?x",
        b"a.test\\x",
        b"a\xe9.test",
        "\u{e4}.test".as_bytes(),
        b"",
        b" ",
        b"a.test:0",
        b"a.test:99999",
        b"a.test:8x",
        b"a.test:-1",
        b"a.test:80:80",
        b":80",
        b".",
        b"a..test",
        b".a.test",
        b"[::1",
        b"[::1]x",
        b"[a.test]",
        b"http://a.test",
        b"%61.test",
        b"*.test",
        b"a.test;x",
        b"\"a.test\"",
    ] {
        let name = format!("Host: {}", host.escape_ascii());
        b8 = b8.refused(name, with_host(host), &[400]);
    }
    b8
}

fn b9() -> Row {
    let mut b9 = row("B9", "hosts that are spelt otherwise");
    for host in [
        "A.TEST.",
        "a.test:",
        "a.test:80",
        "A.tEsT:65535",
        "a.test.:80",
    ] {
        b9 = b9.passed(
            host,
            with_host(host.as_bytes()),
            &[Check::Host("a.test"), Check::Backend("a")],
        );
    }
    // No Ingress can name an address, so there is no route; but it is a host.
    b9.local("[::1]:80", with_host(b"[::1]:80"), &[404]).local(
        "127.0.0.1",
        with_host(b"127.0.0.1"),
        &[404],
    )
}

fn b10() -> Row {
    const PASSED: &[Check] = &[
        Check::Targets(&["/x?y=1"]),
        Check::Host("a.test"),
        Check::Backend("a"),
    ];
    let target = |target: &str| get_target(target);
    row("B10", "absolute-form targets")
        .refused("another host", target("http://b.test/x"), &[400])
        .refused("another host below", target("http://b.a.test/x"), &[400])
        .refused("user info", target("http://u@a.test/x"), &[400])
        .refused(
            "user info that looks like the host",
            target("http://a.test@b.test/x"),
            &[400],
        )
        .refused("no host", target("http:///x"), &[400])
        .refused("nothing", target("http://"), &[400])
        .refused("another scheme", target("ftp://a.test/x"), &[400, 421])
        .refused(
            "without Host",
            "GET http://a.test/x HTTP/1.1\r\n\r\n",
            &[400],
        )
        .refused("port 0", target("http://a.test:0/x"), &[400])
        .refused("dots", target("http://a.test/../x"), &[400])
        .passed("the same host", target("http://a.test/x?y=1"), PASSED)
        .passed(
            "the same host, spelt otherwise",
            target("HTTP://A.TEST/x?y=1"),
            PASSED,
        )
        .passed(
            "no path",
            target("http://a.test"),
            &[Check::Targets(&["/"])],
        )
        .passed(
            "only a query",
            target("http://a.test?y=1"),
            &[Check::Targets(&["/?y=1"])],
        )
}

fn b11() -> Row {
    let options = |lines: &str| request("OPTIONS * HTTP/1.1", lines, b"");
    row("B11", "targets that are neither path nor URL")
        .refused("b:80", get_target("b:80"), &[400])
        .refused("a.test:80", get_target("a.test:80"), &[400])
        .refused("admin", get_target("admin"), &[400])
        .refused("admin/x", get_target("admin/x"), &[400])
        .refused("?x", get_target("?x"), &[400])
        .refused("*", get_target("*"), &[400])
        .refused(
            "POST *",
            request("POST * HTTP/1.1", "Content-Length: 0\r\n", b""),
            &[400],
        )
        .refused("**", get_target("**"), &[400])
        .refused("*/x", get_target("*/x"), &[400])
        .local("OPTIONS *", options(""), &[200])
        .refused(
            "OPTIONS * for two hosts",
            options("Host: a.test\r\n"),
            &[400],
        )
        .refused("OPTIONS * for nobody", "OPTIONS * HTTP/1.1\r\n\r\n", &[400])
        .refused(
            "OPTIONS * for what is no host",
            "OPTIONS * HTTP/1.1\r\nHost: a,b\r\n\r\n",
            &[400],
        )
}

fn b12() -> Row {
    let line = |method: &str| request(&format!("{method} /v HTTP/1.1"), "", b"");
    row("B12", "methods")
        .refused("TRACE", line("TRACE"), &[405])
        .refused("TRACK", line("TRACK"), &[405])
        .refused(
            "TRACE with a body",
            request("TRACE /v HTTP/1.1", "Content-Length: 2\r\n", b"hi"),
            &[405],
        )
        .passed("get", line("get"), &[Check::Method("get")])
        .passed("Trace", line("Trace"), &[Check::Method("Trace")])
        .passed("PROPFIND", line("PROPFIND"), &[Check::Method("PROPFIND")])
        .passed("M-SEARCH", line("M-SEARCH"), &[Check::Method("M-SEARCH")])
        .refused("40 KiB", line(&"G".repeat(40 * 1024)), &[400])
        .refused("none", " /v HTTP/1.1\r\nHost: a.test\r\n\r\n", &[400])
        .refused("a separator", line("GE(T"), &[400])
        .refused("a byte beyond ASCII", line("G\u{c9}T"), &[400])
}

fn b13() -> Row {
    let connect = |target: &str, lines: &str, rest: &[u8]| {
        request(&format!("CONNECT {target} HTTP/1.1"), lines, rest)
    };
    row("B13", "CONNECT")
        .refused("plain", connect("a.test:443", "", b""), &[405])
        .refused(
            "with a body",
            connect("a.test:443", "Content-Length: 5\r\n", b"hello"),
            &[405],
        )
        .refused(
            "with a tail",
            connect(
                "a.test:80",
                "",
                b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
            ),
            &[405],
        )
        // A malformed target may be told before the method is.
        .refused("a path", connect("/v", "", b""), &[400, 405])
        .refused("a URL", connect("http://a.test/", "", b""), &[400, 405])
        .refused(
            "another port",
            connect("127.0.0.1:22", "", b""),
            &[400, 405],
        )
}

fn b14() -> Row {
    row("B14", "fragments, bytes beyond ASCII, backslashes")
        .refused("only a fragment", get_target("#frag"), &[400])
        .refused("a fragment", get_target("/v#frag"), &[400])
        .refused(
            "a fragment after a query",
            get_target("/v?a=b#frag"),
            &[400],
        )
        .refused("an empty fragment", get_target("/v#"), &[400])
        .refused("UTF-8", get_target("/\u{e9}"), &[400])
        .refused("UTF-8 in the query", get_target("/v?\u{e9}"), &[400])
        .refused(
            "Latin-1",
            b"GET /\xe9 HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
            &[400],
        )
        .refused(
            "0x80",
            b"GET /\x80 HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
            &[400],
        )
        .refused(
            "0xff in the query",
            b"GET /?\xff HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
            &[400],
        )
        .refused("a backslash", get_target("/a\\b"), &[400])
        .refused("a backslash first", get_target("\\v"), &[400])
        .refused(
            "a backslash after the slash",
            get_target("/\\b.test/"),
            &[400],
        )
}

fn b15() -> Row {
    let mut b15 = row("B15", "escapes of controls, broken escapes");
    for target in [
        "/%00",
        "/a%00b",
        "/%0a",
        "/%0d",
        "/%0d%0aX:%20y",
        "/%7f",
        "/%1b",
        "/%zz",
        "/%",
        "/%2",
        "/a%2/b",
        "/%%32",
        "/%u0041",
        "/%-1",
    ] {
        b15 = b15.refused(target, get_target(target), &[400]);
    }
    // A query is the application's own language.
    b15.passed(
        "in a query",
        get_target("/v?a=%00&b=100%&c=%zz"),
        &[Check::Targets(&["/v?a=%00&b=100%&c=%zz"])],
    )
}

fn b16() -> Row {
    let line = |line: &str| request(line, "", b"");
    let mut b16 = row("B16", "what must not stand in a request line");
    for (name, text) in [
        ("a space in the target", "GET /a b HTTP/1.1"),
        ("a tab in the target", "GET /a\tb HTTP/1.1"),
        ("a tab after the method", "GET\t/v HTTP/1.1"),
        ("a tab before the version", "GET /v\tHTTP/1.1"),
        ("two spaces after the method", "GET  /v HTTP/1.1"),
        ("two spaces before the version", "GET /v  HTTP/1.1"),
        ("a space at the end", "GET /v HTTP/1.1 "),
        ("a space at the start", " GET /v HTTP/1.1"),
        ("a tab at the end", "GET /v HTTP/1.1\t"),
        ("a NUL", "GET /a\0b HTTP/1.1"),
        ("DEL", "GET /a\x7fb HTTP/1.1"),
        ("a form feed", "GET\x0c/v HTTP/1.1"),
        ("a vertical tab", "GET /v\x0bHTTP/1.1"),
        ("a carriage return", "GET /a\rb HTTP/1.1"),
        ("no target", "GET  HTTP/1.1"),
        ("only a method", "GET"),
    ] {
        b16 = b16.refused(name, line(text), &[400]);
    }
    for byte in "<>\"{}^`".chars() {
        let name = format!("{byte} in the path");
        b16 = b16.refused(name, get_target(&format!("/a{byte}b")), &[400]);
    }
    for byte in "<>\"".chars() {
        let name = format!("{byte} in the query");
        b16 = b16.refused(name, get_target(&format!("/v?a{byte}b")), &[400]);
    }
    b16.passed(
        "what browsers send in a query",
        get_target("/v?a={b}|c^d`e\\f'[g]"),
        &[Check::Targets(&["/v?a={b}|c^d`e\\f'[g]"])],
    )
}

fn b17() -> Row {
    row("B17", "bare line feeds")
        .refused("everywhere", "GET /v HTTP/1.1\nHost: a.test\n\n", &[400])
        .refused(
            "after the request line",
            "GET /v HTTP/1.1\nHost: a.test\r\n\r\n",
            &[400],
        )
        .refused(
            "after a field",
            "GET /v HTTP/1.1\r\nHost: a.test\nX-A: b\r\n\r\n",
            &[400],
        )
        .refused(
            "at the end",
            "GET /v HTTP/1.1\r\nHost: a.test\r\n\n",
            &[400],
        )
        .refused(
            "at the end, both",
            "GET /v HTTP/1.1\r\nHost: a.test\n\r\n",
            &[400],
        )
        .refused(
            "in a value, making a field",
            post("X-A: b\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            &[400],
        )
        .refused(
            "in a value, making a host",
            get("X-A: b\nHost: b.test\r\n"),
            &[400],
        )
        .refused(
            "before the request line",
            "\nGET /v HTTP/1.1\r\nHost: a.test\r\n\r\n",
            &[400],
        )
}

fn b18() -> Row {
    let mut b18 = row("B18", "fields that are malformed");
    for (name, lines) in [
        ("a carriage return in a value", "X-A: b\rc\r\n"),
        ("a carriage return at the end of a value", "X-A: b\r\r\n"),
        (
            "a carriage return making a field",
            "X-A: b\rHost: b.test\r\n",
        ),
        ("NUL", "X-A: b\0c\r\n"),
        ("0x01", "X-A: b\x01c\r\n"),
        ("ESC", "X-A: b\x1bc\r\n"),
        ("DEL", "X-A: b\x7fc\r\n"),
        ("a folded line, space", "X-A: b\r\n c\r\n"),
        ("a folded line, tab", "X-A: b\r\n\tc\r\n"),
        (
            "a folded Transfer-Encoding",
            "Transfer-Encoding:\r\n chunked\r\n",
        ),
        ("no colon", "X-A\r\n"),
        ("no name", ": b\r\n"),
        ("a space in the name", "X A: b\r\n"),
        ("a space before the colon", "X-A : b\r\n"),
        ("a tab before the colon", "X-A\t: b\r\n"),
        ("a parenthesis in the name", "X(A: b\r\n"),
        ("a slash in the name", "X/A: b\r\n"),
        ("an at sign in the name", "X@A: b\r\n"),
        ("a NUL in the name", "X\0A: b\r\n"),
        ("DEL in the name", "X\x7fA: b\r\n"),
        ("a byte beyond ASCII in the name", "X\u{e9}A: b\r\n"),
    ] {
        b18 = b18.refused(name, get(lines), &[400]);
    }
    b18.refused(
        "a space before the first name",
        "GET /v HTTP/1.1\r\n Host: a.test\r\n\r\n",
        &[400],
    )
    .refused(
        "a folded line before any field",
        "GET /v HTTP/1.1\r\n X-A: b\r\nHost: a.test\r\n\r\n",
        &[400],
    )
    .passed(
        "bytes beyond ASCII and tabs in a value",
        get("X-A: \u{e9}\tc\r\n"),
        &[Check::Field("x-a", "\u{e9}\tc")],
    )
    .passed(
        "an empty value",
        get("X-A:\r\n"),
        &[Check::Field("x-a", "")],
    )
}

fn b19() -> Row {
    let mut b19 = row("B19", "versions, empty lines before a request");
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3.0",
        "http/1.1",
        "HTTP/1.1x",
        "HTTP/1",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1,1",
        "HTP/1.1",
        "HTTP /1.1",
        "HTTP/1.",
        "HTTP/-1.1",
        "HTTPS/1.1",
        "ICAP/1.0",
    ] {
        let line = format!("GET /v {version}");
        b19 = b19.refused(version, request(&line, "", b""), &[400, 505]);
    }
    let empty_lines = |count: usize| join(&["\r\n".repeat(count).as_bytes(), &get("")]);
    b19.refused("no version", "GET /v\r\n\r\n", &[400, 505])
        .refused(
            "no version, fields",
            "GET /v\r\nHost: a.test\r\n\r\n",
            &[400, 505],
        )
        .refused("100 empty lines", empty_lines(100), &[400])
        .passed("1 empty line", empty_lines(1), &[Check::Targets(&["/v"])])
        .passed("2 empty lines", empty_lines(2), &[Check::Targets(&["/v"])])
        .passed(
            "HTTP/1.0",
            request("GET /v HTTP/1.0", "", b""),
            &[Check::Targets(&["/v"])],
        )
}

fn b23() -> Row {
    let early = Act::reply("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").early();
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let expecting = post(
        &format!(
            "Expect: 100-continue\r\nContent-Length: {}\r\n",
            smuggled.len()
        ),
        smuggled,
    );
    row("B23", "expectations")
        .refused(
            "unknown",
            post("Expect: other\r\nContent-Length: 2\r\n", b"hi"),
            &[417],
        )
        .refused("unknown, without a body", get("Expect: other\r\n"), &[417])
        .refused(
            "one known, one not",
            post(
                "Expect: 100-continue, other\r\nContent-Length: 2\r\n",
                b"hi",
            ),
            &[417],
        )
        .special(
            "answered 403 at once, and the body comes anyway",
            Vector::new(
                expecting,
                Expect::Relayed(403, &[Check::Targets(&["/v"]), Check::Closes]),
            )
            .backend(vec![early]),
        )
        .scenario("100, then the body", |stand| {
            Box::pin(super::expectations::continued(stand))
        })
        .scenario("answered 403 at once, and no body comes", |stand| {
            Box::pin(super::expectations::refused_at_once(stand))
        })
        .passed(
            "ignored on HTTP/1.0",
            request(
                "POST /v HTTP/1.0",
                "Expect: 100-continue\r\nContent-Length: 2\r\n",
                b"hi",
            ),
            &[Check::Body(b"hi")],
        )
}
