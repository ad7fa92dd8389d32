//! What is wrong with a file and where, as one line. Deliberately no list: the first mistake often makes the others.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a file, counted from 1. Line 0 is the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// One step of a key path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Something wrong at a key path. Its place is looked up in the document unless it is known already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) path: Vec<Step>,
    pub(crate) place: Option<Place>,
    pub(crate) message: String,
}

impl Wrong {
    /// At a key path.
    pub(crate) fn at(path: &[Step], message: impl Into<String>) -> Self {
        Self {
            path: path.to_vec(),
            place: None,
            message: message.into(),
        }
    }

    /// At a place that is not, or not yet, part of a document.
    pub(crate) fn here(place: Place, message: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            place: Some(place),
            message: message.into(),
        }
    }
}

/// A key path of the steps given.
macro_rules! steps {
    ($($step:expr),* $(,)?) => { [$($crate::problem::Step::from($step)),*] };
}
pub(crate) use steps;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// Where in it.
    pub place: Place,
    /// The key path, for example `routes[0].backend`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// Of a file as a whole.
    pub(crate) fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            place: Place::default(),
            path: String::new(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A key path as it is shown.
pub(crate) fn shown(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Index(index) => out.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&printable(key));
            }
        }
    }
    out
}

/// Text of a stranger, short and on one line.
pub(crate) fn printable(text: &str) -> String {
    const MOST: usize = 80;
    let mut out: String = text
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

/// The known word that was probably meant.
pub(crate) fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // However the words of a key are joined.
    let plain = |word: &str| word.to_ascii_lowercase().replace(['-', '_'], "");
    let lower = plain(word);
    let distance = |one: &str| strsim::damerau_levenshtein(&lower, &plain(one));
    let most = word
        .len()
        .div_ceil(3)
        .min(3)
        .min(word.len().saturating_sub(1));
    let near = known.into_iter().filter(|one| distance(one) <= most);
    near.min_by_key(|one| distance(one))
}

/// Says that a word is not known: with a guess, or with what is.
pub fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let shown = printable(word);
    match meant(word, known.iter().copied()) {
        Some(guess) => format!("unknown {what} \"{shown}\", did you mean \"{guess}\"?"),
        None if known.is_empty() => format!("unknown {what} \"{shown}\", there is none"),
        None => format!(
            "unknown {what} \"{shown}\", known are: {}",
            known.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: Option<&str>) {
        assert_eq!(
            meant(word, ["listeners", "routes", "firstPathSegment"]),
            expected,
            "{word}"
        );
    }

    #[test]
    fn what_was_meant() {
        check("listners", Some("listeners"));
        check("Routes", Some("routes"));
        check("first-path-segment", Some("firstPathSegment"));
        check("first_path_segment", Some("firstPathSegment"));
        check("route", Some("routes"));
        check("backends", None);
        check("", None);
    }

    #[test]
    fn paths_are_shown_as_they_are_written() {
        assert_eq!(
            shown(&steps!["routes", 0, "path", "exact"]),
            "routes[0].path.exact"
        );
        assert_eq!(printable("a\nb"), "a\u{fffd}b");
        assert_eq!(printable(&"x".repeat(100)).chars().count(), 81);
    }
}
