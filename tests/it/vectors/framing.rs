//! Where a request's body ends: B1 to B6, and chunks in B20 to B22. Nothing that two readers could read differently passes.

use super::vector::{Check, Expect, Row, Vector, either, in_chunks, join, post, request, row};
use test_support::recorder::Act;

/// What a smuggler would have the backend take for a request.
const TAIL: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
const HI: &[u8] = b"2\r\nhi\r\n0\r\n\r\n";

pub(crate) fn rows() -> Vec<Row> {
    vec![b1(), b2(), b3(), b4(), b5(), b6(), b20(), b21(), b22()]
}

fn b1() -> Row {
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    let smuggled = join(&[b"0\r\n\r\n", TAIL]);
    let mut b1 = row("B1", "Content-Length beside Transfer-Encoding");
    for (name, lines) in [
        ("length first", format!("Content-Length: 4\r\n{CHUNKED}")),
        ("coding first", format!("{CHUNKED}Content-Length: 4\r\n")),
        ("length 0", format!("Content-Length: 0\r\n{CHUNKED}")),
        (
            "length of everything",
            format!("Content-Length: {}\r\n{CHUNKED}", smuggled.len()),
        ),
        (
            "two lengths",
            format!("Content-Length: 4\r\nContent-Length: 4\r\n{CHUNKED}"),
        ),
        (
            "odd case",
            format!("cONTENT-length: 4\r\n{}", CHUNKED.to_uppercase()),
        ),
        (
            "a field between",
            format!("{CHUNKED}X-A: b\r\nContent-Length: 4\r\n"),
        ),
    ] {
        b1 = b1.refused(name, post(&lines, &smuggled), &[400]);
    }
    b1
}

fn b2() -> Row {
    // Unknown codings may be 501 (RFC 9112 section 6.1); what is malformed may be 400. Both refuse.
    let mut b2 = row("B2", "lists of transfer codings");
    for (name, lines) in [
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        ("an empty element first", "Transfer-Encoding: ,chunked\r\n"),
        ("an empty element last", "Transfer-Encoding: chunked,\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n"),
        (
            "two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "identity, then chunked",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "chunked, then identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        ),
        ("chunked not last", "Transfer-Encoding: chunked, gzip\r\n"),
        ("gzip alone", "Transfer-Encoding: gzip\r\n"),
        (
            "identity and chunked",
            "Transfer-Encoding: identity, chunked\r\n",
        ),
    ] {
        b2 = b2.refused(name, post(lines, &join(&[HI, TAIL])), &[400, 501]);
    }
    b2
}

fn b3() -> Row {
    let mut b3 = row("B3", "transfer codings that are almost chunked");
    for (name, lines) in [
        ("xchunked", "Transfer-Encoding: xchunked\r\n"),
        ("a parameter", "Transfer-Encoding: chunked;q=1\r\n"),
        ("identity", "Transfer-Encoding: identity\r\n"),
        (
            "a vertical tab before",
            "Transfer-Encoding: \x0bchunked\r\n",
        ),
        (
            "a space before the colon",
            "Transfer-Encoding : chunked\r\n",
        ),
        ("empty", "Transfer-Encoding:\r\n"),
        ("in quotes", "Transfer-Encoding: \"chunked\"\r\n"),
        ("a space inside", "Transfer-Encoding: chun ked\r\n"),
        ("a NUL after", "Transfer-Encoding: chunked\0\r\n"),
        ("a form feed after", "Transfer-Encoding: chunked\x0c\r\n"),
    ] {
        b3 = b3.refused(name, post(lines, &join(&[HI, TAIL])), &[400]);
    }
    b3.refused(
        "on HTTP/1.0",
        request(
            "POST /v HTTP/1.0",
            "Transfer-Encoding: chunked\r\n",
            &join(&[HI, TAIL]),
        ),
        &[400],
    )
    .passed(
        "any case, white space around",
        post("tRANSFER-Encoding: \tCHUNked \r\n", HI),
        &[Check::Body(b"hi")],
    )
}

fn b4() -> Row {
    let mut b4 = row("B4", "Content-Length that is no number");
    for (name, value) in [
        ("a list", "2, 2"),
        ("a plus", "+2"),
        ("a minus", "-1"),
        ("hexadecimal", "0x2"),
        ("an underscore", "1_0"),
        ("empty", ""),
        ("2^64", "18446744073709551616"),
        ("far more than 2^64", "99999999999999999999999999999999"),
        ("a space inside", "2 2"),
        ("a list of two", "2, 3"),
        ("a fraction", "2.0"),
        ("an exponent", "2e0"),
        ("a superscript digit", "\u{b2}"),
        ("a vertical tab before", "\x0b2"),
        ("a semicolon", "2;"),
    ] {
        let lines = format!("Content-Length: {value}\r\n");
        b4 = b4.refused(name, post(&lines, &join(&[b"hi", TAIL])), &[400]);
    }
    let differ = "Content-Length: 2\r\nContent-Length: 3\r\n";
    b4.refused("two that differ", post(differ, b"hi!"), &[400])
        .refused(
            "two that differ, far apart",
            post(
                "Content-Length: 3\r\nX-A: b\r\ncontent-length: 2\r\n",
                b"hi!",
            ),
            &[400],
        )
}

