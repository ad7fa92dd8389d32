//! Keeps the shape of the workspace: which crate may depend on which, how long a file may get, which tests the page of features
//! names, what is promised in writing.

use crate::process::{self, output, root};
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What a crate must never depend on, directly or by way of another crate of ours. A crate that is not listed here fails.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "routing-table",
        &["tokio", "hyper", "kube", "k8s-openapi", "serde", "rustls"],
    ),
    (
        "translate",
        &[
            "tokio",
            "kube",
            "hyper",
            "data-plane",
            "controller",
            "balance",
        ],
    ),
    ("controller", &["data-plane", "balance"]),
    (
        "balance",
        &["tokio", "hyper", "kube", "k8s-openapi", "rustls"],
    ),
    (
        "data-plane",
        &[
            "kube",
            "k8s-openapi",
            "hickory-resolver",
            "translate",
            "controller",
            "serde_yaml",
        ],
    ),
    (
        "discovery",
        &["kube", "k8s-openapi", "translate", "data-plane", "hyper"],
    ),
    (
        "certificates",
        &["tokio", "hyper", "kube", "k8s-openapi", "translate"],
    ),
    (
        "policy",
        &["tokio", "hyper", "kube", "k8s-openapi", "translate"],
    ),
    (
        "standalone",
        &[
            "kube",
            "k8s-openapi",
            "translate",
            "controller",
            "data-plane",
            "hyper",
        ],
    ),
    (
        "api",
        &["tokio", "hyper", "kube", "translate", "controller"],
    ),
    ("tidegate", &[]),
    ("example-policy", &["data-plane", "tokio", "hyper", "kube"]),
    ("test-support", &["data-plane", "controller", "translate"]),
    ("tests", &[]),
    (
        "xtask",
        &["tidegate", "data-plane", "controller", "kube", "tokio"],
    ),
];

/// Nothing may depend on these but as a development dependency.
const LEAVES: &[&str] = &[
    "example-policy",
    "tidegate",
    "test-support",
    "tests",
    "xtask",
];

/// Longest source file in lines; tests apart.
const MAX_LINES: usize = 600;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<()> {
    let mut problems = edges()?;
    problems.extend(files()?);
    problems.extend(crate::features::check()?);
    problems.extend(crate::promises::check()?);
    if problems.is_empty() {
        println!("tidy: crate graph, files and the page of features are as they should be");
        return Ok(());
    }
    bail!(
        "{} thing(s) to tidy:\n  {}",
        problems.len(),
        problems.join("\n  ")
    );
}

/// Forbidden edges of the crate graph.
fn edges() -> anyhow::Result<Vec<String>> {
    let text = output(
        Command::new("cargo")
            .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
            .current_dir(root()),
    )?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let normal = |dependency: &&Value| dependency["kind"].is_null();
        let all = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(normal);
        let names = all
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
            .collect();
        direct.insert(name, names);
    }
    Ok(check_edges(&direct))
}

fn check_edges(direct: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, dependencies) in direct {
        let Some((_, forbidden)) = FORBIDDEN.iter().find(|(known, _)| known == name) else {
            problems.push(format!("crate {name} has no row in xtask/src/tidy.rs that says what it must never depend on"));
            continue;
        };
        for (reached, by) in reachable(name, direct) {
            if forbidden.contains(&reached.as_str()) {
                problems.push(format!(
                    "{name} must never depend on {reached}, but does ({by})"
                ));
            }
        }
        for leaf in LEAVES.iter().filter(|leaf| dependencies.contains(**leaf)) {
            problems.push(format!("{name} depends on {leaf}, on which nothing may"));
        }
    }
    problems
}

/// What a crate depends on by way of crates of ours, each with the way.
fn reachable(name: &str, direct: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![(name.to_owned(), name.to_owned())];
    while let Some((from, way)) = left.pop() {
        for next in direct.get(&from).into_iter().flatten() {
            if !found.contains_key(next) {
                let way = format!("{way} -> {next}");
                found.insert(next.clone(), way.clone());
                left.push((next.clone(), way));
            }
        }
    }
    found
}

/// Files that are too long, or do not say what they are for.
fn files() -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in process::files(&["*.rs"])? {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else {
            continue;
        };
        let is_test =
            file.contains("/tests/") || file.starts_with("tests/") || file.ends_with("_tests.rs");
        let lines = text.lines().count();
        if lines > MAX_LINES && !is_test {
            problems.push(format!(
                "{file} has {lines} lines, {MAX_LINES} are the most"
            ));
        }
        if !text.starts_with("//!") {
            problems.push(format!("{file} does not begin with a module doc (//!)"));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        edges
            .iter()
            .map(|(name, to)| {
                (
                    (*name).to_owned(),
                    to.iter().map(|to| (*to).to_owned()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn the_workspace_is_tidy() -> anyhow::Result<()> {
        run(Args {})
    }

    #[test]
    fn a_forbidden_edge_is_found_also_at_second_hand() {
        let problems = check_edges(&graph(&[
            ("data-plane", &["balance"]),
            ("balance", &["kube"]),
        ]));
        assert_eq!(
            problems,
            [
                "balance must never depend on kube, but does (balance -> kube)",
                "data-plane must never depend on kube, but does (data-plane -> balance -> kube)",
            ]
        );
        assert_eq!(
            check_edges(&graph(&[
                ("data-plane", &["balance", "hyper"]),
                ("balance", &[])
            ])),
            [""; 0]
        );
    }

    #[test]
    fn leaves_and_unknown_crates() {
        let problems = check_edges(&graph(&[("controller", &["xtask"]), ("surprise", &[])]));
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
