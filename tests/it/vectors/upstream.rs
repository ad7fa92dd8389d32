//! What a backend may not do to a client, or to the next one: U1 to U9.
//!
//! Where the catalogue leaves room:
//! - An unusable answer is 502 on a connection that may go on: the client did nothing wrong. What ends is the backend's
//!   connection.
//! - U3, an answer that breaks off before any of it went on may also be 502, or a close without a word. Both tell the client
//!   that there is no answer.
//! - U9 wants `Server` stripped like `Alt-Svc`: it names software behind us, as nginx hides it by default. Ours stands there.

use super::vector::{Check, Expect, Row, Vector, get, post, request, row};
use std::time::Duration;
use test_support::recorder::Act;

pub(crate) fn rows() -> Vec<Row> {
    vec![u6(), u7(), u1(), u2(), u3(), u4(), u5(), u8(), u9()]
}

const BAD: Expect = Expect::BadUpstream(&[502]);

fn reply(head: &str) -> Act {
    Act::reply(format!("HTTP/1.1 {head}\r\n\r\n"))
}

fn with_body(head: &str, body: &str) -> Act {
    Act::reply(format!("HTTP/1.1 {head}\r\n\r\n{body}"))
}

fn u1() -> Row {
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    let mut u1 = row("U1", "answers whose end is ambiguous");
    for (name, lines) in [
        (
            "length and coding",
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
        ),
        (
            "coding and length",
            "Transfer-Encoding: chunked\r\nContent-Length: 12",
        ),
        ("gzip", "Transfer-Encoding: gzip"),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked"),
        (
            "two lines of chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        ("xchunked", "Transfer-Encoding: xchunked"),
        ("an empty coding", "Transfer-Encoding:"),
        (
            "lengths that differ",
            "Content-Length: 2\r\nContent-Length: 12",
        ),
        ("length -1", "Content-Length: -1"),
        ("length +2", "Content-Length: +2"),
        ("length 0x2", "Content-Length: 0x2"),
        ("an empty length", "Content-Length:"),
        ("length 2^64", "Content-Length: 18446744073709551616"),
        ("a list of lengths that differ", "Content-Length: 2, 12"),
    ] {
        u1 = u1.upstream(name, with_body(&format!("200 OK\r\n{lines}"), chunks), BAD);
    }
    u1.upstream(
        "chunked on HTTP/1.0",
        Act::reply(format!(
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        )),
        BAD,
    )
}

fn u2() -> Row {
    const EMPTY: &[Check] = &[
        Check::AnswerBody(b""),
        Check::AnswerNoField("transfer-encoding"),
    ];
    let head = || request("HEAD /v HTTP/1.1", "", b"");
    row("U2", "bodies where there is none")
        .upstream(
            "204 with a body",
            with_body("204 No Content\r\nContent-Length: 4", "evil"),
            Expect::Relayed(204, EMPTY),
        )
        .upstream(
            "204 with chunks",
            with_body(
                "204 No Content\r\nTransfer-Encoding: chunked",
                "4\r\nevil\r\n0\r\n\r\n",
            ),
            Expect::Relayed(204, EMPTY),
        )
        .upstream(
            "204 with an answer behind it",
            with_body(
                "204 No Content",
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ),
            Expect::Relayed(204, EMPTY),
        )
        .upstream(
            "304 with a body",
            with_body("304 Not Modified\r\nContent-Length: 4", "evil"),
            Expect::Relayed(304, &[Check::AnswerBody(b"")]),
        )
        .special(
            "HEAD with a body",
            Vector::new(
                head(),
                Expect::Relayed(
                    200,
                    &[
                        Check::AnswerBody(b""),
                        Check::AnswerField("content-length", "4"),
                    ],
                ),
            )
            .head()
            .backend(vec![with_body("200 OK\r\nContent-Length: 4", "evil")]),
        )
        .special(
            "HEAD with chunks",
            Vector::new(head(), Expect::Relayed(200, &[Check::AnswerBody(b"")]))
                .head()
                .backend(vec![with_body(
                    "200 OK\r\nTransfer-Encoding: chunked",
                    "4\r\nevil\r\n0\r\n\r\n",
                )]),
        )
        .special(
            "HEAD with a length and no body",
            Vector::new(
                head(),
                Expect::Relayed(200, &[Check::AnswerField("content-length", "4000")]),
            )
            .head()
            .backend(vec![reply("200 OK\r\nContent-Length: 4000")]),
        )
}

fn u3() -> Row {
    let chunked = "200 OK\r\nTransfer-Encoding: chunked";
    row("U3", "answers that are cut short")
        .upstream(
            "shorter than its length",
            with_body("200 OK\r\nContent-Length: 100", "half").close(),
            Expect::CutShort,
        )
        .upstream(
            "inside a chunk",
            with_body(chunked, "64\r\nhalf").close(),
            Expect::CutShort,
        )
        .upstream(
            "between chunks",
            with_body(chunked, "4\r\nhalf\r\n").close(),
            Expect::CutShort,
        )
        .upstream(
            "inside a chunk size",
            with_body(chunked, "4\r\nhalf\r\n1").close(),
            Expect::CutShort,
        )
        .upstream(
            "inside the trailers",
            with_body(chunked, "4\r\nhalf\r\n0\r\nX-T: 1").close(),
            Expect::CutShort,
        )
        .upstream(
            "a malformed chunk size",
            with_body(chunked, "4\r\nhalf\r\nxyz\r\n"),
            Expect::CutShort,
        )
        .upstream(
            "a chunk longer than its size",
            with_body(chunked, "4\r\nhalf too much\r\n0\r\n\r\n"),
            Expect::CutShort,
        )
        .upstream(
            "a reset in the middle",
            with_body("200 OK\r\nContent-Length: 100", "half")
                .pause(Duration::from_millis(20))
                .reset(),
            Expect::CutShort,
        )
        .upstream(
            "a reset where only the close would be the end",
            with_body("200 OK\r\nConnection: close", "half")
                .pause(Duration::from_millis(20))
                .reset(),
            Expect::CutShort,
        )
        .special(
            "silence in the middle",
            Vector::new(
                "GET /v HTTP/1.1\r\nHost: slow.test\r\n\r\n",
                Expect::CutShort,
            )
            .first_only()
            .backend(vec![with_body("200 OK\r\nContent-Length: 100", "half")]),
        )
}

fn u4() -> Row {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
    const GOOD: Expect = Expect::Relayed(200, &[Check::AnswerBody(b"good")]);
    row("U4", "answers that nobody asked for")
        .upstream(
            "a second one in the same write",
            Act::reply(format!("{good}{evil}")),
            GOOD,
        )
        .upstream(
            "half of one behind the first",
            Act::reply(format!("{good}HTTP/1.1 200 O")),
            GOOD,
        )
        .upstream(
            "a byte behind the first",
            Act::reply(format!("{good}\0")),
            GOOD,
        )
        .upstream(
            "one behind the last chunk",
            Act::reply(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{evil}"
            )),
            GOOD,
        )
        .scenario("one on a connection at rest", |stand| {
            Box::pin(super::backends::at_rest(stand))
        })
        .scenario(
            "an early 413, and its connection is not used again",
            |stand| Box::pin(super::backends::early_answer(stand)),
        )
}