fn b5() -> Row {
    const ONE: &[Check] = &[Check::Body(b"hi"), Check::Field("content-length", "2")];
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), b"hi");
    row("B5", "Content-Length with two spellings, or too large")
        .vector(
            "leading zeros",
            length("002"),
            either(Expect::Refused(&[400]), Expect::Passed(1, ONE)),
        )
        .passed(
            "an equal pair",
            post("Content-Length: 2\r\nContent-Length: 2\r\n", b"hi"),
            ONE,
        )
        .refused("2^63", length("9223372036854775808"), &[413])
        .refused("2^64 - 1", length("18446744073709551615"), &[413])
        .refused("one more than the limit", length("1048577"), &[413])
}

fn b6() -> Row {
    // The backend answers at the head; the body is on its way. What comes next must be a request to it, whole and alone.
    const NEXT: &[u8] = b"GET /two HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut b6 = row("B6", "bodies that nobody waits for");
    for method in ["GET", "DELETE", "OPTIONS"] {
        let line = format!("{method} /one HTTP/1.1");
        for (name, lines, body) in [
            ("length", "Content-Length: 5\r\n", &b"hello"[..]),
            (
                "chunks",
                "Transfer-Encoding: chunked\r\n",
                b"5\r\nhello\r\n0\r\n\r\n",
            ),
        ] {
            let one = request(&line, lines, body);
            let checks: &[Check] = &[Check::Targets(&["/one", "/two"]), Check::Body(b"hello")];
            let bytes = join(&[&one, NEXT]);
            b6 = b6.vector(
                format!("{method}, {name}"),
                bytes.clone(),
                Expect::Passed(2, checks),
            );
            // Where the answer is there before the body, the connection may also end with it, if the answer says so.
            let early = either(
                Expect::Passed(2, checks),
                Expect::Relayed(200, &[Check::Targets(&["/one"]), Check::Closes]),
            );
            b6 = b6.special(
                format!("{method}, {name}, answered early"),
                Vector::new(bytes, early).backend(vec![Act::ok().early()]),
            );
        }
    }
    b6
}

fn b20() -> Row {
    const DROPPED: &[Check] = &[Check::Body(b"hi"), Check::NotUpstream(b"ext")];
    let long =
        |length: usize| in_chunks(format!("2;ext={}\r\nhi\r\n0\r\n\r\n", "e".repeat(length)));
    let many: String = (0..200).map(|_| "1;ext=eeeeeeee\r\nx\r\n").collect();
    row("B20", "chunk extensions")
        .passed(
            "dropped",
            in_chunks("2;ext=1\r\nhi\r\n0;ext\r\n\r\n"),
            DROPPED,
        )
        .passed(
            "in quotes",
            in_chunks("2;ext=\"a;b\"\r\nhi\r\n0\r\n\r\n"),
            DROPPED,
        )
        .passed("1,000 bytes", long(1_000), DROPPED)
        .aborted(
            "a line feed",
            in_chunks("2;ext\nx\r\nhi\r\n0\r\n\r\n"),
            &[400],
        )
        .aborted(
            "a line feed at its end",
            in_chunks("2;ext\nhi\r\n0\r\n\r\n"),
            &[400],
        )
        .aborted(
            "a carriage return",
            in_chunks("2;ext\rx\r\nhi\r\n0\r\n\r\n"),
            &[400],
        )
        .aborted("a NUL", in_chunks("2;ext\0\r\nhi\r\n0\r\n\r\n"), &[400])
        .aborted("more than 1 KiB", long(1_025), &[400])
        .aborted("64 KiB", long(64 * 1024), &[400])
        .aborted(
            "more than 1 KiB in many",
            in_chunks(many + "0\r\n\r\n"),
            &[400],
        )
}

