//! Where the programs of a real control plane come from: etcd, kube-apiserver, kube-controller-manager, kubectl, CoreDNS.
//!
//! Each comes from the first of: the folder `$KUBEBUILDER_ASSETS`; the cache; a build of a Go module: `tests/cluster`, which
//! pins one Kubernetes version, or `tests/cluster/coredns`. Nothing is downloaded but Go modules, and nothing is
//! installed outside the cache.

use super::on_path;
use crate::process;
use anyhow::Context;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why no cluster can run on this machine. It is an error type of its own so that a caller may find it with
/// `downcast_ref` and skip instead of failing.
#[derive(Debug)]
pub(crate) struct Unavailable(pub(crate) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// One program: the name of its file, and what it is built from.
struct Program {
    name: &'static str,
    package: &'static str,
    /// The folder of the Go module that pins its version, from the root of the checkout.
    module: &'static str,
    /// The module path whose version is the program's.
    versioned: &'static str,
}

const KUBERNETES: &str = "k8s.io/kubernetes";
const CLUSTER: &str = "tests/cluster";

const PROGRAMS: [Program; 5] = [
    Program {
        name: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        module: CLUSTER,
        versioned: KUBERNETES,
    },
    Program {
        name: "kube-apiserver",
        package: "k8s.io/kubernetes/cmd/kube-apiserver",
        module: CLUSTER,
        versioned: KUBERNETES,
    },
    Program {
        name: "kube-controller-manager",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        module: CLUSTER,
        versioned: KUBERNETES,
    },
    Program {
        name: "kubectl",
        package: "k8s.io/kubernetes/cmd/kubectl",
        module: CLUSTER,
        versioned: KUBERNETES,
    },
    // A module of its own, because it wants other versions of what both use.
    Program {
        name: "coredns",
        package: ".",
        module: "tests/cluster/coredns",
        versioned: "github.com/coredns/coredns",
    },
];

impl Program {
    fn module(&self) -> PathBuf {
        process::root().join(self.module)
    }
}

/// Whether [`find_or_build`] has what it needs. It builds nothing and takes no time.
pub(crate) fn available() -> Result<(), Unavailable> {
    if on_path("go").is_some() {
        return Ok(());
    }
    let built = |program: &Program| {
        let dir = pinned(program).and_then(|pinned| pinned.dir()).ok()?;
        cached(&dir, program)
    };
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| asset(program).or_else(|| built(program)).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|p| p.name).collect();
    let names = names.join(", ");
    Err(Unavailable(match std::env::var("KUBEBUILDER_ASSETS") {
        Ok(assets) => format!("no Go on PATH, and KUBEBUILDER_ASSETS={assets} has no {names}"),
        Err(_) => format!(
            "no Go and no KUBEBUILDER_ASSETS: there is no {names}, and nothing to build it with"
        ),
    }))
}

/// The path of every program by its name, built first where it must be (once, some six minutes on two cores).
pub(crate) fn find_or_build() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    available()?;
    let cache = process::cache()?.join("control-plane");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // Two runs that start at once must not both build for minutes.
    let lock = File::create(cache.join("lock"))
        .context("cannot create the lock of the control-plane cache")?;
    lock.lock().context("cannot lock the control-plane cache")?;
    PROGRAMS
        .iter()
        .map(|program| {
            let pinned = pinned(program)?;
            let dir = pinned.dir()?;
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let path = match asset(program).or_else(|| cached(&dir, program)) {
                Some(path) => path,
                None => pinned.build(program, &dir)?,
            };
            Ok((program.name, path))
        })
        .collect()
}

fn asset(program: &Program) -> Option<PathBuf> {
    // Absolute, because the path outlives this process's working directory.
    let path = std::path::absolute(std::env::var_os("KUBEBUILDER_ASSETS")?)
        .ok()?
        .join(program.name);
    path.is_file().then_some(path)
}

fn cached(dir: &Path, program: &Program) -> Option<PathBuf> {
    let path = dir.join(program.name);
    path.is_file().then_some(path)
}

/// What a program's Go module pins.
struct Pinned {
    /// The version, such as `v1.36.3`.
    version: String,
    /// Names everything that decides the built bytes, save the Go version.
    hash: u64,
}

