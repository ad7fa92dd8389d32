//! The objects a rendering consists of, and questions about them.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// The objects of one rendering.
pub(super) struct Rendered(Vec<Value>);

impl Rendered {
    pub(super) fn parse(manifests: &str) -> anyhow::Result<Self> {
        let documents = manifests
            .split("\n---")
            .map(serde_yaml::from_str::<Value>)
            .collect::<Result<Vec<_>, _>>();
        let objects: Vec<_> = documents
            .context("the manifests are no YAML")?
            .into_iter()
            .filter(|document| !document.is_null())
            .collect();
        let rendered = Self(objects);
        for object in &rendered.0 {
            let name = text(object, "/metadata/name")?;
            text(object, "/apiVersion")?;
            // A Service's name must be a label; for the others it may be longer, and need not be.
            ensure!(name.len() <= 63, "the name {name} is too long");
        }
        Ok(rendered)
    }

    pub(super) fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0
            .iter()
            .filter(move |object| object["kind"].as_str() == Some(kind))
    }

    /// The only object of its kind.
    pub(super) fn one(&self, kind: &str) -> anyhow::Result<&Value> {
        let mut all = self.all(kind);
        match (all.next(), all.next()) {
            (Some(object), None) => Ok(object),
            (None, _) => bail!("there is no {kind}"),
            _ => bail!("there is more than one {kind}"),
        }
    }

    pub(super) fn named(&self, kind: &str, name: &str) -> anyhow::Result<&Value> {
        self.all(kind)
            .find(|object| object["metadata"]["name"].as_str() == Some(name))
            .with_context(|| format!("there is no {kind} {name}"))
    }

    pub(super) fn kinds(&self) -> BTreeSet<&str> {
        self.0
            .iter()
            .filter_map(|object| object["kind"].as_str())
            .collect()
    }

    /// The Deployment or DaemonSet.
    pub(super) fn workload(&self) -> anyhow::Result<&Value> {
        self.one("Deployment").or_else(|_| self.one("DaemonSet"))
    }

    /// The specification of the pods.
    pub(super) fn pod(&self) -> anyhow::Result<&Value> {
        at(self.workload()?, "/spec/template/spec")
    }

    /// The only container.
    pub(super) fn container(&self) -> anyhow::Result<&Value> {
        match at(self.pod()?, "/containers")?
            .as_array()
            .map(Vec::as_slice)
        {
            Some([container]) => Ok(container),
            _ => bail!("the pod has not exactly one container"),
        }
    }

    pub(super) fn args(&self) -> anyhow::Result<Vec<&str>> {
        let args = at(self.container()?, "/args")?
            .as_array()
            .context("args is no list")?;
        args.iter()
            .map(|arg| arg.as_str().with_context(|| format!("{arg} is no text")))
            .collect()
    }

    /// What the controller may do: a line such as `cluster: get,list,watch ingresses.networking.k8s.io` for each right,
    /// found from the bindings of its ServiceAccount.
    pub(super) fn rights(&self) -> anyhow::Result<BTreeSet<String>> {
        let pod = self.pod()?;
        let account = text(pod, "/serviceAccountName")?;
        let namespace = text(self.workload()?, "/metadata/namespace")?;
        let mut rights = BTreeSet::new();
        for kind in ["ClusterRole", "Role"] {
            for binding in self.all(&format!("{kind}Binding")) {
                let subjects = at(binding, "/subjects")?;
                let ours = serde_json::json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
                equal("the subjects of a binding", subjects, &ours)?;
                equal("roleRef.kind", text(binding, "/roleRef/kind")?, kind)?;
                let role = self
                    .all(kind)
                    .filter(|role| role["metadata"]["name"] == binding["roleRef"]["name"])
                    .find(|role| role["metadata"]["namespace"] == binding["metadata"]["namespace"])
                    .with_context(|| format!("there is no role for binding {binding}"))?;
                let place = binding["metadata"]["namespace"]
                    .as_str()
                    .unwrap_or("cluster");
                for rule in at(role, "/rules")?.as_array().into_iter().flatten() {
                    rights.extend(rights_of(rule, place));
                }
            }
            let (roles, bindings) = (
                self.all(kind).count(),
                self.all(&format!("{kind}Binding")).count(),
            );
            equal("the number of bindings", bindings, roles)?;
        }
        Ok(rights)
    }
}

fn rights_of(rule: &Value, place: &str) -> Vec<String> {
    let list = |key: &str| -> Vec<&str> {
        rule[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    };
    let names = list("resourceNames");
    let names = if names.is_empty() {
        String::new()
    } else {
        format!(" {}", names.join(","))
    };
    let verbs = list("verbs").join(",");
    let mut rights = Vec::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            let dot = if group.is_empty() { "" } else { "." };
            rights.push(format!("{place}: {verbs} {resource}{dot}{group}{names}"));
        }
    }
    rights
}

/// What is at this JSON pointer.
pub(super) fn at<'a>(object: &'a Value, pointer: &str) -> anyhow::Result<&'a Value> {
    object
        .pointer(pointer)
        .with_context(|| format!("there is no {pointer} in {object}"))
}

/// The text at this JSON pointer.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    let value = at(object, pointer)?;
    value
        .as_str()
        .with_context(|| format!("{pointer} is no text: {value}"))
}

/// Fails unless both are the same.
pub(super) fn equal<F, E>(what: &str, found: F, expected: E) -> anyhow::Result<()>
where
    F: PartialEq<E> + Debug,
    E: Debug,
{
    ensure!(
        found == expected,
        "{what} is {found:#?}\nand should be {expected:#?}"
    );
    Ok(())
}

/// Fails unless each pointer has its value; `null` stands for nothing there.
pub(super) fn has(object: &Value, expected: &[(&str, Value)]) -> anyhow::Result<()> {
    for (pointer, expected) in expected {
        let found = object.pointer(pointer).unwrap_or(&Value::Null);
        equal(pointer, found, expected)?;
    }
    Ok(())
}
