//! HTTP/2 requests: D1 to D11. Frames are in `http2_frames`, floods in `http2_floods`.
//!
//! Where the catalogue leaves room:
//! - A malformed request may be reset, or be answered 400 (RFC 9113 section 8.1.1 allows both).
//! - D7, white space around a value: trimmed, or refused as malformed (RFC 9113 section 8.2.1); never passed on.
//! - D8, more DATA in a second frame: the first may be a whole body upstream before the second is there. Then that request
//!   stands as it was announced; what is too much goes nowhere.
//! - D11, `content-length` and `host` in trailers: reset, or dropped; never merged.

use super::http2_runner::{At, Case, Expect, Scenario, Transport, Vector};
use super::vector::{self, Check};
use std::rc::Rc;
use test_support::h2_raw::{self, END_HEADERS, END_STREAM, block, headers, kind};

/// A row of the catalogue, over any transport.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) about: &'static str,
    pub(crate) flags: Vec<&'static str>,
    pub(crate) cases: Vec<(String, Case)>,
}

/// A row without vectors.
pub(crate) fn row(id: &'static str, about: &'static str) -> Row {
    Row {
        id,
        about,
        flags: Vec::new(),
        cases: Vec::new(),
    }
}

impl Row {
    /// The row over this transport.
    pub(crate) fn over(self, transport: Transport) -> vector::Row {
        let mut row = vector::row(self.id, self.about);
        row.flags = self.flags;
        let cases = self.cases.into_iter();
        row.cases = cases
            .map(|(name, case)| vector::Case {
                name,
                kind: vector::Kind::Http2(case, transport),
            })
            .collect();
        row
    }

    pub(crate) fn vector(
        mut self,
        name: impl Into<String>,
        expect: Expect,
        bytes: impl Fn(At) -> Vec<u8> + 'static,
    ) -> Self {
        let bytes = Rc::new(bytes);
        self.cases
            .push((name.into(), Case::Vector(Vector { bytes, expect })));
        self
    }

    pub(crate) fn scenario(mut self, name: &str, scenario: Scenario) -> Self {
        self.cases.push((name.to_owned(), Case::Scenario(scenario)));
        self
    }
}

const MALFORMED: Expect = Expect::Refused(&[400]);
const BAD_REQUEST: Expect = Expect::Status(&[400]);

pub(crate) fn rows() -> Vec<Row> {
    vec![
        d1(),
        d2(),
        d3(),
        d4(),
        d5(),
        d6(),
        d7(),
        d8(),
        d9(),
        d10(),
        d11(),
    ]
}

fn with_path(path: &'static str) -> impl Fn(At) -> Vec<u8> {
    move |at| headers(at.stream, true, &at.block("GET", path, &[]))
}

fn with_authority(authority: &'static [u8]) -> impl Fn(At) -> Vec<u8> {
    move |at| {
        at.only(&[
            (":method", &b"GET"[..]),
            (":scheme", at.scheme.as_bytes()),
            (":path", b"/v"),
            (":authority", authority),
        ])
    }
}

fn d1() -> Row {
    let mut d1 = row("D1", "pseudo-fields");
    for path in [
        "v",
        "http://a.test/v",
        "https://b.test/v",
        "",
        "/a b",
        "/a\tb",
        "/a\r\nX-A: b",
        "/a\0b",
        "/a\nb",
        "*",
        "/\u{e9}",
    ] {
        d1 = d1.vector(format!(":path {path:?}"), MALFORMED, with_path(path));
    }
    let names = [":method", ":scheme", ":path", ":authority"];
    for missing in [":method", ":scheme", ":path"] {
        d1 = d1.vector(format!("no {missing}"), MALFORMED, move |at| {
            let values = ["GET", at.scheme, "/v", "a.test"];
            let fields = names
                .into_iter()
                .zip(values)
                .filter(|(name, _)| *name != missing);
            at.only(&fields.collect::<Vec<_>>())
        });
    }
    for (twice, value) in [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/w"),
        (":authority", "a.test"),
    ] {
        d1 = d1.vector(format!("{twice} twice"), MALFORMED, move |at| {
            at.get(&[(twice, value)])
        });
    }
    d1.vector("an unknown one", MALFORMED, |at| at.get(&[(":other", "x")]))
        .vector(":status", MALFORMED, |at| at.get(&[(":status", "200")]))
        .vector("a late one", MALFORMED, |at| {
            at.only(&[
                (":method", "GET"),
                (":scheme", at.scheme),
                (":authority", "a.test"),
                ("x-a", "b"),
                (":path", "/v"),
            ])
        })
        .vector("an empty method", MALFORMED, |at| {
            headers(at.stream, true, &at.block("", "/v", &[]))
        })
        .vector("no fields at all", MALFORMED, |at| {
            headers(at.stream, true, b"")
        })
}

