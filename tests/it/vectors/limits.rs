//! How much and how long: B24 to B31. Limits are tested just below, at, and just above.
//!
//! Timers that `tidegate serve` has no flag for are tested at their default if that is short enough, else the case says that
//! it was not run.

use super::vector::{Check, Expect, Row, Vector, get, get_target, join, request, row};

/// The largest head, in bytes.
const HEAD: usize = 32 * 1024;
/// The longest target, in bytes.
const TARGET: usize = 8 * 1024;

pub(crate) fn rows() -> Vec<Row> {
    // The slow ones first.
    vec![b29(), b30(), b27(), b25(), b28(), b24(), b26(), b31()]
}

/// A request whose head has exactly this many bytes.
pub(crate) fn head_of(total: usize) -> Vec<u8> {
    const LINE: usize = 1_000;
    let around = get("").len();
    let mut lines = String::new();
    while around + lines.len() + 2 * LINE < total && lines.len() < 64 * LINE {
        lines += &format!("X-A: {}\r\n", "a".repeat(LINE - 7));
    }
    let left = total - around - lines.len();
    lines += &format!("X-A: {}\r\n", "a".repeat(left - 7));
    get(&lines)
}

fn b24() -> Row {
    const WHOLE: &[Check] = &[Check::Host("a.test")];
    // One of them is Host.
    let fields = |count: usize| {
        let lines: String = (1..count).map(|n| format!("X-{n}: a\r\n")).collect();
        get(&lines)
    };
    let cookies = |count: usize| get(&"Cookie: a=b\r\n".repeat(count));
    let target = |length: usize| get_target(&format!("/{}", "t".repeat(length - 1)));
    let query = |length: usize| get_target(&format!("/?{}", "t".repeat(length - 2)));
    row("B24", "fields, heads, targets")
        .passed("99 fields", fields(99), WHOLE)
        .passed("100 fields", fields(100), WHOLE)
        .refused("101 fields", fields(101), &[431])
        .refused("10,000 fields", fields(10_000), &[431])
        .refused("101 lines of one field", cookies(100), &[431])
        .passed("a head of 32 KiB - 1", head_of(HEAD - 1), WHOLE)
        .passed("a head of 32 KiB", head_of(HEAD), WHOLE)
        .refused("a head of 32 KiB + 1", head_of(HEAD + 1), &[431])
        .refused("a head of 33 KiB", head_of(33 * 1024), &[431])
        .refused("a head of 500 KiB", head_of(500 * 1024), &[431])
        .refused("a head of 10 MiB", head_of(10 << 20), &[431])
        .passed("a target of 8,191", target(TARGET - 1), WHOLE)
        .passed("a target of 8,192", target(TARGET), WHOLE)
        .refused("a target of 8,193", target(TARGET + 1), &[414])
        .refused("a query that makes it 8,193", query(TARGET + 1), &[414])
        .refused("a target of 70,000", target(70_000), &[414])
        .refused(
            "a name of 40 KiB",
            get(&format!("{}: a\r\n", "n".repeat(40 * 1024))),
            &[431],
        )
        .scenario("no memory for heads of 10 MiB", |stand| {
            Box::pin(super::slow::memory(stand))
        })
}

fn b25() -> Row {
    let then = |garbage: &[u8]| join(&[&get(""), garbage]);
    let mut b25 = row("B25", "many requests on one connection");
    for (name, garbage) in [
        ("bytes", &b"\0\x01\x02\x03garbage\r\n\r\n"[..]),
        ("a line", b"garbage\r\n\r\n"),
        ("a bare line feed", b"GET /v HTTP/1.1\nHost: a.test\n\n"),
    ] {
        let vector = Vector::new(then(garbage), Expect::RefusedAfterOne(&[400]));
        b25 = b25.special(format!("one that is good, then {name}"), vector);
    }
    b25.scenario("1,000 sent at once, in order", |stand| {
        Box::pin(super::slow::pipelined(stand, 1_000))
    })
    .scenario("20,000, of which 10,000 are answered", |stand| {
        Box::pin(super::slow::most_requests(stand))
    })
}

