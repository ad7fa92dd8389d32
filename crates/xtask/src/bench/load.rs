//! What generates load, on core 1: wrk, h2load, `openssl s_time`, and connections at rest.

use super::Bench;
use super::peer::{HTTP_PORT, HTTPS_PORT};
use super::running::Running;
use crate::process::output;
use crate::tools::bench::{H2LOAD, OPENSSL, Program, WRK};
use anyhow::{Context, bail, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is asked for.
const TARGET: &str = "/some/path?with=query";

/// A generator and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// wrk, which asks 16 hosts spread over the table in turn.
    Wrk(Wrk),
    /// h2load, which asks one host.
    H2load(H2load),
    /// Connections that each carry one request, with this before it. wrk would not send what is not HTTP.
    Connections(&'static str),
    /// Full TLS handshakes, one after the other; no session is resumed, nothing is asked.
    Handshakes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrk {
    pub(super) connections: u32,
    pub(super) hosts: u32,
    pub(super) tls: bool,
    /// A connection carries one request.
    pub(super) close: bool,
    /// A field more, as Lua.
    pub(super) field: &'static str,
}

impl Wrk {
    pub(super) const fn keep_alive(connections: u32) -> Self {
        Self {
            connections,
            hosts: 10,
            tls: false,
            close: false,
            field: "",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct H2load {
    pub(super) connections: u32,
    /// Requests in flight on each connection.
    pub(super) streams: u32,
    /// HTTP/1.1 instead of HTTP/2.
    pub(super) http1: bool,
    pub(super) tls: bool,
}

/// How long h2load goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    Seconds(u32),
    Requests(u32),
}

impl Load {
    /// The program it needs, if any.
    pub(super) fn program(self) -> Option<Program> {
        match self {
            Load::Wrk(_) => Some(WRK),
            Load::H2load(_) => Some(H2LOAD),
            Load::Handshakes => Some(OPENSSL),
            Load::Connections(_) => None,
        }
    }

    /// Runs it; gives the requests (or handshakes) that were answered.
    ///
    /// # Errors
    ///
    /// When one failed or was answered with anything but 200.
    pub(super) fn run(self, bench: &Bench, seconds: u32) -> anyhow::Result<u64> {
        match self {
            Load::Wrk(wrk) => wrk.run(bench, seconds),
            Load::H2load(h2load) => h2load.run(bench, Amount::Seconds(seconds)),
            Load::Connections(before) => connections(before, seconds),
            Load::Handshakes => handshakes(bench, seconds),
        }
    }
}

impl Wrk {
    fn run(self, bench: &Bench, seconds: u32) -> anyhow::Result<u64> {
        let script = self.script(bench)?;
        let url = if self.tls {
            format!("https://localhost:{HTTPS_PORT}/")
        } else {
            format!("http://127.0.0.1:{HTTP_PORT}/")
        };
        let mut command = bench.pinned("1");
        command.arg(WRK.find()?).args([
            "-t1",
            &format!("-c{}", self.connections),
            &format!("-d{seconds}s"),
            "--timeout",
            "10s",
            "-s",
        ]);
        let text = output(command.arg(script).arg(url))?;
        // A connection that ends after its answer, as it should, may count as a read error.
        if text.contains("Non-2xx") || (text.contains("Socket errors") && !self.close) {
            bail!("requests failed:\n{text}");
        }
        let line = text.lines().find(|line| line.contains("requests in"));
        first_number(line.unwrap_or_default()).with_context(|| format!("no total in:\n{text}"))
    }

    fn script(self, bench: &Bench) -> anyhow::Result<PathBuf> {
        let path = bench.directory.join("requests.lua");
        let names: Vec<String> = (0..16)
            .map(|n| format!("'h{}.bench.test'", n * self.hosts / 16))
            .collect();
        let connection = if self.close {
            ", Connection = 'close'"
        } else {
            ""
        };
        let text = format!(
            "local requests = {{}}\nlocal n = 0\nfunction init()\n  for i, host in ipairs({{{}}}) do\n    requests[i] = \
             wrk.format('GET', '{TARGET}', {{Host = host, ['User-Agent'] = 'bench', Accept = '*/*'{connection}{}}})\n  end\nend\n\
             function request()\n  n = n % 16 + 1\n  return requests[n]\nend\n",
            names.join(", "),
            self.field
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

impl H2load {
    pub(super) fn run(self, bench: &Bench, amount: Amount) -> anyhow::Result<u64> {
        let (scheme, port) = if self.tls {
            ("https", HTTPS_PORT)
        } else {
            ("http", HTTP_PORT)
        };
        let mut command = bench.pinned("1");
        command.arg(H2LOAD.find()?).args([
            &format!("-c{}", self.connections),
            &format!("-m{}", self.streams),
            &format!("--connect-to=127.0.0.1:{port}"),
        ]);
        match amount {
            Amount::Seconds(seconds) => command.arg(format!("-D{seconds}")),
            Amount::Requests(requests) => command.arg(format!("-n{requests}")),
        };
        if self.http1 {
            command.arg("--h1");
        }
        let text = output(command.arg(format!("{scheme}://h0.bench.test{TARGET}")))?;
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with("requests:"))?;
            first_number(line.split(", ").find(|part| part.ends_with(name))?)
        };
        let good = text
            .lines()
            .find_map(|line| first_number(line.strip_prefix("status codes: ")?))
            .with_context(|| format!("no status codes in:\n{text}"))?;
        // At the end of the time those in flight are given up, which it may count as errors; an answer that is not 2xx fails.
        let failed = text
            .lines()
            .filter_map(|line| line.strip_prefix("status codes: "))
            .flat_map(|line| line.split(", ").skip(1))
            .any(|part| first_number(part) != Some(0));
        ensure!(
            !failed && good > 0 && field("timeout") == Some(0),
            "requests failed:\n{text}"
        );
        Ok(good)
    }
}

/// From eight threads, which are on core 1 as this whole process is.
fn connections(before: &str, seconds: u32) -> anyhow::Result<u64> {
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let one = || {
        let mut count = 0;
        while Instant::now() < end {
            let mut stream = TcpStream::connect(("127.0.0.1", HTTP_PORT))?;
            ask(&mut stream, before, "Connection: close\r\n")?;
            // The end of the connection belongs to it.
            ensure!(stream.read(&mut [0])? == 0, "more than the answer came");
            count += 1;
        }
        Ok(count)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        let counts = threads.into_iter().map(|thread| {
            let panicked = |_| anyhow::anyhow!("a thread of the generator panicked");
            thread.join().map_err(panicked)?
        });
        counts.sum()
    })
}

fn handshakes(bench: &Bench, seconds: u32) -> anyhow::Result<u64> {
    let mut command = bench.pinned("1");
    command.arg(OPENSSL.find()?).args([
        "s_time",
        "-new",
        "-connect",
        &format!("127.0.0.1:{HTTPS_PORT}"),
        "-time",
        &seconds.to_string(),
    ]);
    let text = output(&mut command)?;
    let line = text.lines().find(|line| line.contains("real seconds"));
    first_number(line.unwrap_or_default()).with_context(|| format!("no total in:\n{text}"))
}

/// Opens so many connections, each with one request, lets them rest, and gives the KiB of resident memory that each costs.
///
/// # Errors
///
/// When a connection cannot be opened, or one of a sample is not served anymore after the rest.
pub(super) fn idle(proxy: &Running, connections: usize) -> anyhow::Result<f64> {
    let mut first = TcpStream::connect(("127.0.0.1", HTTP_PORT))?;
    ask(&mut first, "", "")?;
    let before = settled(proxy)?;
    let mut open = Vec::with_capacity(connections);
    for n in 0..connections {
        let stream = TcpStream::connect(("127.0.0.1", HTTP_PORT))
            .with_context(|| format!("connection {n} cannot be opened"))?;
        open.push(stream);
        ask(&mut open[n], "", "").with_context(|| format!("connection {n}"))?;
    }
    let after = settled(proxy)?;
    for stream in open.iter_mut().step_by(connections / 50 + 1) {
        ask(stream, "", "").context("a connection that had rested")?;
    }
    Ok((after as f64 - before as f64) / connections as f64)
}

/// Resident memory once it has not changed for a second.
fn settled(proxy: &Running) -> anyhow::Result<u64> {
    let start = Instant::now();
    let mut last = proxy.rss_kib()?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = proxy.rss_kib()?;
        if now == last || start.elapsed() > Duration::from_secs(10) {
            return Ok(now);
        }
        last = now;
    }
}

/// One request with a body of at most some hundred bytes.
fn ask(stream: &mut TcpStream, before: &str, field: &str) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // In one piece: the kernel would hold back the second until the first is acknowledged.
    let request = format!(
        "{before}GET {TARGET} HTTP/1.1\r\nHost: h0.bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n{field}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "closed before its answer was whole");
        answer.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            ensure!(head.starts_with("HTTP/1.1 200"), "answered with {head}");
            let length = head
                .to_ascii_lowercase()
                .lines()
                .find_map(|line| first_number(line.strip_prefix("content-length:")?));
            if length == Some(body.len() as u64) {
                return Ok(());
            }
        }
    }
}

/// The number a text begins with.
fn first_number(text: &str) -> Option<u64> {
    let word = text.split_whitespace().next()?;
    word.trim_end_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::first_number;

    #[test]
    fn the_number_a_line_begins_with_is_read() {
        for (line, expected) in [
            ("  81234 requests in 2.00s, 1.2MB read", Some(81234)),
            ("9000 connections in 3 real seconds", Some(9000)),
            ("500 2xx", Some(500)),
            ("none", None),
            ("", None),
        ] {
            assert_eq!(first_number(line), expected, "{line}");
        }
    }
}
