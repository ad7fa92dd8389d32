//! Frames, streams and resets of HTTP/2: D12 to D14.
//!
//! D14, "a request after our GOAWAY": it may be served until the last GOAWAY, and is refused or never answered after it. It
//! must not disturb what was in progress.

use super::http2::{Row, row};
use super::http2_runner::{At, Expect, cancelled};
use super::vector::Check;
use std::time::Duration;
use test_support::h2_raw::{END_HEADERS, END_STREAM, PADDED, data, frame, headers, kind};
use test_support::recorder::Act;

pub(crate) fn rows() -> Vec<Row> {
    vec![d13(), d14(), d12()]
}

fn d12() -> Row {
    let raw = |kind: u8, flags: u8, stream: u32, payload: &'static [u8]| {
        move |_: At| frame(kind, flags, stream, payload)
    };
    let mut d12 = row("D12", "frames that are wrong");
    for (name, kind, flags, stream, payload) in [
        (
            "DATA on an idle stream",
            kind::DATA,
            END_STREAM,
            101,
            &b"hi"[..],
        ),
        ("DATA on stream 0", kind::DATA, END_STREAM, 0, b"hi"),
        (
            "HEADERS on stream 0",
            kind::HEADERS,
            END_STREAM | END_HEADERS,
            0,
            b"\x82",
        ),
        (
            "PUSH_PROMISE",
            kind::PUSH_PROMISE,
            END_HEADERS,
            1,
            b"\0\0\0\x02\x82",
        ),
        (
            "a lone CONTINUATION",
            kind::CONTINUATION,
            END_HEADERS,
            1,
            b"\x82",
        ),
        ("RST_STREAM of 3 bytes", kind::RST_STREAM, 0, 1, b"\0\0\0"),
        (
            "RST_STREAM on an idle stream",
            kind::RST_STREAM,
            0,
            101,
            b"\0\0\0\x08",
        ),
        (
            "RST_STREAM on stream 0",
            kind::RST_STREAM,
            0,
            0,
            b"\0\0\0\x08",
        ),
        ("PING of 7 bytes", kind::PING, 0, 0, b"1234567"),
        ("PING on a stream", kind::PING, 0, 1, b"12345678"),
        ("SETTINGS of 5 bytes", kind::SETTINGS, 0, 0, b"\0\x03\0\0\0"),
        ("SETTINGS on a stream", kind::SETTINGS, 0, 1, b""),
        (
            "SETTINGS acknowledged with a payload",
            kind::SETTINGS,
            END_STREAM,
            0,
            b"\0\x03\0\0\0\x01",
        ),
        (
            "SETTINGS with a window of 2^31",
            kind::SETTINGS,
            0,
            0,
            b"\0\x04\x80\0\0\0",
        ),
        (
            "SETTINGS with frames of 100 bytes",
            kind::SETTINGS,
            0,
            0,
            b"\0\x05\0\0\0\x64",
        ),
        (
            "SETTINGS with push 2",
            kind::SETTINGS,
            0,
            0,
            b"\0\x02\0\0\0\x02",
        ),
        (
            "WINDOW_UPDATE of 3 bytes",
            kind::WINDOW_UPDATE,
            0,
            0,
            b"\0\0\x01",
        ),
        ("WINDOW_UPDATE of 0", kind::WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
        (
            "a window beyond 2^31",
            kind::WINDOW_UPDATE,
            0,
            0,
            b"\x7f\xff\xff\xff",
        ),
        (
            "GOAWAY on a stream",
            kind::GOAWAY,
            0,
            1,
            b"\0\0\0\0\0\0\0\0",
        ),
        (
            "PRIORITY on stream 0",
            kind::PRIORITY,
            0,
            0,
            b"\0\0\0\x01\x10",
        ),
    ] {
        d12 = d12.vector(name, Expect::GoAway, raw(kind, flags, stream, payload));
    }
    d12.vector("an even stream", Expect::GoAway, |at| {
        headers(at.stream + 1, true, &at.block("GET", "/v", &[]))
    })
    .vector("a frame inside a header block", Expect::GoAway, |at| {
        let block = at.block("GET", "/v", &[]);
        let half = block.len() / 2;
        [
            frame(kind::HEADERS, END_STREAM, at.stream, &block[..half]),
            frame(kind::PING, 0, 0, b"12345678"),
            frame(kind::CONTINUATION, END_HEADERS, at.stream, &block[half..]),
        ]
        .concat()
    })
    .vector(
        "a block that goes on in another stream",
        Expect::GoAway,
        |at| {
            let block = at.block("GET", "/v", &[]);
            [
                frame(kind::HEADERS, END_STREAM, at.stream, &block),
                frame(kind::CONTINUATION, END_HEADERS, at.stream + 2, b""),
            ]
            .concat()
        },
    )
    .vector("padding longer than the frame", Expect::GoAway, |at| {
        let mut block = at.block("GET", "/v", &[]);
        block.insert(0, 255);
        frame(
            kind::HEADERS,
            END_STREAM | END_HEADERS | PADDED,
            at.stream,
            &block,
        )
    })
    .vector("HEADERS of 20 KB", Expect::GoAway, |at| {
        let long = "a".repeat(20_000);
        frame(
            kind::HEADERS,
            END_STREAM | END_HEADERS,
            at.stream,
            &at.block("GET", "/v", &[("x-a", &long)]),
        )
    })
    .vector("a header block that is no HPACK", Expect::GoAway, |at| {
        frame(
            kind::HEADERS,
            END_STREAM | END_HEADERS,
            at.stream,
            b"\xff\xff\xff\xff\xff\xff",
        )
    })
    .vector("index 0", Expect::GoAway, |at| {
        frame(kind::HEADERS, END_STREAM | END_HEADERS, at.stream, b"\x80")
    })
    .vector("DATA of 20 KB", Expect::Aborted(&[400, 413]), |at| {
        [at.post(&[]), data(at.stream, true, &[b'x'; 20_000])].concat()
    })
    .vector(
        "an unknown type is ignored",
        Expect::Passed(&[Check::Targets(&["/v"])]),
        |at| [frame(0x42, 0xff, at.stream, b"whatever"), at.get(&[])].concat(),
    )
}