fn b26() -> Row {
    row("B26", "a client that has said all")
        .scenario("after a GET", |stand| {
            Box::pin(super::slow::half_closed(stand, get("")))
        })
        .scenario("after a POST", |stand| {
            let post = super::vector::post("Content-Length: 2\r\n", b"hi");
            Box::pin(super::slow::half_closed(stand, post))
        })
        .scenario("after two requests", |stand| {
            Box::pin(super::slow::half_closed_after_two(stand))
        })
}

fn b27() -> Row {
    row("B27", "a client that goes away inside its body")
        .flags_if_known(&["--client-body-timeout=2s"])
        .scenario("end of its side, length", |stand| {
            Box::pin(super::slow::gone(
                stand,
                super::slow::Gone::HalfClose,
                super::slow::LENGTH,
            ))
        })
        .scenario("end of its side, chunks", |stand| {
            Box::pin(super::slow::gone(
                stand,
                super::slow::Gone::HalfClose,
                super::slow::CHUNKS,
            ))
        })
        .scenario("reset, length", |stand| {
            Box::pin(super::slow::gone(
                stand,
                super::slow::Gone::Reset,
                super::slow::LENGTH,
            ))
        })
        .scenario("reset, chunks", |stand| {
            Box::pin(super::slow::gone(
                stand,
                super::slow::Gone::Reset,
                super::slow::CHUNKS,
            ))
        })
        .scenario("silence", |stand| {
            Box::pin(super::slow::silent_in_body(stand))
        })
}

fn b28() -> Row {
    row("B28", "an early answer while 1 GiB is on its way")
        .scenario("the backend reads on", |stand| {
            Box::pin(super::slow::early(stand, true))
        })
        .scenario("the backend stops reading", |stand| {
            Box::pin(super::slow::early(stand, false))
        })
}

fn b29() -> Row {
    row("B29", "clients that are slow with a head")
        .at_once()
        .flags_if_known(&["--client-first-byte-timeout=3s", "--client-head-timeout=2s"])
        .scenario("nothing", |stand| Box::pin(super::slow::nothing(stand)))
        .scenario("the beginning of the HTTP/2 preface", |stand| {
            Box::pin(super::slow::stops(stand, b"PRI * H"))
        })
        .scenario("half a head", |stand| {
            Box::pin(super::slow::stops(
                stand,
                b"GET /v HTTP/1.1\r\nHost: a.test\r\n",
            ))
        })
        .scenario("an empty line", |stand| {
            Box::pin(super::slow::stops(stand, b"\r\n"))
        })
        .scenario("byte by byte", |stand| Box::pin(super::slow::drips(stand)))
}

fn b30() -> Row {
    row("B30", "clients that are slow with a body or an answer")
        .flags_if_known(&[
            "--client-body-min-rate=1024",
            "--client-body-timeout=3s",
            "--client-write-timeout=2s",
        ])
        .scenario("a body byte by byte", |stand| {
            Box::pin(super::slow::dripping_body(stand))
        })
        .scenario("an answer that is not read", |stand| {
            Box::pin(super::slow::not_reading(stand))
        })
}

fn b31() -> Row {
    let hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x13\x01\x01\0\0\0";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x03\xe8\0\x50";
    let proxied = |line: &str| join(&[line.as_bytes(), b"\r\n", &get("")]);
    let mut b31 = row("B31", "other protocols");
    for (name, bytes) in [
        ("TLS", hello.to_vec()),
        (
            "SSLv2",
            b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10\x07\0\xc0".to_vec(),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("SMTP", b"EHLO a.test\r\n".to_vec()),
        ("Redis", b"*1\r\n$4\r\nPING\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        (
            "PROXY version 1",
            proxied("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80"),
        ),
        ("PROXY version 1, unknown", proxied("PROXY UNKNOWN")),
        ("PROXY version 2", join(&[v2, &get("")])),
        ("Memcached", b"get some_key\r\n".to_vec()),
        ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec()),
    ] {
        let expect = Expect::RefusedOrClosed(&[400, 505]);
        b31 = b31.special(name, Vector::new(bytes, expect).first_only());
    }
    b31.scenario("HTTP/2 by prior knowledge", |stand| {
        Box::pin(super::slow::preface(stand))
    })
    .passed(
        "SOAP is only a method",
        request("SOAP /v HTTP/1.1", "", b""),
        &[Check::Method("SOAP")],
    )
}
