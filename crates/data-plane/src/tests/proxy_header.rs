//! Headers of both versions: whole, in pieces, wrong, and made of anything.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = V2.to_vec();
    bytes.extend_from_slice(&[command, family]);
    bytes.extend_from_slice(&(rest.len() as u16).to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x30, 0x39, 1, 187];

fn with_fields(fields: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&ADDRESSES[..], fields].concat())
}

/// The header is read, also when more follows; every shorter piece of it asks for more.
#[track_caller]
fn check(header: &[u8], expected: Option<Ends>) {
    let whole = ProxyHeader {
        ends: expected,
        length: header.len(),
    };
    assert_eq!(parse(header), Ok(Some(whole)));
    assert_eq!(
        parse(&[header, b"GET / HTTP/1.1\r\n"].concat()),
        Ok(Some(whole))
    );
    for length in 0..header.len() {
        assert_eq!(parse(&header[..length]), Ok(None), "{length} bytes");
    }
}

#[test]
fn version_1() {
    check(
        b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 443\r\n",
        Some(ends("192.0.2.7:12345", "192.0.2.1:443")),
    );
    check(
        b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 0\r\n",
        Some(ends("[2001:db8::7]:12345", "[2001:db8::1]:0")),
    );
    check(b"PROXY UNKNOWN\r\n", None);
    check(b"PROXY UNKNOWN what ever 1 2\r\n", None);
    let longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535";
    let mut longest = longest.to_vec();
    longest.resize(MAX_V1 - 2, b'x');
    longest.extend_from_slice(b"\r\n");
    check(&longest, None);
}

#[test]
fn version_2() {
    let told = Some(ends("192.0.2.7:12345", "192.0.2.1:443"));
    check(&v2(0x21, 0x11, &ADDRESSES), told);
    check(&with_fields(&[4, 0, 1, 9, 0x20, 0, 0]), told);
    let mut six = [0; 36];
    (six[15], six[31], six[33], six[35]) = (1, 2, 80, 81);
    check(&v2(0x21, 0x21, &six), Some(ends("[::1]:80", "[::2]:81")));
    for (what, header) in [
        ("local", v2(0x20, 0, &[])),
        ("local with anything", v2(0x20, 0x11, b"??")),
        ("unspecified", v2(0x21, 0, b"anything")),
        ("a datagram", v2(0x21, 0x12, &ADDRESSES)),
        ("a socket of a file system", v2(0x21, 0x31, &[0; 216])),
    ] {
        assert!(
            parse(&header).is_ok_and(|h| h.is_some_and(|h| h.ends.is_none())),
            "{what}"
        );
        check(&header, None);
    }
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_can_be() {
    use ProxyHeaderError::{Absent, Malformed, TooLong};
    let long_line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let tcp4 = |rest: &str| format!("PROXY TCP4 {rest}\r\n").into_bytes();
    for (bytes, error) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), Absent),
        (b"\x16\x03\x01".to_vec(), Absent),
        (b"PROXYTCP4".to_vec(), Absent),
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), Absent),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n".to_vec(), Malformed),
        (b"PROXY \r\n".to_vec(), Malformed),
        (
            b"PROXY TCP5 192.0.2.7 192.0.2.1 1 2\r\n".to_vec(),
            Malformed,
        ),
        (
            b"PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n".to_vec(),
            Malformed,
        ),
        (tcp4("2001:db8::7 192.0.2.1 1 2"), Malformed),
        (tcp4("192.0.2.7 192.0.2.1 1"), Malformed),
        (tcp4("192.0.2.7 192.0.2.1 1 2 3"), Malformed),
        (tcp4("192.0.2.7 192.0.2.1 1 65536"), Malformed),
        (tcp4("192.0.2.7 192.0.2.1 01 2"), Malformed),
        (tcp4("192.0.2.7 192.0.2.1 +1 2"), Malformed),
        (tcp4("192.0.2.7  192.0.2.1 1 2"), Malformed),
        (tcp4("192.0.2.07 192.0.2.1 1 2"), Malformed),
        (long_line.into_bytes(), TooLong),
        ([b"PROXY ", &[b'x'; 101][..]].concat(), TooLong),
        (v2(0x11, 0x11, &ADDRESSES), Malformed),
        (v2(0x22, 0x11, &ADDRESSES), Malformed),
        (v2(0x21, 0x41, &ADDRESSES), Malformed),
        (v2(0x21, 0x13, &ADDRESSES), Malformed),
        (v2(0x21, 0x11, &ADDRESSES[..11]), Malformed),
        (v2(0x21, 0x21, &ADDRESSES), Malformed),
        (with_fields(&[4, 0]), Malformed),
        (with_fields(&[4, 0, 2, 9]), Malformed),
        (
            v2(0x21, 0x11, &[0; MAX_V2_REST + 1])[..V2_FIXED].to_vec(),
            TooLong,
        ),
    ] {
        assert_eq!(
            parse(&bytes),
            Err(error),
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }
    check(&v2(0x20, 0, &[0; MAX_V2_REST]), None);
    assert_eq!(MAX_HEADER, 4112);
}

#[test]
fn what_is_written_is_read_again() {
    let four = ends("192.0.2.7:12345", "192.0.2.1:443");
    let six = ends("[2001:db8::7]:1", "[2001:db8::1]:65535");
    let mapped = ends("[::ffff:192.0.2.7]:12345", "192.0.2.1:443");
    let mixed = ends("192.0.2.7:12345", "[2001:db8::1]:443");
    let widened = ends("[::ffff:192.0.2.7]:12345", "[2001:db8::1]:443");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        for (given, read) in [(four, four), (six, six), (mapped, four), (mixed, widened)] {
            let mut out = Vec::new();
            write(&mut out, version, given);
            assert!(version == ProxyVersion::V2 || out.len() <= MAX_V1);
            check(&out, Some(read));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn anything_gives_an_answer_and_more_bytes_do_not_change_it(
        start in prop_oneof![Just(V2.to_vec()), Just(b"PROXY TCP4 ".to_vec()), Just(vec![])],
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [start, rest].concat();
        let whole = parse(&bytes);
        for length in 0..bytes.len() {
            match parse(&bytes[..length]) {
                Ok(None) => {}
                early => prop_assert_eq!(early, whole),
            }
        }
        if let Ok(Some(header)) = whole {
            prop_assert!(header.length <= bytes.len());
        }
    }
}