fn d2() -> Row {
    row("D2", ":path with a fragment")
        .vector("a fragment", MALFORMED, with_path("/v#frag"))
        .vector("after a query", MALFORMED, with_path("/v?a=b#frag"))
        .vector("an empty fragment", MALFORMED, with_path("/v#"))
        .vector("in the Huffman code", MALFORMED, |at| {
            // `/v#`, in place of the `/` of the static table, which is the last field of this block.
            let mut block = block(&[
                (":method", "GET"),
                (":scheme", at.scheme),
                (":authority", "a.test"),
            ]);
            block.extend_from_slice(b"\x04\x84\x63\xbf\xfd\x7f");
            headers(at.stream, true, &block)
        })
        .vector("in two frames", MALFORMED, |at| {
            let block = at.block("GET", "/v#frag", &[]);
            let (first, second) = block.split_at(block.len() - 24);
            [
                h2_raw::frame(kind::HEADERS, END_STREAM, at.stream, first),
                h2_raw::frame(kind::CONTINUATION, END_HEADERS, at.stream, second),
            ]
            .concat()
        })
}

fn d3() -> Row {
    let mut d3 = row("D3", "no authority, or one that is none").vector("none", BAD_REQUEST, |at| {
        at.only(&[(":method", "GET"), (":scheme", at.scheme), (":path", "/v")])
    });
    for authority in [
        &b"a.test,b.test"[..],
        b"u@a.test",
        b"",
        b"a test",
        b"a.test/x",
        b"a.test:0",
        b"a.test:99999",
        b"a\xe9.test",
        b"a..test",
        b"[::1",
        b"a.test#x",
    ] {
        let name = format!(":authority {}", authority.escape_ascii());
        d3 = d3.vector(name, MALFORMED, with_authority(authority));
    }
    d3
}

fn d4() -> Row {
    const ONE: &[Check] = &[Check::Host("a.test")];
    let only_host = |hosts: &'static [&'static str]| {
        move |at: At| {
            let mut fields = vec![(":method", "GET"), (":scheme", at.scheme), (":path", "/v")];
            fields.extend(hosts.iter().map(|host| ("host", *host)));
            at.only(&fields)
        }
    };
    row("D4", ":authority beside host")
        .vector("they differ", BAD_REQUEST, |at| {
            at.get(&[("host", "b.test")])
        })
        .vector("an empty host", MALFORMED, |at| at.get(&[("host", "")]))
        .vector("two hosts", MALFORMED, |at| {
            at.get(&[("host", "a.test"), ("host", "a.test")])
        })
        .vector("two hosts that differ", MALFORMED, |at| {
            at.get(&[("host", "a.test"), ("host", "b.test")])
        })
        .vector(
            "two hosts and no authority",
            MALFORMED,
            only_host(&["a.test", "b.test"]),
        )
        .vector("equal ones", Expect::Passed(ONE), |at| {
            at.get(&[("host", "a.test")])
        })
        .vector("equal, spelt otherwise", Expect::Passed(ONE), |at| {
            at.get(&[("host", "A.TEST.")])
        })
        .vector("only a host", Expect::Passed(ONE), only_host(&["a.test"]))
}

