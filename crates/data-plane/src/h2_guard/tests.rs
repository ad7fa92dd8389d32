//! What the guard mends, what it leaves alone, and that `h2` reads the same as it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a failed unwrap is a failed test"
)]

mod beside_h2;

use super::reader::Reader;
use bytes::BytesMut;
use test_support::h2_raw::{
    END_HEADERS, END_STREAM, PADDED, PREFACE, block, data, frame, headers, kind, reset, settings,
};
use tokio::io::ReadBuf;

/// What comes out when bytes come in pieces of this size, into a buffer of that; and whether that was all that may.
pub(super) fn passed(input: &[u8], piece: usize, space: usize) -> (Vec<u8>, bool) {
    let (mut reader, mut out) = (Reader::new(BytesMut::new()), Vec::new());
    let mut space = vec![0; space];
    let mut give = |reader: &mut Reader, out: &mut Vec<u8>| {
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            if !reader.give(&mut buffer) {
                break;
            }
            out.extend_from_slice(buffer.filled());
        }
    };
    let mut storage = vec![0; piece];
    for piece in input.chunks(piece) {
        give(&mut reader, &mut out);
        if reader.has_ended() {
            break;
        }
        let mut buffer = ReadBuf::new(&mut storage);
        buffer.put_slice(piece);
        reader.take(&mut buffer, 0);
        out.extend_from_slice(buffer.filled());
    }
    give(&mut reader, &mut out);
    (out, reader.has_ended())
}

/// What comes out of a connection with these frames behind its beginning, without that; the same however it comes.
fn through(frames: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let begin = [PREFACE.to_vec(), settings(&[])].concat();
    let input = [begin.clone(), frames.concat()].concat();
    let (out, ended) = passed(&input, input.len(), input.len());
    for (piece, space) in [
        (1, 1),
        (1, 100),
        (3, 2),
        (7, 7),
        (10, 1),
        (64, 64),
        (1000, 9),
    ] {
        assert_eq!(
            passed(&input, piece, space),
            (out.clone(), ended),
            "{piece} {space}"
        );
    }
    (out[begin.len()..].to_vec(), ended)
}

fn assert_untouched(frames: &[Vec<u8>]) {
    assert_eq!(through(frames), (frames.concat(), false));
}

/// It becomes these frames.
fn assert_mended(frames: &[Vec<u8>], to: &[Vec<u8>]) {
    assert_eq!(through(frames), (to.concat(), false));
}

/// The last of these frames becomes an error of the connection, and nothing behind it gets through.
fn assert_condemned(frames: &[Vec<u8>]) {
    let mut wanted = frames.to_vec();
    wanted.last_mut().unwrap()[5..9].fill(0);
    let behind = [frames.to_vec(), vec![headers(101, true, &get("/"))]].concat();
    assert_eq!(through(&behind), (wanted.concat(), true));
}

/// The block of a request, ending with its path.
fn get(path: &str) -> Vec<u8> {
    [&b"\x82\x87"[..], &block(&[(":path", path)])].concat()
}

fn request(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, true, &get(path))
}

fn upload(stream: u32) -> Vec<u8> {
    [
        headers(stream, false, &get("/v")),
        data(stream, false, b"hi"),
    ]
    .concat()
}

#[test]
fn good_connections_come_through_as_they_are() {
    let whole = get("/p");
    let padded = [&[3][..], &whole, &[0; 3]].concat();
    let (half, rest) = whole.split_at(7);
    assert_untouched(&[
        request(1, "/a?b=c"),
        upload(3),
        headers(3, true, &block(&[("x-t", "#")])),
        frame(kind::HEADERS, PADDED | END_HEADERS, 5, &padded),
        data(5, true, b""),
        frame(kind::HEADERS, END_STREAM, 7, half),
        frame(kind::CONTINUATION, 0, 7, b""),
        frame(
            kind::CONTINUATION,
            END_HEADERS,
            7,
            &[rest, b"\0\x01a\x01b"].concat(),
        ),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(77, 0xff, 0, b"unknown"),
        reset(3, 8),
    ]);
}

