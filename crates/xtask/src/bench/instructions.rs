//! `--instructions`: what one request costs Tidegate in instructions, allocations and system calls.
//!
//! These do not depend on how busy the machine is, so they can be compared from one change to the next. Instructions are
//! those outside the kernel, of the whole process, counted by callgrind; system calls are counted by strace.

use super::Bench;
use super::callgrind::{Profile, place};
use super::case::Case;
use super::load::{Amount, H2load, Load};
use super::peer::{self, HTTP_PORT, HTTPS_PORT, Origin, Peer, Setup};
use super::running::Running;
use crate::process::output;
use crate::tools::bench::{STRACE, VALGRIND};
use anyhow::{Context, bail, ensure};
use std::process::Command;
use std::time::{Duration, Instant};

/// Requests that are counted, after those of the warm-up.
const REQUESTS: u32 = 20_000;
const WARM_UP: u32 = 4_000;
/// Lines of each table.
const LINES: usize = 25;

/// Counts for one case.
///
/// # Errors
///
/// When a tool is missing, or the case is not one of requests with small bodies.
pub(super) fn run(bench: &Bench, case: Case) -> anyhow::Result<()> {
    let load = match (case, case.load()) {
        (Case::C64 | Case::C1000 | Case::Tls, Some(Load::Wrk(wrk))) => H2load {
            connections: wrk.connections,
            streams: 1,
            http1: true,
            tls: wrk.tls,
        },
        (_, Some(Load::H2load(h2load))) => h2load,
        _ => bail!("instructions are counted for c64, c1000, tls and http2 only"),
    };
    let mut origin = Origin::Plain(128).start(bench)?;
    println!("\n## {}", case.name());
    let requests = |amount| load.run(bench, Amount::Requests(amount));
    print(&count(
        bench,
        &case.setup(),
        requests,
        [WARM_UP, WARM_UP, REQUESTS],
    )?);
    system_calls(bench, case, load)?;
    origin.stop();
    Ok(())
}

/// What callgrind counted.
pub(super) struct Count {
    /// Of the second load, the opening of its connections included.
    profile: Profile,
    /// Instructions a request, without what opening the connections costs.
    pub(super) each: f64,
}

