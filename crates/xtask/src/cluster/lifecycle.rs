//! Bringing a cluster up and down. Both are safe to repeat, and to call after a run that died half-way.

use super::component::{self, APISERVER, COMPONENTS, CONTROLLER_MANAGER, Component};
use super::{Cluster, network, preflight};
use crate::process;
use crate::tools::control_plane;
use anyhow::{Context, bail};
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a step of `up` may take; it takes a tenth of this on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a program gets to end after SIGTERM, and again after SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a condition that nothing announces.
const POLL: Duration = Duration::from_millis(50);

impl Cluster {
    /// Starts what does not run and waits until the cluster is usable: `/readyz` is 200 and the namespace
    /// `default` has its ServiceAccount. Returns false when it was up before.
    ///
    /// With every program dead it starts from nothing; with only some dead it starts those on the same data.
    /// If a start from nothing fails, the programs and the namespace are removed and the logs stay.
    ///
    /// # Errors
    ///
    /// `control_plane::Unavailable` when this machine cannot run a cluster at all.
    pub(crate) fn up(&self) -> anyhow::Result<bool> {
        preflight()?;
        let _lock = self.lock()?;
        let begun = match COMPONENTS
            .iter()
            .filter(|component| component.pid(&self.dir).is_some())
            .count()
        {
            0 => {
                let binaries = control_plane::find_or_build()?;
                let begun = Instant::now();
                self.clear_remains()?;
                self.write_files(&binaries)?;
                network::create(&self.name)?;
                if let Err(error) = self.start_all() {
                    self.stop_all()?;
                    network::delete(&self.name)?;
                    return Err(error);
                }
                begun
            }
            all if all == COMPONENTS.len() => {
                self.wait_until_ready()?;
                return Ok(false);
            }
            _ => {
                eprintln!(
                    "cluster {}: starting the parts that do not run, on the same data",
                    self.name
                );
                let begun = Instant::now();
                self.start_all()?;
                begun
            }
        };
        eprintln!(
            "cluster {} is up after {:.1} s",
            self.name,
            begun.elapsed().as_secs_f64()
        );
        Ok(true)
    }

