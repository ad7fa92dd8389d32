//! What a spec is read as, and that the definition is one an API server takes.

use crate::BackendPolicySpec;
use crate::crd;
use serde_json::{Value, json};

#[track_caller]
fn refuses(spec: Value, reason: &str) {
    match BackendPolicySpec::read(&spec) {
        Ok(read) => panic!("{spec} was read as {read:?}"),
        Err(error) => assert!(error.starts_with(reason), "{spec}: {error}"),
    }
}

#[test]
fn a_spec_is_targets_and_a_policy() {
    let spec = json!({
        "targetRefs": [{"name": "web"}, {"group": "", "kind": "Service", "name": "api", "sectionName": "http"}],
        "balancing": "least_request",
        "activeCheck": {"path": "/healthz"},
    });
    let read = BackendPolicySpec::read(&spec);
    assert!(
        read.as_ref().is_ok_and(|read| read.target_refs.len() == 2
            && read.target_refs[0].kind == "Service"
            && read.policy.active_check.is_some()),
        "{read:?}"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let target = json!([{"name": "web"}]);
    refuses(Value::Null, "spec is missing");
    refuses(json!({}), "spec.targetRefs is missing");
    refuses(
        json!({"targetRef": {"name": "web"}}),
        "spec.targetRefs is missing; there is no field spec.targetRef",
    );
    refuses(json!({"targetRefs": []}), "spec.targetRefs: 0 Services");
    refuses(
        json!({"targetRefs": [{"kind": "Deployment", "name": "web"}]}),
        "spec.targetRefs: /Deployment is not a Service",
    );
    refuses(
        json!({"targetRefs": [{"nam": "web"}]}),
        "spec.targetRefs[0].nam: unknown field `nam`",
    );
    refuses(
        json!({"targetRefs": target, "balancing": "best"}),
        "spec.balancing: unknown variant `best`",
    );
    refuses(
        json!({"targetRefs": target, "activeCheck": {"interval": "0s"}}),
        "spec.activeCheck.interval: \"0s\" cannot be used",
    );
    refuses(
        json!({"targetRefs": target, "balanzing": "random"}),
        "spec.balanzing: unknown field `balanzing`",
    );
    refuses(
        json!({"targetRefs": target, "maxInFlight": "x"}),
        "spec.maxInFlight: invalid type: string \"x\", expected a whole number",
    );
    refuses(
        json!({"targetRefs": target, "balancing": "maglev"}),
        "spec.hashBy: ring_hash and maglev need",
    );
}

/// What API servers refuse: references, `null`, closed objects, a property without a type.
#[test]
fn the_schema_is_structural() {
    fn check(path: &str, schema: &Value) {
        assert!(schema["type"].is_string(), "{path}: {schema}");
        for forbidden in ["$ref", "anyOf", "oneOf", "additionalProperties", "examples"] {
            assert!(schema.get(forbidden).is_none(), "{path}: {schema}");
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            check(&format!("{path}.{name}"), inner);
        }
        if let Some(items) = schema.get("items") {
            check(&format!("{path}[]"), items);
        }
    }
    let definition = crd::backend_policy();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    check("", schema);
    let spec = &schema["properties"]["spec"];
    assert_eq!(spec["required"], json!(["targetRefs"]));
    assert_eq!(spec["properties"]["balancing"]["enum"][0], "round_robin");
    assert_eq!(spec["properties"]["subset"]["maximum"], 65535);
    let rules = |at: &Value| at["x-kubernetes-validations"].as_array().map(Vec::len);
    assert_eq!(rules(spec), Some(4));
    assert_eq!(rules(&spec["properties"]["targetRefs"]), Some(1));
    assert_eq!(rules(&spec["properties"]["targetRefs"]["items"]), Some(1));
}
