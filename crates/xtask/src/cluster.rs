//! A real control plane in its own network namespace: `cargo xtask cluster up|down|status|exec`.
//!
//! etcd, kube-apiserver and kube-controller-manager run as plain processes inside the namespace. There is no
//! kubelet, scheduler or kube-proxy: a test binds its backends to pod-like addresses itself and writes the Pods
//! or EndpointSlices that name them. `tests/cluster/README.md` lists the addresses.
//!
//! All state of a cluster lies in one folder, `Cluster::dir`; a cluster outlives the command that starts it.

mod component;
mod lifecycle;
mod network;

use crate::process;
use crate::tools::{control_plane::Unavailable, on_path};
use anyhow::{Context, bail};
use clap::Subcommand;
use component::{APISERVER, COMPONENTS};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the cluster and wait until it answers; does nothing when it is up
    Up,
    /// Stop the cluster, and delete its namespace and its state
    Down,
    /// Run a command inside the namespace, with KUBECONFIG set to the administrator's
    Exec {
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Say which parts run, and if none can run here, why
    Status,
    /// Kill the API server as a crash would; the rest goes on
    StopApiserver,
    /// Start the API server again on the same data
    StartApiserver,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let cluster = Cluster::from_environment()?;
    match args.action {
        Action::Up => {
            if !cluster.up()? {
                println!("cluster {} is already up", cluster.name);
            }
            println!("kubeconfig: {}", cluster.kubeconfig().display());
            println!("enter it:   cargo xtask cluster exec -- kubectl get namespaces");
            Ok(())
        }
        Action::Down => {
            let was = if cluster.down()? {
                "is down"
            } else {
                "was not up"
            };
            println!("cluster {} {was}", cluster.name);
            Ok(())
        }
        Action::Exec { command } => {
            let mut command = command.into_iter();
            let program = command.next().context("no command given")?;
            // Becomes the command, so its exit code and its signals are exactly those of the caller's process.
            Err(cluster.command(&program)?.args(command).exec())
                .context("cannot start `ip netns exec`")
        }
        Action::Status => cluster.status(),
        Action::StopApiserver => cluster.stop_apiserver(),
        Action::StartApiserver => cluster.start_apiserver(),
    }
}

/// One cluster, up or not. Clusters of different names run side by side with the same addresses.
pub(crate) struct Cluster {
    /// Also the name of the network namespace.
    name: String,
    /// Everything the cluster writes: kubeconfig, start scripts, process ids, logs, etcd's data.
    dir: PathBuf,
}

impl Cluster {
    /// The cluster `$TIDEGATE_CLUSTER_NAME` names; default `tidegate`.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        Self::named(&std::env::var("TIDEGATE_CLUSTER_NAME").unwrap_or_else(|_| "tidegate".into()))
    }

    /// The cluster of this name. A name is 1 to 32 lower-case letters, digits and hyphens, because it becomes a
    /// file name in two places.
    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) || name.starts_with('-')
        {
            bail!(
                "TIDEGATE_CLUSTER_NAME {name:?} is not 1 to 32 lower-case letters, digits and hyphens"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            dir: process::cache()?.join("clusters").join(name),
        })
    }

    /// The administrator's kubeconfig. Good only inside the namespace.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A command that runs `program` inside the namespace as [`Action::Exec`] does. An error when the cluster is
    /// not up.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
        if !network::exists(&self.name) || !self.kubeconfig().exists() {
            bail!(
                "cluster {} is not up: run `cargo xtask cluster up`",
                self.name
            );
        }
        let mut command = network::command(&self.name, program);
        // The cluster's own kubectl comes first, since it has the version of the API server.
        let old = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.dir.join("bin")]
            .into_iter()
            .chain(std::env::split_paths(&old));
        command
            .env(
                "PATH",
                std::env::join_paths(path).context("PATH has a folder that cannot be in PATH")?,
            )
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.dir.join("kubectl-cache"))
            .env("TIDEGATE_CLUSTER_DIR", &self.dir)
            .env("TIDEGATE_CLUSTER_NAME", &self.name);
        // No proxy is reachable from inside the namespace, and clients would still try.
        for proxy in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ] {
            command.env_remove(proxy);
        }
        Ok(command)
    }

    fn status(&self) -> anyhow::Result<()> {
        let running = COMPONENTS
            .iter()
            .filter(|component| component.pid(&self.dir).is_some())
            .count();
        let state = match running {
            0 => "down",
            all if all == COMPONENTS.len() => "up",
            _ => "partly up",
        };
        println!("cluster {} is {state}", self.name);
        if running == 0 {
            if let Some(reason) = skip_reason()? {
                println!("it cannot run here: {reason}");
            }
            return Ok(());
        }
        for component in &COMPONENTS {
            match component.pid(&self.dir) {
                Some(pid) => println!("  {:<20}process {pid}", component.name),
                None => println!(
                    "  {:<20}stopped; see {}",
                    component.name,
                    component.log(&self.dir).display()
                ),
            }
        }
        println!("  {:<20}{}", "kubeconfig", self.kubeconfig().display());
        Ok(())
    }

    fn stop_apiserver(&self) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        match APISERVER.pid(&self.dir) {
            Some(pid) => {
                component::signal(pid, "KILL")?;
                self.wait_until_gone(&APISERVER, pid)?;
                println!(
                    "killed {} of cluster {}, process {pid}",
                    APISERVER.name, self.name
                );
            }
            None => println!("{} of cluster {} does not run", APISERVER.name, self.name),
        }
        Ok(())
    }

    fn start_apiserver(&self) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        self.start(&APISERVER)?;
        self.wait_until_ready()
    }
}

/// Why a cluster cannot run on this machine, for a caller that skips its tests then; `None` when it can.
/// With `TIDEGATE_REQUIRE_CLUSTER=1` the reason is an error instead.
pub(crate) fn skip_reason() -> anyhow::Result<Option<String>> {
    match preflight() {
        Ok(()) => Ok(None),
        Err(reason)
            if std::env::var_os("TIDEGATE_REQUIRE_CLUSTER").is_some_and(|value| value == "1") =>
        {
            Err(anyhow::Error::new(reason)
                .context("TIDEGATE_REQUIRE_CLUSTER=1, but no cluster can run here"))
        }
        Err(reason) => Ok(Some(reason.to_string())),
    }
}

/// Checks what `up` needs of the machine.
fn preflight() -> Result<(), Unavailable> {
    // The owner of /proc/self is the effective user.
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !root {
        return Err(Unavailable(
            "not root: a network namespace needs root".into(),
        ));
    }
    for (program, package) in [
        ("ip", "iproute2"),
        ("openssl", "openssl"),
        ("setsid", "util-linux"),
    ] {
        if on_path(program).is_none() {
            return Err(Unavailable(format!(
                "no `{program}` on PATH (Debian package {package})"
            )));
        }
    }
    crate::tools::control_plane::available()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for bad in ["", "..", "a/b", "A", "-n", "a b", &"a".repeat(33)] {
            assert!(Cluster::named(bad).is_err(), "{bad:?}");
        }
        assert!(Cluster::named("tidegate-2").is_ok());
    }
}
