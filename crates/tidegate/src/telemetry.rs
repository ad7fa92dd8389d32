//! Log messages (to standard error) and the access log.

use crate::args::LogFormat;
use anyhow::Context;
use data_plane::AccessLogSink;
use std::io::IsTerminal;
use std::thread::JoinHandle;
use tracing_subscriber::EnvFilter;

/// Sets up log messages.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn init(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is no log filter"))?;
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// The access log, and what waits until its last line is written.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn access_log(target: &str) -> anyhow::Result<Option<(AccessLogSink, JoinHandle<()>)>> {
    let started = match target {
        "off" => return Ok(None),
        "stdout" => AccessLogSink::start(std::io::stdout()),
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
    Ok(Some(started.context("cannot start the access log")?))
}
