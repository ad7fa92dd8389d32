//! The PROXY protocol when it is on: the other half of B31. A connection begins with one header, whole and right, or ends.
//!
//! Where the catalogue leaves room: "long" is what no address and no reasonable list of TLVs needs; a header of 64 KiB is
//! refused, one of 200 bytes is not.

use super::vector::{Check, Expect, Row, Vector, get, join, row};

/// How a header of version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// 1.2.3.4:1000 to 5.6.7.8:80.
const ADDRESSES: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08\x03\xe8\0\x50";
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
const TCP4: u8 = 0x11;

const TOLD: &[Check] = &[
    Check::Field("x-forwarded-for", "1.2.3.4"),
    Check::Field("x-real-ip", "1.2.3.4"),
];
const PEER: &[Check] = &[Check::Field("x-forwarded-for", "127.0.0.1")];

/// A header of version 2, whose length is right.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    join(&[SIGNATURE, &[command, family], &length, body])
}

/// A type-length-value, whose length is as given.
fn tlv(kind: u8, length: u16, value: &[u8]) -> Vec<u8> {
    join(&[&[kind], &length.to_be_bytes(), value])
}

pub(crate) fn rows() -> Vec<Row> {
    let with_tlv = |one: &[u8]| v2(PROXY, TCP4, &join(&[ADDRESSES, one]));
    let mut b31 = row("B31p", "PROXY headers, on")
        .flags(&["--proxy-protocol", "--proxy-protocol-from=127.0.0.0/8"]);
    for (name, header, checks) in [
        (
            "version 1",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n".to_vec(),
            TOLD,
        ),
        ("version 1, unknown", b"PROXY UNKNOWN\r\n".to_vec(), PEER),
        (
            "version 1, IPv6",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n".to_vec(),
            &[Check::Field("x-forwarded-for", "2001:db8::1")],
        ),
        ("version 2", v2(PROXY, TCP4, ADDRESSES), TOLD),
        ("version 2, local", v2(LOCAL, 0, b""), PEER),
        ("version 2, unspecified", v2(PROXY, 0, b""), PEER),
        ("version 2, a TLV", with_tlv(&tlv(0x02, 6, b"a.test")), TOLD),
        (
            "version 2, an unknown TLV of 150 bytes",
            with_tlv(&tlv(0xe0, 150, &[0; 150])),
            TOLD,
        ),
    ] {
        let vector = Vector::new(join(&[&header, &get("")]), Expect::Passed(1, checks));
        b31 = b31.special(name, vector.first_only());
    }
    let long = format!("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80{}\r\n", " ".repeat(100));
    for (name, header) in [
        ("none", Vec::new()),
        ("version 1, nothing in it", b"PROXY\r\n".to_vec()),
        (
            "version 1, no address",
            b"PROXY TCP4 x.test 5.6.7.8 1000 80\r\n".to_vec(),
        ),
        (
            "version 1, a zone id",
            b"PROXY TCP6 fe80::1%eth0 ::1 1000 80\r\n".to_vec(),
        ),
        (
            "version 1, the other family",
            b"PROXY TCP4 ::1 ::1 1000 80\r\n".to_vec(),
        ),
        (
            "version 1, port 65536",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n".to_vec(),
        ),
        (
            "version 1, a leading zero",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 0080 80\r\n".to_vec(),
        ),
        (
            "version 1, two spaces",
            b"PROXY  TCP4 1.2.3.4 5.6.7.8 1000 80\r\n".to_vec(),
        ),
        (
            "version 1, lower case",
            b"proxy TCP4 1.2.3.4 5.6.7.8 1000 80\r\n".to_vec(),
        ),
        (
            "version 1, a bare line feed",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\n".to_vec(),
        ),
        ("version 1, longer than 107 bytes", long.into_bytes()),
        ("version 2, version 3", v2(0x31, TCP4, ADDRESSES)),
        ("version 2, unknown command", v2(0x2f, TCP4, ADDRESSES)),
        (
            "version 2, too short for its family",
            v2(PROXY, TCP4, &ADDRESSES[..11]),
        ),
        (
            "version 2, a TLV beyond its end",
            with_tlv(&tlv(0x02, 255, b"a")),
        ),
        ("version 2, half a TLV", with_tlv(&[0x02, 0])),
        (
            "version 2, 64 KiB",
            with_tlv(&tlv(0xe0, 65_520, &[0; 65_520])),
        ),
    ] {
        let bytes = join(&[&header, &get("")]);
        let vector = Vector::new(bytes, Expect::RefusedOrClosed(&[400]));
        b31 = b31.special(name, vector.first_only());
    }
    let twice = b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\nPROXY TCP4 6.6.6.6 5.6.7.8 1000 80\r\n";
    let twice = Vector::new(join(&[twice, &get("")]), Expect::Refused(&[400]));
    vec![b31.special("a second one", twice.first_only())]
}
