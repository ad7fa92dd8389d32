//! What each test came to, read from what `cargo test` prints and kept in `target/tidegate/test-results.tsv`.
//!
//! A line is a crate, a test and `ok` or `FAILED`, with tabs between them. A whole run begins the file anew, a run of some tests
//! adds to it; of several lines for a test the last one counts.

use anyhow::Context;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// The name of a test behind that of its crate, as in `balance::endpoint_set::tests::nothing_to_pick_from`, and whether it
/// passed.
pub(crate) type Results = BTreeMap<String, bool>;

/// Where results are.
pub(crate) fn path() -> PathBuf {
    super::target().join("tidegate/test-results.tsv")
}

/// The results of the last run; none where there was no run.
pub(crate) fn read() -> anyhow::Result<Results> {
    let path = path();
    match fs::read_to_string(&path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Results::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn parse(text: &str) -> Results {
    let line = |line: &str| {
        let mut parts = line.split('\t');
        let (krate, name, result) = (parts.next()?, parts.next()?, parts.next()?);
        Some((format!("{krate}::{name}"), result == "ok"))
    };
    text.lines().filter_map(line).collect()
}

/// Writes results as they come.
pub(super) struct Writer(File);

impl Writer {
    /// Adds to what is there, or begins anew.
    pub(super) fn open(anew: bool) -> anyhow::Result<Self> {
        let path = path();
        let cannot = || format!("cannot write {}", path.display());
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(cannot)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).write(true);
        match anew {
            true => options.truncate(true),
            false => options.append(true),
        };
        Ok(Self(options.open(&path).with_context(cannot)?))
    }

    /// Writes what a check came to that is no test of cargo's.
    pub(super) fn check(&mut self, name: &str, passed: bool) -> anyhow::Result<()> {
        let (krate, test) = name.split_once("::").unwrap_or(("", name));
        self.write(&Outcome {
            krate: krate.to_owned(),
            test: test.to_owned(),
            passed,
        })
    }

    pub(super) fn write(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        let result = if outcome.passed { "ok" } else { "FAILED" };
        writeln!(self.0, "{}\t{}\t{result}", outcome.krate, outcome.test)
            .context("cannot write results of tests")
    }
}

/// One test that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    krate: String,
    test: String,
    passed: bool,
}

/// Reads what `cargo test` prints, line by line, its two outputs in one.
///
/// With `--nocapture` a test may print between its name and its result, and with one thread always does: the result is then a
/// line of its own, or the end of the test's last line.
#[derive(Default)]
pub(super) struct Reader {
    krate: String,
    begun: Option<Begun>,
}

/// A test that was named without its result.
struct Begun {
    test: String,
    /// What a whole line said.
    line: Option<bool>,
    /// What the last line ended with.
    glued: Option<bool>,
}

impl Reader {
    /// What a line ends, if anything.
    pub(super) fn line(&mut self, line: &str) -> Vec<Outcome> {
        if let Some(krate) = crate_of(line) {
            let ended = self.end();
            self.krate = krate;
            return ended.into_iter().collect();
        }
        if line.starts_with("test result: ") || line == "failures:" {
            return self.end().into_iter().collect();
        }
        if let Some((name, rest)) = begins(line) {
            let mut ended: Vec<_> = self.end().into_iter().collect();
            match word(rest) {
                Some(passed) => ended.push(self.outcome(name, passed)),
                None if rest.starts_with("ignored") => {}
                None => {
                    self.begun = Some(Begun {
                        test: name.to_owned(),
                        line: None,
                        glued: last_word(rest),
                    });
                }
            }
            return ended;
        }
        if let Some(begun) = &mut self.begun {
            begun.line = word(line).or(begun.line);
            begun.glued = last_word(line);
        }
        Vec::new()
    }

    /// The test that was named last, if its result was not told with its name. A test without any result broke its process.
    pub(super) fn end(&mut self) -> Option<Outcome> {
        let begun = self.begun.take()?;
        let passed = begun.line.or(begun.glued).unwrap_or(false);
        Some(self.outcome(&begun.test, passed))
    }

