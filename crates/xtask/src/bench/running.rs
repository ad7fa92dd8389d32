//! Processes that the bench starts: CPU time and memory of the whole tree, and their end.

use anyhow::{Context, bail};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process of ours, ended when dropped.
pub(super) struct Running {
    child: Child,
}

impl Running {
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self {
            child: child.with_context(|| format!("cannot start {command:?}"))?,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens on a port of loopback.
    pub(super) fn wait_for(&mut self, port: u16) -> anyhow::Result<()> {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status} before it listened");
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("it does not listen on port {port}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// User and system time of the process and its children, in seconds.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut ticks = 0;
        for pid in self.tree() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("process {pid} is gone"))?;
            // The name may hold spaces; what follows its closing parenthesis does not.
            let fields: Vec<&str> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let number = |at: usize| {
                fields
                    .get(at)
                    .and_then(|field| field.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            ticks += number(11) + number(12);
        }
        // USER_HZ is 100 on every Linux this runs on.
        Ok(ticks as f64 / 100.0)
    }

    /// Resident memory of the process and its children, in KiB. What two of them share counts twice.
    pub(super) fn rss_kib(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for pid in self.tree() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("process {pid} is gone"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            sum += kib.with_context(|| format!("process {pid} has no resident memory"))?;
        }
        Ok(sum)
    }

    /// The process and its children, and theirs.
    fn tree(&self) -> Vec<u32> {
        let mut tree = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = tree.get(at) {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .unwrap_or_default();
            let children = children.split_whitespace();
            tree.extend(children.filter_map(|child| child.parse::<u32>().ok()));
            at += 1;
        }
        tree
    }

    /// Interrupts it, by its process id, and waits: it has something to write yet.
    pub(super) fn interrupt(&mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        crate::process::output(Command::new("kill").args(["-INT", &pid]))?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, by its process id, and waits.
    pub(super) fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
