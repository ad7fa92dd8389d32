//! h2spec: HTTP/2 and HPACK as RFC 7540 and 7541 have them, case by case, against both listeners.

use super::Totals;
use super::stand::{Backend, Certificate, Stand, serve_http1};
use crate::tools::suites::Suites;
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Cases of the version that is pinned.
const CASES: u64 = 146;

pub(crate) fn run(tidegate: &Path, programs: &Suites, totals: &mut Totals) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a scratch folder")?;
    let certificate = Certificate::make(directory.path())?;
    let backend = (Backend::Http1, serve_http1()?);
    let stand = Stand::start(tidegate, directory.path(), &certificate, backend)?;
    let tls = ["-t", "-k"];
    listener(programs, "TLS listener", stand.https, &tls, totals)?;
    if stand.speaks_h2c() {
        listener(programs, "plain listener", stand.http, &[], totals)
    } else {
        println!("h2spec, plain listener: not run: it does not speak HTTP/2");
        totals.not_run += CASES;
        Ok(())
    }
}

fn listener(
    programs: &Suites,
    name: &str,
    addr: SocketAddr,
    more: &[&str],
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let mut command = Command::new(&programs.h2spec);
    command
        .args([
            "-h",
            &addr.ip().to_string(),
            "-p",
            &addr.port().to_string(),
            "-o",
            "2",
        ])
        .args(more);
    let out = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let Some((passed, failed)) = summary(&text) else {
        bail!(
            "{command:?} said no totals:\n{text}{}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    println!("h2spec, {name}: {passed} passed, {failed} failed");
    if let Some((_, failures)) = text.split_once("Failures:") {
        println!("{}", failures.trim_end());
    }
    totals.passed += passed;
    totals.failed += failed;
    Ok(())
}

/// Passed and failed, from `146 tests, 145 passed, 0 skipped, 1 failed`.
fn summary(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().rev().find(|line| line.contains(" tests, "))?;
    let count = |word: &str| {
        let part = line.split(", ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_totals() {
        let text = "Finished in 1.0 seconds\n146 tests, 144 passed, 0 skipped, 2 failed\n";
        assert_eq!(summary(text), Some((144, 2)));
        assert_eq!(summary("Error: connection refused"), None);
    }
}