fn u5() -> Row {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    row("U5", "101 that nobody asked for")
        .upstream("alone", Act::reply(switching), BAD)
        .upstream(
            "with bytes behind it",
            Act::reply(format!("{switching}evil")),
            BAD,
        )
        .upstream(
            "h2c",
            reply("101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c"),
            BAD,
        )
        .upstream("without fields", reply("101 Switching Protocols"), BAD)
        .special(
            "after a POST",
            Vector::new(post("Content-Length: 2\r\n", b"hi"), BAD)
                .backend(vec![Act::reply(switching)]),
        )
        .special(
            "after an upgrade that was not passed on",
            Vector::new(get("Connection: upgrade\r\nUpgrade: foo\r\n"), BAD)
                .backend(vec![Act::reply(switching)]),
        )
}

fn u6() -> Row {
    let hints = |count: usize| "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(count);
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const OK: Expect = Expect::Relayed(200, &[Check::AnswerBody(b"ok")]);
    let mut u6 = row("U6", "status lines")
        .upstream("one 103", Act::reply(hints(1) + ok), OK)
        .upstream("50 x 103", Act::reply(hints(50) + ok), OK)
        .upstream(
            "100 without being asked",
            Act::reply(format!("HTTP/1.1 100 Continue\r\n\r\n{ok}")),
            OK,
        )
        .upstream("10,000 x 103", Act::reply(hints(10_000) + ok), BAD)
        .upstream("101 x 103", Act::reply(hints(101) + ok), BAD)
        .upstream(
            "HTTP/1.0",
            Act::reply("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").close(),
            OK,
        );
    for line in [
        "HTTP/1.1 099 Low",
        "HTTP/1.1 000 Zero",
        "HTTP/1.1 600 High",
        "HTTP/1.1 999 High",
        "HTTP/1.1 20 Short",
        "HTTP/1.1 2000 Long",
        "HTTP/1.1 abc Letters",
        "HTTP/1.1 +20 Plus",
        "HTTP/1.1  200 Spaces",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1\t200 OK",
        "ICY 200 OK",
        "HTTP/1.1",
    ] {
        u6 = u6.upstream(
            line,
            Act::reply(format!("{line}\r\nContent-Length: 2\r\n\r\nok")),
            BAD,
        );
    }
    u6
}

