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
        other => unknown.push((other, hint(&path))),
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
        [(one, None)] => Err(ObjectError(format!("there is no field {one}"))),
        [(one, Some(hint))] => Err(ObjectError(format!("there is no field {one}; {hint}"))),
        all => {
            let shown = all.iter().map(|(one, hint)| match hint {
                None => one.clone(),
                Some(hint) => format!("{one} ({hint})"),
            });
            let shown: Vec<_> = shown.collect();
            Err(ObjectError(format!(
                "there are no fields {}",
                shown.join(", ")
            )))
        }
    }
}

/// The fields that people write, by the field they are in. A guess needs no more: what there is says the type itself.
const FIELDS: [(&str, &[&str]); 14] = [
    (
        "",
        &[
            "metadata",
            "spec",
            "data",
            "stringData",
            "binaryData",
            "type",
            "immutable",
            "addressType",
            "endpoints",
            "ports",
        ],
    ),
    ("metadata", &["name", "namespace", "annotations", "labels"]),
    (
        "spec",
        &[
            "ingressClassName",
            "defaultBackend",
            "rules",
            "tls",
            "controller",
            "parameters",
            "ports",
            "selector",
            "type",
            "clusterIP",
            "clusterIPs",
            "externalName",
            "externalTrafficPolicy",
            "internalTrafficPolicy",
            "sessionAffinity",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "publishNotReadyAddresses",
        ],
    ),
    ("rules", &["host", "http"]),
    ("http", &["paths"]),
    ("paths", &["path", "pathType", "backend"]),
    ("backend", BACKEND),
    ("defaultBackend", BACKEND),
    ("service", &["name", "port"]),
    ("port", &["name", "number"]),
    ("tls", &["hosts", "secretName"]),
    (
        "ports",
        &[
            "name",
            "port",
            "protocol",
            "targetPort",
            "nodePort",
            "appProtocol",
        ],
    ),
    (
        "endpoints",
        &[
            "addresses",
            "conditions",
            "hints",
            "hostname",
            "nodeName",
            "targetRef",
            "zone",
        ],
    ),
    ("conditions", &["ready", "serving", "terminating"]),
];
const BACKEND: &[&str] = &["service", "resource"];

/// What was probably meant by a key that no field has.
fn hint(path: &Path<'_>) -> Option<String> {
    let Path::Map { parent, key } = path else {
        return None;
    };
    let mut parent = *parent;
    let above = loop {
        match parent {
            Path::Root => break "",
            Path::Map { key, .. } => break key.as_str(),
            Path::Seq { parent: above, .. }
            | Path::Some { parent: above }
            | Path::NewtypeStruct { parent: above }
            | Path::NewtypeVariant { parent: above } => parent = above,
        }
    };
    let of_v1 = match (above, key.as_str()) {
        ("backend" | "defaultBackend", "serviceName") => Some("service.name"),
        ("backend" | "defaultBackend", "servicePort") => Some("service.port.number or .name"),
        ("spec", "backend") => Some("defaultBackend"),
        _ => None,
    };
    if let Some(of_v1) = of_v1 {
        return Some(format!(
            "networking.k8s.io/v1beta1 had it, v1 has {of_v1} instead"
        ));
    }
    let (_, known) = FIELDS.iter().find(|(field, _)| *field == above)?;
    // Nobody mistypes one that is much longer, and to look at it would take long.
    let word = Some(key.to_lowercase()).filter(|word| word.len() <= 32)?;
    let close = known
        .iter()
        .map(|known| {
            (
                strsim::damerau_levenshtein(&known.to_lowercase(), &word),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= 2 && distance * 2 < known.len())
        .min();
    close.map(|(_, known)| format!("did you mean {known}?"))
}

fn wrong(place: &str, message: &str) -> ObjectError {
    let is_type = message.starts_with("invalid type");
    // Only these two hold anything but text.
    let plain_text = match place.split(['.', '[']).next() {
        Some("data") => Some("stringData"),
        Some("binaryData") => Some("data"),
        _ => None,
    };
    if let (Some(plain_text), false) = (plain_text, is_type) {
        return ObjectError(format!(
            "{place}: it is not base64; plain text belongs in {plain_text}"
        ));
    }
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
    // What Rust calls the types.
    let number = ["expected i32", "expected i64"];
    let found = number.iter().find_map(|end| message.strip_suffix(end));
    let message = match found {
        Some(found) if is_type => format!("{found}expected a whole number"),
        Some(found) => format!("{found}expected a whole number of at most {}", i32::MAX),
        None => message.to_owned(),
    };
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
            "there is no field spec.rules[0].hots; did you mean host?"
        );
        assert_eq!(
            said(&with("/metadata", "anotations")),
            "there is no field metadata.anotations; did you mean annotations?"
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
        assert_eq!(
            said(&two),
            "there are no fields [extra/x], spec.tsl (did you mean tls?)"
        );
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        for (pointer, key, meant) in [
            (
                "/spec",
                "ingressclassname",
                "; did you mean ingressClassName?",
            ),
            ("/spec", "ruls", "; did you mean rules?"),
            (
                "/spec/rules/0/http/paths/0",
                "pathTyp",
                "; did you mean pathType?",
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service",
                "prot",
                "; did you mean port?",
            ),
            ("/spec/rules/0/http", "x", ""),
            (
                "/spec/rules/0/http/paths/0/backend",
                "serviceName",
                "; networking.k8s.io/v1beta1 had it, v1 has service.name instead",
            ),
        ] {
            let mut value = json!({"spec": {"rules": [{"http": {"paths": [{"pathType": "Exact", "backend": {"service": {"name": "a"}}}]}}]}});
            value.pointer_mut(pointer).unwrap()[key] = json!("x");
            let said = said(&value);
            assert!(said.ends_with(&format!("{key}{meant}")), "{said}");
        }
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
        assert_eq!(
            said(&json!({"metadata": {"generation": "x"}})),
            "metadata.generation: invalid type: string \"x\", expected a whole number"
        );
        let port = json!({"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80808080808_i64}}}}});
        assert_eq!(
            said(&port),
            "spec.defaultBackend.service.port.number: invalid value: integer `80808080808`, expected a whole number of at most 2147483647"
        );
    }

    #[test]
    fn what_is_not_base64_is_told_so() {
        let secret = |value: Value| {
            let secret = json!({"metadata": {"name": "a"}, "data": {"tls.crt": value}});
            let read = crate::manifest::object(crate::Kind::Secret, secret);
            read.err().map(|error| error.to_string())
        };
        let said = "data[tls.crt]: it is not base64; plain text belongs in stringData";
        for text in ["plain-text", "a", "-----BEGIN CERTIFICATE-----"] {
            assert_eq!(secret(json!(text)).as_deref(), Some(said), "{text}");
        }
        assert_eq!(secret(json!("YWJj\nZGVm\n")), None);
        assert!(secret(json!(3)).is_some_and(|said| said.contains("invalid type: integer")));
    }
}