fn d13() -> Row {
    let fields = |count: usize| {
        move |at: At| {
            let names: Vec<String> = (0..count).map(|n| format!("x-{n}")).collect();
            let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
            at.get(&fields)
        }
    };
    let long = |length: usize| {
        move |at: At| {
            let value = "a".repeat(length);
            at.get(&[("x-a", &value)])
        }
    };
    row("D13", "how many fields and streams")
        .vector(
            "95 fields",
            Expect::Passed(&[Check::Targets(&["/v"])]),
            fields(95),
        )
        .vector("101 fields", Expect::Status(&[431]), fields(101))
        .vector(
            "a list of 30 KiB",
            Expect::Passed(&[Check::Targets(&["/v"])]),
            long(30 * 1024),
        )
        .vector("a list of 33 KiB", Expect::Refused(&[431]), long(33 * 1024))
        .vector(
            "a list of 200 KiB",
            Expect::Refused(&[431]),
            long(200 * 1024),
        )
        .scenario("300 POSTs held open", |stand, transport| {
            Box::pin(super::http2_floods::held_open(stand, transport))
        })
}

fn d14() -> Row {
    row("D14", "resets by the client")
        .scenario("a request after our GOAWAY", |stand, transport| {
            Box::pin(super::http2_floods::after_goaway(stand, transport))
        })
        .scenario("in the middle of an upload", |stand, transport| {
            Box::pin(cancelled(
                stand,
                transport,
                Act::ok(),
                |at| [at.post(&[]), at.data(false, b"half")].concat(),
                |_, seen| !seen.requests.is_empty(),
            ))
        })
        .scenario("before the answer", |stand, transport| {
            Box::pin(cancelled(
                stand,
                transport,
                Act::silence(),
                |at| at.get(&[]),
                |_, seen| seen.requests.iter().any(|one| one.complete),
            ))
        })
        .scenario("in the middle of an answer", |stand, transport| {
            let half = Act::reply("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                .pause(Duration::from_millis(1));
            Box::pin(cancelled(
                stand,
                transport,
                half,
                |at| at.get(&[]),
                |got, _| !got.stream(1).body.is_empty(),
            ))
        })
}
