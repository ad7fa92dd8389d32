//! Promises that are kept by what is written, not by what runs: words of the documentation, locks in public items, what the
//! README says of production.

use crate::process::{files, root};
use anyhow::Context;
use std::fs;

/// What is not as promised.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in files(&["README.md", "docs/*.md"])? {
        problems.extend(words(&file, &read(&file)?));
    }
    for file in files(&["crates/*/src/*.rs"])? {
        if !file.contains("/tests") && !file.ends_with("_tests.rs") {
            problems.extend(public_locks(&file, &read(&file)?));
        }
    }
    problems.extend(status_of_production(&read("README.md")?));
    Ok(problems)
}

fn read(file: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))
}

/// What only an active check does: ask a question of our own.
const OF_ACTIVE: &[&str] = &["probe", "question of our own"];
/// What only a passive check does: judge what clients ask.
const OF_PASSIVE: &[&str] = &["real traffic", "requests it gets", "requests of clients"];

/// Sentences that have active and passive checks the wrong way round: active ones make traffic, passive ones judge the real one.
fn words(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    // A row of a table is a sentence of its own.
    let text = text.replace("|\n", ". ").replace('\n', " ");
    for sentence in text.split(['.', ';']) {
        let has = |words: &[&str]| {
            let lower = sentence.to_lowercase();
            words.iter().any(|word| lower.contains(word))
        };
        let says = |word: &str| {
            let mut words =
                sentence.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            words.any(|one| one.eq_ignore_ascii_case(word))
        };
        let (active, passive) = (says("active"), says("passive"));
        if active != passive && (passive && has(OF_ACTIVE) || active && has(OF_PASSIVE)) {
            let word = if passive { "passive" } else { "active" };
            problems.push(format!(
                "{file}: {word:?} is not what this says: {}",
                sentence.trim()
            ));
        }
    }
    problems
}

const LOCKS: &[&str] = &[
    "Mutex",
    "MutexGuard",
    "RwLock",
    "RwLockReadGuard",
    "RwLockWriteGuard",
    "ReentrantLock",
    "ReentrantLockGuard",
    "Condvar",
];

/// Public functions, fields, types and statics that name a lock or its guard.
fn public_locks(file: &str, text: &str) -> Vec<String> {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut problems = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut item = line.trim().to_owned();
        if !item.starts_with("pub ") || item.starts_with("pub use ") {
            continue;
        }
        while !item.contains(['{', ';']) && !item.ends_with(',') {
            let Some((_, next)) = lines.next() else { break };
            item.push(' ');
            item.push_str(next.trim());
        }
        // Private fields of a public type are nobody's business.
        let shown = match item.strip_prefix("pub struct ") {
            Some(rest) => rest.split("pub ").skip(1).collect::<Vec<_>>().join(" "),
            None => item.split('{').next().unwrap_or_default().to_owned(),
        };
        let mut words = shown.split(|letter: char| !letter.is_ascii_alphanumeric());
        if let Some(lock) = words.find(|word| LOCKS.contains(word)) {
            problems.push(format!(
                "{file}:{}: a public item shows a {lock}: {shown}",
                number + 1
            ));
        }
    }
    problems
}

/// What the README has to say of production.
fn status_of_production(readme: &str) -> Vec<String> {
    let section = readme
        .split("\n## ")
        .find(|section| section.starts_with("Status"))
        .unwrap_or_default();
    let wanted = ["production", "### Limits", "### Support"];
    let missing = wanted.iter().filter(|word| !section.contains(**word));
    missing
        .map(|word| format!("README.md: the section Status does not say {word:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_says_active_and_passive_in_their_meaning() -> anyhow::Result<()> {
        for file in files(&["README.md", "docs/*.md"])? {
            assert_eq!(words(&file, &read(&file)?), [""; 0]);
        }
        // And says what they are at all.
        let health = read("docs/health.md")?;
        assert!(health.contains("| **active check** | we probe |"));
        assert!(health.contains("we judge real traffic (a passive check)"));
        for reversed in [
            "A passive check probes each endpoint.",
            "Passive: a question of our own",
            "| active | judges real traffic |\n| x |",
        ] {
            assert_eq!(words("x.md", reversed).len(), 1, "{reversed}");
        }
        for right in [
            "An active check probes. A passive check judges real traffic.",
            "Active checks probe, passive ones judge real traffic",
            "tidegate_requests_active counts requests it gets",
        ] {
            assert_eq!(words("x.md", right), [""; 0]);
        }
        Ok(())
    }

    #[test]
    fn no_public_item_shows_a_lock() -> anyhow::Result<()> {
        let mut looked_at = 0;
        for file in files(&["crates/*/src/*.rs"])? {
            if !file.contains("/tests") && !file.ends_with("_tests.rs") {
                assert_eq!(public_locks(&file, &read(&file)?), [""; 0]);
                looked_at += 1;
            }
        }
        assert!(looked_at > 100, "{looked_at} files");
        for shows in [
            "pub fn lock(&self) -> MutexGuard<'_, u8> {",
            "pub fn with(\n    inner: Arc<Mutex<u8>>,\n) {",
            "    pub inner: RwLock<u8>,",
            "pub struct Inner(pub Mutex<u8>);",
            "pub type Shared = Arc<Mutex<u8>>;",
            "pub static ALL: std::sync::RwLock<u8> = todo;",
        ] {
            assert_eq!(public_locks("x.rs", shows).len(), 1, "{shows}");
        }
        for hides in [
            "pub struct Inner(Mutex<u8>);",
            "pub struct Inner {\n    inner: Mutex<u8>,\n}",
            "pub(crate) fn lock(&self) -> MutexGuard<'_, u8> {",
            "pub fn read(&self) -> u8 { *self.inner.lock() } // Mutex",
        ] {
            assert_eq!(public_locks("x.rs", hides), [""; 0]);
        }
        Ok(())
    }

    #[test]
    fn the_readme_says_whether_it_is_for_production() -> anyhow::Result<()> {
        assert_eq!(status_of_production(&read("README.md")?), [""; 0]);
        assert_eq!(status_of_production("# X\n\n## Status\n\nGood.\n").len(), 3);
        Ok(())
    }
}