fn u7() -> Row {
    let length = "Content-Length: 2";
    let field = |line: &str| with_body(&format!("200 OK\r\n{length}\r\n{line}"), "ok");
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let slow = |act: Act| {
        let expect = Expect::BadUpstream(&[504]);
        Vector::new("GET /v HTTP/1.1\r\nHost: slow.test\r\n\r\n", expect)
            .first_only()
            .backend(vec![act])
    };
    row("U7", "heads that are malformed, large or slow")
        .special(
            "a head without end",
            slow(Act::drip(
                "HTTP/1.1 200 OK\r\nX-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
                Duration::from_millis(50),
            )),
        )
        .special("no answer", slow(Act::silence()))
        .special("half a status line", slow(Act::reply("HTTP/1.1 20")))
        .upstream("a folded line", field("X-A: b\r\n c"), BAD)
        .upstream("a carriage return in a value", field("X-A: b\rc"), BAD)
        .upstream(
            "a carriage return making a field",
            field("X-A: b\rSet-Cookie: evil"),
            BAD,
        )
        .upstream("NUL in a value", field("X-A: b\0c"), BAD)
        .upstream("0x01 in a value", field("X-A: b\x01c"), BAD)
        .upstream("a bare line feed", field("X-A: b\nSet-Cookie: evil"), BAD)
        .upstream(
            "bare line feeds everywhere",
            Act::reply(format!("HTTP/1.1 200 OK\n{length}\n\nok")),
            BAD,
        )
        .upstream("a space before the colon", field("X-A : b"), BAD)
        .upstream("no colon", field("X-A"), BAD)
        .upstream("a name that is no token", field("X(A: b"), BAD)
        .upstream(
            "1 MB",
            field(&format!("X-A: {}", "b".repeat(1_000_000))),
            BAD,
        )
        .upstream(
            "101 fields",
            with_body(&format!("200 OK\r\n{many}{length}"), "ok"),
            BAD,
        )
        .upstream("junk", Act::reply("\0\x01\x02junk\r\n\r\n"), BAD)
        .upstream(
            "TLS",
            Act::reply(b"\x15\x03\x01\x00\x02\x02\x46".to_vec()).close(),
            BAD,
        )
        .upstream("closed without a byte", Act::silence().close(), BAD)
        .upstream("reset without a byte", Act::silence().reset(), BAD)
        .upstream(
            "closed inside the head",
            Act::reply("HTTP/1.1 200 OK\r\nContent-").close(),
            BAD,
        )
        .upstream(
            "an empty line first",
            Act::reply(format!("\r\nHTTP/1.1 200 OK\r\n{length}\r\n\r\nok")),
            BAD,
        )
}

fn u8() -> Row {
    row("U8", "authentication of a connection")
        .scenario("NTLM", |stand| {
            Box::pin(super::backends::pinned(stand, "NTLM"))
        })
        .scenario("Negotiate", |stand| {
            Box::pin(super::backends::pinned(stand, "Negotiate"))
        })
        .scenario("Negotiate with a token", |stand| {
            Box::pin(super::backends::pinned(stand, "Negotiate YII="))
        })
}

fn u9() -> Row {
    let bomb = "\u{1f}\u{8b}".to_owned() + &"z".repeat(2_000);
    let encoded = format!(
        "200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}",
        bomb.len()
    );
    let stripped = "200 OK\r\nContent-Length: 2\r\nAlt-Svc: h3=\":443\"\r\nServer: secret/1.0\r\nConnection: X-Private\r\n\
                    X-Private: 1\r\nKeep-Alive: timeout=5\r\nX-Public: 2";
    row("U9", "what is relayed and what is not")
        .upstream(
            "content codings as they are",
            with_body(&encoded, &bomb),
            Expect::Relayed(
                200,
                &[
                    Check::AnswerField("content-encoding", "gzip"),
                    Check::AnswerField("content-length", "2003"),
                ],
            ),
        )
        .upstream(
            "fields of the connection",
            with_body(stripped, "ok"),
            Expect::Relayed(
                200,
                &[
                    Check::AnswerNoField("x-private"),
                    Check::AnswerNoField("keep-alive"),
                    Check::AnswerField("x-public", "2"),
                ],
            ),
        )
        .upstream(
            "Alt-Svc",
            with_body(stripped, "ok"),
            Expect::Relayed(200, &[Check::AnswerNoField("alt-svc")]),
        )
        .upstream(
            "Server",
            with_body(stripped, "ok"),
            Expect::Relayed(200, &[Check::AnswerField("server", "tidegate")]),
        )
        .scenario("a gzip bomb costs no memory", |stand| {
            Box::pin(super::backends::bomb(stand))
        })
}
