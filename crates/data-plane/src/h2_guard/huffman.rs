//! Where the codes of HPACK's Huffman code end (RFC 7541 appendix B). What they stand for is not needed.

use super::Broken;

/// How many codes there are of each length. They are handed out in order, the short ones first, so this is the whole code.
const LENGTHS: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

/// For each length where its codes end, as the first of 32 bits.
const ENDS: [(u32, u64); LENGTHS.len()] = ends();

const fn ends() -> [(u32, u64); LENGTHS.len()] {
    let mut ends = [(0, 0); LENGTHS.len()];
    let (mut at, mut end) = (0, 0);
    while at < LENGTHS.len() {
        let (bits, count) = LENGTHS[at];
        end += (count as u64) << (32 - bits);
        ends[at] = (bits, end);
        at += 1;
    }
    ends
}

/// A code: how many bits, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) u32, pub(super) u32);

/// `#`. The code that differs from it in the last bit alone is that of `>`.
pub(super) const FRAGMENT: Code = Code(12, 0xffa);
/// `:path`.
pub(super) const PATH: [Code; 5] = [
    Code(7, 0x5c),
    Code(6, 0x2b),
    Code(5, 0x03),
    Code(5, 0x09),
    Code(6, 0x27),
];
/// What ends a string that has no end: no string may contain it.
const END: Code = Code(30, 0x3fff_ffff);

/// Takes codes off a string as its bytes come.
#[derive(Debug, Default)]
pub(super) struct Codes {
    /// The first `bits` bits of it were not taken yet; the others are 0.
    waiting: u64,
    bits: u32,
}

impl Codes {
    /// The next byte. All codes were taken before it.
    pub(super) fn push(&mut self, byte: u8) {
        // A code that is not whole has at most 29 bits.
        self.waiting |= u64::from(byte) << (56 - self.bits);
        self.bits += 8;
    }

    /// The next code, when it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Code>, Broken> {
        let first = self.waiting >> 32;
        let Some((bits, _)) = ENDS.iter().find(|(_, end)| first < *end) else {
            return Ok(None);
        };
        if *bits > self.bits {
            return Ok(None);
        }
        let code = Code(*bits, (first >> (32 - bits)) as u32);
        self.waiting <<= bits;
        self.bits -= bits;
        if code == END {
            return Err(Broken);
        }
        Ok(Some(code))
    }

    /// Bits behind the last code that was taken. They are bits of the last byte if a code ended in it.
    pub(super) fn rest(&self) -> u32 {
        self.bits
    }

    /// The string ends: what is left must be less than a byte, and all ones (section 5.2).
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        let Self { waiting, bits } = std::mem::take(self);
        if bits < 8 && (waiting << bits) == 0 && waiting.count_ones() == bits {
            Ok(())
        } else {
            Err(Broken)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(bytes: &[u8]) -> Result<Vec<u32>, Broken> {
        let (mut codes, mut lengths) = (Codes::default(), Vec::new());
        for byte in bytes {
            codes.push(*byte);
            while let Some(code) = codes.next()? {
                lengths.push(code.0);
            }
        }
        codes.end()?;
        Ok(lengths)
    }

    #[test]
    fn the_code_is_complete() {
        assert_eq!(LENGTHS.iter().map(|(_, count)| count).sum::<u32>(), 257);
        assert_eq!(ENDS[ENDS.len() - 1], (30, 1 << 32));
    }

    #[test]
    fn strings_of_the_rfc() {
        // Appendix C.4.1: www.example.com.
        let text = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(lengths(text).unwrap().len(), "www.example.com".len());
        // Appendix C.6.3: a date and a cookie.
        let date = b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x84\xa6\x2d\x1b\xff";
        assert_eq!(
            lengths(date).unwrap().len(),
            "Mon, 21 Oct 2013 20:13:22 GMT".len()
        );
        let cookie = b"\x94\xe7\x82\x1d\xd7\xf2\xe6\xc7\xb3\x35\xdf\xdf\xcd\x5b\x39\x60\xd5\xaf\x27\x08\x7f\x36\x72\xc1\
            \xab\x27\x0f\xb5\x29\x1f\x95\x87\x31\x60\x65\xc0\x03\xed\x4e\xe5\xb1\x06\x3d\x50\x07";
        assert_eq!(
            lengths(cookie).unwrap().len(),
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1".len()
        );
    }

    #[test]
    fn a_string_ends_with_less_than_a_byte_of_ones() {
        assert_eq!(lengths(b""), Ok(vec![]));
        // `#`, and four bits.
        assert_eq!(lengths(b"\xff\xaf"), Ok(vec![12]));
        assert_eq!(lengths(b"\xff\xae"), Err(Broken));
        assert_eq!(lengths(b"\xff\xaf\xff"), Err(Broken));
        assert_eq!(lengths(b"\xff"), Err(Broken));
        assert_eq!(lengths(b"\xff\xff\xff\xff"), Err(Broken), "it has the end");
    }
}
