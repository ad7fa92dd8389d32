//! A file as a tree in which every value knows its place, whichever of YAML, JSON and TOML it is written in.
//!
//! Bounded in size, depth and number of values, aliases counted as what they stand for. Keys that repeat are refused here,
//! so that nobody has to guess which one counts. It does not know what the keys mean: `reader` turns the tree into types.

mod json;
pub(crate) mod reader;
mod toml;
mod variables;
mod yaml;

use crate::problem::{Place, Problem, Step, Wrong, shown};
use std::collections::HashMap;
use std::path::Path;

/// Largest file in bytes.
pub(crate) const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Most values.
const MAX_NODES: usize = 200_000;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `.yaml`, `.yml`, standard input, and whatever has another ending.
    Yaml,
    /// `.json`
    Json,
    /// `.toml`
    Toml,
}

impl Format {
    /// By the ending of a file's name.
    pub(crate) fn of(file: &Path) -> Self {
        match file.extension().and_then(|end| end.to_str()) {
            Some(end) if end.eq_ignore_ascii_case("json") => Self::Json,
            Some(end) if end.eq_ignore_ascii_case("toml") => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    /// Text with variables filled in, whose type is what its reader wants.
    Filled(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

/// Looks a variable of the environment up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a text.
pub(crate) fn parse(text: &str, format: Format, lookup: Lookup<'_>) -> Result<Node, Wrong> {
    let mut root = match format {
        Format::Yaml => yaml::parse(text)?,
        Format::Json => json::parse(text)?,
        Format::Toml => toml::parse(text)?,
    };
    variables::fill(&mut root, lookup)?;
    if root.value == Value::Null {
        return Err(Wrong::here(Place::default(), "the file is empty"));
    }
    Ok(root)
}

impl Node {
    /// The place of what a path leads to, or of the last part of it that there is.
    pub(crate) fn place_of(&self, path: &[Step]) -> Place {
        let mut node = self;
        for step in path {
            let next = match (&node.value, step) {
                (Value::List(all), Step::Index(index)) => all.get(*index),
                (Value::Map(all), Step::Key(key)) => all
                    .iter()
                    .find(|entry| entry.key == *key)
                    .map(|entry| &entry.node),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// What is wrong, with its place in this document.
    pub(crate) fn problem(&self, file: &Path, wrong: Wrong) -> Problem {
        let place = wrong.place.unwrap_or_else(|| self.place_of(&wrong.path));
        problem(file, place, wrong)
    }
}

/// What is wrong with a text that is no document.
pub(crate) fn no_document(file: &Path, wrong: Wrong) -> Problem {
    problem(file, wrong.place.unwrap_or_default(), wrong)
}

fn problem(file: &Path, place: Place, wrong: Wrong) -> Problem {
    Problem {
        file: file.to_owned(),
        place,
        path: shown(&wrong.path),
        message: wrong.message,
    }
}

/// A complete mapping, which stands at `path`: its keys must differ.
fn mapping(entries: Vec<Entry>, path: Vec<Step>) -> Result<Value, Wrong> {
    let mut seen = HashMap::new();
    for entry in &entries {
        if let Some(line) = seen.insert(entry.key.as_str(), entry.place.line) {
            return Err(Wrong {
                path: path
                    .into_iter()
                    .chain([Step::Key(entry.key.clone())])
                    .collect(),
                place: Some(entry.place),
                message: format!("this key stands on line {line} already"),
            });
        }
    }
    Ok(Value::Map(entries))
}

/// What a scalar that is not quoted is, by the core schema of YAML 1.2 (section 10.3.2).
fn plain(text: &str, place: Place) -> Result<Value, Wrong> {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match number(text) {
            Some(number) => number.map_err(|message| Wrong::here(place, message))?,
            None => Value::Text(text.to_owned()),
        },
    };
    Ok(value)
}

/// A number, if it is written as one.
fn number(text: &str) -> Option<Result<Value, String>> {
    let too_large = || {
        format!(
            "the number {} is too large",
            crate::problem::printable(text)
        )
    };
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x', ..] => (16, &text[2..]),
        [b'0', b'o', ..] => (8, &text[2..]),
        [b'+', rest @ ..] if rest.first() != Some(&b'-') => (10, &text[1..]),
        _ => (10, text),
    };
    let unsigned = digits
        .strip_prefix('-')
        .filter(|_| radix == 10)
        .unwrap_or(digits);
    if !unsigned.is_empty() && unsigned.chars().all(|c| c.is_digit(radix)) {
        let integer = i128::from_str_radix(digits, radix).map_err(|_| too_large());
        return Some(integer.map(Value::Integer));
    }
    let is_float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.chars().any(|c| c.is_ascii_digit())
        && unsigned
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !is_float {
        return None;
    }
    match digits.parse::<f64>() {
        Ok(float) if float.is_finite() => Some(Ok(Value::Float(float))),
        Ok(_) => Some(Err(too_large())),
        // An address, or a version.
        Err(_) => None,
    }
}

/// Finds lines and columns of byte offsets.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1));
        Self {
            text,
            starts: starts.collect(),
        }
    }

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        Place {
            line,
            column: before.chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests;
