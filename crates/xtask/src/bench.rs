//! `cargo xtask bench`: CPU per request beside nginx, HAProxy and Envoy.
//!
//! Every proxy gets one core (0), the origin and the load generator the other. Rounds interleave, so that a noisy moment
//! hits all; the figure is user + system time of the proxy's whole process tree over the requests it served, which stays
//! comparable on a shared machine where rates do not. Ratios are taken round by round, and the median is shown.
//! What to make of the figures is in `docs/performance.md`.

mod callgrind;
mod case;
mod config;
mod features;
mod instructions;
mod load;
mod peer;
mod report;
mod running;

use crate::process::{cache, output, root, run as run_command};
use crate::tools::bench::{
    CC, H2LOAD, HAPROXY, NGINX, OPENSSL, PRLIMIT, Program, STRACE, TASKSET, VALGRIND, WRK,
};
use crate::tools::envoy::envoy;
use anyhow::Context;
use case::Case;
use peer::Peer;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; each measures every proxy once
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Only these cases; default: all, for --instructions c64
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// Only these proxies; default: all
    #[arg(long = "peer", value_enum)]
    peers: Vec<Peer>,
    /// Instead: what each feature on the request path costs, as pairs without and with it
    #[arg(long, conflicts_with_all = ["cases", "peers"])]
    features: bool,
    /// Instead: instructions, allocations and system calls of one request; with --features, instructions of each
    #[arg(long, conflicts_with_all = ["peers", "rounds", "seconds"])]
    instructions: bool,
    /// A release binary to measure; default: it is built
    #[arg(long, env = "TIDEGATE_BIN", value_name = "PATH")]
    tidegate: Option<PathBuf>,
}

/// What the bench has at hand.
struct Bench {
    /// Scratch folder.
    directory: PathBuf,
    taskset: PathBuf,
    origin: PathBuf,
    tidegate: PathBuf,
    envoy: Option<PathBuf>,
    /// Held as long as this is: ports and cores are the same for every run.
    _lock: File,
}

impl Bench {
    /// The beginning of a command that is run on one core.
    fn pinned(&self, core: &str) -> Command {
        let mut command = Command::new(&self.taskset);
        command.args(["-c", core]);
        command
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let mut cases = args.cases;
    if args.instructions {
        find(&[VALGRIND, STRACE, H2LOAD])?;
        let bench = prepare(args.tidegate, None)?;
        if cases.is_empty() {
            cases.push(Case::C64);
        }
        if args.features {
            find(&[NGINX, WRK])?;
            return features::count(&bench);
        }
        return cases
            .iter()
            .try_for_each(|case| instructions::run(&bench, *case));
    }
    if args.features {
        find(&[NGINX, WRK, H2LOAD])?;
        let bench = prepare(args.tidegate, None)?;
        return features::run(&bench, args.rounds, args.seconds);
    }
    if cases.is_empty() {
        cases = Case::ALL.to_vec();
    }
    let mut peers = if args.peers.is_empty() {
        Peer::ALL.to_vec()
    } else {
        args.peers
    };
    for case in &cases {
        find(case.load().and_then(load::Load::program).as_slice())?;
    }
    let wants = |peer| peers.contains(&peer);
    if wants(Peer::Nginx) || wants(Peer::NginxLog) {
        find(&[NGINX])?;
    }
    if wants(Peer::Haproxy) {
        find(&[HAPROXY])?;
    }
    let mut envoy_path = None;
    if wants(Peer::Envoy) {
        match envoy() {
            Ok(path) => envoy_path = Some(path),
            // It is the one peer that is no Debian package: measure the others without it, unless it was asked for alone.
            Err(error) if peers.len() > 1 => {
                eprintln!("without Envoy: {error:#}");
                peers.retain(|peer| *peer != Peer::Envoy);
            }
            Err(error) => return Err(error),
        }
    }
    let bench = prepare(args.tidegate, envoy_path)?;
    let mut results = report::Results::default();
    for round in 1..=args.rounds {
        for case in &cases {
            for peer in peers.iter().filter(|peer| case.has(**peer)) {
                let figure = case
                    .measure(&bench, *peer, args.seconds)
                    .with_context(|| format!("{} with {}", peer.name(), case.name()))?;
                println!(
                    "round {round}  {:<34} {:<22} {figure:7.3} {}",
                    case.name(),
                    peer.name(),
                    case.unit()
                );
                results.add(*case, *peer, figure);
            }
        }
    }
    results.print(&cases, &peers);
    Ok(())
}

/// Fails where one is missing, before anything takes time.
fn find(programs: &[Program]) -> anyhow::Result<()> {
    programs
        .iter()
        .try_for_each(|program| program.find().map(drop))
}

/// Builds what is needed.
fn prepare(tidegate: Option<PathBuf>, envoy: Option<PathBuf>) -> anyhow::Result<Bench> {
    find(&[CC, OPENSSL, PRLIMIT])?;
    let taskset = TASKSET.find()?;
    let tidegate = match tidegate {
        Some(path) => std::path::absolute(path)?,
        None => {
            run_command(
                Command::new("cargo")
                    .args(["build", "--release", "--package", "tidegate"])
                    .current_dir(root()),
            )?;
            let target = std::env::var_os("CARGO_TARGET_DIR");
            target
                .map_or_else(|| root().join("target"), PathBuf::from)
                .join("release/tidegate")
        }
    };
    // Every process started here takes these over: files for 10,000 connections, and core 1 but for the proxies.
    let pid = std::process::id().to_string();
    output(Command::new(PRLIMIT.find()?).args(["--nofile=20000:20000", "--pid", &pid]))
        .context("20,000 open files are needed")?;
    output(Command::new(&taskset).args(["-a", "-c", "-p", "1", &pid]))?;
    let directory = cache()?.join("bench");
    std::fs::create_dir_all(&directory)?;
    let lock = File::create(directory.join("lock"))?;
    lock.try_lock()
        .context("another bench runs, and would be in the way")?;
    let origin = directory.join("origin");
    run_command(
        Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&origin)
            .arg(root().join("tests/bench/origin.c")),
    )?;
    certificate(&directory.join("certificates"))?;
    Ok(Bench {
        directory,
        taskset,
        origin,
        tidegate,
        envoy,
        _lock: lock,
    })
}

/// An ECDSA P-256 certificate for every host, signed by itself.
fn certificate(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    output(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=bench.test"])
            .args(["-addext", "subjectAltName=DNS:*.bench.test,DNS:localhost"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    )?;
    let both = std::fs::read_to_string(&certificate)? + &std::fs::read_to_string(&key)?;
    std::fs::write(directory.join("both.pem"), both)?;
    Ok(())
}