#[test]
fn a_fragment_is_mended_in_every_form() {
    assert_mended(&[request(1, "/v#frag")], &[request(1, "/v>frag")]);
    assert_mended(&[request(1, "#/#")], &[request(1, ">/>")]);
    let with = |form: &[u8]| headers(1, true, &[b"\x82\x87", form].concat());
    // By the names of the static table; without, never, and with indexing.
    assert_mended(&[with(b"\x04\x02/#")], &[with(b"\x04\x02/>")]);
    assert_mended(&[with(b"\x15\x02/#")], &[with(b"\x15\x02/>")]);
    assert_mended(&[with(b"\x44\x02/#")], &[with(b"\x44\x02/>")]);
    // `/#` and `#/` in the Huffman code: 6 bits, and 12.
    assert_mended(
        &[with(b"\x04\x83\x63\xfe\xbf")],
        &[with(b"\x04\x83\x63\xfe\xff")],
    );
    assert_mended(
        &[with(b"\x04\x83\xff\xa6\x3f")],
        &[with(b"\x04\x83\xff\xb6\x3f")],
    );
    // The name in the Huffman code, too.
    let name = b"\x40\x84\xb9\x58\xd3\x3f";
    let named = |value: &[u8]| with(&[&name[..], value].concat());
    assert_mended(&[named(b"\x02/#")], &[named(b"\x02/>")]);
    // And by the name of an entry of the dynamic table.
    let again = |value: &[u8]| headers(3, true, &[b"\x82\x87\x7e\x02", value].concat());
    assert_mended(
        &[named(b"\x02/a"), again(b"/#")],
        &[named(b"\x02/a"), again(b"/>")],
    );
}

#[test]
fn a_fragment_anywhere_else_is_none() {
    assert_untouched(&[headers(
        1,
        true,
        &[
            get("/"),
            block(&[("referer", "/#"), (":patH", "#"), (":pat", "#")]),
        ]
        .concat(),
    )]);
}

#[test]
fn a_fragment_is_mended_where_frames_cut() {
    let block = get("/a#b#");
    let mended = get("/a>b>");
    for cut in 0..=block.len() {
        let frames = |block: &[u8]| {
            [
                frame(kind::HEADERS, END_STREAM, 1, &block[..cut]),
                frame(kind::CONTINUATION, END_HEADERS, 1, &block[cut..]),
            ]
        };
        assert_mended(&frames(&block), &frames(&mended));
    }
}

#[test]
fn trailers_with_pseudo_fields_do_not_end_their_stream() {
    let forms: [&[u8]; 5] = [
        b"\x82",
        b"\x00\x05:path\x01/",
        b"\x04\x01/",
        b"\0\x01a\x01b\x00\x06:other\x01/",
        // A name that is in the table since the request, and a field.
        b"\x7e\x01/",
    ];
    let head = headers(1, false, b"\x82\x87\x44\x01/");
    for form in forms {
        let trailers = |end| headers(1, end, form);
        let begin = [head.clone(), data(1, false, b"hi")].concat();
        assert_mended(
            &[begin.clone(), trailers(true), request(3, "/")],
            &[begin.clone(), trailers(false), request(3, "/")],
        );
        assert_untouched(&[begin, trailers(false)]);
    }
    assert_mended(
        &[head.clone(), headers(1, true, b"\xbe")],
        &[head, headers(1, false, b"\xbe")],
    );
}

#[test]
fn trailers_of_a_stream_that_has_ended_are_refused_for_that() {
    let trailers = || headers(1, true, b"\x82");
    assert_untouched(&[request(1, "/"), trailers()]);
    assert_untouched(&[upload(1), data(1, true, b""), trailers()]);
    assert_untouched(&[upload(1), reset(1, 8), trailers()]);
    assert_untouched(&[upload(1), headers(1, true, b""), trailers()]);
}

#[test]
fn a_pseudo_field_late_in_trailers_ends_the_connection() {
    assert_condemned(&[
        upload(1),
        frame(kind::HEADERS, END_STREAM, 1, b"\0\x01a\x01b"),
        frame(kind::CONTINUATION, END_HEADERS, 1, b"\x82"),
    ]);
}

#[test]
fn what_cannot_be_followed_ends_the_connection() {
    for broken in [
        &b"\x80"[..],
        // No such entry.
        b"\xbe",
        b"\x7e\x01a",
        // A number that is too long, and one that has no end.
        b"\xff\x80\x80\x80\x80\x01",
        b"\xff",
        // A table that is too large, and a size that comes late.
        b"\x3f\xe2\x1f",
        b"\x82\x3f\xe1\x1f",
        // Strings that are cut, and one that does not end as it must.
        b"\0",
        b"\0\x01a",
        b"\0\x01a\x02b",
        b"\x44\x81\x00",
        // No name.
        b"\0\0\x01a",
    ] {
        assert_condemned(&[request(1, "/"), headers(3, true, broken)]);
    }
    let flags = END_HEADERS | END_STREAM;
    for (more, payload) in [
        (PADDED, &b""[..]),
        (PADDED, b"\x02\x82"),
        (0x20, b"\0\0\0\0"),
        // It depends on itself.
        (0x20, b"\x80\0\0\x01\0\x82"),
    ] {
        assert_condemned(&[frame(kind::HEADERS, flags | more, 1, payload)]);
    }
    let begun = || frame(kind::HEADERS, END_STREAM, 1, b"\x82");
    assert_condemned(&[begun(), frame(kind::CONTINUATION, END_HEADERS, 3, b"")]);
    assert_condemned(&[begun(), request(3, "/")]);
    assert_condemned(&[frame(kind::CONTINUATION, END_HEADERS, 1, b"\x82")]);
}

