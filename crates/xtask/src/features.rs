//! `cargo xtask features`: every feature, the tests that prove it, and what they came to in the last `cargo xtask test`.

mod page;

use crate::test;
use crate::test::results::{self, Results};
use anyhow::bail;
use page::{Evidence, Page, Proof, Row};
use std::collections::BTreeMap;
use std::fmt;

pub(crate) use page::check;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run `cargo xtask test` before
    #[arg(long)]
    run: bool,
}

/// What is known of a feature; the later one is the worse of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Ok,
    Measured,
    Missing,
    OutOfScope,
    NotRun,
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Measured => "measured",
            Self::Failed => "FAILED",
            Self::NotRun => "not run",
            Self::Missing => "missing",
            Self::OutOfScope => "out of scope",
        })
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if args.run {
        // Its failures are those of rows too.
        if let Err(error) = test::run(test::Args::default()) {
            eprintln!("error: {error:#}");
        }
    }
    let problems = check()?;
    let page = Page::read()?;
    let results = results::read()?;
    let mut totals = BTreeMap::<Status, usize>::new();
    let mut in_part = 0;
    for group in &page.groups {
        println!("\n{}", group.name);
        for row in &group.rows {
            let status = status(row, &page, &results);
            *totals.entry(status).or_default() += 1;
            in_part += usize::from(status == Status::Ok && row.not_yet.is_some());
            print!("{}", shown(row, status, &results));
        }
    }
    let all: usize = totals.values().sum();
    let parts: Vec<_> = totals
        .iter()
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    println!("\n{all} features: {}", parts.join(", "));
    println!("of those that are ok, {in_part} have a part that is not there yet");
    if results.is_empty() {
        println!("no results yet: `cargo xtask features --run`, or `cargo xtask test` first");
    }
    problems.iter().for_each(|problem| println!("{problem}"));
    let not_proved = |status| totals.get(&status).copied().unwrap_or(0);
    let (failed, not_run) = (not_proved(Status::Failed), not_proved(Status::NotRun));
    if failed + not_run + problems.len() > 0 {
        bail!(
            "{failed} feature(s) failed, {not_run} not run, {} mistake(s) in {}",
            problems.len(),
            page::PATH
        );
    }
    Ok(())
}

/// The worst of what is known of a row's tests, and of the rows it points at.
fn status(row: &Row, page: &Page, results: &Results) -> Status {
    let of = |one: &Evidence| match one {
        Evidence::Test(test) => match results.get(test) {
            Some(true) => Status::Ok,
            Some(false) => Status::Failed,
            None => Status::NotRun,
        },
        // One step, so that rows that point at each other end.
        Evidence::See(id) => match page.rows().find(|other| other.id == *id) {
            Some(other) if !points(other) => status(other, page, results),
            _ => Status::NotRun,
        },
    };
    match &row.proof {
        Proof::Tests(all) => all.iter().map(of).max().unwrap_or(Status::NotRun),
        Proof::Measured(_) => Status::Measured,
        Proof::Missing(_) => Status::Missing,
        Proof::OutOfScope => Status::OutOfScope,
    }
}

/// Whether a row points at another one.
fn points(row: &Row) -> bool {
    let Proof::Tests(all) = &row.proof else {
        return false;
    };
    all.iter().any(|one| matches!(one, Evidence::See(_)))
}

/// A line for the feature, one for each test, and one for what is missing.
fn shown(row: &Row, status: Status, results: &Results) -> String {
    let mut lines = vec![format!("{:<5} {status:<12}  {}", row.id, row.feature)];
    let mut below = |text: String| lines.push(format!("{:<20}{text}", ""));
    match &row.proof {
        Proof::Tests(all) => {
            for one in all {
                below(match one {
                    Evidence::See(id) => format!("see {id}"),
                    Evidence::Test(test) => match results.get(test) {
                        Some(true) => test.clone(),
                        Some(false) => format!("{test}  FAILED"),
                        None => format!("{test}  not run"),
                    },
                });
            }
        }
        Proof::Missing(what) | Proof::Measured(what) => below(what.clone()),
        Proof::OutOfScope => {}
    }
    if let Some(what) = &row.not_yet {
        below(format!("not yet: {what}"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use page::Group;

    fn row(id: &str, proof: Proof) -> Row {
        Row {
            id: id.into(),
            feature: "Hosts".into(),
            not_yet: None,
            proof,
        }
    }

    fn tests_of(names: &[&str]) -> Proof {
        let one = |name: &&str| match name.strip_prefix("see ") {
            Some(id) => Evidence::See(id.to_owned()),
            None => Evidence::Test((*name).to_owned()),
        };
        Proof::Tests(names.iter().map(one).collect())
    }

    #[test]
    fn the_worst_of_a_row_decides() {
        let results: Results = [("a::b", true), ("a::c", false)]
            .map(|(name, passed)| (name.to_owned(), passed))
            .into();
        let page = Page {
            groups: vec![Group {
                name: String::new(),
                rows: vec![
                    row("R1", tests_of(&["a::b"])),
                    row("R2", Proof::Missing("no look-up".into())),
                    row("R3", tests_of(&["see R3"])),
                ],
            }],
        };
        for (names, expected) in [
            (&["a::b"][..], Status::Ok),
            (&["a::b", "a::c"], Status::Failed),
            (&["a::b", "a::d"], Status::NotRun),
            (&["a::d", "a::c"], Status::Failed),
            (&["see R1", "a::b"], Status::Ok),
            (&["see R1", "see R2"], Status::Missing),
            (&["see R3"], Status::NotRun),
        ] {
            let found = status(&row("X1", tests_of(names)), &page, &results);
            assert_eq!(found, expected, "{names:?}");
        }
        let missing = &page.groups[0].rows[1];
        assert_eq!(
            shown(missing, status(missing, &page, &results), &results),
            "R2    missing       Hosts\n                    no look-up\n"
        );
    }
}
