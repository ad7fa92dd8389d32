//! Where the programs of the protocol suites come from: h2spec, client and server of the gRPC interop tests, testssl.sh.
//!
//! The last is a shell script that distributions package. Each of the others comes from the cache, or is built into it from the Go module `tests/suites`, which pins their versions. h2spec is
//! pinned by commit, because its release tags carry a module path without `/v2` and cannot be required.

use super::control_plane::{Unavailable, hash};
use super::on_path;
use crate::process;
use anyhow::Context;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs, each where it was built.
pub(crate) struct Suites {
    pub(crate) h2spec: PathBuf,
    pub(crate) grpc_client: PathBuf,
    pub(crate) grpc_server: PathBuf,
}

/// The folder of the Go module that pins the versions.
fn module() -> PathBuf {
    process::root().join("tests/suites")
}

/// testssl.sh, by the name that Debian or its authors gave it.
///
/// # Errors
/// [`Unavailable`] when it is not there.
pub(crate) fn find_testssl() -> anyhow::Result<PathBuf> {
    let mut names = ["testssl", "testssl.sh"].into_iter();
    let found = names.find_map(on_path);
    found.ok_or_else(|| Unavailable("no testssl on PATH (Debian: testssl.sh)".into()).into())
}

/// Every program that is built, where it must be (once, some two minutes on two cores).
///
/// # Errors
/// [`Unavailable`] when one is not there and there is no Go to build it with.
pub(crate) fn find_or_build() -> anyhow::Result<Suites> {
    let read = |name: &str| {
        let path = module().join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let pinned = hash(&[&read("go.mod")?, &read("go.sum")?, &read("server/main.go")?]);
    let dir = process::cache()?
        .join("suites")
        .join(format!("{pinned:016x}"));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Two runs that start at once must not both build for minutes.
    let lock = File::create(dir.join("lock")).context("cannot create the lock of the suites")?;
    lock.lock().context("cannot lock the suites")?;
    let find = |name: &str, package: &str| {
        let path = dir.join(name);
        if !path.is_file() {
            build(name, package, &dir)?;
        }
        anyhow::Ok(path)
    };
    Ok(Suites {
        h2spec: find("h2spec", "github.com/summerwind/h2spec/cmd/h2spec")?,
        grpc_client: find("grpc-client", "google.golang.org/grpc/interop/client")?,
        grpc_server: find("grpc-server", "./server")?,
    })
}

/// Builds to a temporary name and renames, so an interrupted build leaves nothing that looks whole.
fn build(name: &str, package: &str, dir: &Path) -> anyhow::Result<()> {
    if on_path("go").is_none() {
        let dir = dir.display();
        return Err(Unavailable(format!("no Go on PATH, and no {name} in {dir}")).into());
    }
    eprintln!("building {name} (once; cached in {})", dir.display());
    let partial = dir.join(format!(".{name}.partial"));
    process::run(
        Command::new("nice")
            .args([
                "-n",
                "10",
                "go",
                "build",
                "-mod=readonly",
                "-trimpath",
                "-buildvcs=false",
                "-o",
            ])
            .arg(&partial)
            .arg(package)
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .current_dir(module()),
    )?;
    fs::rename(&partial, dir.join(name))
        .with_context(|| format!("cannot rename {}", partial.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_module_pins_h2spec_by_commit() {
        let go_mod = fs::read_to_string(module().join("go.mod")).unwrap_or_default();
        let line = go_mod
            .lines()
            .find(|line| line.contains("summerwind/h2spec v"));
        assert!(
            line.is_some_and(|line| line.contains(" v0.0.0-")),
            "{go_mod}"
        );
    }
}
