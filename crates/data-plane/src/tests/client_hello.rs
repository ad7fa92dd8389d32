//! Hellos: real ones, cut in every way, padded, without a name, and bytes that are none.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;

fn vector(width: usize, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&length[4 - width..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, body)].concat()
}

/// A handshake message with GREASE in front of the name, and so many bytes of padding behind it.
pub(crate) fn hello(name: Option<&str>, padding: usize) -> Vec<u8> {
    let mut extensions = extension(0x2a2a, &[0]);
    if let Some(name) = name {
        let entry = [&[HOST_NAME][..], &vector(2, name.as_bytes())].concat();
        extensions.extend(extension(SERVER_NAME, &vector(2, &entry)));
    }
    extensions.extend(extension(21, &vec![0; padding]));
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector(1, &[9; 32]),
        &vector(2, &[0x0a, 0x0a, 0x13, 1]),
        &vector(1, &[0]),
        &vector(2, &extensions),
    ];
    [&[CLIENT_HELLO][..], &vector(3, &body.concat())].concat()
}

/// The message in records of this size.
pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
    let each = message.chunks(size);
    each.flat_map(|body| [&[HANDSHAKE, 3, 1][..], &vector(2, body)].concat())
        .collect()
}

/// What comes of bytes in pieces; nothing is added after the end.
fn read(pieces: &[&[u8]]) -> Progress {
    let mut reader = HelloReader::default();
    let mut progress = Progress::More;
    for piece in pieces {
        reader.buffer().extend_from_slice(piece);
        progress = reader.progress();
        if progress != Progress::More {
            break;
        }
    }
    progress
}

fn named(name: &str) -> Progress {
    Progress::Hello(Some(name.into()))
}

#[test]
fn a_real_hello() {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "Shop.Example.com".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    assert_eq!(read(&[&bytes]), named("shop.example.com"));
    for at in 0..bytes.len() {
        let (first, rest) = bytes.split_at(at);
        assert_eq!(read(&[first]), Progress::More, "{at}");
        assert_eq!(read(&[first, rest]), named("shop.example.com"), "{at}");
    }
}

#[test]
fn records_and_pieces_of_every_size() {
    let message = hello(Some("a.test"), 300);
    for size in [1, 2, 3, 4, 5, 7, 100, message.len(), MAX_RECORD] {
        let bytes = records(&message, size);
        assert_eq!(read(&[&bytes]), named("a.test"), "records of {size}");
        let pieces: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(read(&pieces), named("a.test"), "records of {size}");
    }
}

#[test]
fn padded_to_64_kib() {
    let message = hello(Some("a.test"), 65_000);
    assert_eq!(read(&[&records(&message, MAX_RECORD)]), named("a.test"));
    // In records of one byte it is more than anybody sends.
    let bytes = records(&message, 1);
    let pieces: Vec<_> = bytes.chunks(1000).collect();
    assert_eq!(read(&pieces), Progress::Other);
}

#[test]
fn without_a_good_name() {
    for message in [
        hello(None, 10),
        hello(Some(""), 10),
        hello(Some("a b"), 10),
        hello(Some("a\0.test"), 10),
    ] {
        assert_eq!(read(&[&records(&message, 900)]), Progress::Hello(None));
    }
    // No extensions at all, as before TLS 1.2, and lengths that lie.
    let mut message = hello(Some("a.test"), 0);
    for cut in 39..message.len() {
        let mut short = message[..cut].to_vec();
        let length = (cut as u32 - 4).to_be_bytes();
        short[1..4].copy_from_slice(&length[1..]);
        let progress = read(&[&records(&short, 900)]);
        assert!(
            matches!(progress, Progress::Hello(_)),
            "{cut}: {progress:?}"
        );
    }
    let last = message.len() - 1;
    message[last] = 0xff;
    assert!(matches!(
        read(&[&records(&message, 900)]),
        Progress::Hello(_)
    ));
}

#[test]
fn what_is_no_hello() {
    for (what, bytes) in [
        ("HTTP", &b"GET / HTTP/1.1\r\n"[..]),
        ("one byte of it", b"G"),
        ("SSH", b"SSH-2.0-x\r\n"),
        ("SSL 2", &[0x80, 0x2e, 1, 3, 1, 0, 0x15]),
        ("an alert", &[21, 3, 1, 0, 2, 2, 40]),
        ("application data", &[23, 3, 3, 0, 1, 0]),
        ("another major version", &[22, 2, 0, 0, 4]),
        ("an empty record", &[22, 3, 1, 0, 0]),
        ("a record too long", &[22, 3, 1, 0x40, 1]),
        ("a ServerHello", &[22, 3, 1, 0, 4, 2, 0, 0, 0]),
        ("a message too long", &[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]),
        ("another type of record between", &[22, 3, 1, 0, 1, 1, 21]),
    ] {
        assert_eq!(read(&[bytes]), Progress::Other, "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn anything_gives_an_answer_that_does_not_hang_on_how_it_was_cut(
        start in prop_oneof![
            Just(vec![]),
            Just(vec![22, 3, 1]),
            (1..200usize).prop_map(|size| records(&hello(Some("a.test"), 40), size)),
        ],
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        rest in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
    ) {
        let mut bytes = [start, rest].concat();
        if !bytes.is_empty() {
            for (place, value) in noise {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
        let whole = read(&[&bytes]);
        prop_assert_eq!(read(&[first, second]), whole.clone());
        prop_assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), whole);
    }
}
