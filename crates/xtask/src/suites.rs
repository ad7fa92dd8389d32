//! `cargo xtask suites`: protocol suites of others, run against the real binary: h2spec, the gRPC interop tests, and testssl.sh.
//!
//! Both listeners are tried. What a listener does not speak is said to be not run, and is neither passed nor failed.

mod grpc;
mod h2spec;
mod stand;
mod testssl;

use crate::process::{root, run as run_command};
use crate::tools;
use anyhow::bail;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build and run tidegate as it is released; default: as it is tested
    #[arg(long)]
    release: bool,
    /// Only this suite
    #[arg(value_enum)]
    suite: Option<Suite>,
}

/// The suites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// HTTP/2 and HPACK, server side
    H2spec,
    /// grpc-go's interop client and server, through both listeners
    Grpc,
    /// testssl.sh, on the TLS listener
    Testssl,
}

/// What the runs came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) not_run: u64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Totals {
        passed,
        failed,
        not_run,
    } = run_against(&tidegate(args.release)?, args.suite)?;
    println!("{passed} passed, {failed} failed, {not_run} not run");
    if failed > 0 || passed == 0 {
        bail!("{failed} case(s) failed");
    }
    Ok(())
}

/// Runs a suite, or all, against a binary.
pub(crate) fn run_against(tidegate: &Path, suite: Option<Suite>) -> anyhow::Result<Totals> {
    let mut totals = Totals::default();
    let wanted = |one| suite.is_none_or(|suite| suite == one);
    if wanted(Suite::H2spec) || wanted(Suite::Grpc) {
        let programs = tools::suites::find_or_build()?;
        if wanted(Suite::H2spec) {
            h2spec::run(tidegate, &programs, &mut totals)?;
        }
        if wanted(Suite::Grpc) {
            grpc::run(tidegate, &programs, &mut totals)?;
        }
    }
    if wanted(Suite::Testssl) {
        testssl::run(tidegate, &mut totals)?;
    }
    Ok(totals)
}

/// The binary: `TIDEGATE_BIN`, or built now.
fn tidegate(release: bool) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        return Ok(path.into());
    }
    let mut build = Command::new("cargo");
    build
        .args(["build", "--package", "tidegate"])
        .current_dir(root());
    if release {
        build.arg("--release");
    }
    run_command(&mut build)?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let profile = if release { "release" } else { "debug" };
    Ok(target.join(profile).join("tidegate"))
}
