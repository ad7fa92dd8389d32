//! Tidegate: a Kubernetes ingress controller and sidecar load balancer.
//!
//! This crate is wiring only: flags (`args`), starting and stopping (`proxy`), the admin port, and a module for each command.

mod admin;
mod args;
mod backends;
mod check;
mod cluster;
mod demo;
mod files;
mod proxy;
mod telemetry;
mod ticket_keys;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Fails only when it was done before, which nobody else does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match cli.command {
        Command::Controller(args) => cluster::run(*args),
        Command::Serve(args) => files::run(*args),
        Command::Check(args) => return check::check(&args),
        Command::Translate(args) => check::translate(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Annotations => {
            print!("{}", translate::annotation::markdown());
            Ok(())
        }
    };
    telemetry::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {}", one_line(&error));
            ExitCode::FAILURE
        }
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
