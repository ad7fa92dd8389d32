//! Hosts and paths: R1 to R12. What has two readings is refused, the rest is matched exactly as it is forwarded.
//!
//! Where the catalogue leaves room:
//! - R1 and R2 may be 400 or one canonical form; the project has decided for 400 (decision 003).
//! - R11, `xn--`: names are compared as they stand and never decoded, so a label that decodes to another tenant's name is
//!   only an unknown host. 404 and 400 are both safe.
//! - R7 has no regular expressions yet.
//! - R8: the path of an Ingress's rewrite is whole, so nothing of the client's can get into it. Rewrites that keep a part are of
//!   the configuration file; their vectors are in `data-plane/src/tests/filters.rs`.

use super::stand::Setup;
use super::vector::{Check, Expect, Row, get_target, join, row};

/// Hosts and paths that could be taken for one another, each with a backend of its own.
pub(crate) fn setup() -> Setup {
    Setup {
        ingresses: vec![
            (
                "",
                vec![
                    ("a.test", "/", "Prefix", "a"),
                    ("a.test", "/admin", "Prefix", "admin"),
                ],
            ),
            (
                "",
                vec![
                    ("e.test", "/foo", "Prefix", "a"),
                    ("e.test", "/exact", "Exact", "a"),
                ],
            ),
            (
                "",
                vec![
                    ("p.test", "/x", "Prefix", "a"),
                    ("p.test", "/x", "Exact", "exact"),
                    ("p.test", "/x/y", "Prefix", "longer"),
                    ("p.test", "/same", "Prefix", "a"),
                    ("p.test", "/i", "ImplementationSpecific", "admin"),
                ],
            ),
            (
                "",
                vec![
                    ("p.test", "/same", "Prefix", "exact"),
                    ("p.test", "/x", "Exact", "longer"),
                ],
            ),
            (
                "",
                vec![
                    ("*.w.test", "/", "Prefix", "wild"),
                    ("named.w.test", "/only", "Prefix", "a"),
                ],
            ),
            (
                "nginx.ingress.kubernetes.io/rewrite-target: /",
                vec![("rewrite.test", "/api", "Prefix", "a")],
            ),
            (
                "nginx.ingress.kubernetes.io/rewrite-target: '//evil.test'",
                vec![("bad-rewrite.test", "/api", "Prefix", "a")],
            ),
            (
                "nginx.ingress.kubernetes.io/force-ssl-redirect: 'true'",
                vec![("redirect.test", "/", "Prefix", "a")],
            ),
        ],
        backends: vec!["a", "admin", "exact", "longer", "wild"],
        certificates: Vec::new(),
        more: String::new(),
    }
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        r1(),
        r2(),
        r3(),
        r4(),
        r5(),
        r6(),
        r7(),
        r8(),
        r9(),
        r10(),
        r11(),
        r12(),
    ]
}

