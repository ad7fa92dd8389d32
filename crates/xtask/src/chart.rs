//! The Helm chart: its checks, the plain manifests made from it, and its trial on a real API server.
//!
//! The checks look at what comes out of `helm template`, not at the templates.

mod api_server;
mod checks;
mod refused;
mod rendered;
mod rights;

pub(crate) use api_server::apply_to_cluster;

use crate::codegen;
use crate::process;
use crate::tools::helm::helm;
use anyhow::{Context, bail};
use rendered::Rendered;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The plain manifests, from the root of the checkout.
pub(crate) const MANIFESTS: &str = "deploy/tidegate.yaml";

/// The name of the release and its namespace, in the plain manifests and in every check.
const RELEASE: &str = "tidegate";

/// A check and what it shows.
type Check = (&'static str, fn() -> anyhow::Result<()>);

/// Values that every renderer, linter and API server must be content with.
const CASES: [(&str, &str); 11] = [
    ("default values", "{}"),
    ("DaemonSet", "controller: {kind: DaemonSet}"),
    (
        "host network",
        "controller: {kind: DaemonSet, hostNetwork: true, service: {enabled: false}}",
    ),
    ("host ports", "controller: {hostPort: {enabled: true}}"),
    ("scope", "controller: {scope: {enabled: true}}"),
    (
        "relayed ports",
        "{tcp: {'9000': 'shop/db:sql:PROXY', '9001': shop/db:5432}, udp: {'53': shop/dns:53}}",
    ),
    ("secretNamespaces", "controller: {secretNamespaces: [default, kube-public]}"),
    (
        "publishService off",
        "controller: {publishService: {enabled: false}}",
    ),
    (
        "autoscaling and metrics",
        "controller: {autoscaling: {enabled: true, targetMemoryUtilizationPercentage: 80}, metrics: {enabled: true}}",
    ),
    (
        "admin port closed",
        "controller: {admin: {tokenSecret: admin-token, tokenForMetrics: true, tlsSecret: admin-tls}, ticketKeysSecret: keys}",
    ),
    (
        "everything else",
        "
nameOverride: edge
imagePullSecrets: [{name: registry}]
controller:
  ipv6: true
  ticketKeysSecret: edge-keys
  image: {repository: registry.test/tidegate, pullPolicy: Always,
          digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'}
  extraArgs: {trusted-proxy: [10.0.0.0/8, 'fd00::/8'], max-request-body: 20000000, allow-external-name: true,
              clear-status-on-shutdown: false, log-format: json}
  containerPort: {http: 9080, https: 9443}
  service:
    type: NodePort
    externalTrafficPolicy: Local
    ipFamilyPolicy: PreferDualStack
    annotations: {service.test/kind: edge}
    ports: {http: 8080, https: 8443}
    nodePorts: {http: 30080, https: 30443}
  ingressClassResource: {name: edge, default: true, controllerValue: edge.test/ingress}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 25%}}
  resources: {requests: {cpu: 1, memory: 1Gi}, limits: {memory: 2Gi}}
  priorityClassName: system-cluster-critical
  nodeSelector: {pool: edge}
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution:
    [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app.kubernetes.io/name: edge}}}]}}
  tolerations: [{key: edge, operator: Exists}]
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone,
    whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app.kubernetes.io/name: edge}}}]
  podAnnotations: {pod.test/a: b}
  podLabels: {pod.test/c: d}
serviceAccount: {name: edge-account, annotations: {account.test/e: f}}
",
    ),
];

/// Runs every check that needs no cluster; gives their names.
///
/// # Errors
///
/// When one fails. All are run before, and the error tells of each that failed.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let mut passed = Vec::new();
    let mut failures = String::new();
    let further: [Check; 3] = [
        ("helm lint --strict is content", lint),
        ("the notes say what to do next", notes),
        ("deploy/tidegate.yaml is up to date", || {
            codegen::check(MANIFESTS)
        }),
    ];
    for (name, check) in further
        .iter()
        .chain(&checks::CHECKS)
        .chain(&rights::CHECKS)
        .chain(&refused::CHECKS)
    {
        match check() {
            Ok(()) => passed.push(format!("chart: {name}")),
            Err(error) => writeln!(failures, "chart: {name}: {error:#}\n")?,
        }
    }
    if !failures.is_empty() {
        bail!("{failures}");
    }
    Ok(passed)
}

