//! `cargo xtask bench`: CPU per request beside nginx and HAProxy.
//!
//! Every proxy gets one core (0), the origin and the load generator the other. Rounds interleave, so that a noisy moment
//! hits all; the figure is user + system time of the proxy's whole process tree over the requests it served, which stays
//! comparable on a shared machine where rates do not. Ratios are taken round by round, and the median is shown.

mod peer;

use crate::process::{cache, output, root, run as run_command};
use anyhow::{Context, bail};
use peer::{Peer, Running};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the origin and the proxies listen.
const ORIGIN_PORT: u16 = 19000;
const PROXY_PORT: u16 = 18080;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; each measures every proxy once
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Only these cases; default: all
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// Only these proxies; default: all
    #[arg(long = "peer", value_enum)]
    peers: Vec<Peer>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Case {
    /// 64 connections, 10 hosts
    C64,
    /// 1,000 connections, 10 hosts
    C1000,
    /// 64 connections, 10,000 hosts
    Hosts10000,
}

impl Case {
    const ALL: [Case; 3] = [Case::C64, Case::C1000, Case::Hosts10000];

    fn connections(self) -> u32 {
        if self == Case::C1000 { 1000 } else { 64 }
    }

    fn hosts(self) -> u32 {
        if self == Case::Hosts10000 { 10_000 } else { 10 }
    }

    fn name(self) -> String {
        format!("{} connections, {} hosts", self.connections(), self.hosts())
    }
}

/// What the bench has at hand.
pub(crate) struct Bench {
    /// Scratch folder.
    directory: PathBuf,
    origin: PathBuf,
    tidegate: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let bench = prepare()?;
    let cases = if args.cases.is_empty() {
        Case::ALL.to_vec()
    } else {
        args.cases
    };
    let peers: Vec<Peer> = if args.peers.is_empty() {
        Peer::ALL.to_vec()
    } else {
        args.peers
    };
    let mut origin = Running::start(
        Command::new("taskset")
            .args(["-c", "1"])
            .arg(&bench.origin)
            .args([ORIGIN_PORT.to_string(), "128".into()]),
    )?;
    let mut results: BTreeMap<(Case, Peer), Vec<f64>> = BTreeMap::new();
    for round in 1..=args.rounds {
        for case in &cases {
            for peer in &peers {
                let micros = measure(&bench, *peer, *case, args.seconds)
                    .with_context(|| format!("{} with {}", peer.name(), case.name()))?;
                println!(
                    "round {round}  {:<34} {:<22} {micros:6.2} us/request",
                    case.name(),
                    peer.name()
                );
                results.entry((*case, *peer)).or_default().push(micros);
            }
        }
    }
    origin.stop();
    report(&cases, &peers, &results);
    Ok(())
}

/// Builds what is needed, finds the peers.
fn prepare() -> anyhow::Result<Bench> {
    for (program, package) in [
        ("nginx", "nginx-light"),
        ("haproxy", "haproxy"),
        ("wrk", "wrk"),
        ("taskset", "util-linux"),
        ("cc", "gcc"),
    ] {
        if output(
            Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin command -v {program}")]),
        )
        .is_err()
        {
            bail!("{program} is not installed (Debian package {package})");
        }
    }
    run_command(
        Command::new("cargo")
            .args(["build", "--release", "--package", "tidegate"])
            .current_dir(root()),
    )?;
    let directory = cache()?.join("bench");
    std::fs::create_dir_all(&directory)?;
    let origin = directory.join("origin");
    run_command(
        Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&origin)
            .arg(root().join("tests/bench/origin.c")),
    )?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(Bench {
        directory,
        origin,
        tidegate: target.join("release/tidegate"),
    })
}

/// CPU microseconds a request of one proxy in one case.
fn measure(bench: &Bench, peer: Peer, case: Case, seconds: u32) -> anyhow::Result<f64> {
    let mut proxy = peer.start(bench, case.hosts(), PROXY_PORT, ORIGIN_PORT)?;
    let script = wrk_script(&bench.directory, case.hosts())?;
    // Warm-up: connections to the origin, caches, branch predictors.
    wrk(&script, case.connections(), 1)?;
    let before = proxy.cpu_seconds()?;
    let requests = wrk(&script, case.connections(), seconds)?;
    let used = proxy.cpu_seconds()? - before;
    proxy.stop();
    Ok(used * 1e6 / requests as f64)
}

/// Asks for 16 hosts spread over the table, in turn.
fn wrk_script(directory: &Path, hosts: u32) -> anyhow::Result<PathBuf> {
    let path = directory.join(format!("hosts{hosts}.lua"));
    let names: Vec<String> = (0..16)
        .map(|n| format!("'h{}.bench.test'", n * hosts / 16))
        .collect();
    let text = format!(
        "local requests = {{}}\nlocal n = 0\nfunction init()\n  for i, host in ipairs({{{}}}) do\n    \
         requests[i] = wrk.format('GET', '/some/path?with=query', {{Host = host, ['User-Agent'] = 'bench', Accept = '*/*'}})\n  end\nend\n\
         function request()\n  n = n % 16 + 1\n  return requests[n]\nend\n",
        names.join(", ")
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Runs the generator; gives the requests that were answered. Anything but 200 is an error.
fn wrk(script: &Path, connections: u32, seconds: u32) -> anyhow::Result<u64> {
    let url = format!("http://127.0.0.1:{PROXY_PORT}/");
    let mut command = Command::new("taskset");
    command.args([
        "-c",
        "1",
        "wrk",
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "--timeout",
        "10s",
        "-s",
    ]);
    let text = output(command.arg(script).arg(url))?;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("requests failed:\n{text}");
    }
    let line = text
        .lines()
        .find(|line| line.contains("requests in"))
        .context("wrk printed no total")?;
    line.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .context("wrk printed no total")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Medians, and ratios of the same round.
fn report(cases: &[Case], peers: &[Peer], results: &BTreeMap<(Case, Peer), Vec<f64>>) {
    let of = |case: Case, peer: Peer| {
        results
            .get(&(case, peer))
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    println!(
        "\nCPU microseconds a request, median (least..most), and the median ratio of the same rounds:\n"
    );
    for case in cases {
        println!("{}", case.name());
        for peer in peers {
            let values = of(*case, *peer);
            let (least, most) = values
                .iter()
                .fold((f64::MAX, 0.0f64), |(a, b), v| (a.min(*v), b.max(*v)));
            print!(
                "  {:<22} {:6.2} ({least:.2}..{most:.2})",
                peer.name(),
                median(values)
            );
            if *peer == Peer::Tidegate {
                for other in peers.iter().filter(|other| **other != Peer::Tidegate) {
                    let ratios: Vec<f64> = values
                        .iter()
                        .zip(of(*case, *other))
                        .map(|(a, b)| a / b)
                        .collect();
                    print!("   {:.3} x {}", median(&ratios), other.name());
                }
            }
            println!();
        }
    }
    let (ten, many) = (
        of(Case::C64, Peer::Tidegate),
        of(Case::Hosts10000, Peer::Tidegate),
    );
    if !ten.is_empty() && !many.is_empty() {
        let ratios: Vec<f64> = many.iter().zip(ten).map(|(a, b)| a / b).collect();
        println!(
            "10,000 hosts against 10 hosts, Tidegate: {:.3} x",
            median(&ratios)
        );
    }
}
