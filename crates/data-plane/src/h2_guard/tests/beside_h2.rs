//! Random connections, as they are to `h2` and behind the guard: what it makes of them is the same, but for fragments.

use super::passed;
use bytes::Bytes;
use futures_util::FutureExt;
use std::collections::VecDeque;
use test_support::h2_raw::{END_HEADERS, END_STREAM, PREFACE, frame, headers, kind, settings};
use tokio::io::AsyncWriteExt;

/// Letters that texts are made of, with their codes (RFC 7541 appendix B), of every length that matters.
const LETTERS: &[(u8, u32, u32)] = &[
    (b'/', 0x18, 6),
    (b'a', 0x03, 5),
    (b'0', 0x00, 5),
    (b'v', 0x77, 7),
    (b'z', 0x7b, 7),
    (b'X', 0xfc, 8),
    (b'?', 0x3fc, 10),
    (b'+', 0x7fb, 11),
    (b'#', 0xffa, 12),
    (0x80, 0xf_ffe6, 20),
];
/// Those of `:path` and of names.
const NAMES: &[(u8, u32, u32)] = &[
    (b':', 0x5c, 7),
    (b'p', 0x2b, 6),
    (b'a', 0x03, 5),
    (b't', 0x09, 5),
    (b'h', 0x27, 6),
    (b'x', 0x79, 7),
    (b'-', 0x16, 6),
    (b'0', 0x00, 5),
];
const PATH: &[u8] = b":path";

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn once_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// A client with a table as the RFC has it.
struct Client {
    random: Random,
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    most: usize,
}