fn pinned(program: &Program) -> anyhow::Result<Pinned> {
    let read = |name: &str| {
        let path = program.module().join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let go_mod = read("go.mod")?;
    let version = version(&go_mod, program.versioned).with_context(|| {
        let module = program.module();
        format!(
            "{}/go.mod requires no {}",
            module.display(),
            program.versioned
        )
    })?;
    let hash = match read("main.go") {
        Ok(main) => hash(&[&go_mod, &read("go.sum")?, &main]),
        Err(_) => hash(&[&go_mod, &read("go.sum")?, &ldflags(version)]),
    };
    Ok(Pinned {
        version: version.to_owned(),
        hash,
    })
}

impl Pinned {
    fn dir(&self) -> anyhow::Result<PathBuf> {
        Ok(process::cache()?
            .join("control-plane")
            .join(format!("{}-{:016x}", self.version, self.hash)))
    }

    /// Builds to a temporary name and renames, so an interrupted build leaves nothing that looks whole.
    fn build(&self, program: &Program, dir: &Path) -> anyhow::Result<PathBuf> {
        let time = match program.name {
            "kube-apiserver" => "about 5 min",
            "coredns" => "about 2 min",
            _ => "about 1 min",
        };
        let (name, version) = (program.name, &self.version);
        eprintln!(
            "building {name} {version} ({time}, once; cached in {})",
            dir.display()
        );
        let partial = dir.join(format!(".{}.partial", program.name));
        let done = dir.join(program.name);
        process::run(
            // `nice`, because the build takes every core and nobody waits for each of its steps.
            Command::new("nice")
                .args([
                    "-n",
                    "10",
                    "go",
                    "build",
                    "-mod=readonly",
                    "-trimpath",
                    "-buildvcs=false",
                    "-ldflags",
                ])
                .arg(ldflags(&self.version))
                .arg("-o")
                .arg(&partial)
                .arg(program.package)
                .env("CGO_ENABLED", "0")
                .env("GOWORK", "off")
                .current_dir(program.module()),
        )?;
        fs::rename(&partial, &done)
            .with_context(|| format!("cannot rename {}", partial.display()))?;
        Ok(done)
    }
}

/// The version of a module in a go.mod, from a `require` line of either form.
fn version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().strip_prefix("require ").unwrap_or(line.trim());
        line.strip_prefix(module)?
            .strip_prefix(' ')?
            .split_whitespace()
            .next()
            .filter(|v| v.starts_with('v'))
    })
}

/// Without the version variables every program reports `v0.0.0-master+$Format:%H$`.
fn ldflags(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let variable = "-X k8s.io/component-base/version";
    format!(
        "-s -w {variable}.gitVersion={version} {variable}.gitMajor={major} {variable}.gitMinor={minor}"
    )
}

/// FNV-1a over the parts, each ended by a zero byte. Written out because a folder's name must not change with
/// the Rust version, which the standard hasher does not promise.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_require_line() {
        let block = "module m\n\nrequire (\n\tk8s.io/kubernetes v1.36.3\n)\n";
        assert_eq!(version(block, KUBERNETES), Some("v1.36.3"));
        assert_eq!(
            version(
                "require k8s.io/kubernetes v1.36.3 // indirect\n",
                KUBERNETES
            ),
            Some("v1.36.3")
        );
        // Not the tool line, whose path only starts alike.
        assert_eq!(
            version("tool k8s.io/kubernetes/cmd/kubectl\n", KUBERNETES),
            None
        );
    }

    #[test]
    fn the_flags_carry_the_version_in_three_parts() {
        let flags = ldflags("v1.36.3");
        for wanted in [
            "version.gitVersion=v1.36.3 ",
            "version.gitMajor=1 ",
            "version.gitMinor=36",
        ] {
            assert!(flags.contains(wanted), "{wanted} in {flags}");
        }
    }

    #[test]
    fn the_hash_is_fnv_1a_and_tells_parts_apart() {
        // FNV-1a of the one byte 0, from the published offset and prime.
        assert_eq!(hash(&[""]), 0xaf63_bd4c_8601_b7df);
        assert_ne!(hash(&["a", "bc"]), hash(&["ab", "c"]));
    }

    #[test]
    fn the_committed_module_pins_every_staging_module_to_the_kubernetes_patch() {
        let go_mod =
            fs::read_to_string(process::root().join(CLUSTER).join("go.mod")).unwrap_or_default();
        let version = version(&go_mod, KUBERNETES).map(|v| v.replacen("v1.", "v0.", 1));
        let staged: Vec<_> = go_mod
            .lines()
            .filter_map(|line| line.split_once(" => "))
            .collect();
        assert!(
            !staged.is_empty(),
            "no replace lines in tests/cluster/go.mod"
        );
        for (from, to) in staged {
            assert_eq!(to.rsplit(' ').next(), version.as_deref(), "{from}");
        }
    }
}
