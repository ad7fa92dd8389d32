//! Follows header blocks of HPACK (RFC 7541) without building what they say, and mends `:path` on the way.
//!
//! Of the dynamic table it keeps what it takes to find the name of an entry and to forget entries when the other reader of the
//! same bytes does: sizes, and which names are pseudo-fields.

use super::Broken;
use super::huffman::{self, Codes};
use std::collections::VecDeque;

/// Largest table, and what it begins with: we never announce another.
const LARGEST_TABLE: u32 = 4096;
/// What an entry counts beside its name and value (section 4.1).
const ENTRY: u32 = 32;
/// Most bytes of an integer: an error here because it is one for `h2`, which goes on where we do.
const LONGEST_NUMBER: u32 = 5;
const PATH: &[u8; 5] = b":path";

/// Lengths of the names of the static table, in its order (appendix A). Entries 1 to 14 are pseudo-fields, 4 and 5 `:path`.
const STATIC: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// What a name is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Field,
    Pseudo,
    Path,
}

/// A name, as far as it matters.
#[derive(Debug, Clone, Copy, Default)]
struct Name {
    kind: Kind,
    length: u32,
}

/// An entry of the dynamic table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Name,
    size: u32,
}

/// The dynamic table; the newest entry is at the front.
#[derive(Debug)]
struct Table {
    entries: VecDeque<Entry>,
    size: u32,
    most: u32,
}

impl Table {
    /// The name of an entry of either table (section 2.3.3).
    fn name(&self, index: u32) -> Result<Name, Broken> {
        let index = (index as usize).checked_sub(1).ok_or(Broken)?;
        if let Some(length) = STATIC.get(index) {
            let kind = match index + 1 {
                4 | 5 => Kind::Path,
                1..=14 => Kind::Pseudo,
                _ => Kind::Field,
            };
            let length = u32::from(*length);
            return Ok(Name { kind, length });
        }
        let entry = self.entries.get(index - STATIC.len());
        entry.map(|entry| entry.name).ok_or(Broken)
    }