/// The plain manifests: the chart with its default values, without Helm's own labels, and the Namespace.
///
/// # Errors
///
/// When there is no Helm or the chart cannot be rendered.
pub(crate) fn manifests() -> anyhow::Result<String> {
    let mut text = format!(
        "\
# Tidegate in namespace {RELEASE}, with the default values of charts/tidegate.
# Written by `cargo xtask codegen`; to change it, change the chart.
apiVersion: v1
kind: Namespace
metadata:
  name: {RELEASE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"
    );
    text.push_str("---\n");
    let definitions = codegen::backend_policies()?;
    text.extend(definitions.lines().skip(1).flat_map(|line| [line, "\n"]));
    for document in template("{}")?.split("\n---") {
        // Who manages these objects is not Helm, and its comments and empty lines differ between versions.
        let lines: Vec<_> = document
            .lines()
            .filter(|line| {
                let line = line.trim();
                let of_helm = [
                    "---",
                    "# Source: ",
                    "helm.sh/chart: ",
                    "app.kubernetes.io/managed-by: ",
                ];
                !line.is_empty() && !of_helm.iter().any(|start| line.starts_with(start))
            })
            .collect();
        if !lines.is_empty() {
            writeln!(text, "---\n{}", lines.join("\n"))?;
        }
    }
    Ok(text)
}

fn directory() -> PathBuf {
    process::root().join("charts/tidegate")
}

/// What the chart comes to with these values, as text.
fn template(values: &str) -> anyhow::Result<String> {
    let output = run_helm(&["template", RELEASE], values)?;
    if !output.status.success() {
        bail!(
            "helm template refuses {values}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the chart comes to with these values, as objects.
fn render(values: &str) -> anyhow::Result<Rendered> {
    Rendered::parse(&template(values)?).with_context(|| format!("with values {values}"))
}

/// Runs `helm COMMAND… CHART` with values given as YAML.
fn run_helm(command: &[&str], values: &str) -> anyhow::Result<Output> {
    let mut helm = Command::new(helm()?);
    helm.args(command)
        .arg(directory())
        .args(["--namespace", RELEASE, "--values", "-"])
        // A plugin or a kubeconfig of the user's must not decide what is rendered.
        .env("HELM_NO_PLUGINS", "1")
        .env_remove("KUBECONFIG");
    run_with_input(&mut helm, values)
}

/// Runs a command with this standard input, to its end.
fn run_with_input(command: &mut Command, input: &str) -> anyhow::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Programs here read all input before they write anything, and one that stops early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {command:?}"))
}

fn lint() -> anyhow::Result<()> {
    for (name, values) in CASES {
        let output = run_helm(&["lint", "--strict"], values)?;
        if !output.status.success() {
            bail!("{name}:\n{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    Ok(())
}

fn notes() -> anyhow::Result<()> {
    for (name, values) in CASES {
        let output = run_helm(&["install", "--dry-run=client", RELEASE], values)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some((_, notes)) = text.split_once("\nNOTES:\n") else {
            let error = String::from_utf8_lossy(&output.stderr);
            if error.contains("Kubernetes cluster unreachable") {
                // Helm 3 asks a cluster even for a trial; that the notes can be rendered, `helm lint` has checked.
                eprintln!("note: the words of the chart's notes are checked with Helm 4 only");
                return Ok(());
            }
            bail!("{name}: {error}");
        };
        let workload = if values.contains("DaemonSet") {
            "daemonset"
        } else {
            "deployment"
        };
        let steps = [
            format!("kubectl -n {RELEASE} rollout status {workload}/{RELEASE}"),
            "create ingress web --class=".to_owned(),
        ];
        if let Some(step) = steps.iter().find(|step| !notes.contains(step.as_str())) {
            // nameOverride is part of the name unless the release's name contains it.
            if !values.contains("nameOverride") {
                bail!("{name}: no {step:?} in\n{notes}");
            }
        }
        if notes.contains("<no value>") || notes.contains("%!") {
            bail!("{name}: a value is missing in\n{notes}");
        }
    }
    Ok(())
}
