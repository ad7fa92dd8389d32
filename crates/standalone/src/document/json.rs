//! JSON (RFC 8259) with places. Strings and numbers are decoded by `serde_json`; what is here finds where they begin and end.

use super::{Entry, Lines, MAX_DEPTH, MAX_NODES, Node, Value, mapping, number};
use crate::problem::{Place, Step, Wrong};

pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let mut parser = Parser {
        text,
        lines: Lines::new(text),
        at: 0,
        nodes: 0,
        path: Vec::new(),
    };
    parser.space();
    if parser.at == text.len() {
        return Ok(Node {
            place: Place::default(),
            value: Value::Null,
        });
    }
    let node = parser.value()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.wrong("something behind the end of the value"));
    }
    Ok(node)
}

struct Parser<'a> {
    text: &'a str,
    lines: Lines<'a>,
    at: usize,
    nodes: usize,
    path: Vec<Step>,
}

impl Parser<'_> {
    fn wrong(&self, message: &str) -> Wrong {
        Wrong {
            path: self.path.clone(),
            place: Some(self.lines.place(self.at)),
            message: message.to_owned(),
        }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes past a byte, if it is next.
    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        let eaten = self.next() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    fn value(&mut self) -> Result<Node, Wrong> {
        self.space();
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.wrong("more values than a file may hold"));
        }
        if self.path.len() > MAX_DEPTH {
            return Err(self.wrong(&format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let place = self.lines.place(self.at);
        let value = match self.next() {
            Some(b'{') => self.map()?,
            Some(b'[') => self.list()?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { place, value })
    }

    fn map(&mut self) -> Result<Value, Wrong> {
        let mut map = Vec::new();
        self.at += 1;
        if self.eat(b'}') {
            return mapping(map, self.path.clone());
        }
        loop {
            self.space();
            let place = self.lines.place(self.at);
            if self.next() != Some(b'"') {
                return Err(self.wrong("expected a key in quotes"));
            }
            let key = self.string()?;
            if !self.eat(b':') {
                return Err(self.wrong("expected ':'"));
            }
            self.path.push(Step::Key(key.clone()));
            let node = self.value()?;
            self.path.pop();
            map.push(Entry { key, place, node });
            if self.eat(b'}') {
                return mapping(map, self.path.clone());
            }
            if !self.eat(b',') {
                return Err(self.wrong("expected ',' or '}'"));
            }
        }
    }

    fn list(&mut self) -> Result<Value, Wrong> {
        let mut list = Vec::new();
        self.at += 1;
        if self.eat(b']') {
            return Ok(Value::List(list));
        }
        loop {
            self.path.push(Step::Index(list.len()));
            list.push(self.value()?);
            self.path.pop();
            if self.eat(b']') {
                return Ok(Value::List(list));
            }
            if !self.eat(b',') {
                return Err(self.wrong("expected ',' or ']'"));
            }
        }
    }

    fn string(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        loop {
            match bytes.get(end) {
                None | Some(b'\n') => return Err(self.wrong("a string without an end")),
                Some(b'\\') => end += 2,
                Some(b'"') => break,
                Some(_) => end += 1,
            }
        }
        let literal = self.text.get(start..=end).unwrap_or_default();
        let decoded = serde_json::from_str(literal).map_err(|error| {
            let error = error.to_string();
            let what = error.split(" at line").next().unwrap_or_default();
            self.wrong(what)
        })?;
        self.at = end + 1;
        Ok(decoded)
    }

    fn number(&mut self) -> Result<Value, Wrong> {
        let rest = &self.text[self.at..];
        let length = rest
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            .count();
        let literal = &rest[..length];
        // Whether it is one, by the grammar of JSON; its value is read as everywhere else.
        if serde_json::from_str::<serde::de::IgnoredAny>(literal).is_err() {
            return Err(self.wrong("not a number"));
        }
        let value = match number(literal) {
            Some(Ok(value)) => value,
            Some(Err(message)) => return Err(self.wrong(&message)),
            None => return Err(self.wrong("not a number")),
        };
        self.at += length;
        Ok(value)
    }

    fn word(&mut self) -> Result<Value, Wrong> {
        for (word, value) in [
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
        ] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("expected a value"))
    }
}