fn b21() -> Row {
    let mut b21 = row("B21", "chunks that are malformed");
    for (name, body) in [
        ("hexadecimal prefix", "0x2\r\nhi\r\n0\r\n\r\n"),
        ("a plus", "+2\r\nhi\r\n0\r\n\r\n"),
        ("a minus", "-2\r\nhi\r\n0\r\n\r\n"),
        ("a space before", " 2\r\nhi\r\n0\r\n\r\n"),
        ("a tab before", "\t2\r\nhi\r\n0\r\n\r\n"),
        ("an underscore", "2_0\r\nhi\r\n0\r\n\r\n"),
        ("no size", "\r\nhi\r\n0\r\n\r\n"),
        ("only an extension", ";a\r\nhi\r\n0\r\n\r\n"),
        ("overflow", "10000000000000002\r\nhi\r\n0\r\n\r\n"),
        ("no digit", "g\r\nhi\r\n0\r\n\r\n"),
        ("a line feed after the size", "2\nhi\r\n0\r\n\r\n"),
        ("a line feed after the data", "2\r\nhi\n0\r\n\r\n"),
        ("a line feed after the last chunk", "2\r\nhi\r\n0\n\r\n"),
        ("a line feed at the end", "2\r\nhi\r\n0\r\n\n"),
        ("a carriage return after the size", "2\rhi\r\n0\r\n\r\n"),
        ("data longer than its size", "2\r\nhiX\r\n0\r\n\r\n"),
        ("nothing after the data", "2\r\nhi0\r\n\r\n"),
        ("a space inside the size", "2 0\r\nhi\r\n0\r\n\r\n"),
        ("a NUL after the size", "2\0\r\nhi\r\n0\r\n\r\n"),
        ("two carriage returns", "2\r\r\nhi\r\n0\r\n\r\n"),
    ] {
        b21 = b21.aborted(name, in_chunks(body), &[400]);
    }
    // 2^64 - 1 is a number, only larger than any body may be.
    b21.aborted(
        "2^64 - 1",
        in_chunks("FFFFFFFFFFFFFFFF\r\nhi\r\n0\r\n\r\n"),
        &[400, 413],
    )
}

fn b22() -> Row {
    const BODY: &[Check] = &[Check::Body(b"hi")];
    const KEPT_APART: &[Check] = &[
        Check::Body(b"hi"),
        Check::Host("a.test"),
        Check::NoTrailer("content-length"),
        Check::NoTrailer("host"),
        Check::NoTrailer("transfer-encoding"),
        Check::NoTrailer("te"),
        Check::NoTrailer("authorization"),
        Check::NoTrailer("x-forwarded-for"),
        Check::NotUpstream(b"evil"),
    ];
    let trailer = |lines: &str| in_chunks(format!("2\r\nhi\r\n0\r\n{lines}\r\n"));
    let kept_apart = || either(Expect::Passed(1, KEPT_APART), Expect::Aborted(&[400]));
    let thousand: String = (0..1_000).map(|n| format!("X-{n}: evil\r\n")).collect();
    let mut b22 = row("B22", "chunks with two spellings, trailers")
        .passed(
            "a space after the size",
            in_chunks("2 \r\nhi\r\n0 \r\n\r\n"),
            BODY,
        )
        .passed(
            "twenty zeros",
            in_chunks("000000000000000000002\r\nhi\r\n00000\r\n\r\n"),
            BODY,
        )
        .passed(
            "upper and lower case",
            in_chunks("00A\r\n0123456789\r\n0a\r\n0123456789\r\n0\r\n\r\n"),
            &[Check::Body(b"01234567890123456789")],
        )
        .passed("an innocent trailer", trailer("X-Checksum: 1\r\n"), BODY);
    for (name, lines) in [
        ("Content-Length", "Content-Length: 40, evil\r\n"),
        ("Host", "Host: evil.test\r\n"),
        ("Transfer-Encoding", "Transfer-Encoding: evil\r\n"),
        ("TE", "TE: evil\r\n"),
        ("Authorization", "Authorization: evil\r\n"),
        ("X-Forwarded-For", "X-Forwarded-For: evil\r\n"),
    ] {
        b22 = b22.vector(name, trailer(lines), kept_apart());
    }
    b22.vector(
        "1,000 trailers",
        trailer(&thousand),
        either(Expect::Passed(1, KEPT_APART), Expect::Aborted(&[400, 431])),
    )
    .vector(
        "9 KiB of trailer",
        trailer(&format!("X-Long: evil{}\r\n", "x".repeat(9 * 1024))),
        either(Expect::Passed(1, KEPT_APART), Expect::Aborted(&[400, 431])),
    )
    .aborted("a trailer without colon", trailer("evil\r\n"), &[400])
    .aborted(
        "a line feed in a trailer",
        trailer("X: a\nY: b\r\n"),
        &[400],
    )
    .aborted("a folded trailer", trailer("X: a\r\n b\r\n"), &[400])
}
