//! The three programs of the control plane: their flags, how each is started, found again and stopped.
//!
//! Each is started by a script in the cluster's folder, so a test inside the namespace may restart one without
//! this tool: `apiserver.sh` starts it, `apiserver.pid` names its process, `apiserver.log` is its output.

use super::network::{NODE_ADDRESS, service_ranges};
use crate::process;
use anyhow::Context;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One program of the control plane.
pub(super) struct Component {
    /// The stem of its files in the cluster's folder.
    pub(super) name: &'static str,
    /// The name of its program.
    binary: &'static str,
    /// The TCP ports it listens on.
    pub(super) ports: &'static [u16],
    flags: fn(&Path) -> Vec<String>,
}

const ETCD: Component = Component {
    name: "etcd",
    binary: "etcd",
    ports: &[2379, 2380],
    flags: etcd_flags,
};
pub(super) const APISERVER: Component = Component {
    name: "apiserver",
    binary: "kube-apiserver",
    ports: &[6443],
    flags: apiserver_flags,
};
pub(super) const CONTROLLER_MANAGER: Component = Component {
    name: "controller-manager",
    binary: "kube-controller-manager",
    ports: &[],
    flags: controller_manager_flags,
};

const COREDNS: Component = Component {
    name: "coredns",
    binary: "coredns",
    ports: &[53],
    flags: coredns_flags,
};

/// In the order of starting.
pub(super) static COMPONENTS: [Component; 4] = [ETCD, APISERVER, CONTROLLER_MANAGER, COREDNS];

impl Component {
    /// The process, if the one its file names lives and is ours: a number may since have gone to another program.
    pub(super) fn pid(&self, dir: &Path) -> Option<u32> {
        let pid = fs::read_to_string(dir.join(format!("{}.pid", self.name)))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        // Empty for a program that has ended and was not yet waited for. For a moment after the start it is still
        // the script, or `env` and `setsid` with the program as an argument.
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let (program, script) = (self.program(dir), self.script_path(dir));
        let ours = |word: &[u8]| {
            [&program, &script]
                .iter()
                .any(|path| path.as_os_str().as_encoded_bytes() == word)
        };
        command_line
            .split(|&byte| byte == 0)
            .any(ours)
            .then_some(pid)
    }

    pub(super) fn log(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.log", self.name))
    }

    /// The last lines of the log, indented, for an error message.
    pub(super) fn log_tail(&self, dir: &Path) -> String {
        let log = self.log(dir);
        let text = fs::read(&log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        if lines.is_empty() {
            return format!("{} is empty", log.display());
        }
        let tail = lines[lines.len().saturating_sub(10)..].join("\n  ");
        format!("{} ends with:\n  {tail}", log.display())
    }

    /// The path by which a cluster runs the program; it makes the process recognisable as this cluster's.
    fn program(&self, dir: &Path) -> PathBuf {
        dir.join("bin").join(self.binary)
    }

    pub(super) fn script_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.sh", self.name))
    }

