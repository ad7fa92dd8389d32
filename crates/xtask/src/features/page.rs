//! `docs/features.md`, read and checked: its tables, the ids, the tests that are named, the links.

use crate::process::{self, root};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The page, from the root of the checkout.
pub(crate) const PATH: &str = "docs/features.md";

const HEADER: &str = "| Id | Feature | What proves it | Tests |";

/// Ids without a gap, so that no row gets lost: each letter and how many there are.
const IDS: &[(&str, usize)] = &[
    ("R", 9),
    ("D", 22),
    ("B", 20),
    ("H", 14),
    ("T", 8),
    ("P", 22),
    ("L", 11),
    ("S", 6),
    ("O", 20),
    ("HN", 27),
];

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) groups: Vec<Group>,
}

/// A heading and the table below it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) feature: String,
    /// What of it is not proved, where that is only a part.
    pub(super) not_yet: Option<String>,
    pub(super) proof: Proof,
}

/// What the last column says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Names of tests, each behind its crate's, or of rows that have some.
    Tests(Vec<Evidence>),
    /// A page with figures that no test can assert.
    Measured(String),
    /// What is missing.
    Missing(String),
    OutOfScope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Evidence {
    /// As `balance::endpoint_set::tests::nothing_to_pick_from`.
    Test(String),
    /// The id of another row.
    See(String),
}

impl Page {
    pub(super) fn read() -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(root().join(PATH)).with_context(|| format!("cannot read {PATH}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut page = Self::default();
        let (mut heading, mut in_table) = (String::new(), false);
        for (number, line) in text.lines().enumerate() {
            let at = || format!("{PATH}:{}", number + 1);
            if let Some(name) = line.strip_prefix("## ") {
                name.clone_into(&mut heading);
            }
            if line == HEADER {
                in_table = true;
                page.groups.push(Group {
                    name: heading.clone(),
                    rows: Vec::new(),
                });
            } else if !line.starts_with('|') {
                in_table = false;
            } else if in_table && !line.starts_with("|---") {
                let row = Row::parse(line).with_context(at)?;
                let group = page.groups.last_mut().with_context(at)?;
                group.rows.push(row);
            }
        }
        Ok(page)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(|group| &group.rows)
    }
}

impl Row {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let inner = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'));
        let cells: Vec<_> = inner
            .context("a row ends with |")?
            .split('|')
            .map(str::trim)
            .collect();
        let [id, feature, proves, tests] = cells[..] else {
            anyhow::bail!("a row has four cells, not {}", cells.len());
        };
        let not_yet = proves.split_once("Not yet: ").map(|(_, what)| what);
        Ok(Self {
            id: id.to_owned(),
            feature: feature.to_owned(),
            not_yet: not_yet.map(str::to_owned),
            proof: Proof::parse(tests)?,
        })
    }
}

impl Proof {
    fn parse(cell: &str) -> anyhow::Result<Self> {
        if let Some(what) = cell.strip_prefix("missing: ") {
            return Ok(Self::Missing(what.to_owned()));
        }
        if cell == "[out of scope](scope.md)" {
            return Ok(Self::OutOfScope);
        }
        let quoted = cell
            .strip_prefix('`')
            .and_then(|cell| cell.strip_suffix('`'));
        if let Some(page) = quoted.filter(|page| page.starts_with("docs/") && page.ends_with(".md"))
        {
            return Ok(Self::Measured(page.to_owned()));
        }
        let named = |name: &str| match name.strip_prefix("see ") {
            Some(id) => Some(Evidence::See(id.to_owned())),
            None => (name.contains("::") && !name.contains('`'))
                .then(|| Evidence::Test(name.to_owned())),
        };
        let all: Option<Vec<_>> = quoted.and_then(|names| names.split("`, `").map(named).collect());
        all.map(Self::Tests).with_context(|| {
            format!(
                "{cell:?} is none of: `crate::test`, `see R1`, several of these, `docs/page.md`, \"missing: what\", \"[out of scope](scope.md)\""
            )
        })
    }
}

/// What is wrong with the page.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let page = Page::read()?;
    let mut problems = ids(&page);
    problems.extend(tests(&page, &sources()?));
    problems.extend(links()?);
    Ok(problems)
}

/// Ids that are there twice, are not there, or should not be.
fn ids(page: &Page) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for row in page.rows() {
        if !seen.insert(row.id.clone()) {
            problems.push(format!("{PATH}: {} is there twice", row.id));
        }
    }
    let expected: BTreeSet<String> = IDS
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n}")))
        .collect();
    problems.extend(
        expected
            .difference(&seen)
            .map(|id| format!("{PATH}: {id} is missing")),
    );
    problems.extend(
        seen.difference(&expected)
            .map(|id| format!("{PATH}: {id} is not one of the ids in xtask/src/features/page.rs")),
    );
    problems
}

/// What the sources of each test crate say, by its name.
fn sources() -> anyhow::Result<BTreeMap<String, String>> {
    let mut sources = BTreeMap::<String, String>::new();
    for file in process::files(&["*.rs"])? {
        let Ok(text) = fs::read_to_string(root().join(&file)) else {
            continue;
        };
        if let Some(krate) = crate_of(&file) {
            sources.entry(krate).or_default().push_str(&text);
        }
    }
    Ok(sources)
}

