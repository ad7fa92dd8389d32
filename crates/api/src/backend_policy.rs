//! `BackendPolicy`: how the endpoints of Services are chosen and judged, whoever sends to them.

use crate::{GROUP, VERSION};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use policy::PolicySpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most Services one policy is for.
pub const MAX_TARGETS: usize = 16;

/// A `BackendPolicy` as an API server or a file has it.
///
/// Its spec is read later ([`BackendPolicySpec::read`]): an object that an older definition let in must not cost more than
/// itself, and somebody has to be able to say what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendPolicy {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Unread.
    #[serde(default)]
    pub spec: Value,
    /// What we say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<BackendPolicyStatus>,
}

/// What the controller says of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendPolicyStatus {
    /// One of type `Accepted`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What it is for, and the policy.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendPolicySpec {
    /// The Services it is for, in its own namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// The fields of the policy.
    #[serde(flatten)]
    pub policy: PolicySpec,
}

/// A Service, or one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// Group of the kind; empty, which is that of Services.
    #[serde(default)]
    pub group: String,
    /// `Service`.
    #[serde(default = "service")]
    pub kind: String,
    /// Name of the Service.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of one of its ports. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub section_name: Option<String>,
}

fn service() -> String {
    "Service".to_owned()
}

impl BackendPolicySpec {
    /// Reads a spec.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence without its end that begins with the field, if there is one.
    pub fn read(spec: &Value) -> Result<Self, String> {
        let Value::Object(all) = spec else {
            return Err("spec is missing".to_owned());
        };
        let mut rest = all.clone();
        let Some(targets) = rest.remove("targetRefs") else {
            let instead = rest
                .keys()
                .find(|key| key.to_lowercase().starts_with("target"));
            let hint =
                instead.map_or_else(String::new, |key| format!("; there is no field spec.{key}"));
            return Err(format!("spec.targetRefs is missing{hint}"));
        };
        let target_refs: Vec<TargetRef> = read("spec.targetRefs", targets)?;
        if !(1..=MAX_TARGETS).contains(&target_refs.len()) {
            return Err(format!(
                "spec.targetRefs: {} Services are named, 1 to {MAX_TARGETS} may be",
                target_refs.len()
            ));
        }
        if let Some(other) = target_refs
            .iter()
            .find(|target| !target.group.is_empty() || target.kind != "Service")
        {
            return Err(format!(
                "spec.targetRefs: {}/{} is not a Service",
                other.group, other.kind
            ));
        }
        let policy: PolicySpec = read("spec", Value::Object(rest))?;
        if let Some(contradiction) = policy.build().1.first() {
            return Err(format!("spec.{contradiction}"));
        }
        Ok(Self {
            target_refs,
            policy,
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(place: &str, value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = match path.as_str() {
            "." => place.to_owned(),
            path if path.starts_with('[') => format!("{place}{path}"),
            path => format!("{place}.{path}"),
        };
        let message = error.into_inner().to_string();
        match message.strip_suffix("expected i64") {
            Some(found) => format!("{field}: {found}expected a whole number"),
            None => format!("{field}: {message}"),
        }
    })
}

impl k8s_openapi::Resource for BackendPolicy {
    const API_VERSION: &'static str = "tidegate.dev/v1alpha1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "BackendPolicy";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "backendpolicies";
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::Metadata for BackendPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