#[test]
fn nothing_comes_behind_what_h2_refuses() {
    let begun = || frame(kind::HEADERS, END_STREAM, 1, b"\x82");
    let behind = || request(3, "/");
    let ping = || frame(kind::PING, 0, 0, &[0; 8]);
    let (out, ended) = through(&[begun(), ping(), behind()]);
    assert_eq!((out, ended), ([begun(), ping()].concat(), true));
    let push = || frame(kind::PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82");
    assert_eq!(through(&[push(), behind()]), (push(), true));
    for kind in [kind::DATA, kind::HEADERS] {
        let long = frame(kind, 0, 1, &vec![0; super::LONGEST + 1]);
        let (out, ended) = through(&[long.clone(), behind()]);
        assert_eq!((out, ended), (long[..9].to_vec(), true));
    }
}

#[test]
fn a_connection_at_rest_holds_no_buffer() {
    let input = [PREFACE.to_vec(), settings(&[]), request(1, "/#")].concat();
    let mut reader = Reader::new(BytesMut::new());
    let mut storage = vec![0; input.len()];
    for piece in [&input[..50], &input[50..]] {
        let mut buffer = ReadBuf::new(&mut storage);
        buffer.put_slice(piece);
        assert!(reader.take(&mut buffer, 0));
        while reader.give(&mut buffer) {
            buffer.clear();
        }
    }
    assert_eq!(reader.held(), 0);
}

/// What comes out when the client is to be told to calm down after so many bytes.
fn calmed_after(input: &[u8], count: usize) -> Vec<u8> {
    let (mut reader, mut out) = (Reader::new(BytesMut::new()), Vec::new());
    let mut storage = vec![0; input.len() + 1024];
    for (piece, calm) in [(&input[..count], false), (&input[count..], true)] {
        if calm {
            reader.calm();
        }
        let mut buffer = ReadBuf::new(&mut storage);
        buffer.put_slice(piece);
        reader.take(&mut buffer, 0);
        while reader.give(&mut buffer) {}
        out.extend_from_slice(buffer.filled());
    }
    assert!(reader.has_ended());
    out
}

#[test]
fn a_client_is_told_to_calm_down_in_place_of_its_next_frame() {
    let begin = [PREFACE.to_vec(), settings(&[])].concat();
    let whole = frame(kind::HEADERS, END_STREAM, 1, &get("/a"));
    let frames = [
        data(1, false, b"a body"),
        whole,
        frame(kind::CONTINUATION, END_HEADERS, 1, b""),
        data(1, true, b"never"),
    ];
    let input = [begin.clone(), frames.concat()].concat();
    let (first, third) = (frames[0].len(), frames[..3].concat().len());
    // What has begun to be passed on is: a frame, and all frames of a header block.
    for (inside, goes_on) in [(3, 0), (12, first), (first + 3, first), (third - 3, third)] {
        let out = calmed_after(&input, begin.len() + inside);
        let passed = out.strip_suffix(&super::too_many_continuations()[..]);
        assert_eq!(passed, Some(&input[..begin.len() + goes_on]), "{inside}");
    }
}

#[test]
fn crumbs_that_come_together_are_too_many_and_others_are_not() {
    let begin = [
        PREFACE.to_vec(),
        settings(&[]),
        frame(kind::HEADERS, END_HEADERS, 1, &get("/a")),
    ];
    let begin = begin.concat();
    let row = |pieces: &[&str], times| -> Vec<u8> {
        let pieces = pieces.repeat(times);
        let frames = pieces.iter().map(|piece| data(1, false, piece.as_bytes()));
        frames.flatten().collect()
    };
    // Each of these is one read.
    let flood = row(&["x"], 2_000);
    let empty = row(&[""], 2_000);
    let typed = row(&["x"], 1);
    let messages = row(&["\0\0\0\0\0"], 2_000);
    let websocket = row(&["\x01\x04", "mask", "text"], 2);
    for (name, reads, goes_on) in [
        ("one byte", vec![flood], false),
        ("empty", vec![empty], false),
        ("as typed", vec![typed; 5_000], true),
        ("messages of gRPC", vec![messages; 5], true),
        ("WebSocket", vec![websocket; 5_000], true),
    ] {
        let mut reader = Reader::new(BytesMut::new());
        for read in [&begin].into_iter().chain(&reads) {
            let mut storage = vec![0; read.len() + 1024];
            let mut buffer = ReadBuf::new(&mut storage);
            buffer.put_slice(read);
            reader.take(&mut buffer, 0);
            while reader.give(&mut buffer) {}
        }
        assert_eq!(!reader.has_ended(), goes_on, "{name}");
    }
}
