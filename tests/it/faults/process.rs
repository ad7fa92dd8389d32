//! Backends as processes of their own (`tests/backend`), each at a loopback address of its own: killed, stopped and started
//! again by their ids.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// The same port at every address, below those that the system gives to whoever connects.
const PORT: u16 = 8000;

/// An address of the loopback network that nobody else uses: by process, and then one after the other.
pub(super) fn own_ip() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id() & 0x7ff;
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // 127.64.0.0/10: 2,048 processes, 2,048 addresses each.
    Ipv4Addr::from(0x7f40_0000 | (process << 11) | ((n + 1) & 0x7ff))
}

/// A running backend. Dropping it kills it.
pub(super) struct BackendProcess {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    child: Child,
    said: Receiver<String>,
}

/// What a backend has counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) posts: u64,
    pub(super) connections: u64,
    pub(super) in_flight: u64,
    pub(super) most_in_flight: u64,
    pub(super) probes: u64,
}

impl BackendProcess {
    /// Starts one, told these commands, and waits until it listens.
    pub(super) fn start(name: &str, commands: &[&str]) -> Self {
        Self::start_at(name, (own_ip(), PORT).into(), commands)
    }

    /// As many as names, alike.
    pub(super) fn several<const N: usize>(names: [&str; N], commands: &[&str]) -> [Self; N] {
        names.map(|name| Self::start(name, commands))
    }

    fn start_at(name: &str, addr: SocketAddr, commands: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_backend-process"))
            .arg(name)
            .arg(addr.to_string())
            .args(commands)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a backend starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (say, said) = sync_channel(16);
        std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            for line in lines {
                let _ = say.send(line);
            }
        });
        let backend = Self {
            name: name.to_owned(),
            addr,
            child,
            said,
        };
        assert_eq!(backend.hear(), "ready");
        backend
    }

    fn hear(&self) -> String {
        let heard = self.said.recv_timeout(Duration::from_secs(10));
        heard.unwrap_or_else(|error| panic!("{} says nothing: {error}", self.name))
    }

    /// Tells it something, and waits until it has understood. Not while it is stopped.
    pub(super) fn tell(&mut self, command: &str) -> String {
        let input = self.child.stdin.as_mut().expect("it is piped");
        writeln!(input, "{command}").expect("it reads");
        self.hear()
    }

    /// What it has counted.
    pub(super) fn counts(&mut self) -> Counts {
        let said = self.tell("counts");
        let all: Vec<u64> = said.split(' ').map(|word| word.parse().unwrap()).collect();
        Counts {
            requests: all[0],
            posts: all[1],
            connections: all[2],
            in_flight: all[3],
            most_in_flight: all[4],
            probes: all[5],
        }
    }

    /// `kill -9`; returns when nothing of it is left.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it once more at the same address, after [`BackendProcess::kill`].
    pub(super) fn start_again(&mut self, commands: &[&str]) {
        *self = Self::start_at(&self.name, self.addr, commands);
    }

    /// `kill -STOP`.
    pub(super) fn stop(&self) {
        signal("-STOP", self.child.id());
    }

    /// `kill -CONT`.
    pub(super) fn go_on(&self) {
        signal("-CONT", self.child.id());
    }
}

impl Drop for BackendProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process that a test has started.
pub(super) fn signal(signal: &str, process: u32) {
    let status = Command::new("kill")
        .arg(signal)
        .arg(process.to_string())
        .status();
    assert!(status.unwrap().success(), "kill {signal} {process}");
}