fn at(host: &str, target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

fn refuse(mut row: Row, targets: &[&str]) -> Row {
    for target in targets {
        row = row.refused(*target, get_target(target), &[400]);
    }
    row
}

fn r1() -> Row {
    let r1 = row("R1", "dots");
    let r1 = refuse(
        r1,
        &[
            "/a/../admin",
            "/./admin",
            "/a/%2e%2e/admin",
            "/%2E/",
            "/..",
            "/.",
            "/../admin",
            "/a/..",
            "/a/.",
            "/.%2e/admin",
            "/%2e./admin",
            "/a/%2e%2E",
            "/a/../../../../etc/passwd",
            "/a/..?x",
            "//../admin",
        ],
    );
    r1.passed(
        "dots that are no elements",
        get_target("/.well-known/a..b/...?../.."),
        &[Check::Targets(&["/.well-known/a..b/...?../.."])],
    )
}

fn r2() -> Row {
    let r2 = refuse(
        row("R2", "encoded separators, escapes of escapes"),
        &[
            "/a%2fadmin",
            "/a%2Fadmin",
            "/a%5cadmin",
            "/a%5Cadmin",
            "/%2fadmin",
            "/a/..%2fadmin",
            "/%2e%2e%2fadmin",
        ],
    );
    r2.passed(
        "%252e is never decoded twice",
        get_target("/%252e%252e/admin"),
        &[Check::Backend("a"), Check::Targets(&["/%252e%252e/admin"])],
    )
    .passed(
        "%252f",
        get_target("/a%252fadmin"),
        &[Check::Backend("a"), Check::Targets(&["/a%252fadmin"])],
    )
}

fn r3() -> Row {
    row("R3", "empty elements are kept")
        .passed(
            "//admin",
            get_target("//admin"),
            &[Check::Backend("a"), Check::Targets(&["//admin"])],
        )
        .passed("/a//b", get_target("/a//b"), &[Check::Targets(&["/a//b"])])
        .passed("///", get_target("///"), &[Check::Targets(&["///"])])
        .passed(
            "/admin//x",
            get_target("/admin//x"),
            &[Check::Backend("admin"), Check::Targets(&["/admin//x"])],
        )
        .passed(
            "//b.test/x is a path",
            get_target("//b.test/x"),
            &[Check::Host("a.test"), Check::Targets(&["//b.test/x"])],
        )
}

fn r4() -> Row {
    refuse(
        row("R4", "dots with parameters"),
        &[
            "/public/..;/admin",
            "/..;",
            "/.;x/",
            "/a/..;x=y/admin",
            "/a/%2e%2e;/admin",
            "/a/..%3b/admin",
            "/%2e%2e%3Bx/admin",
            "/a/.%3b",
        ],
    )
}

fn r5() -> Row {
    row("R5", "case, needless escapes")
        .passed(
            "/ADMIN",
            get_target("/ADMIN"),
            &[Check::Backend("a"), Check::Targets(&["/ADMIN"])],
        )
        .passed(
            "/%61dmin",
            get_target("/%61dmin"),
            &[Check::Backend("admin"), Check::Targets(&["/admin"])],
        )
        .passed(
            "/%61%64%6D%69%6e/%7Ex",
            get_target("/%61%64%6D%69%6e/%7Ex"),
            &[Check::Backend("admin"), Check::Targets(&["/admin/~x"])],
        )
        .passed(
            "escapes in upper case",
            get_target("/%c3%a9"),
            &[Check::Targets(&["/%C3%A9"])],
        )
}

fn r6() -> Row {
    let to = |target: &str| at("e.test", target);
    const FOUND: &[Check] = &[Check::Backend("a")];
    row("R6", "elements, trailing slashes")
        .local("Prefix /foo on /foobar", to("/foobar"), &[404])
        .local("Prefix /foo on /fo", to("/fo"), &[404])
        .passed("Prefix /foo on /foo", to("/foo"), FOUND)
        .passed(
            "Prefix /foo on /foo/",
            to("/foo/"),
            &[Check::Targets(&["/foo/"])],
        )
        .passed(
            "Prefix /foo on /foo?x",
            to("/foo?x"),
            &[Check::Targets(&["/foo?x"])],
        )
        .passed("Prefix /foo on /foo/bar", to("/foo/bar"), FOUND)
        .local("Exact /exact on /exact/", to("/exact/"), &[404])
        .local("Exact /exact on /exact/x", to("/exact/x"), &[404])
        .passed("Exact /exact on /exact?x", to("/exact?x"), FOUND)
        .local("Prefix /foo on /foo%3Fx", to("/foo%3Fx"), &[404])
        .local("Prefix /foo on /foo;x", to("/foo;x"), &[404])
}

fn r8() -> Row {
    let to = |target: &str| at("rewrite.test", target);
    let root = &[Check::Targets(&["/"]), Check::Host("rewrite.test")];
    let r8 = row("R8", "rewrites")
        .passed("the whole path", to("/api/x"), root)
        .passed("a host behind the prefix", to("/api//evil.test/x"), root)
        .passed(
            "the query stays",
            to("/api?x=//evil.test"),
            &[Check::Targets(&["/?x=//evil.test"])],
        )
        .passed(
            "a target that names a host is not used",
            at("bad-rewrite.test", "/api/x"),
            &[Check::Targets(&["/api/x"])],
        );
    let refused = ["/api/../x", "/api/%2e%2e", "/api%0d%0aX:%20y"];
    refused
        .iter()
        .fold(r8, |r8, target| r8.refused(*target, to(target), &[400]))
}

fn r9() -> Row {
    const TO_HOST: Expect = Expect::Elsewhere(308, "https://redirect.test/x?y");
    let request = |line: &str, fields: &str| {
        format!("{line} HTTP/1.1\r\nHost: redirect.test\r\n{fields}\r\n").into_bytes()
    };
    row("R9", "redirects lead to the same host")
        .vector("a path", request("GET /x?y", ""), TO_HOST)
        .vector(
            "POST",
            request("POST /x?y", "Content-Length: 0\r\n"),
            TO_HOST,
        )
        .vector(
            "fields that name another host",
            request(
                "GET /x?y",
                "X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: https\r\nForwarded: host=evil.test\r\n",
            ),
            TO_HOST,
        )
        .vector(
            "a port",
            at("redirect.test:80", "/x?y"),
            TO_HOST,
        )
        .vector(
            "a host as path",
            request("GET //evil.test", ""),
            Expect::Elsewhere(308, "https://redirect.test//evil.test"),
        )
        .refused("a host that is another", at("redirect.test@evil.test", "/"), &[400])
        .refused("a line in the path", request("GET /%0d%0aX:%20y", ""), &[400])
        .passed(
            "a challenge is served",
            request("GET /.well-known/acme-challenge/x", ""),
            &[Check::Targets(&["/.well-known/acme-challenge/x"])],
        )
}

fn r7() -> Row {
    let to = |target: &str| at("p.test", target);
    row("R7", "exact, then longest, then oldest")
        .passed("exact before prefix", to("/x"), &[Check::Backend("exact")])
        .passed(
            "prefix where exact does not match",
            to("/x/"),
            &[Check::Backend("a")],
        )
        .passed("the longer prefix", to("/x/y"), &[Check::Backend("longer")])
        .passed(
            "the longer prefix, below",
            to("/x/y/z"),
            &[Check::Backend("longer")],
        )
        .passed("not the longer prefix", to("/x/yz"), &[Check::Backend("a")])
        .passed(
            "of two equal ones the older",
            to("/same"),
            &[Check::Backend("a")],
        )
        .passed(
            "ImplementationSpecific",
            to("/i/x"),
            &[Check::Backend("admin")],
        )
}

fn r10() -> Row {
    row("R10", "tables of many hosts, against a naive search")
        .scenario("1 host", |_| Box::pin(super::many_hosts::agrees(1, 300)))
        .scenario("99 hosts", |_| {
            Box::pin(super::many_hosts::agrees(99, 1_000))
        })
        .scenario("101 hosts", |_| {
            Box::pin(super::many_hosts::agrees(101, 1_000))
        })
        .scenario("10,000 hosts", |_| {
            Box::pin(super::many_hosts::agrees(10_000, 2_000))
        })
}

fn r11() -> Row {
    let labels = |length: usize, count: usize| vec!["a".repeat(length); count].join(".");
    // 63 + 1 + 63 + 1 + 63 + 1 + 61 = 253, the longest name there is.
    let longest = format!("{}.{}", labels(63, 3), labels(61, 1));
    row("R11", "names that are too long, or not ASCII")
        .refused(
            "a label of 64 bytes",
            at(&format!("{}.test", labels(64, 1)), "/"),
            &[400],
        )
        .local(
            "a label of 63 bytes",
            at(&format!("{}.test", labels(63, 1)), "/"),
            &[404],
        )
        .refused(
            "a name of 254 bytes",
            at(&format!("{}.{}", labels(63, 3), labels(62, 1)), "/"),
            &[400],
        )
        .local("a name of 253 bytes", at(&longest, "/"), &[404])
        .local(
            "a name of 253 bytes, dot and port",
            at(&format!("{longest}.:80"), "/"),
            &[404],
        )
        .refused("4 KiB of labels", at(&labels(10, 400), "/"), &[400])
        .refused("unicode", at("\u{e4}.test", "/"), &[400])
        .refused("a full-width letter", at("\u{ff41}.test", "/"), &[400])
        .refused("an ideographic full stop", at("a\u{3002}test", "/"), &[400])
        .refused("a soft hyphen", at("a\u{ad}.test", "/"), &[400])
        .refused("a Kelvin sign", at("\u{212a}.test", "/"), &[400])
        .local(
            "xn-- that decodes to ASCII",
            at("xn--a-.test", "/"),
            &[400, 404],
        )
        .local("xn-- with nothing", at("xn--.test", "/"), &[400, 404])
        .local(
            "xn-- in the suffix of a wildcard",
            at("x.xn--w-.test", "/"),
            &[400, 404],
        )
}

fn r12() -> Row {
    const NOT_FOUND: &[u16] = &[404];
    row("R12", "wildcards, unknown hosts and paths")
        .passed("one label", at("x.w.test", "/"), &[Check::Backend("wild")])
        .passed(
            "one label, upper case",
            at("X.W.TEST", "/"),
            &[Check::Backend("wild")],
        )
        .local("no label", at("w.test", "/"), NOT_FOUND)
        .refused("an empty label", at(".w.test", "/"), &[400])
        .local("two labels", at("x.y.w.test", "/"), NOT_FOUND)
        .local("no dot between", at("xw.test", "/"), NOT_FOUND)
        .refused("a star", at("*.w.test", "/"), &[400])
        .passed(
            "a name hides the wildcard",
            at("named.w.test", "/only"),
            &[Check::Backend("a")],
        )
        .local(
            "and never falls back to it",
            at("named.w.test", "/x"),
            NOT_FOUND,
        )
        .local("an unknown host", at("nobody.test", "/"), NOT_FOUND)
        .local("an unknown path", at("e.test", "/"), NOT_FOUND)
        .local("a host below a known one", at("x.a.test", "/"), NOT_FOUND)
        .local(
            "a known host with a suffix",
            at("a.test.evil.test", "/"),
            NOT_FOUND,
        )
        .vector(
            "two tenants on one connection",
            join(&[&at("a.test", "/one"), &at("x.w.test", "/two")]),
            Expect::Passed(2, &[Check::Targets(&["/one", "/two"])]),
        )
}
