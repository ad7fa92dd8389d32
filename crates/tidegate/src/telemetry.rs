//! Log messages (to standard error, by a thread of their own) and the access log.

use crate::args::LogFormat;
use anyhow::Context;
use data_plane::{AccessLogFormat, AccessLogSink};
use prometheus::{IntGauge, Opts, Registry};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Lines that wait to be written; more are dropped.
const WAITING: usize = 1024;
/// How long the process waits at its end for the last of them.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Where lines go to be written: whoever logs never waits for whoever reads.
static LINES: OnceLock<SyncSender<Message>> = OnceLock::new();

enum Message {
    Line(Vec<u8>),
    /// Everything before it was written.
    Flush(SyncSender<()>),
}

/// One line.
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match LINES.get() {
            // A full queue drops the line: a log that nobody reads must not stop what it speaks of.
            Some(lines) => drop(lines.try_send(Message::Line(bytes.to_vec()))),
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start_writing() -> io::Result<()> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(WAITING);
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || {
            for message in receiver {
                match message {
                    Message::Line(line) => drop(io::stderr().write_all(&line)),
                    Message::Flush(done) => drop(done.try_send(())),
                }
            }
        })?;
    let _ = LINES.set(sender);
    Ok(())
}

/// Waits for what was logged to be written, but not for long.
pub(crate) fn flush() {
    let Some(lines) = LINES.get() else { return };
    let (done, written) = std::sync::mpsc::sync_channel(1);
    if lines.try_send(Message::Flush(done)).is_ok() {
        let _ = written.recv_timeout(LAST_LINES);
    }
}

/// What libraries say of a stranger's bytes at `warn` is no news for an operator, and a stranger may say much: it is `debug`
/// for us. A filter that names them has its way.
fn quiet(filter: &str) -> String {
    let mut filter = filter.to_owned();
    for library in ["h2", "hyper", "rustls"] {
        if !filter.contains(library) && !matches!(filter.as_str(), "debug" | "trace") {
            filter.push_str(&format!(",{library}=error"));
        }
    }
    filter
}

/// Sets up log messages.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(quiet(filter))
        .with_context(|| format!("--log {filter:?} is no log filter"))?;
    start_writing().context("cannot start writing log messages")?;
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Line)
        .with_ansi(colours);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// The access log, and what waits until its last line is written. `stdout` is where lines for standard output go.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn access_log(
    target: &str,
    format: LogFormat,
    stdout: Box<dyn Write + Send>,
) -> anyhow::Result<Option<(AccessLogSink, JoinHandle<()>)>> {
    let started = match target {
        "off" => return Ok(None),
        "stdout" => AccessLogSink::start(stdout),
        path => {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            AccessLogSink::start(
                file.with_context(|| format!("cannot open the access log {path}"))?,
            )
        }
    };
    let (sink, thread) = started.context("cannot start the access log")?;
    let format = match format {
        LogFormat::Json => AccessLogFormat::Json,
        LogFormat::Text => AccessLogFormat::Text,
    };
    Ok(Some((sink.with_format(format), thread)))
}

/// Registers what this is: one series whose value is 1.
///
/// # Errors
/// When it was registered before.
pub(crate) fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", env!("TIDEGATE_COMMIT")),
        ("rustc", env!("TIDEGATE_RUSTC")),
    ];
    let help = "What this binary was built from; the value is always 1";
    let mut opts = Opts::new("tidegate_build_info", help);
    for (name, value) in labels {
        opts = opts.const_label(name, value);
    }
    let info = IntGauge::with_opts(opts)?;
    info.set(1);
    registry.register(Box::new(info))
}
