//! gRPC interop: every case of grpc-go's client, through both listeners, to a backend of either kind.
//!
//! The cases are those of gRPC's `interop-test-descriptions.md` that need no account of a cloud. Two of them,
//! `timeout_on_sleeping_server` and `cancel_after_begin`, also pass where nothing answers.

use super::Totals;
use super::stand::{Backend, Certificate, HOST, Running, Stand, free_address};
use crate::tools::suites::Suites;
use anyhow::Context;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CASES: [&str; 15] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "pick_first_unary",
];

/// Longest time for one case.
const MOST: Duration = Duration::from_secs(15);

pub(crate) fn run(tidegate: &Path, programs: &Suites, totals: &mut Totals) -> anyhow::Result<()> {
    for backend in [Backend::H2c, Backend::H2] {
        let directory = tempfile::tempdir().context("cannot make a scratch folder")?;
        let certificate = Certificate::make(directory.path())?;
        let addr = free_address()?;
        let mut server = Command::new(&programs.grpc_server);
        server.arg(format!("-port={}", addr.port()));
        if backend == Backend::H2 {
            server
                .arg("-use_tls")
                .arg(format!(
                    "-tls_cert_file={}",
                    certificate.certificate.display()
                ))
                .arg(format!("-tls_key_file={}", certificate.key.display()));
        }
        let log = directory.path().join("server.log");
        let _server = Running::start(&mut server, &log, addr)?;
        let stand = Stand::start(tidegate, directory.path(), &certificate, (backend, addr))?;
        let to = if backend == Backend::H2 { "TLS" } else { "h2c" };
        if stand.speaks_h2c() {
            let client = || {
                let mut client = Command::new(&programs.grpc_client);
                client.arg(format!("-server_port={}", stand.http.port()));
                client
            };
            cases(&format!("h2c to {to}"), client, totals)?;
        } else {
            println!("gRPC, h2c to {to}: not run: the plain listener does not speak HTTP/2");
            totals.not_run += CASES.len() as u64;
        }
        let client = || {
            let mut client = Command::new(&programs.grpc_client);
            client
                .arg(format!("-server_port={}", stand.https.port()))
                .args(["-use_tls", "-use_test_ca"])
                .arg(format!("-server_host_override={HOST}"))
                .arg(format!("-ca_file={}", certificate.certificate.display()));
            client
        };
        cases(&format!("TLS to {to}"), client, totals)?;
    }
    Ok(())
}

/// Runs all cases with this client.
fn cases(way: &str, client: impl Fn() -> Command, totals: &mut Totals) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for case in CASES {
        if let Err(why) = one(client(), case)? {
            failed.push(format!("  {case}: {why}"));
        }
    }
    let passed = CASES.len() - failed.len();
    println!("gRPC, {way}: {passed} passed, {} failed", failed.len());
    failed.iter().for_each(|line| println!("{line}"));
    totals.passed += passed as u64;
    totals.failed += failed.len() as u64;
    Ok(())
}

/// Runs one client to its end, or until its time is up. Says why it failed.
fn one(mut command: Command, case: &str) -> anyhow::Result<Result<(), String>> {
    command
        .args(["-server_host=127.0.0.1", &format!("-test_case={case}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > MOST {
            child.kill()?;
            child.wait()?;
            let said = said(&mut child)?;
            return Ok(Err(format!("no end after {} s: {said}", MOST.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(said(&mut child)?))
}

/// Why a client that has ended gave up, in a line.
fn said(child: &mut Child) -> anyhow::Result<String> {
    let said = child.stderr.take().context("the client has no stderr")?;
    let said = std::io::read_to_string(said)?;
    let fatal = said.lines().find(|line| line.contains("FATAL"));
    let line = fatal.or(said.lines().next());
    let line = line.unwrap_or("it said nothing");
    Ok(line.chars().take(200).collect())
}
