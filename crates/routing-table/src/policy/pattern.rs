//! A regular expression that the answer to a probe must fit.

use regex::bytes::{Regex, RegexBuilder};
use std::fmt;
use std::sync::Arc;

/// Most memory that a compiled expression may take, in bytes.
const MOST_SIZE: usize = 256 * 1024;

/// A regular expression over bytes. It takes time in proportion to what it looks at, whatever it is.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
}

impl Pattern {
    /// Reads an expression in the syntax of the crate `regex`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(MOST_SIZE).build();
        let regex = built.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it takes too much memory".to_owned(),
            // Several lines with a drawing; the last one says what it is.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                let last = last.strip_prefix("error: ").unwrap_or(last);
                format!("it is no regular expression: {last}")
            }
        })?;
        Ok(Self {
            text: text.into(),
            regex,
        })
    }

    /// Whether it fits anywhere in these bytes.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        self.regex.is_match(bytes)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn what_fits() {
        let pattern = Pattern::new("^(?i)role:(master|slave)\\r$|\\x00").unwrap();
        for (bytes, fits) in [
            (&b"ROLE:master\r"[..], true),
            (b"role:sentinel\r", false),
            (b" role:slave\r", false),
            (b"\xff\0", true),
        ] {
            assert_eq!(pattern.fits(bytes), fits, "{bytes:?}");
        }
        let wrong = |text| Pattern::new(text).unwrap_err();
        assert_eq!(wrong("(a"), "it is no regular expression: unclosed group");
        assert_eq!(wrong("((\\w{99}){99}){99}"), "it takes too much memory");
    }
}
