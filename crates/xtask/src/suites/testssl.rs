//! testssl.sh: versions, suites, chain, renegotiation and the known attacks, against the TLS listener with a key of either kind.
//!
//! A finding above LOW is a failure, as is one that the tool could not come to. Where a finding is of the application or of the
//! authority, both are such as they should be: the backend sends its security headers, the certificate says where its OCSP is.

use super::Totals;
use super::stand::{Backend, Certificate, HOST, Key, Stand, serve_http1};
use crate::tools;
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time for one run; it takes about a minute.
const MOST: Duration = Duration::from_mins(10);
/// Findings that a run must have come to, at the least: one of every part of it.
const PARTS: [&str; 8] = [
    "TLS1_3",
    "cipherlist_NULL",
    "cipher_order",
    "cert_chain_of_trust",
    "HSTS",
    "secure_client_renego",
    "ROBOT",
    "LUCKY13",
];
/// Runs at most, while one leaves a question open. One does at times: its OpenSSL ends a session as soon as the handshake is over, and
/// where the ticket comes a moment later there is nothing to resume.
const RUNS: usize = 8;
/// Of the OpenSSL that testssl.sh runs with, not of the listener.
const OF_THE_TOOL: &str = "engine_problem";

/// What testssl.sh came to in one question.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
struct Finding {
    id: String,
    severity: String,
    finding: String,
}

impl Finding {
    fn is_good(&self) -> bool {
        matches!(&*self.severity, "OK" | "INFO" | "LOW") || self.id == OF_THE_TOOL
    }

    /// Whether it is not known.
    fn is_open(&self) -> bool {
        !self.is_good() && self.severity == "WARN"
    }
}

pub(crate) fn run(tidegate: &Path, totals: &mut Totals) -> anyhow::Result<()> {
    let program = tools::suites::find_testssl()?;
    let backend = (Backend::Http1, serve_http1()?);
    // Most of a run is waiting, so both are made at once.
    let runs = std::thread::scope(|scope| {
        let runs = [Key::Ecdsa, Key::Rsa].map(|key| {
            let program = &program;
            scope.spawn(move || {
                let directory = tempfile::tempdir().context("cannot make a scratch folder")?;
                let certificate = Certificate::issue(directory.path(), key)?;
                let stand = Stand::start(tidegate, directory.path(), &certificate, backend)?;
                let findings = settled(key, || ask(program, directory.path(), stand.https))?;
                anyhow::Ok((key, findings))
            })
        });
        runs.map(|run| run.join().expect("a run does not panic"))
    });
    for run in runs {
        let (key, findings) = run?;
        let bad: Vec<_> = findings.iter().filter(|one| !one.is_good()).collect();
        let missing = missing(&findings);
        println!(
            "testssl, TLS listener, {key:?} key: {} findings, {} above LOW",
            findings.len(),
            bad.len()
        );
        for one in &bad {
            println!("  {} {}: {}", one.severity, one.id, one.finding);
        }
        for part in &missing {
            println!("  no finding about {part}: the run did not come so far");
        }
        let failed = (bad.len() + missing.len()) as u64;
        totals.failed += failed;
        totals.passed += u64::from(failed == 0);
    }
    Ok(())
}

/// What the first run found that leaves nothing open, or the last one.
fn settled(
    key: Key,
    ask: impl Fn() -> anyhow::Result<Vec<Finding>>,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = ask()?;
    for _ in 1..RUNS {
        let Some(open) = findings.iter().find(|one| one.is_open()) else {
            break;
        };
        println!(
            "testssl, {key:?} key: asked again: {}: {}",
            open.id, open.finding
        );
        findings = ask()?;
    }
    Ok(findings)
}

/// The parts that a run says nothing of.
fn missing(findings: &[Finding]) -> Vec<&'static str> {
    let has = |part: &str| findings.iter().any(|one| one.id.starts_with(part));
    PARTS.into_iter().filter(|part| !has(part)).collect()
}

/// One whole run, with files of its own in this folder.
fn ask(program: &Path, directory: &Path, listener: SocketAddr) -> anyhow::Result<Vec<Finding>> {
    let (found, log) = (directory.join("found.json"), directory.join("testssl.log"));
    // It refuses to write over what it wrote before.
    let _ = fs::remove_file(&found);
    let mut command = Command::new(program);
    command
        .args(["--quiet", "--color=0", "--warnings=batch", "--nodns=none"])
        .arg(format!("--ip={}", listener.ip()))
        .arg(format!(
            "--add-ca={}",
            Certificate::authority(directory).display()
        ))
        .arg(format!("--jsonfile={}", found.display()))
        .arg(format!("{HOST}:{}", listener.port()))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(File::create(&log).with_context(|| format!("cannot create {}", log.display()))?)
        .stderr(Stdio::null());
    let mut child = command.spawn();
    let child = child.as_mut();
    let child = child.map_err(|error| anyhow::anyhow!("cannot start {command:?}: {error}"))?;
    let start = Instant::now();
    // Its status tells how much it found, which is read from the file.
    while child.try_wait()?.is_none() {
        if start.elapsed() > MOST {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} did not end within {} s", MOST.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let text = fs::read_to_string(&found);
    let text = text.with_context(|| format!("{command:?} left no findings: {}", said()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{command:?} left findings that cannot be read: {}", said()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, severity: &str) -> Finding {
        let text = format!(
            r#"{{"id": "{id}", "ip": "a/127.0.0.1", "port": "443", "severity": "{severity}", "finding": "so"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_above_low_is_bad_and_so_is_what_could_not_be_found_out() {
        for (severity, good) in [
            ("OK", true),
            ("INFO", true),
            ("LOW", true),
            ("MEDIUM", false),
            ("HIGH", false),
            ("CRITICAL", false),
            ("WARN", false),
            ("FATAL", false),
        ] {
            assert_eq!(finding("BREACH", severity).is_good(), good, "{severity}");
        }
        assert!(finding("engine_problem", "WARN").is_good());
    }

    #[test]
    fn what_was_left_open_is_asked_again_and_what_is_bad_is_not() {
        let runs = std::cell::Cell::new(0);
        let settle = |severities: &[&str]| {
            runs.set(0);
            let ask = || {
                let at = runs.replace(runs.get() + 1).min(severities.len() - 1);
                Ok(vec![finding("a", severities[at])])
            };
            let findings = settled(Key::Rsa, ask).unwrap();
            (runs.get(), findings[0].severity.clone())
        };
        assert_eq!(settle(&["OK"]), (1, "OK".to_owned()));
        assert_eq!(settle(&["WARN", "OK"]), (2, "OK".to_owned()));
        assert_eq!(settle(&["WARN", "HIGH", "OK"]), (2, "HIGH".to_owned()));
        assert_eq!(settle(&["WARN"]), (RUNS, "WARN".to_owned()));
    }

    #[test]
    fn a_run_that_stopped_early_is_noticed() {
        let all: Vec<_> = PARTS.iter().map(|part| finding(part, "OK")).collect();
        assert!(missing(&all).is_empty());
        assert_eq!(missing(&all[..7]), ["LUCKY13"]);
    }
}