/// The test crate that a file belongs to, as cargo names it: that of `crates/NAME/src`, `crates/NAME/tests/TEST.rs` or `TEST/`,
/// and `tests/it`.
fn crate_of(file: &str) -> Option<String> {
    let parts: Vec<_> = file.split('/').collect();
    let name = match parts[..] {
        ["crates", krate, "src", ..] => krate,
        ["crates", _, "tests", test, ..] => test.strip_suffix(".rs").unwrap_or(test),
        ["tests", "it", ..] => "it",
        _ => return None,
    };
    Some(name.replace('-', "_"))
}

/// Tests, rows and pages that are named and not there.
fn tests(page: &Page, sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut problems = Vec::new();
    let ids: BTreeSet<_> = page.rows().map(|row| row.id.as_str()).collect();
    for row in page.rows() {
        let mut not_there =
            |what: &str| problems.push(format!("{PATH}: {}: there is no {what}", row.id));
        let all = match &row.proof {
            Proof::Tests(all) => all,
            Proof::Measured(page) if !root().join(page).exists() => {
                not_there(page);
                continue;
            }
            _ => continue,
        };
        for one in all {
            match one {
                Evidence::See(id) if !ids.contains(id.as_str()) => not_there(&format!("row {id}")),
                Evidence::Test(test) if !is_there(test, sources) => {
                    not_there(&format!("test {test}"))
                }
                _ => {}
            }
        }
    }
    problems
}

/// Whether the crate of a test has a function of its name.
fn is_there(test: &str, sources: &BTreeMap<String, String>) -> bool {
    let Some((krate, path)) = test.split_once("::") else {
        return false;
    };
    let function = format!("fn {}(", path.rsplit("::").next().unwrap_or(path));
    test == crate::test::CHART
        || sources
            .get(krate)
            .is_some_and(|text| text.contains(&function))
}

/// Links of the page to files that are not there.
fn links() -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(root().join(PATH))?;
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    Ok(files
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|file| !root().join("docs").join(file).exists())
        .map(|file| format!("{PATH}: there is no {file}"))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &str) -> String {
        format!(
            "# Features\n\n## Routing\n\n{HEADER}\n|---|---|---|---|\n{rows}\n\n| not | of | the | tables |\n"
        )
    }

    #[test]
    fn tables_become_rows() -> anyhow::Result<()> {
        let page = Page::parse(&table(
            "| R1 | Hosts | Each. Not yet: a lot | `a::b`, `see R2`, `c::d e, f` |\n| R2 | More | | missing: a lot |\n\
             | R3 | x | y | [out of scope](scope.md) |\n| R4 | x | y | `docs/performance.md` |",
        ))?;
        assert_eq!(page.groups.len(), 1);
        assert_eq!(page.groups[0].name, "Routing");
        let not_yet: Vec<_> = page.rows().map(|row| row.not_yet.as_deref()).collect();
        assert_eq!(not_yet, [Some("a lot"), None, None, None]);
        let proofs: Vec<_> = page.rows().map(|row| &row.proof).collect();
        let tests = [
            Evidence::Test("a::b".into()),
            Evidence::See("R2".into()),
            Evidence::Test("c::d e, f".into()),
        ];
        assert_eq!(
            proofs,
            [
                &Proof::Tests(tests.into()),
                &Proof::Missing("a lot".into()),
                &Proof::OutOfScope,
                &Proof::Measured("docs/performance.md".into()),
            ]
        );
        Ok(())
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for row in [
            "| R1 | Hosts | each |",
            "| R1 | Hosts | each | a::b |",
            "| R1 | Hosts | each | `a` |",
            "| R1 | Hosts | each | `a::b` and `c::d` |",
            "| R1 | Hosts | each | missing |",
            "| R1 | Hosts | each | |",
            "| R1 | Hosts | each | `a::b`",
        ] {
            assert!(Page::parse(&table(row)).is_err(), "{row}");
        }
    }

    #[test]
    fn ids_are_those_there_should_be() -> anyhow::Result<()> {
        let all = IDS
            .iter()
            .flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n}")));
        let row = |id: String| format!("| {id} | x | y | missing: z |");
        let mut rows: Vec<_> = all.map(row).collect();
        assert_eq!(ids(&Page::parse(&table(&rows.join("\n")))?), [""; 0]);
        rows[0] = row("R2".into());
        rows.push(row("X1".into()));
        let problems = ids(&Page::parse(&table(&rows.join("\n")))?);
        assert_eq!(problems.len(), 3, "{problems:?}");
        Ok(())
    }

    #[test]
    fn what_is_named_is_looked_for() -> anyhow::Result<()> {
        let sources = BTreeMap::from([("a".to_owned(), "async fn here() {".to_owned())]);
        let page = Page::parse(&table(
            "| R1 | x | y | `a::m::here`, `see R2` |\n| R2 | x | y | `b::here` |\n| R3 | x | y | `a::her`, `see R9` |\n\
             | R4 | x | y | `docs/nothing.md` |",
        ))?;
        let problems = tests(&page, &sources);
        assert_eq!(problems.len(), 4, "{problems:?}");
        for (file, expected) in [
            ("crates/controller/tests/controller/lease.rs", "controller"),
            ("crates/translate/tests/golden.rs", "golden"),
            ("crates/data-plane/src/tests/l4/tcp.rs", "data_plane"),
            ("tests/it/vectors/mod.rs", "it"),
        ] {
            assert_eq!(crate_of(file).as_deref(), Some(expected));
        }
        Ok(())
    }
}