    fn outcome(&self, test: &str, passed: bool) -> Outcome {
        Outcome {
            krate: self.krate.clone(),
            test: test.to_owned(),
            passed,
        }
    }
}

/// The crate whose tests follow.
fn crate_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(krate) = line.strip_prefix("Doc-tests ") {
        return Some(krate.replace('-', "_"));
    }
    let program = line
        .strip_prefix("Running ")?
        .rsplit_once('(')?
        .1
        .strip_suffix(')')?;
    let (name, _hash) = program.rsplit('/').next()?.rsplit_once('-')?;
    Some(name.to_owned())
}

/// A test's name and what follows it on its line, which something without an end of line may stand before.
fn begins(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once(" ... ")?;
    let at = before.rfind("test ")?;
    let name = before[at + "test ".len()..].trim();
    // Names of doc tests have spaces, and a file.
    let is_name = |name: &str| {
        name.contains(".rs - ")
            || (!name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte)))
    };
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    is_name(name).then_some((name, rest))
}

/// What a line says that is nothing but a result.
fn word(line: &str) -> Option<bool> {
    match line.trim_end() {
        "ok" => Some(true),
        "FAILED" => Some(false),
        _ => None,
    }
}

/// What a line ends with, if it is a result that follows something without an end of line.
fn last_word(line: &str) -> Option<bool> {
    match line.trim_end() {
        line if line.ends_with("FAILED") => Some(false),
        line if line.ends_with("ok") => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(text: &str) -> Vec<(String, bool)> {
        let mut reader = Reader::default();
        let mut all: Vec<_> = text.lines().flat_map(|line| reader.line(line)).collect();
        all.extend(reader.end());
        all.into_iter()
            .map(|one| (format!("{}::{}", one.krate, one.test), one.passed))
            .collect()
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, bool)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, passed)| ((*name).to_owned(), *passed))
            .collect();
        assert_eq!(outcomes(text), expected);
    }

    #[test]
    fn results_are_read_with_their_crate() {
        check(
            "   Compiling a v0.0.0\n     Running unittests src/lib.rs (target/debug/deps/data_plane-0f00)\n\nrunning 2 tests\n\
             test a::one ... ok\ntest a::two ... FAILED\n\nfailures:\n\n---- a::two stdout ----\n\nfailures:\n    a::two\n\n\
             test result: FAILED. 1 passed; 1 failed\n     Running tests/golden.rs (/t/debug/deps/golden-12)\ntest golden ... ok\n",
            &[
                ("data_plane::a::one", true),
                ("data_plane::a::two", false),
                ("golden::golden", true),
            ],
        );
    }

    #[test]
    fn results_come_later_where_tests_print() {
        check(
            "Running tests/it/main.rs (target/debug/deps/it-12)\n\
             test a::one ... first line\nsecond ok\nok\ntest a::two ... ok\ntest a::three ... \nthread 'a::three' panicked\nFAILED\n\
             test a::four ... no end of lineok\ntest result: ok. 4 passed\n",
            &[
                ("it::a::one", true),
                ("it::a::two", true),
                ("it::a::three", false),
                ("it::a::four", true),
            ],
        );
    }

    #[test]
    fn a_test_that_breaks_its_process_has_failed() {
        check(
            "Running tests/it/main.rs (target/debug/deps/it-12)\ntest a::one ... killed\nerror: test failed\n\
             Doc-tests data_plane\ntest crates/data-plane/src/lib.rs - start (line 10) ... ok\n",
            &[
                ("it::a::one", false),
                (
                    "data_plane::crates/data-plane/src/lib.rs - start (line 10)",
                    true,
                ),
            ],
        );
    }

    #[test]
    fn the_last_line_of_a_test_counts() {
        let results = parse("it\ta::one\tFAILED\nbalance\tb\tok\nit\ta::one\tok\nbroken\n");
        let expected = [("balance::b", true), ("it::a::one", true)];
        assert_eq!(
            results,
            expected.map(|(name, ok)| (name.to_owned(), ok)).into()
        );
    }
}