/// What the requests of a load cost, under callgrind: it is run three times, with an amount to warm up, a small one and a
/// large one. Each run opens connections, so what the large one has more than the small one is requests alone.
///
/// The origin must run already.
pub(super) fn count(
    bench: &Bench,
    setup: &Setup,
    load: impl Fn(u32) -> anyhow::Result<u64>,
    [warm_up, small, large]: [u32; 3],
) -> anyhow::Result<Count> {
    let out = bench.directory.join("callgrind.out");
    let mut command = bench.pinned("0");
    command
        .arg(VALGRIND.find()?)
        .args(["--tool=callgrind", "--instr-atstart=no", "-q"])
        .arg(format!("--callgrind-out-file={}", out.display()));
    peer::tidegate(&mut command, bench, setup)?;
    let mut proxy = Running::start(&mut command)?;
    proxy.wait_for(if setup.tls { HTTPS_PORT } else { HTTP_PORT })?;
    load(warm_up)?;
    let control = |option: &[&str]| {
        let pid = proxy.pid().to_string();
        output(Command::new("callgrind_control").args(option).arg(pid))
    };
    control(&["-i", "on"])?;
    // Dumps are numbered, and each begins anew.
    let dump = |number: u32, amount: u32| {
        let requests = load(amount)?;
        control(&["-d"])?;
        let path = bench.directory.join(format!("callgrind.out.{number}"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("callgrind wrote no {}", path.display()))?;
        anyhow::Ok((Profile::read(&text), requests))
    };
    let (less, fewer) = dump(1, small)?;
    let (profile, more) = dump(2, large)?;
    proxy.stop();
    ensure!(more > fewer, "the longer load had no more requests");
    let each = (profile.total as f64 - less.total as f64) / (more - fewer) as f64;
    Ok(Count { profile, each })
}

fn print(Count { profile, each }: &Count) {
    println!("\n{each:.0} instructions a request, in user space.");
    println!("\nBy own cost; from here on the opening of the connections is in it:\n");
    let each = |cost: f64| cost / f64::from(REQUESTS);
    let total = profile.total as f64;
    println!("| instructions | share | function | file |\n|---|---|---|---|");
    for (cost, name, home) in profile.dearest().into_iter().take(LINES) {
        println!(
            "| {:.0} | {:.1} % | `{name}` | {} |",
            each(cost as f64),
            cost as f64 * 100.0 / total,
            place(home)
        );
    }
    println!("\nBy crate, and by file of ours; inlined code counts where it was written:\n");
    println!("| instructions | share | |\n|---|---|---|");
    for (cost, place) in profile.places().into_iter().take(LINES) {
        println!(
            "| {:.0} | {:.1} % | {place} |",
            each(cost as f64),
            cost as f64 * 100.0 / total
        );
    }
    for (what, targets) in [
        ("Allocations", is_allocation as fn(&str) -> bool),
        ("Copies", is_copy),
    ] {
        let callers = profile.callers(targets);
        let sum: f64 = callers.iter().map(|(calls, _)| calls.count).sum();
        println!(
            "\n{what}: {:.1} a request. By the nearest caller of ours:\n",
            each(sum)
        );
        println!("| calls | instructions | |\n|---|---|---|");
        for (calls, name) in callers.iter().take(LINES) {
            println!(
                "| {:.2} | {:.0} | `{name}` |",
                each(calls.count),
                each(calls.cost)
            );
        }
    }
}

/// Where Rust enters mimalloc to get memory; a reallocation may move.
fn is_allocation(function: &str) -> bool {
    let name = function.strip_prefix("mi_");
    name.is_some_and(|name| {
        ["malloc", "zalloc", "calloc", "realloc"]
            .iter()
            .any(|kind| name.starts_with(kind))
    })
}

fn is_copy(function: &str) -> bool {
    function.contains("memcpy") || function.contains("memmove")
}

fn system_calls(bench: &Bench, case: Case, load: H2load) -> anyhow::Result<()> {
    let mut proxy = Peer::Tidegate.start(bench, &case.setup())?;
    load.run(bench, Amount::Requests(WARM_UP))?;
    let out = bench.directory.join("strace.out");
    let mut strace = Running::start(
        Command::new(STRACE.find()?)
            .args(["-q", "-c", "-f", "-o"])
            .arg(&out)
            .args(["-p", &proxy.pid().to_string()]),
    )?;
    attached(proxy.pid())?;
    load.run(bench, Amount::Requests(REQUESTS))?;
    strace.interrupt()?;
    proxy.stop();
    let text = std::fs::read_to_string(&out).context("strace wrote nothing")?;
    let mut calls = counts(&text);
    calls.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let sum: u64 = calls.iter().map(|(count, _)| count).sum();
    let each = |count: u64| count as f64 / f64::from(REQUESTS);
    println!(
        "\n{:.2} system calls a request, opening the connections included.\n",
        each(sum)
    );
    println!("| calls | |\n|---|---|");
    for (count, name) in calls.iter().filter(|(count, _)| each(*count) >= 0.005) {
        println!("| {:.2} | {name} |", each(*count));
    }
    Ok(())
}

/// Waits until every thread is traced.
fn attached(pid: u32) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let untraced = std::fs::read_dir(format!("/proc/{pid}/task"))?
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
            .any(|status| status.lines().any(|line| line == "TracerPid:\t0"));
        if !untraced {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(10) {
            bail!("strace cannot attach");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Calls and names in the table of `strace -c`.
fn counts(table: &str) -> Vec<(u64, String)> {
    table
        .lines()
        .filter_map(|line| {
            // % time, seconds, usecs/call, calls, errors if any, name
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = *fields.last().filter(|name| **name != "total")?;
            fields.first()?.parse::<f64>().ok()?;
            Some((fields.get(3)?.parse().ok()?, name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_table_of_strace() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            60.00    0.120000           3     40000           sendto\n \
            40.00    0.080000           2     40123       123 recvfrom\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.200000           2     80123       123 total\n";
        assert_eq!(
            counts(table),
            [
                (40_000, "sendto".to_owned()),
                (40_123, "recvfrom".to_owned())
            ]
        );
    }

    #[test]
    fn allocations_are_told_from_what_mimalloc_does_inside() {
        assert!(is_allocation("mi_malloc_aligned") && is_allocation("mi_realloc_aligned"));
        assert!(!is_allocation("mi_free") && !is_allocation("_mi_malloc_generic"));
    }
}
