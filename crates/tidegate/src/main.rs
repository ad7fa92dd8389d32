//! Tidegate: a Kubernetes ingress controller and sidecar load balancer.
//!
//! This crate is wiring only: flags (`args`), starting and stopping (`proxy`), the admin port, and a module for each command.

#![warn(
    clippy::print_stdout,
    reason = "a reader that has gone is no defect: see `output`"
)]

mod admin;
mod args;
mod backends;
mod check;
mod cluster;
mod demo;
mod expiry;
mod files;
mod followed;
mod log_filter;
mod open_files;
mod output;
mod proxy;
mod standalone;
mod telemetry;
mod ticket_keys;

use args::{Cli, Command};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::read();
    // Fails only when it was done before, which nobody else does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match cli.command {
        Command::Controller(args) => cluster::run(*args),
        Command::Serve(args) => serve(*args),
        Command::Check(args) => return check::check(&args),
        Command::Translate(args) => check::translate(&args),
        Command::Test(args) => return standalone::test(&args),
        Command::Schema => {
            output::print(::standalone::config::schema());
            Ok(())
        }
        Command::Demo(args) => demo::run(&args),
        Command::Annotations => {
            output::print(translate::annotation::markdown());
            Ok(())
        }
    };
    telemetry::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {}", one_line(&error));
            match error.downcast_ref() {
                Some(UsageError(_)) => ExitCode::from(2),
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// A mistake in what the user wrote, as opposed to what it met with: exit status 2, as for flags.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Serves what the flags name: manifests, a configuration, or backends.
fn serve(args: args::ServeArgs) -> anyhow::Result<()> {
    match args.manifests {
        Some(path) => files::run(path, &args.proxy),
        None => standalone::run(args),
    }
}

/// An error with its causes; a cause that the text before it has told already is left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.push_str(separator);
            text.push_str(&cause);
        }
    }
    text
}
