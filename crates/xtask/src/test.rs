//! `cargo xtask test`: everything, with totals. It sets up what it needs, and keeps what each test came to.

pub(crate) mod results;

use crate::cluster::{self, Cluster};
use crate::process::root;
use crate::tools::control_plane::Unavailable;
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Leave out the tests that need a cluster
    #[arg(long)]
    no_cluster: bool,
    /// Only tests whose names contain this
    filter: Option<String>,
}

/// What all checks of the chart together are called among the results.
pub(crate) const CHART: &str = "xtask::chart checks";

/// What the runs came to.
struct Totals {
    passed: u64,
    failed: u64,
    notes: Vec<String>,
    results: results::Writer,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let filter: Vec<&str> = args.filter.as_deref().into_iter().collect();
    let mut totals = Totals {
        passed: 0,
        failed: 0,
        notes: Vec::new(),
        results: results::Writer::open(filter.is_empty())?,
    };

    step("build");
    cargo(&["build", "--workspace", "--all-targets"])?;
    if filter.is_empty() {
        step("format and lints");
        totals.check("rustfmt", cargo(&["fmt", "--all", "--check"]));
        totals.check(
            "clippy",
            cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]),
        );
        step("chart");
        let chart = crate::chart::check();
        totals.results.check(CHART, chart.is_ok())?;
        totals.checks("chart", chart);
    }
    step("unit, golden, property, proxy, fake API server");
    totals.cargo_test(
        Command::new("cargo")
            .args([
                "test",
                "--workspace",
                "--no-fail-fast",
                "--exclude",
                "tests",
                "--",
            ])
            .args(&filter),
    )?;
    if filter.is_empty() {
        step("every interleaving of a few threads");
        totals.cargo_test(
            Command::new("cargo")
                .args(["test", "--package", "balance", "--lib", "interleavings"])
                .env("RUSTFLAGS", "--cfg loom")
                .env("CARGO_TARGET_DIR", target().join("loom")),
        )?;
    }
    step("whole system, without a cluster");
    let mut plain = Command::new("cargo");
    plain
        .args([
            "test",
            "--package",
            "tests",
            "--no-fail-fast",
            "--",
            "--nocapture",
            "--skip",
            "cluster_",
        ])
        .args(&filter);
    totals.cargo_test(
        plain
            .env_remove("TIDEGATE_REQUIRE_CLUSTER")
            .env_remove("TIDEGATE_CLUSTER_DIR")
            .env("TIDEGATE_BIN", binary()),
    )?;
    if filter.is_empty() {
        suites(&mut totals)?;
    }
    if args.no_cluster {
        totals
            .notes
            .push("cluster tests skipped: --no-cluster".into());
    } else {
        with_cluster(&mut totals, &filter)?;
    }
    println!();
    for note in &totals.notes {
        println!("note: {note}");
    }
    println!("finished in {:.0} s", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", totals.passed, totals.failed);
    if totals.failed > 0 || totals.passed == 0 {
        bail!("{} test(s) failed", totals.failed);
    }
    Ok(())
}

/// Runs the protocol suites of others, where they can be had.
fn suites(totals: &mut Totals) -> anyhow::Result<()> {
    step("protocol suites: h2spec, gRPC interop, testssl");
    match crate::suites::run_against(&binary(), None) {
        Ok(ran) => {
            totals.passed += ran.passed;
            totals.failed += ran.failed + ran.not_run;
        }
        Err(error)
            if error.downcast_ref::<Unavailable>().is_some()
                && std::env::var_os("TIDEGATE_REQUIRE_CLUSTER").is_none() =>
        {
            println!("skipped: {error:#}");
            totals.notes.push(format!("suites skipped: {error:#}"));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Starts a cluster, runs the tests that need one inside its network, stops it again if it was not there before.
fn with_cluster(totals: &mut Totals, filter: &[&str]) -> anyhow::Result<()> {
    step("whole system, real API server");
    if let Some(reason) = cluster::skip_reason()? {
        println!("skipped: {reason}");
        totals
            .notes
            .push(format!("cluster tests skipped: {reason}"));
        return Ok(());
    }
    let cluster = Cluster::from_environment()?;
    let started_here = match cluster.up() {
        Ok(started) => started,
        Err(error)
            if error.downcast_ref::<Unavailable>().is_some()
                && std::env::var_os("TIDEGATE_REQUIRE_CLUSTER").is_none() =>
        {
            println!("skipped: {error:#}");
            totals
                .notes
                .push(format!("cluster tests skipped: {error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if filter.is_empty() {
        totals.checks(
            "chart on the API server",
            crate::chart::apply_to_cluster(&cluster),
        );
    }
    let mut tests = cluster.command("cargo")?;
    tests
        .args([
            "test",
            "--package",
            "tests",
            "--no-fail-fast",
            "--",
            "--nocapture",
            "--test-threads=1",
            "cluster_",
        ])
        .args(filter);
    let result = totals.cargo_test(
        tests
            .env("TIDEGATE_REQUIRE_CLUSTER", "1")
            .env("TIDEGATE_BIN", binary())
            .current_dir(root()),
    );
    if started_here {
        cluster.down()?;
    }
    result
}

fn step(name: &str) {
    println!("\n== {name}");
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn binary() -> PathBuf {
    target().join("debug/tidegate")
}

fn cargo(args: &[&str]) -> anyhow::Result<()> {
    crate::process::run(Command::new("cargo").args(args).current_dir(root()))
}

impl Totals {
    fn check(&mut self, name: &str, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                println!("{name} ... ok");
                self.passed += 1;
            }
            Err(error) => self.fail(name, &error),
        }
    }

    fn checks(&mut self, name: &str, result: anyhow::Result<Vec<String>>) {
        match result {
            Ok(checks) => {
                checks.iter().for_each(|check| println!("{check} ... ok"));
                self.passed += checks.len() as u64;
            }
            Err(error) => self.fail(name, &error),
        }
    }

    fn fail(&mut self, name: &str, error: &anyhow::Error) {
        println!("{name} ... FAILED: {error:#}");
        self.failed += 1;
    }

    /// Runs `cargo test`, shows what it prints, adds up its closing lines, and keeps what each test came to.
    fn cargo_test(&mut self, command: &mut Command) -> anyhow::Result<()> {
        // One pipe for both outputs: cargo names the crate on one, its tests are on the other, and their order matters.
        let (out, into) = std::io::pipe().context("no pipe")?;
        let mut child = command
            .current_dir(root())
            .stdout(into.try_clone().context("no pipe")?)
            .stderr(into)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        // The command has both ends of its own, which would keep the pipe open.
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut failed = 0;
        let mut reader = results::Reader::default();
        let mut lines = BufReader::new(out);
        let mut bytes = Vec::new();
        while {
            bytes.clear();
            lines.read_until(b'\n', &mut bytes)? > 0
        } {
            // Tests may print what is no text.
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches(['\n', '\r']);
            println!("{line}");
            for outcome in reader.line(line) {
                self.results.write(&outcome)?;
            }
            let count = |word: &str| {
                let part = line
                    .strip_prefix("test result:")?
                    .split(['.', ';'])
                    .find(|part| part.trim().ends_with(word))?;
                part.split_whitespace().next()?.parse::<u64>().ok()
            };
            self.passed += count("passed").unwrap_or(0);
            failed += count("failed").unwrap_or(0);
        }
        if let Some(outcome) = reader.end() {
            self.results.write(&outcome)?;
        }
        let status = child.wait()?;
        if !status.success() && failed == 0 {
            // It did not come as far as running tests.
            failed = 1;
        }
        self.failed += failed;
        Ok(())
    }
}
