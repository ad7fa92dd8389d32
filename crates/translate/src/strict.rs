//! Reads objects as strictly as `kubectl` does: a key that no field has is refused with its place, not dropped. Of an Ingress
//! whose `hosts` stood for `host` nothing but a route for every host would be left.

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;
use serde_path_to_error::Segment;

/// Why a value is not an object of its kind: the fields, and what is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ObjectError(String);

/// Reads a value.
///
/// # Errors
/// When a field has the wrong type, is missing, or is none that there is; the message names it.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ObjectError> {
    let mut unknown = Vec::new();
    // Not every type of ours has fields for what was looked at before: which type it is.
    let mut note = |path: Path<'_>| match place(&path) {
        known if matches!(&*known, "apiVersion" | "kind") => {}
        other => unknown.push(other),
    };
    let strict = serde_ignored::Deserializer::new(value, &mut note);
    let object = serde_path_to_error::deserialize(strict).map_err(|error| {
        let mut place = String::new();
        for segment in error.path() {
            match segment {
                Segment::Seq { index } => index_into(&mut place, index),
                Segment::Map { key } | Segment::Enum { variant: key } => field_of(&mut place, key),
                Segment::Unknown => {}
            }
        }
        wrong(&place, &error.inner().to_string())
    })?;
    match unknown.as_slice() {
        [] => Ok(object),
        [one] => Err(ObjectError(format!("there is no field {one}"))),
        all => Err(ObjectError(format!(
            "there are no fields {}",
            all.join(", ")
        ))),
    }
}

fn wrong(place: &str, message: &str) -> ObjectError {
    // What YAML takes for a number or a truth value, as in annotations.
    let plain = ["integer", "floating point", "boolean"];
    let plain = plain
        .iter()
        .any(|kind| message.starts_with(&format!("invalid type: {kind}")));
    let hint = if plain && message.ends_with("expected a string") {
        "; write it in quotes"
    } else {
        ""
    };
    let colon = if place.is_empty() { "" } else { ": " };
    ObjectError(format!("{place}{colon}{message}{hint}"))
}

/// Where something is, as diagnostics have it: `spec.rules[0].host`, `metadata.annotations[example.org/name]`.
fn place(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => {
            let mut out = place(parent);
            index_into(&mut out, index);
            out
        }
        Path::Map { parent, key } => {
            let mut out = place(parent);
            field_of(&mut out, key);
            out
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => place(parent),
    }
}

fn index_into(place: &mut String, index: impl std::fmt::Display) {
    place.push_str(&format!("[{index}]"));
}

fn field_of(place: &mut String, key: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !key.is_empty() && key.bytes().all(plain) {
        if !place.is_empty() {
            place.push('.');
        }
        place.push_str(key);
    } else {
        place.push_str(&format!("[{key}]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::networking::v1::Ingress;
    use serde_json::json;

    fn said(value: &Value) -> String {
        read::<Ingress>(value)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn a_key_that_no_field_has_is_named_with_its_place() {
        let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"number": 80}}}});
        let good = json!({
            "metadata": {"name": "a", "annotations": {"example.org/any": "x"}, "labels": {"x": "y"}, "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
            "spec": {"rules": [{"host": "a.test", "http": {"paths": [path]}}], "defaultBackend": null},
            "status": {"loadBalancer": {}},
        });
        assert_eq!(said(&good), "");
        let with = |pointer: &str, key: &str| {
            let mut value = good.clone();
            value.pointer_mut(pointer).unwrap()[key] = json!("x");
            value
        };
        assert_eq!(
            said(&with("/spec/rules/0", "hots")),
            "there is no field spec.rules[0].hots"
        );
        assert_eq!(
            said(&with("/metadata", "anotations")),
            "there is no field metadata.anotations"
        );
        assert_eq!(
            said(&with(
                "/spec/rules/0/http/paths/0/backend/service/port",
                "no"
            )),
            "there is no field spec.rules[0].http.paths[0].backend.service.port.no"
        );
        let mut two = with("/spec", "tsl");
        two["extra/x"] = json!(1);
        assert_eq!(said(&two), "there are no fields [extra/x], spec.tsl");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let annotations = |value: Value| json!({"metadata": {"annotations": {"nginx.ingress.kubernetes.io/limit-rps": value}}});
        assert_eq!(
            said(&annotations(json!(10))),
            "metadata.annotations[nginx.ingress.kubernetes.io/limit-rps]: invalid type: integer `10`, expected a string; write it in quotes"
        );
        assert!(
            said(&annotations(json!([1]))).ends_with("invalid type: sequence, expected a string")
        );
        assert!(
            said(&json!({"spec": {"rules": [{"host": true}]}}))
                .starts_with("spec.rules[0].host: invalid type: boolean")
        );
        assert_eq!(
            said(&json!(3)),
            "invalid type: integer `3`, expected Ingress"
        );
    }
}