    /// Stops everything and removes namespace and state. Returns false when there was nothing.
    pub(crate) fn down(&self) -> anyhow::Result<bool> {
        let _lock = self.lock()?;
        let there = network::exists(&self.name) || self.dir.exists();
        self.stop_all()?;
        if network::exists(&self.name) {
            let left = network::processes(&self.name)?;
            if !left.is_empty() {
                // They keep the namespace alive without its name until they end.
                eprintln!(
                    "still inside namespace {}, not started by this tool: {}",
                    self.name,
                    left.join(", ")
                );
            }
            network::delete(&self.name)?;
        }
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir)
                .with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(there)
    }

    /// Held while a cluster changes; released when dropped or when the process ends.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        // Beside the folder, not in it: `down` removes the folder.
        let path = self.dir.with_extension("lock");
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Removes what a dead run left, unless something still lives in its namespace.
    fn clear_remains(&self) -> anyhow::Result<()> {
        if network::exists(&self.name) {
            // A name without a namespace behind it, which a reboot or a killed container leaves, has no processes.
            let left = network::processes(&self.name).unwrap_or_default();
            if !left.is_empty() {
                bail!(
                    "network namespace {} exists and has processes of something else in it: {}; end them, or set \
                     TIDEGATE_CLUSTER_NAME to another name",
                    self.name,
                    left.join(", ")
                );
            }
            eprintln!(
                "removing network namespace {}, left by an earlier run",
                self.name
            );
            network::delete(&self.name)?;
        }
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir)
                .with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(())
    }

    fn write_files(&self, binaries: &[(&'static str, std::path::PathBuf)]) -> anyhow::Result<()> {
        let dir = &self.dir;
        // 0700: it holds the administrator's token.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join("bin"))?;
        for (name, path) in binaries {
            symlink(path, dir.join("bin").join(name))
                .with_context(|| format!("cannot link {name}"))?;
        }

        let token = random_token()?;
        fs::write(
            component::tokens(dir),
            format!("{token},admin,admin,\"system:masters\"\n"),
        )?;
        fs::write(
            self.kubeconfig(),
            kubeconfig(&component::certificate(dir), &token),
        )?;

        let (key, public) = (
            component::service_account_key(dir),
            component::service_account_public_key(dir),
        );
        process::output(
            Command::new("openssl")
                .args(["genrsa", "-out"])
                .arg(&key)
                .arg("2048"),
        )?;
        process::output(
            Command::new("openssl")
                .args(["rsa", "-pubout", "-in"])
                .arg(&key)
                .arg("-out")
                .arg(&public),
        )?;

        let corefile = component::corefile(dir);
        fs::write(&corefile, component::corefile_text(dir))
            .with_context(|| format!("cannot write {}", corefile.display()))?;

        COMPONENTS
            .iter()
            .try_for_each(|component| component.write_script(dir))
    }

    fn start_all(&self) -> anyhow::Result<()> {
        for component in &COMPONENTS {
            // The controller manager reads the API server's certificate, and gives up when it does not answer.
            if component.name == CONTROLLER_MANAGER.name {
                self.wait_until_answering()?;
            }
            self.start(component)?;
        }
        self.wait_until_ready()
    }

    /// Runs the start script of a component that does not run.
    pub(super) fn start(&self, component: &Component) -> anyhow::Result<()> {
        if component.pid(&self.dir).is_some() {
            return Ok(());
        }
        if !network::exists(&self.name) || !component.script_path(&self.dir).exists() {
            bail!(
                "cluster {} is not up: run `cargo xtask cluster up`",
                self.name
            );
        }
        let taken = network::listening_ports(&self.name)?;
        if let Some(port) = component.ports.iter().find(|port| taken.contains(port)) {
            let there = network::processes(&self.name)?.join(", ");
            bail!(
                "port {port}, which {} needs, is in use inside network namespace {}, by one of: {there}",
                component.name,
                self.name
            );
        }
        let script = component.script_path(&self.dir);
        process::output(network::command(&self.name, "sh").arg(script)).map(drop)
    }

    fn wait_until_answering(&self) -> anyhow::Result<()> {
        // All but the controller manager, which is not started yet.
        self.wait("the API server was ready", &["/readyz"], &COMPONENTS[..2])
    }

    /// Waits until the API server is ready and the controllers have made the first ServiceAccount.
    pub(super) fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.wait_until_answering()?;
        self.wait(
            "the namespace default had its ServiceAccount and root certificate",
            &[
                "/api/v1/namespaces/default/serviceaccounts/default",
                "/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
            ],
            &COMPONENTS,
        )
    }

    /// Waits until a GET of every path succeeds. An error at once when one of the `needed` components has ended.
    fn wait(&self, what: &str, paths: &[&str], needed: &[Component]) -> anyhow::Result<()> {
        let begun = Instant::now();
        for path in paths {
            loop {
                let mut get = self.command("kubectl")?;
                get.args(["get", "--request-timeout=5s", "--raw", path]);
                let Err(error) = process::output(&mut get) else {
                    break;
                };
                if let Some(dead) = needed
                    .iter()
                    .find(|component| component.pid(&self.dir).is_none())
                {
                    bail!(
                        "{} ended before {what}; {}",
                        dead.name,
                        dead.log_tail(&self.dir)
                    );
                }
                if begun.elapsed() > START_LIMIT {
                    let tail = APISERVER.log_tail(&self.dir);
                    return Err(
                        error.context(format!("waited {START_LIMIT:?} until {what}; {tail}"))
                    );
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Ends the programs that run, each by SIGTERM, then by SIGKILL. The last started goes first: an API server
    /// whose etcd has gone takes very long to end.
    fn stop_all(&self) -> anyhow::Result<()> {
        for component in COMPONENTS.iter().rev() {
            let Some(pid) = component.pid(&self.dir) else {
                continue;
            };
            component::signal(pid, "TERM")?;
            if self.wait_until_gone(component, pid).is_err() {
                component::signal(pid, "KILL")?;
                self.wait_until_gone(component, pid)?;
            }
        }
        Ok(())
    }

    /// Waits until the program has ended and let go of its ports.
    pub(super) fn wait_until_gone(&self, component: &Component, pid: u32) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            // The ports too: a program's memory, and with it its command line, goes before its sockets do.
            let held = network::exists(&self.name)
                && !component.ports.is_empty()
                && network::listening_ports(&self.name)?
                    .iter()
                    .any(|port| component.ports.contains(port));
            if component.pid(&self.dir) != Some(pid) && !held {
                return Ok(());
            }
            if begun.elapsed() > STOP_LIMIT {
                bail!(
                    "{} of cluster {}, process {pid}, did not end within {STOP_LIMIT:?}",
                    component.name,
                    self.name
                );
            }
            thread::sleep(POLL);
        }
    }
}

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn kubeconfig(certificate: &std::path::Path, token: &str) -> String {
    // Written as JSON, which is YAML, so no path needs quoting by hand.
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tidegate",
        "contexts": [{ "name": "tidegate", "context": { "cluster": "tidegate", "user": "admin" } }],
        "clusters": [{ "name": "tidegate", "cluster": {
            "server": component::apiserver_url(),
            "certificate-authority": certificate,
        } }],
        "users": [{ "name": "admin", "user": { "token": token } }],
    });
    format!("{config:#}\n")
}
