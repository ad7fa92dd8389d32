//! The project's automation. `cargo xtask --help` lists the tasks; each task is one module.

mod bench;
mod chart;
mod cluster;
mod codegen;
mod features;
mod process;
mod promises;
mod suites;
mod test;
mod tidy;
mod tools;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Tidegate's automation",
    disable_help_subcommand = true
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test: unit, golden, proxy, fake API server, real cluster, chart
    Test(test::Args),
    /// Start, stop or enter a real control plane in its own network namespace
    Cluster(cluster::Args),
    /// Run protocol suites of others against the binary: h2spec, gRPC interop, testssl
    Suites(suites::Args),
    /// Measure CPU and memory beside nginx, HAProxy and Envoy; what features cost; instructions of a request
    Bench(bench::Args),
    /// Check the crate graph, file sizes, the page of features, and what the documentation promises
    Tidy(tidy::Args),
    /// Write generated files: annotation docs, plain manifests
    Codegen(codegen::Args),
    /// Print every feature with the tests that prove it and what they came to
    Features(features::Args),
}

fn main() -> std::process::ExitCode {
    match run(Args::parse().task) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Test(args) => test::run(args),
        Task::Cluster(args) => cluster::run(args),
        Task::Suites(args) => suites::run(args),
        Task::Bench(args) => bench::run(args),
        Task::Tidy(args) => tidy::run(args),
        Task::Codegen(args) => codegen::run(args),
        Task::Features(args) => features::run(args),
    }
}
