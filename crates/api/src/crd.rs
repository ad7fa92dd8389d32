//! The `CustomResourceDefinition` of each of our kinds: the schema comes from the types, rules that span several fields are
//! written in CEL.
//!
//! An API server wants a structural schema: no references, no `null` types, no closed objects. It drops unknown fields, and
//! `kubectl` warns of them.

use crate::backend_policy::BackendPolicySpec;
use crate::{GROUP, VERSION};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// A rule that spans several fields.
struct Rule {
    /// Where it stands, from the spec.
    path: &'static [&'static str],
    /// In CEL; `self` is what stands there.
    rule: &'static str,
    message: &'static str,
}

/// What [`policy::PolicySpec::build`] calls a contradiction, so that an API server refuses it already.
const RULES: [Rule; 12] = [
    Rule {
        path: &[],
        rule: "!has(self.balancing) || !(self.balancing in ['ring_hash', 'maglev']) || has(self.hashBy)",
        message: "ring_hash and maglev need hashBy",
    },
    Rule {
        path: &[],
        rule: "!has(self.hashBy) || !has(self.balancing) || self.balancing in ['ring_hash', 'maglev']",
        message: "hashBy is for ring_hash and maglev",
    },
    Rule {
        path: &[],
        rule: "!has(self.cost) || (has(self.balancing) && self.balancing == 'cost')",
        message: "cost is for balancing cost",
    },
    Rule {
        path: &[],
        rule: "(!has(self.maxQueue) && !has(self.queueTimeout)) || has(self.maxInFlight)",
        message: "maxQueue and queueTimeout need maxInFlight",
    },
    Rule {
        path: &["cost"],
        rule: "!has(self.header) || (!has(self.base) && !has(self.perMebibyte))",
        message: "base and perMebibyte are for costs by length, and header is given",
    },
    Rule {
        path: &["activeCheck"],
        rule: "!(has(self.path) || has(self.method) || has(self.host) || has(self.expected)) || (has(self.kind) ? self.kind == 'http' : has(self.path))",
        message: "path, method, host and expected are for kind http",
    },
    Rule {
        path: &["activeCheck"],
        rule: "!has(self.service) || (has(self.kind) && self.kind == 'grpc')",
        message: "service is for kind grpc",
    },
    Rule {
        path: &["activeCheck"],
        rule: "!(has(self.send) || has(self.expect)) || (has(self.kind) && self.kind == 'bytes')",
        message: "send and expect are for kind bytes",
    },
    Rule {
        path: &["agentCheck"],
        rule: "has(self.port)",
        message: "port is needed",
    },
    Rule {
        path: &["circuitBreaker"],
        rule: "has(self.latency) || has(self.errorRatio)",
        message: "it needs latency or errorRatio to know when to open",
    },
    Rule {
        path: &["targetRefs", "items"],
        rule: "self.kind == 'Service' && self.group == ''",
        message: "only a Service can be a target",
    },
    Rule {
        path: &["targetRefs"],
        rule: "self.all(a, self.exists_one(b, a.name == b.name && has(a.sectionName) == has(b.sectionName) && (!has(a.sectionName) || a.sectionName == b.sectionName)))",
        message: "each target may be named once",
    },
];

/// The definition of `BackendPolicy`.
pub fn backend_policy() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generator = settings.into_generator();
    let schema = generator.into_root_schema_for::<BackendPolicySpec>();
    let mut spec = structural(&schema.to_value());
    for rule in &RULES {
        add_rule(&mut spec, rule);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("backendpolicies.{GROUP}") },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "BackendPolicy",
                "listKind": "BackendPolicyList",
                "plural": "backendpolicies",
                "singular": "backendpolicy",
                "categories": ["tidegate"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": [
                    { "name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status" },
                    { "name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason" },
                    { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
                ],
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": "How the endpoints of Services are chosen and judged.",
                    "required": ["spec"],
                    "properties": { "spec": spec, "status": status() },
                }},
            }],
        },
    })
}

fn add_rule(schema: &mut Value, rule: &Rule) {
    let mut at = schema;
    for part in rule.path {
        at = match *part {
            "items" => &mut at["items"],
            property => &mut at["properties"][property],
        };
    }
    let rules = &mut at["x-kubernetes-validations"];
    if rules.is_null() {
        *rules = json!([]);
    }
    if let Value::Array(rules) = rules {
        rules.push(json!({ "rule": rule.rule, "message": rule.message }));
    }
}

/// A schema as an API server takes it.
fn structural(schema: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in &policy::annotations::present(schema) {
        match key.as_str() {
            // Of no use, or forbidden, there.
            "examples" | "title" | "additionalProperties" => {}
            "default" if value.is_null() => {}
            "properties" => {
                let each = value.as_object().into_iter().flatten();
                let each = each.map(|(name, schema)| (name.clone(), structural(schema)));
                out.insert(key.clone(), Value::Object(each.collect()));
            }
            "items" => drop(out.insert(key.clone(), structural(value))),
            "type" => {
                let one = value.as_array().and_then(|types| {
                    types
                        .iter()
                        .find(|kind| kind.as_str() != Some("null"))
                        .cloned()
                });
                out.insert(key.clone(), one.unwrap_or_else(|| value.clone()));
            }
            "enum" => {
                let some = value.as_array().into_iter().flatten();
                let some = some.filter(|value| !value.is_null()).cloned();
                out.insert(key.clone(), some.collect());
            }
            _ => drop(out.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(out)
}

/// `metav1.Condition`s by type.
fn status() -> Value {
    let text = |most: u32| json!({ "type": "string", "maxLength": most });
    json!({
        "type": "object",
        "properties": { "conditions": {
            "type": "array",
            "maxItems": 8,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status", "reason", "message", "lastTransitionTime"],
                "properties": {
                    "type": text(316),
                    "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                    "reason": text(1024),
                    "message": text(32768),
                    "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                    "lastTransitionTime": { "type": "string", "format": "date-time" },
                },
            },
        }},
    })
}