fn d5() -> Row {
    let with_scheme = |scheme: &'static str| {
        move |at: At| {
            at.only(&[
                (":method", "GET"),
                (":scheme", scheme),
                (":path", "/v"),
                (":authority", "a.test"),
            ])
        }
    };
    let with_method =
        |method: &'static str| move |at: At| headers(at.stream, true, &at.block(method, "/v", &[]));
    row("D5", "schemes and methods")
        .vector("a URL", MALFORMED, with_scheme("https://evil.test/"))
        .vector("ftp", Expect::Refused(&[400, 421]), with_scheme("ftp"))
        .vector("empty", MALFORMED, with_scheme(""))
        .vector(
            "that of the other port",
            Expect::Refused(&[400, 421]),
            |at| {
                let other = if at.scheme == "https" {
                    "http"
                } else {
                    "https"
                };
                at.only(&[
                    (":method", "GET"),
                    (":scheme", other),
                    (":path", "/v"),
                    (":authority", "a.test"),
                ])
            },
        )
        .vector(
            "a method with CRLF",
            MALFORMED,
            with_method("GET /evil HTTP/1.1\r\nHost: b.test\r\n\r\nGET"),
        )
        .vector("a method with a space", MALFORMED, with_method("GET /"))
        .vector("TRACE", Expect::Status(&[405]), with_method("TRACE"))
        .vector("TRACK", Expect::Status(&[405]), with_method("TRACK"))
}

fn d6() -> Row {
    let mut d6 = row("D6", "names, values, fields of HTTP/1.1 connections");
    for (name, value) in [
        (&b"X-Upper"[..], &b"a"[..]),
        (b"", b"a"),
        (b"x:y", b"a"),
        (b"x y", b"a"),
        (b"x\0y", b"a"),
        (b"x\ny", b"a"),
        (b"x\x80y", b"a"),
        (b"x-a", b"b\rc"),
        (b"x-a", b"b\nc"),
        (b"x-a", b"b\r\nx-b: c"),
        (b"x-a", b"b\0c"),
        (b"connection", b"close"),
        (b"connection", b"x-a"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"te", b"trailers, gzip"),
        (b"transfer-encoding", b"chunked"),
    ] {
        let title = format!("{}: {}", name.escape_ascii(), value.escape_ascii());
        d6 = d6.vector(title, MALFORMED, move |at| {
            at.only(&[
                (&b":method"[..], &b"GET"[..]),
                (b":scheme", at.scheme.as_bytes()),
                (b":path", b"/v"),
                (b":authority", b"a.test"),
                (name, value),
            ])
        });
    }
    d6.vector(
        "te: trailers is fine",
        Expect::Passed(&[Check::NoField("transfer-encoding")]),
        |at| at.get(&[("te", "trailers")]),
    )
}

fn d7() -> Row {
    const TRIMMED: &[Check] = &[
        Check::NotUpstream(b"  spaced"),
        Check::NotUpstream(b"spaced "),
        Check::NotUpstream(b"\tspaced"),
        Check::Field("x-a", "spaced"),
    ];
    let trimmed = || Expect::Either(Box::new(Expect::Passed(TRIMMED)), Box::new(MALFORMED));
    row("D7", "white space around values, cookie crumbs")
        .vector("spaces", trimmed(), |at| at.get(&[("x-a", "  spaced  ")]))
        .vector("tabs", trimmed(), |at| at.get(&[("x-a", "\tspaced\t")]))
        .vector(
            "three crumbs",
            Expect::Passed(&[Check::Field("cookie", "a=1; b=2; c=3")]),
            |at| {
                at.get(&[
                    ("cookie", "a=1"),
                    ("x-a", "b"),
                    ("cookie", "b=2"),
                    ("cookie", "c=3"),
                ])
            },
        )
}

fn d8() -> Row {
    const CUT: Expect = Expect::Aborted(&[400]);
    const EXACT: &[Check] = &[Check::NotUpstream(b"!")];
    let with = |lengths: &'static [&'static str], body: &'static [u8]| {
        move |at: At| {
            let fields: Vec<_> = lengths
                .iter()
                .map(|length| ("content-length", *length))
                .collect();
            [at.post(&fields), at.data(true, body)].concat()
        }
    };
    row("D8", "content-length")
        .vector("two that differ", CUT, with(&["2", "3"], b"hi"))
        .vector("a list", CUT, with(&["2, 3"], b"hi"))
        .vector("a plus", CUT, with(&["+2"], b"hi"))
        .vector("a minus", CUT, with(&["-2"], b"hi"))
        .vector("empty", CUT, with(&[""], b"hi"))
        .vector("2^64", CUT, with(&["18446744073709551616"], b"hi"))
        .vector("more DATA", CUT, with(&["1"], b"hi"))
        .vector("less DATA", CUT, with(&["3"], b"hi"))
        .vector("more DATA in a second frame", Expect::Stands(EXACT), |at| {
            [
                at.post(&[("content-length", "2")]),
                at.data(false, b"hi"),
                at.data(true, b"!"),
            ]
            .concat()
        })
        .vector("with END_STREAM", MALFORMED, |at| {
            headers(
                at.stream,
                true,
                &at.block("POST", "/v", &[("content-length", "2")]),
            )
        })
        .vector(
            "the right one",
            Expect::Passed(&[Check::Body(b"hi"), Check::Field("content-length", "2")]),
            with(&["2"], b"hi"),
        )
}