    pub(super) fn write_script(&self, dir: &Path) -> anyhow::Result<()> {
        let path = self.script_path(dir);
        fs::write(&path, self.script(dir))
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// `setsid` cuts the program loose from the terminal and from the caller's process group. It does not fork
    /// here, since a background command of a script leads no group; so `$!` is the program's own id. `env -i`
    /// keeps the caller's proxies and Go settings away from it.
    fn script(&self, dir: &Path) -> String {
        let name = self.name;
        let mut command = format!(
            "env -i HOME=\"$PWD\" setsid {}",
            quote(&self.program(dir).to_string_lossy())
        );
        for flag in (self.flags)(dir) {
            command.push_str(" \\\n  ");
            command.push_str(&quote(&flag));
        }
        format!(
            "#!/bin/sh\n\
             # Starts {binary} in the current network namespace, in the background, and returns at once.\n\
             # Process id: {name}.pid. Output: {name}.log. Does nothing while that process lives.\n\
             cd {dir} || exit 1\n\
             if grep -qsF \"$PWD/bin/{binary}\" \"/proc/$(cat {name}.pid 2>/dev/null)/cmdline\"; then exit 0; fi\n\
             {command} \\\n  </dev/null >>{name}.log 2>&1 &\n\
             echo $! >{name}.pid\n",
            binary = self.binary,
            dir = quote(&dir.to_string_lossy()),
        )
    }
}

/// Sends a signal, such as `TERM`. No error when the process is gone.
pub(super) fn signal(pid: u32, signal: &str) -> anyhow::Result<()> {
    // The shell's own `kill`: the program of that name is not on every machine.
    process::output(
        Command::new("sh").args(["-c", &format!("kill -{signal} {pid} 2>/dev/null || true")]),
    )
    .map(drop)
}

/// One word for a POSIX shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

const ETCD_URL: &str = "http://127.0.0.1:2379";
const ETCD_PEER_URL: &str = "http://127.0.0.1:2380";

/// The address of the API server inside the namespace.
pub(super) fn apiserver_url() -> String {
    format!("https://{NODE_ADDRESS}:6443")
}

/// The serving certificate the API server signs itself at its first start, its own authority included.
pub(super) fn certificate(dir: &Path) -> PathBuf {
    dir.join("certificates/apiserver.crt")
}

pub(super) fn service_account_key(dir: &Path) -> PathBuf {
    dir.join("service-account.key")
}

pub(super) fn service_account_public_key(dir: &Path) -> PathBuf {
    dir.join("service-account.pub")
}

/// What CoreDNS is told.
pub(super) fn corefile(dir: &Path) -> PathBuf {
    dir.join("Corefile")
}

/// The cluster's DNS as it is usually set up, on every address of the namespace.
pub(super) fn corefile_text(dir: &Path) -> String {
    let kubeconfig = dir.join("kubeconfig");
    format!(
        "cluster.local:53 {{\n    errors\n    kubernetes cluster.local {{\n        kubeconfig \"{}\"\n        ttl 1\n    }}\n}}\n",
        kubeconfig.display()
    )
}

pub(super) fn tokens(dir: &Path) -> PathBuf {
    dir.join("tokens.csv")
}

fn flag(name: &str, path: PathBuf) -> String {
    format!("--{name}={}", path.display())
}

fn etcd_flags(dir: &Path) -> Vec<String> {
    vec![
        flag("data-dir", dir.join("etcd")),
        format!("--listen-client-urls={ETCD_URL}"),
        format!("--advertise-client-urls={ETCD_URL}"),
        format!("--listen-peer-urls={ETCD_PEER_URL}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER_URL}"),
        format!("--initial-cluster=default={ETCD_PEER_URL}"),
        // The data need not outlive the machine.
        "--unsafe-no-fsync=true".into(),
        "--log-level=warn".into(),
    ]
}

fn apiserver_flags(dir: &Path) -> Vec<String> {
    vec![
        format!("--etcd-servers={ETCD_URL}"),
        flag("cert-dir", dir.join("certificates")),
        format!("--bind-address={NODE_ADDRESS}"),
        format!("--advertise-address={NODE_ADDRESS}"),
        "--secure-port=6443".into(),
        format!("--service-cluster-ip-range={}", service_ranges()),
        "--allow-privileged=true".into(),
        "--authorization-mode=RBAC".into(),
        flag("token-auth-file", tokens(dir)),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        flag("service-account-key-file", service_account_public_key(dir)),
        flag("service-account-signing-key-file", service_account_key(dir)),
        "--profiling=false".into(),
    ]
}

/// What a cluster needs that runs Deployments whose Pods a test plays. Left out: `node-lifecycle-controller`,
/// which would evict Pods of Nodes that renew no Lease; everything about volumes and certificates.
const CONTROLLERS: [&str; 20] = [
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "service-cidr-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "validatingadmissionpolicy-status-controller",
];

fn controller_manager_flags(dir: &Path) -> Vec<String> {
    vec![
        flag("kubeconfig", dir.join("kubeconfig")),
        flag("service-account-private-key-file", service_account_key(dir)),
        flag("root-ca-file", certificate(dir)),
        format!("--controllers={}", CONTROLLERS.join(",")),
        "--leader-elect=false".into(),
        // It serves nothing a test needs.
        "--secure-port=0".into(),
        // The defaults (20 and 30) make a burst of some twenty Pods wait.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        "--profiling=false".into(),
    ]
}

fn coredns_flags(dir: &Path) -> Vec<String> {
    vec![
        "-conf".into(),
        corefile(dir).display().to_string(),
        "-quiet".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_comes_out_of_a_shell_unchanged() {
        for word in ["plain", "two words", "it's", "$HOME `id` \"q\" \\ *", ""] {
            let out = process::output(
                Command::new("sh").args(["-c", &format!("printf %s {}", quote(word))]),
            );
            assert_eq!(out.ok().as_deref(), Some(word));
        }
    }

    #[test]
    fn a_script_survives_a_folder_with_odd_characters() {
        let dir = Path::new("/tmp/it's a cache/clusters/x");
        for component in &COMPONENTS {
            let checked =
                process::output(Command::new("sh").args(["-n", "-c", &component.script(dir)]));
            assert!(checked.is_ok(), "{}: {checked:?}", component.name);
        }
    }

    #[test]
    fn the_pid_of_another_program_is_not_ours() {
        let dir = std::env::temp_dir().join(format!("xtask-component-{}", std::process::id()));
        assert!(fs::create_dir_all(&dir).is_ok());
        assert!(fs::write(dir.join("etcd.pid"), std::process::id().to_string()).is_ok());
        assert_eq!(ETCD.pid(&dir), None);
        assert!(fs::remove_dir_all(&dir).is_ok());
    }
}
