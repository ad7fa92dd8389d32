//! Where things are on disk, and running other programs with errors that name the command.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    // CARGO_MANIFEST_DIR is <root>/crates/xtask when cargo compiles this crate.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// A rebuildable cache outside the checkout: `$TIDEGATE_CACHE`, else `$XDG_CACHE_HOME/tidegate`, else `~/.cache/tidegate`.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let dir = if let Some(dir) = std::env::var_os("TIDEGATE_CACHE") {
        PathBuf::from(dir)
    } else if let Some(dir) = std::env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(dir).join("tidegate")
    } else {
        PathBuf::from(
            std::env::var_os("HOME")
                .context("neither TIDEGATE_CACHE, XDG_CACHE_HOME nor HOME is set")?,
        )
        .join(".cache/tidegate")
    };
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("cannot create the cache {}", dir.display()))?;
    Ok(dir)
}

/// Files of the checkout that are tracked, or new and not ignored, by their paths from its root. A star matches slashes too.
pub(crate) fn files(patterns: &[&str]) -> anyhow::Result<Vec<String>> {
    let listed = output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .args(patterns)
            .current_dir(root()),
    )?;
    let there = listed.lines().filter(|file| root().join(file).exists());
    Ok(there.map(str::to_owned).collect())
}

/// Runs a command with inherited output; an error names the whole command line.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns its standard output; an error shows its standard error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let out = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !out.status.success() {
        bail!(
            "{command:?} ended with {}:\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