    fn insert(&mut self, entry: Entry) {
        // What is larger than the table only empties it (section 4.4).
        self.shrink(self.most.saturating_sub(entry.size));
        if entry.size <= self.most {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    fn resize(&mut self, most: u32) -> Result<(), Broken> {
        if most > LARGEST_TABLE {
            return Err(Broken);
        }
        self.most = most;
        self.shrink(most);
        Ok(())
    }

    fn shrink(&mut self, to: u32) {
        while self.size > to {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size;
        }
    }
}

/// Which string of a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

/// What an integer is for.
#[derive(Debug, Clone, Copy)]
enum Use {
    Indexed,
    Literal { insert: bool },
    TableSize,
    Length { part: Part, coded: bool },
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A field, or the end of the block.
    Field,
    /// More of an integer.
    Number { of: Use, value: u32, bytes: u32 },
    /// The length of a string.
    Length(Part),
    /// So many bytes of a string.
    Text { part: Part, coded: bool, left: u32 },
}

/// A reader of all header blocks of a connection, as they come.
#[derive(Debug)]
pub(super) struct Hpack {
    table: Table,
    step: Step,
    codes: Codes,
    name: Name,
    /// Letters of `:path` that the name has in common with it.
    common: usize,
    /// Length of the value.
    value: u32,
    insert: bool,
    /// Nothing but sizes of the table came in this block.
    fresh: bool,
    /// The block so far has a pseudo-field.
    pub(super) pseudo: bool,
}

impl Default for Hpack {
    fn default() -> Self {
        Self {
            table: Table {
                entries: VecDeque::new(),
                size: 0,
                most: LARGEST_TABLE,
            },
            step: Step::Field,
            codes: Codes::default(),
            name: Name::default(),
            common: 0,
            value: 0,
            insert: false,
            fresh: true,
            pseudo: false,
        }
    }
}

impl Hpack {
    /// A block begins.
    pub(super) fn begin(&mut self) {
        self.fresh = true;
        self.pseudo = false;
    }

    /// Follows the next piece of a block. Each `#` in a `:path` becomes a `>`.
    pub(super) fn follow(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match self.step {
                Step::Field => self.field(byte)?,
                Step::Number {
                    of,
                    value,
                    bytes: count,
                } => {
                    let value = value + (u32::from(byte & 0x7f) << (7 * (count - 1)));
                    let bytes = count + 1;
                    if byte & 0x80 == 0 {
                        self.number(of, value)?;
                    } else if bytes == LONGEST_NUMBER {
                        return Err(Broken);
                    } else {
                        self.step = Step::Number { of, value, bytes };
                    }
                }
                Step::Length(part) => {
                    let coded = byte & 0x80 != 0;
                    self.begin_number(byte, 7, Use::Length { part, coded })?;
                }
                Step::Text { part, coded, left } => {
                    let take = (left as usize).min(bytes.len() - at);
                    self.text(part, coded, &mut bytes[at..at + take])?;
                    let left = left - take as u32;
                    self.step = Step::Text { part, coded, left };
                    if left == 0 {
                        self.end_text(part, coded)?;
                    }
                    at += take;
                    continue;
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// The block ends.
    pub(super) fn end(&self) -> Result<(), Broken> {
        match self.step {
            Step::Field => Ok(()),
            _ => Err(Broken),
        }
    }

    /// The first byte of a field (section 6).
    fn field(&mut self, byte: u8) -> Result<(), Broken> {
        let (prefix, of) = match byte {
            0x80.. => (7, Use::Indexed),
            0x40.. => (6, Use::Literal { insert: true }),
            0x20.. => (5, Use::TableSize),
            _ => (4, Use::Literal { insert: false }),
        };
        self.begin_number(byte, prefix, of)
    }

    /// The first byte of an integer (section 5.1).
    fn begin_number(&mut self, byte: u8, prefix: u32, of: Use) -> Result<(), Broken> {
        let mask = (1 << prefix) - 1;
        let value = u32::from(byte) & mask;
        if value < mask {
            return self.number(of, value);
        }
        let bytes = 1;
        self.step = Step::Number { of, value, bytes };
        Ok(())
    }

    fn number(&mut self, of: Use, value: u32) -> Result<(), Broken> {
        self.step = Step::Field;
        match of {
            Use::Indexed => {
                self.fresh = false;
                self.pseudo |= self.table.name(value)?.kind != Kind::Field;
            }
            // Only in front of a block (section 4.2). h2 takes them in front of each frame of one; nobody sends that.
            Use::TableSize if self.fresh => self.table.resize(value)?,
            Use::TableSize => return Err(Broken),
            Use::Literal { insert } => {
                self.fresh = false;
                (self.insert, self.value) = (insert, 0);
                self.step = Step::Length(Part::Value);
                if value == 0 {
                    (self.name, self.common) = (Name::default(), 0);
                    self.step = Step::Length(Part::Name);
                } else {
                    self.name = self.table.name(value)?;
                }
            }
            Use::Length { part, coded } => {
                let left = value;
                self.step = Step::Text { part, coded, left };
                if left == 0 {
                    self.end_text(part, coded)?;
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, part: Part, coded: bool, piece: &mut [u8]) -> Result<(), Broken> {
        let path = self.name.kind == Kind::Path;
        match (part, coded) {
            (Part::Name, false) => {
                for byte in piece {
                    self.letter(|at| PATH[at] == *byte);
                }
            }
            (Part::Name, true) => {
                for byte in piece {
                    self.codes.push(*byte);
                    while let Some(code) = self.codes.next()? {
                        self.letter(|at| huffman::PATH[at] == code);
                    }
                }
            }
            (Part::Value, false) => {
                self.value += piece.len() as u32;
                if path {
                    for byte in piece.iter_mut().filter(|byte| **byte == b'#') {
                        *byte = b'>';
                    }
                }
            }
            (Part::Value, true) if path || self.insert => {
                for byte in piece {
                    self.codes.push(*byte);
                    while let Some(code) = self.codes.next()? {
                        self.value += 1;
                        if path && code == huffman::FRAGMENT {
                            *byte |= 1 << self.codes.rest();
                        }
                    }
                }
            }
            // Neither what it says nor how long it is matters to anything.
            (Part::Value, true) => {}
        }
        Ok(())
    }

    /// One more letter of the name; `is` says whether it is that of `:path` at this place.
    fn letter(&mut self, is: impl FnOnce(usize) -> bool) {
        let at = self.name.length as usize;
        if at < PATH.len() && self.common == at && is(at) {
            self.common += 1;
        }
        self.name.length += 1;
    }

    fn end_text(&mut self, part: Part, coded: bool) -> Result<(), Broken> {
        if coded && (part == Part::Name || self.insert || self.name.kind == Kind::Path) {
            self.codes.end()?;
        }
        if part == Part::Name {
            // h2 takes a field without a name for one that is not whole, and may pass over it when a block has several frames.
            if self.name.length == 0 {
                return Err(Broken);
            }
            self.name.kind = match self.common {
                0 => Kind::Field,
                5 if self.name.length == 5 => Kind::Path,
                _ => Kind::Pseudo,
            };
            self.step = Step::Length(Part::Value);
            return Ok(());
        }
        self.pseudo |= self.name.kind != Kind::Field;
        if self.insert {
            let (name, value) = (self.name, self.value);
            let size = ENTRY + name.length + value;
            self.table.insert(Entry { name, size });
        }
        self.step = Step::Field;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the table after each of these blocks.
    fn sizes(most: u32, blocks: &[&str]) -> Vec<(u32, usize)> {
        let mut hpack = Hpack::default();
        hpack.table.resize(most).unwrap();
        let one = |text: &&str| {
            let digits = text.replace(' ', "");
            let pairs = (0..digits.len()).step_by(2);
            let bytes = pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
            hpack.begin();
            hpack.follow(&mut bytes.collect::<Vec<_>>()).unwrap();
            hpack.end().unwrap();
            (hpack.table.size, hpack.table.entries.len())
        };
        blocks.iter().map(one).collect()
    }

    #[test]
    fn the_table_is_as_large_as_in_the_examples_of_the_rfc() {
        // Appendix C.3 and C.4: requests, without and with the Huffman code.
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let coded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        let wanted = [(57, 1), (110, 2), (164, 3)];
        assert_eq!(sizes(LARGEST_TABLE, &plain), wanted);
        assert_eq!(sizes(LARGEST_TABLE, &coded), wanted);
        // Appendix C.6: answers, with a table from which entries fall out.
        let answers = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 \
             63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 \
             b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        assert_eq!(sizes(256, &answers), [(222, 4), (222, 4), (215, 3)]);
    }
}
