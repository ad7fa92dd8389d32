//! Reading a configuration from a file or standard input. `named_backends` is for where there is none.

use crate::build::{self, Context, Defaults, Failure, Translation, build};
use crate::config::Config;
use crate::document::{self, Format, MAX_FILE, no_document};
use crate::file;
use crate::problem::Problem;
use std::io::Read;
use std::path::Path;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is wrong: nothing but changing it helps.
    #[error("{0}")]
    Config(Problem),
    /// A file that it names cannot be used.
    #[error("{0}")]
    File(Problem),
}

/// Reads and builds the configuration of a file; `-` is standard input.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn load(file: &Path, defaults: &Defaults) -> Result<Translation, LoadError> {
    translate(
        file,
        &text(file).map_err(LoadError::Config)?,
        defaults,
        true,
    )
}

/// As [`load`], without reading the files that it names: there are no certificates in the result, so it is to be shown and tried,
/// not served.
///
/// # Errors
/// As [`load`].
pub fn load_without_files(file: &Path, defaults: &Defaults) -> Result<Translation, LoadError> {
    translate(
        file,
        &text(file).map_err(LoadError::Config)?,
        defaults,
        false,
    )
}

/// Whether a file is a configuration rather than manifests of Kubernetes, by what its lines begin with. So that one command
/// can take either.
pub fn is_configuration(file: &Path) -> bool {
    if file.is_dir() {
        return false;
    }
    if file == Path::new("-") || Format::of(file) == Format::Toml {
        return true;
    }
    let text = file::read(file, MAX_FILE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let Ok(text) = text else { return false };
    let begins = |words: &[&str]| {
        let mut lines = text
            .lines()
            .map(|line| line.trim_start_matches(['\u{feff}', '{', ' ', '\t', '"', '-']));
        lines.any(|line| {
            words.iter().any(|word| {
                let rest = line.strip_prefix(word);
                rest.is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with(':'))
            })
        })
    };
    !begins(&["apiVersion"]) && begins(&["listeners", "routes", "backends"])
}

/// The text of a file.
pub(crate) fn text(file: &Path) -> Result<String, Problem> {
    let bytes = if file == Path::new("-") {
        file::bounded(std::io::stdin().lock().by_ref(), MAX_FILE)
    } else {
        file::read(file, MAX_FILE)
    };
    bytes
        .and_then(file::text)
        .map_err(|message| Problem::whole(file, message))
}

/// Builds the configuration that a text is.
pub(crate) fn translate(
    file: &Path,
    text: &str,
    defaults: &Defaults,
    read_files: bool,
) -> Result<Translation, LoadError> {
    let lookup = |name: &str| std::env::var(name).ok();
    let root = document::parse(text, Format::of(file), &lookup)
        .map_err(|wrong| LoadError::Config(no_document(file, wrong)))?;
    let config: Config = document::reader::read(&root)
        .map_err(|wrong| LoadError::Config(root.problem(file, wrong)))?;
    let context = Context {
        config: &config,
        defaults,
        base: file.parent().map(Path::to_owned).unwrap_or_default(),
        read_files,
    };
    let mut made = build(&context).map_err(|failure| match failure {
        Failure::Wrong(wrong) => LoadError::Config(root.problem(file, wrong)),
        Failure::File(wrong) => LoadError::File(root.problem(file, wrong)),
    })?;
    let warnings = build::warnings(&config, &made.table).into_iter();
    made.warnings = warnings
        .map(|warning| root.problem(file, warning).to_string())
        .collect();
    Ok(made)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_configuration_is_told_from_manifests() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        for (text, expected) in [
            ("listeners: []\n", true),
            ("\u{feff}routes: []\n", true),
            ("{\n\t\"backends\" : {}\n}", true),
            ("apiVersion: v1\nkind: List\nroutes: []\n", false),
            ("{\n\t\"apiVersion\": \"v1\",\n\t\"routes\": []\n}", false),
            ("# listeners: []\n", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(is_configuration(&file), expected, "{text}");
        }
    }
}