fn d9() -> Row {
    let arrives = || {
        Expect::Either(
            Box::new(Expect::Passed(&[Check::Body(b"hi")])),
            Box::new(BAD_REQUEST),
        )
    };
    let with = |method: &'static str| {
        move |at: At| {
            [
                headers(at.stream, false, &at.block(method, "/v", &[])),
                at.data(true, b"hi"),
            ]
            .concat()
        }
    };
    row("D9", "DATA without a length")
        .vector("GET", arrives(), with("GET"))
        .vector("DELETE", arrives(), with("DELETE"))
        .vector("POST", Expect::Passed(&[Check::Body(b"hi")]), with("POST"))
        .vector(
            "GET with an empty DATA",
            Expect::Passed(&[Check::Body(b"")]),
            |at| {
                [
                    headers(at.stream, false, &at.block("GET", "/v", &[])),
                    at.data(true, b""),
                ]
                .concat()
            },
        )
}

fn d10() -> Row {
    const NO: Expect = Expect::Refused(&[405]);
    let connect = |more: &[(&str, &str)]| {
        let mut fields = vec![(":method", "CONNECT"), (":authority", "a.test:80")];
        fields.extend_from_slice(more);
        block(&fields)
    };
    row("D10", "CONNECT")
        .vector("with DATA", NO, move |at| {
            [
                headers(at.stream, false, &connect(&[])),
                at.data(true, b"hello"),
            ]
            .concat()
        })
        .vector("without", NO, move |at| {
            headers(at.stream, true, &connect(&[]))
        })
        .vector("with a length", Expect::Refused(&[]), move |at| {
            headers(at.stream, false, &connect(&[("content-length", "5")]))
        })
        .vector(
            "with :path and :scheme",
            Expect::Refused(&[400, 405]),
            |at| headers(at.stream, true, &at.block("CONNECT", "/v", &[])),
        )
        .vector(
            "extended, without a version of WebSocket",
            Expect::Refused(&[400, 426]),
            |at| {
                headers(
                    at.stream,
                    false,
                    &at.block("CONNECT", "/v", &[(":protocol", "websocket")]),
                )
            },
        )
}

fn d11() -> Row {
    const KEPT_APART: &[Check] = &[
        Check::Body(b"hi"),
        Check::NotUpstream(b"evil"),
        Check::NoTrailer("content-length"),
        Check::NoTrailer("host"),
    ];
    let kept_apart = || {
        Expect::Either(
            Box::new(Expect::Aborted(&[400])),
            Box::new(Expect::Passed(KEPT_APART)),
        )
    };
    let with = |name: &'static str, value: &'static str, end: bool| {
        move |at: At| {
            let trailers = headers(at.stream, end, &block(&[(name, value)]));
            [at.post(&[]), at.data(false, b"hi"), trailers].concat()
        }
    };
    row("D11", "trailers")
        .vector(
            "a pseudo-field",
            Expect::Aborted(&[400]),
            with(":path", "/evil", true),
        )
        .vector(
            ":authority",
            Expect::Aborted(&[400]),
            with(":authority", "evil.test", true),
        )
        .vector(
            "without END_STREAM",
            Expect::Aborted(&[400]),
            with("x-t", "1", false),
        )
        .vector(
            "content-length",
            kept_apart(),
            with("content-length", "40", true),
        )
        .vector("host", kept_apart(), with("host", "evil.test", true))
        .vector(
            "transfer-encoding",
            kept_apart(),
            with("transfer-encoding", "evil", true),
        )
        .vector(
            "x-forwarded-for",
            kept_apart(),
            with("x-forwarded-for", "evil", true),
        )
        .vector(
            "an innocent one",
            Expect::Passed(&[Check::Body(b"hi")]),
            with("x-t", "1", true),
        )
}