impl Client {
    fn number(out: &mut Vec<u8>, first: u8, prefix: u32, mut value: usize) {
        let mask = (1 << prefix) - 1;
        if value < mask {
            return out.push(first | value as u8);
        }
        out.push(first | mask as u8);
        value -= mask;
        while value >= 128 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn text(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        let code = |letter: &u8| {
            let all = LETTERS.iter().chain(NAMES);
            all.copied().find(|(one, ..)| one == letter)
        };
        let codes: Option<Vec<_>> = text.iter().map(code).collect();
        match codes {
            Some(codes) if self.random.once_in(2) => {
                let (mut bytes, mut waiting, mut bits) = (Vec::new(), 0_u64, 0);
                for (_, code, length) in codes {
                    (waiting, bits) = (waiting << length | u64::from(code), bits + length);
                    while bits >= 8 {
                        bits -= 8;
                        bytes.push((waiting >> bits) as u8);
                    }
                }
                if bits > 0 {
                    bytes.push((waiting << (8 - bits)) as u8 | (0xff >> bits));
                }
                Self::number(out, 0x80, 7, bytes.len());
                out.extend(bytes);
            }
            _ => {
                Self::number(out, 0, 7, text.len());
                out.extend_from_slice(text);
            }
        }
    }

    fn shrink(&mut self, to: usize) {
        let size = |table: &VecDeque<(Vec<u8>, Vec<u8>)>| {
            let sizes = table
                .iter()
                .map(|(name, value)| 32 + name.len() + value.len());
            sizes.sum::<usize>()
        };
        while size(&self.table) > to {
            self.table.pop_back();
        }
    }

    fn value(&mut self, path: bool) -> Vec<u8> {
        let mut text = if path { b"/".to_vec() } else { Vec::new() };
        let most = if self.random.once_in(20) { 1500 } else { 12 };
        for _ in 0..self.random.below(most) {
            // Fragments are rare enough that most requests are served, and the letter that is no text stays out of paths.
            let letters = LETTERS.len() - usize::from(path) - usize::from(!self.random.once_in(8));
            text.push(LETTERS[self.random.below(letters)].0);
        }
        text
    }

    /// A field with this name, in any form that there is. Gives its value.
    fn field(&mut self, out: &mut Vec<u8>, name: &[u8]) -> Vec<u8> {
        let known = |(one, _): &(Vec<u8>, Vec<u8>)| one == name;
        let known: Vec<usize> = (0..self.table.len())
            .filter(|at| known(&self.table[*at]))
            .collect();
        let picked = match known.len() {
            0 => None,
            count => Some(known[self.random.below(count)]),
        };
        if let Some(at) = picked.filter(|_| self.random.once_in(2)) {
            Self::number(out, 0x80, 7, 62 + at);
            return self.table[at].1.clone();
        }
        let value = self.value(name == PATH);
        let insert = !self.random.once_in(3);
        let (first, prefix) = match insert {
            true => (0x40, 6),
            false => (self.random.below(2) as u8 * 0x10, 4),
        };
        match picked.filter(|_| self.random.once_in(2)) {
            Some(at) => Self::number(out, first, prefix, 62 + at),
            None if name == PATH && self.random.once_in(2) => Self::number(out, first, prefix, 4),
            None => {
                out.push(first);
                self.text(out, name);
            }
        }
        self.text(out, &value);
        if insert {
            let size = 32 + name.len() + value.len();
            self.shrink(self.most.saturating_sub(size));
            if size <= self.most {
                self.table.push_front((name.to_vec(), value.clone()));
            }
        }
        value
    }

    /// A field by an entry of the static table, into the dynamic one.
    fn known_name(&mut self, out: &mut Vec<u8>) {
        const SOME: &[(usize, &[u8])] = &[
            (19, b"accept"),
            (38, b"host"),
            (51, b"referer"),
            (58, b"user-agent"),
            (61, b"www-authenticate"),
        ];
        let (index, name) = SOME[self.random.below(SOME.len())];
        let value = self.value(false);
        Self::number(out, 0x40, 6, index);
        self.text(out, &value);
        self.shrink(self.most.saturating_sub(32 + name.len() + value.len()));
        if 32 + name.len() + value.len() <= self.most {
            self.table.push_front((name.to_vec(), value));
        }
    }

    /// A request. Gives its block, and its path.
    fn request(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut out = Vec::new();
        if self.random.once_in(15) {
            self.most = [0, 64, 500, 4096, 4096][self.random.below(5)];
            self.shrink(self.most);
            Self::number(&mut out, 0x20, 5, self.most);
        }
        out.extend_from_slice(b"\x82\x86");
        let path = match self.random.once_in(8) {
            true => {
                out.push(0x84);
                b"/".to_vec()
            }
            false => self.field(&mut out, PATH),
        };
        for _ in 0..self.random.below(6) {
            match self.random.below(4) {
                0 => self.known_name(&mut out),
                one => {
                    let name = [&b"x-a"[..], b"x-path", b"pa"][one - 1];
                    self.field(&mut out, name);
                }
            }
        }
        if self.random.once_in(60) {
            // Behind the end of the table.
            Self::number(&mut out, 0x80, 7, 62 + self.table.len());
        }
        (out, path)
    }

    fn frames(&mut self, stream: u32, block: &[u8]) -> Vec<u8> {
        if !self.random.once_in(4) {
            return headers(stream, true, block);
        }
        let cut = self.random.below(block.len());
        [
            frame(kind::HEADERS, END_STREAM, stream, &block[..cut]),
            frame(kind::CONTINUATION, END_HEADERS, stream, &block[cut..]),
        ]
        .concat()
    }
}

/// A request as `h2` has it: stream, path and query, fields.
type Request = (u32, String, Vec<(String, Vec<u8>)>);

/// What `h2` makes of these bytes, and whether it gave the connection up. In small pieces: what it read together with an error
/// it keeps to itself.
async fn read_by_h2(input: &[u8]) -> (Vec<Request>, bool) {
    let (mut client, server) = tokio::io::duplex(4 << 20);
    let mut builder = h2::server::Builder::new();
    builder.max_header_list_size(1 << 20);
    let (preface, frames) = input.split_at(PREFACE.len());
    client.write_all(preface).await.unwrap();
    let mut server = builder.handshake::<_, Bytes>(server).await.unwrap();
    let mut requests = Vec::new();
    for piece in frames.chunks(16) {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
        while let Some(accepted) = server.accept().now_or_never() {
            let Some(Ok((request, respond))) = accepted else {
                return (requests, true);
            };
            let fields = request.headers().iter();
            let fields = fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let path = request.uri().to_string();
            requests.push((respond.stream_id().as_u32(), path, fields.collect()));
        }
    }
    (requests, false)
}

#[tokio::test]
async fn the_guard_and_h2_read_the_same() {
    const CONNECTIONS: u64 = 100;
    const REQUESTS: u32 = 50;
    let (mut served, mut fragments, mut ended) = (0, 0, 0);
    for seed in 0..CONNECTIONS {
        let mut client = Client {
            random: Random(seed),
            table: VecDeque::new(),
            most: 4096,
        };
        let mut input = [PREFACE.to_vec(), settings(&[])].concat();
        let mut with_fragment = Vec::new();
        for stream in (1..).step_by(2).take(REQUESTS as usize) {
            let (block, path) = client.request();
            input.extend(client.frames(stream, &block));
            if path.contains(&b'#') {
                with_fragment.push(stream);
            }
        }
        let (guarded, refused) = passed(&input, 4096, 4096);
        let (mut plain, given_up) = read_by_h2(&input).await;
        let all = plain.len();
        plain.retain(|(stream, ..)| !with_fragment.contains(stream));
        let (guarded, ended_too) = read_by_h2(&guarded).await;
        assert_eq!(guarded.len(), plain.len(), "seed {seed}");
        for (guarded, plain) in guarded.iter().zip(&plain) {
            assert!(guarded == plain, "seed {seed}, stream {}", plain.0);
        }
        // It ends where h2 ends, and only there.
        assert_eq!((refused, ended_too), (given_up, given_up), "seed {seed}");
        served += plain.len();
        fragments += all - plain.len();
        ended += usize::from(refused);
    }
    println!("{served} requests, {fragments} with fragments, {ended} connections given up");
    assert!(served > 1000 && fragments > 100 && ended > 10);
}
