//! The chart on a real API server: are its objects valid there, its pods admitted, and its rights what they should be.

use super::{CASES, MANIFESTS, RELEASE, run_with_input, template};
use crate::cluster::Cluster;
use crate::process;
use anyhow::{Context, bail, ensure};
use std::process::Output;

/// The user the pods act as.
const ACCOUNT: &str = "--as=system:serviceaccount:tidegate:tidegate";

/// What the pods may do with the default values, and what they may not; the words of `kubectl auth can-i`.
const MAY: [&str; 16] = [
    "list ingresses.networking.k8s.io --all-namespaces",
    "watch ingresses.networking.k8s.io --all-namespaces",
    "list ingressclasses.networking.k8s.io",
    "watch ingressclasses.networking.k8s.io",
    "watch services --all-namespaces",
    "watch endpointslices.discovery.k8s.io --all-namespaces",
    "watch secrets --all-namespaces",
    "patch ingresses.networking.k8s.io --subresource=status --namespace=default",
    "watch backendpolicies.tidegate.dev --all-namespaces",
    "patch backendpolicies.tidegate.dev --subresource=status --namespace=default",
    "create events.events.k8s.io --namespace=default",
    "patch events.events.k8s.io --namespace=default",
    "create leases.coordination.k8s.io --namespace=tidegate",
    "get leases.coordination.k8s.io/tidegate-leader --namespace=tidegate",
    "update leases.coordination.k8s.io/tidegate-leader --namespace=tidegate",
    "list services --namespace=tidegate",
];
const MAY_NOT: [&str; 13] = [
    "patch backendpolicies.tidegate.dev --namespace=default",
    "patch ingresses.networking.k8s.io --namespace=default",
    "delete ingresses.networking.k8s.io --namespace=default",
    "update secrets --namespace=default",
    "create secrets --namespace=tidegate",
    "list configmaps --namespace=tidegate",
    "list pods --namespace=tidegate",
    "create pods --namespace=tidegate",
    "get nodes",
    "list namespaces",
    "update leases.coordination.k8s.io/another --namespace=tidegate",
    "get leases.coordination.k8s.io/tidegate-leader --namespace=default",
    "create leases.coordination.k8s.io --namespace=default",
];

/// Applies the plain manifests to a cluster that is up and, as a trial only, the chart with other values; takes everything
/// away again. Gives the names of what was checked.
///
/// # Errors
///
/// When something is refused or not as it should be.
pub(crate) fn apply_to_cluster(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let kubectl = Kubectl(cluster);
    let manifests = process::root().join(MANIFESTS);
    let manifests = manifests
        .to_str()
        .context("the path of the checkout is no UTF-8")?;
    let result = try_out(&kubectl, manifests);
    // Its IngressClass would take part in whatever is tested next.
    let removed = kubectl.run(&[
        "delete",
        "--ignore-not-found",
        "--timeout=120s",
        "-f",
        manifests,
    ]);
    let passed = result?;
    removed.context("cannot remove what was applied")?;
    Ok(passed)
}

fn try_out(kubectl: &Kubectl, manifests: &str) -> anyhow::Result<Vec<String>> {
    let applied = kubectl.run(&["apply", "--server-side", "-f", manifests])?;
    // A namespace that enforces "restricted" warns of what it will refuse.
    ensure!(
        !applied.contains("Warning"),
        "kubectl apply warns:\n{applied}"
    );
    let label = kubectl.run(&[
        "get",
        "namespace",
        RELEASE,
        "-o",
        r"jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}",
    ])?;
    ensure!(
        label == "restricted",
        "the namespace enforces {label:?} and not restricted"
    );
    pods_are_admitted(kubectl)?;
    rights_are_right(kubectl)?;
    for (name, values) in CASES {
        let rendered = template(values)?;
        let output = kubectl.output(
            &[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--force-conflicts",
                "-f",
                "-",
            ],
            &rendered,
        )?;
        ensure!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok([
        "the plain manifests are applied without a warning",
        "Pod Security \"restricted\" admits the pods",
        "the ServiceAccount may do what it must and nothing else",
        "an API server takes the chart with any values",
    ]
    .map(|name| format!("chart on an API server: {name}"))
    .to_vec())
}

/// The controllers make the Pod objects; with no kubelet they stay pending, which is all that is needed here.
fn pods_are_admitted(kubectl: &Kubectl) -> anyhow::Result<()> {
    let deployment = format!("deployment/{RELEASE}");
    let waited = kubectl.run(&[
        "wait",
        "--for=jsonpath={.status.replicas}=2",
        "--timeout=60s",
        "--namespace",
        RELEASE,
        &deployment,
    ]);
    if let Err(error) = waited {
        // When pods are refused, the ReplicaSet says why.
        let why = kubectl.run(&[
            "get",
            "replicasets",
            "--namespace",
            RELEASE,
            "-o",
            "jsonpath={.items[*].status}",
        ]);
        bail!(
            "no pods were made: {error:#}\n{}",
            why.unwrap_or_else(|error| format!("{error:#}"))
        );
    }
    let pods = kubectl.run(&[
        "get",
        "pods",
        "--namespace",
        RELEASE,
        "-o",
        "jsonpath={.items[*].spec.containers[*].securityContext.readOnlyRootFilesystem}",
    ])?;
    ensure!(
        pods == "true true",
        "two pods with a read-only root were expected, but found {pods:?}"
    );
    Ok(())
}

fn rights_are_right(kubectl: &Kubectl) -> anyhow::Result<()> {
    let may = MAY.iter().map(|question| (question, "yes"));
    for (question, expected) in may.chain(MAY_NOT.iter().map(|question| (question, "no"))) {
        let mut args = vec!["auth", "can-i", ACCOUNT];
        args.extend(question.split(' '));
        // It ends with 1 when the answer is no.
        let output = kubectl.output(&args, "")?;
        let answer = String::from_utf8_lossy(&output.stdout);
        ensure!(
            answer.trim() == expected,
            "can-i {question}: {answer}{}instead of {expected}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

struct Kubectl<'a>(&'a Cluster);

impl Kubectl<'_> {
    /// Standard output and standard error of a command that must succeed.
    fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.output(args, "")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(
            output.status.success(),
            "kubectl {} ended with {}:\n{text}",
            args.join(" "),
            output.status
        );
        Ok(text)
    }

    fn output(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        run_with_input(self.0.command("kubectl")?.args(args), input)
    }
}
