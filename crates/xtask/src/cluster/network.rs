//! The network of a cluster: one namespace with no way out, in which every address the tests use is local.
//!
//! Nothing routes packets here. A route of type `local` makes all addresses of a range bindable and reachable at
//! once, so a test gives a fake backend any pod address by binding to it.

use crate::process;
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The address of the API server, on the bridge `tg0`. Not loopback: the API server refuses to publish a loopback
/// address as an endpoint of the Service `kubernetes`.
pub(super) const NODE_ADDRESS: &str = "10.244.0.1";

const LINKS: &str = "\
link set lo up
link add tg0 type bridge
addr add 10.244.0.1/16 dev tg0
link set tg0 up
route add local 10.96.0.0/16 dev lo
route add local 10.244.128.0/17 dev lo
";

// `nodad`, because a bridge without ports never finishes duplicate address detection.
const LINKS_V6: &str = "\
addr add fd00:10:244::1/64 dev tg0 nodad
route add local fd00:10:96::/112 dev lo
route add local fd00:10:244:0:8000::/65 dev lo
";

/// The ranges of ClusterIPs; they lie within the `local` routes.
pub(super) fn service_ranges() -> &'static str {
    if has_ipv6() {
        "10.96.0.0/16,fd00:10:96::/112"
    } else {
        "10.96.0.0/16"
    }
}

/// Whether this kernel has IPv6 at all; without it the cluster is IPv4 only.
fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

pub(super) fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

/// Makes the namespace with its addresses and routes. On an error it removes what it made.
pub(super) fn create(namespace: &str) -> anyhow::Result<()> {
    process::output(Command::new("ip").args(["netns", "add", namespace]))?;
    configure(namespace).inspect_err(|_| {
        // The first error is the one to report.
        let _ = delete(namespace);
    })
}

fn configure(namespace: &str) -> anyhow::Result<()> {
    let mut lines = LINKS.to_owned();
    if has_ipv6() {
        lines.push_str(LINKS_V6);
        // IPv6, unlike IPv4, does not let a program bind to an address that only a `local` route covers.
        let sysctl = "echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind";
        process::output(command(namespace, "sh").args(["-c", sysctl]))?;
    }
    let mut ip = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`")?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin
            .write_all(lines.as_bytes())
            .context("cannot write to `ip -batch`")?;
    }
    let out = ip.wait_with_output()?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!(
            "cannot set up the network namespace {namespace}: {}",
            stderr.trim()
        );
    }
    Ok(())
}

pub(super) fn delete(namespace: &str) -> anyhow::Result<()> {
    process::output(Command::new("ip").args(["netns", "delete", namespace])).map(drop)
}

/// A command that runs `program` inside the namespace.
pub(super) fn command(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// The processes inside the namespace, as `1234 (etcd)`.
pub(super) fn processes(namespace: &str) -> anyhow::Result<Vec<String>> {
    let pids = process::output(Command::new("ip").args(["netns", "pids", namespace]))?;
    let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok(pids
        .split_whitespace()
        .map(|pid| format!("{pid} ({})", name(pid).trim()))
        .collect())
}

/// The TCP ports on which something in the namespace listens.
pub(super) fn listening_ports(namespace: &str) -> anyhow::Result<BTreeSet<u16>> {
    // The second file is missing where the kernel has no IPv6.
    let script = "cat /proc/net/tcp; if test -e /proc/net/tcp6; then cat /proc/net/tcp6; fi";
    Ok(parse_listening(&process::output(
        command(namespace, "sh").args(["-c", script]),
    )?))
}

/// Reads /proc/net/tcp: `sl local_address:port remote_address:port state …`, hexadecimal; state 0A is LISTEN.
fn parse_listening(table: &str) -> BTreeSet<u16> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            let (_address, port) = local.rsplit_once(':')?;
            (state == "0A").then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100F40A:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20 1 0 100 0 0 10 0
   1: 0100007F:094B 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 21 1 0 20 4 30 10 -1
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 0
";
        assert_eq!(parse_listening(table), BTreeSet::from([443, 6443]));
    }

    #[test]
    fn the_api_server_has_an_address_of_the_bridge() {
        assert!(LINKS.contains(&format!("addr add {NODE_ADDRESS}/")));
    }
}
