//! What the chart must refuse, in words that name the value.

use super::{Check, RELEASE, directory, run_helm};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

pub(super) const CHECKS: [Check; 3] = [
    (
        "a typo at any place of the values is refused by name",
        typos,
    ),
    ("a value of the wrong kind is refused by name", wrong_values),
    (
        "values that do not fit together are refused by name",
        misfits,
    ),
];

/// Maps of values.yaml that take any key, because users name things there.
const FREE: [&str; 2] = ["/controller/resources/requests", "/controller/nodeSelector"];

fn typos() -> anyhow::Result<()> {
    let path = directory().join("values.yaml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let values: Value = serde_yaml::from_str(&text).context("values.yaml")?;
    let mut maps = Vec::new();
    collect_maps(&values, String::new(), &mut maps);
    ensure!(maps.len() > 15, "only {} maps in values.yaml", maps.len());
    for map in maps.iter().filter(|map| !FREE.contains(&map.as_str())) {
        // A value of every kind, since a map may take any text.
        refused(&nested(map, "typoHere", json!({"deep": 1})), &["typoHere"])?;
    }
    Ok(())
}

/// The JSON pointers of all maps that are not empty: an empty one is free, to be filled by the user.
fn collect_maps(value: &Value, pointer: String, found: &mut Vec<String>) {
    let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
        return;
    };
    for (key, value) in map {
        collect_maps(value, format!("{pointer}/{key}"), found);
    }
    found.push(pointer);
}

/// Values with nothing but one key in the map at this pointer.
fn nested(pointer: &str, key: &str, value: Value) -> String {
    let keys: Vec<_> = pointer.split('/').skip(1).collect();
    keys.iter()
        .rev()
        .fold(json!({ key: value }), |inner, key| json!({ *key: inner }))
        .to_string()
}

fn wrong_values() -> anyhow::Result<()> {
    for (values, named) in [
        ("{kind: StatefulSet}", "kind"),
        ("{replicaCount: two}", "replicaCount"),
        ("{replicaCount: -1}", "replicaCount"),
        ("{service: {type: ExternalName}}", "type"),
        (
            "{service: {externalTrafficPolicy: local}}",
            "externalTrafficPolicy",
        ),
        ("{containerPort: {http: 70000}}", "http"),
        ("{image: {digest: 0123}}", "digest"),
        ("{secretNamespaces: [Shop]}", "secretNamespaces"),
        ("{secretNamespaces: [shop, shop]}", "secretNamespaces"),
        ("{publishService: {pathOverride: edge}}", "pathOverride"),
        ("{extraArgs: {--log: info}}", "--log"),
        ("{podAnnotations: {a: 1}}", "podAnnotations"),
        ("{lameduckSeconds: 10s}", "lameduckSeconds"),
    ] {
        refused(&format!("controller: {values}"), &[named])?;
    }
    // Places that are empty by default, where `typos` does not look.
    for (values, named) in [
        ("controller: {affinity: {nodeAfinity: {}}}", "nodeAfinity"),
        ("imagePullSecrets: [{nam: registry}]", "nam"),
        ("imagePullSecrets: [registry]", "imagePullSecrets"),
    ] {
        refused(values, &[named])?;
    }
    Ok(())
}

fn misfits() -> anyhow::Result<()> {
    for (values, named) in [
        (
            "{lameduckSeconds: 15}",
            "controller.terminationGracePeriodSeconds (60) must be more than",
        ),
        (
            "{kind: DaemonSet, autoscaling: {enabled: true}}",
            "controller.autoscaling.enabled",
        ),
        (
            "{autoscaling: {enabled: true, minReplicas: 20}}",
            "controller.autoscaling.minReplicas",
        ),
        (
            "{autoscaling: {enabled: true, targetCPUUtilizationPercentage: 0}}",
            "targetCPUUtilizationPercentage",
        ),
        (
            "{metrics: {serviceMonitor: {enabled: true}}}",
            "controller.metrics.enabled",
        ),
        (
            "{containerPort: {http: 8443}}",
            "controller.containerPort.https",
        ),
        (
            "{scope: {enabled: true, namespace: shop}}",
            "controller.publishService.pathOverride",
        ),
        (
            "{extraArgs: {http-addr: '0.0.0.0:80'}}",
            "use controller.containerPort.http",
        ),
        (
            "{extraArgs: {publish-address: 192.0.2.1}}",
            "controller.publishService.enabled",
        ),
    ] {
        refused(&format!("controller: {values}"), &[named])?;
    }
    Ok(())
}

fn refused(values: &str, named: &[&str]) -> anyhow::Result<()> {
    let output = run_helm(&["template", RELEASE], values)?;
    if output.status.success() {
        bail!("the chart takes {values}");
    }
    let message = String::from_utf8_lossy(&output.stderr);
    for name in named {
        ensure!(
            message.contains(name),
            "with {values} the message does not name {name}:\n{message}"
        );
    }
    Ok(())
}
