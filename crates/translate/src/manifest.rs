//! Reads manifests: YAML with several documents, JSON, and `List` objects. Pure: text in, objects with their lines out.

use crate::snapshot::{Kind, Object, ObjectKey};
use crate::strict::{ObjectError, read};
use k8s_openapi::ByteString;
use serde_json::Value;
use std::sync::Arc;

/// Largest document in bytes.
const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// Something with the line it starts on, counted from 1.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The thing.
    pub value: T,
    /// The line its document starts on.
    pub line: usize,
}

/// What a document holds.
#[derive(Debug, Clone)]
pub enum Item {
    /// An object of a kind we read.
    Object(Object),
    /// An object of some other kind.
    Skipped {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
        /// Its namespace and name; either may be empty.
        key: ObjectKey,
    },
}

/// A document that cannot be read. The other documents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// Line, counted from 1.
    pub line: usize,
    /// Column, counted from 1; 0 when only the line is known.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads every document of a text. Objects without a namespace are put into `default`, as `kubectl apply` does.
pub fn parse(text: &str) -> Vec<Result<Located<Item>, ManifestError>> {
    let mut out = Vec::new();
    for (line, document) in documents(text) {
        let error = |line, column, message: String| ManifestError {
            line,
            column,
            message,
        };
        if document.len() > MAX_DOCUMENT {
            out.push(Err(error(
                line,
                0,
                format!("the document is larger than {MAX_DOCUMENT} bytes"),
            )));
            continue;
        }
        match read_document(document) {
            Ok(Value::Null) => {}
            Ok(value) => read_value(value, line, &mut out),
            Err((at, column, message)) => {
                out.push(Err(error(line + at.saturating_sub(1), column, message)))
            }
        }
    }
    out
}

/// Splits at lines that are `---`; gives each part with its first line.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- ") {
            out.push((start_line, &text[start..at]));
            start = at + line.len();
            start_line = index + 2;
        }
        at += line.len();
    }
    out.push((start_line, &text[start..]));
    out.retain(|(_, document)| {
        document
            .lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    out
}

fn read_document(document: &str) -> Result<Value, (usize, usize, String)> {
    // By way of a YAML value, which refuses keys that stand twice.
    let value: serde_yaml::Value = serde_yaml::from_str(document).map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((1, 0), |at| (at.line(), at.column()));
        let text = error.to_string();
        let mut message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        let before = document
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default();
        let indented = before.trim_start_matches(' ');
        if indented.starts_with('\t') {
            message.push_str(": a tab, where YAML is indented with spaces");
        }
        (line, column, message)
    })?;
    serde_json::to_value(value).map_err(|error| (1, 0, error.to_string()))
}

fn read_value(value: Value, line: usize, out: &mut Vec<Result<Located<Item>, ManifestError>>) {
    let text = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind.ends_with("List") && value.get("items").is_some_and(Value::is_array) {
        if let Value::Object(mut map) = value
            && let Some(Value::Array(items)) = map.remove("items")
        {
            items
                .into_iter()
                .for_each(|item| read_value(item, line, out));
        }
        return;
    }
    let error = |message: String| {
        Err(ManifestError {
            line,
            column: 0,
            message,
        })
    };
    if kind.is_empty() || api_version.is_empty() {
        let own = ["listeners", "routes", "backends"];
        let hint = if own.iter().any(|key| value.get(key).is_some()) {
            "; a configuration of Tidegate is served by `serve --config`"
        } else {
            ""
        };
        out.push(error(format!(
            "not a Kubernetes object: apiVersion and kind are needed{hint}"
        )));
        return;
    }
    let name = value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let known = Kind::ALL
        .into_iter()
        .find(|known| known.as_str() == kind && known.api_version() == api_version);
    let Some(known) = known else {
        let namespace = value.pointer("/metadata/namespace");
        let namespace = namespace.and_then(Value::as_str).unwrap_or_default();
        out.push(Ok(Located {
            value: Item::Skipped {
                api_version,
                kind,
                key: ObjectKey::new(namespace, &name),
            },
            line,
        }));
        return;
    };
    if name.is_empty() {
        out.push(error(format!("{kind} without metadata.name")));
        return;
    }
    out.push(match object(known, value) {
        Ok(object) => Ok(Located {
            value: Item::Object(object),
            line,
        }),
        Err(reason) => error(format!("{kind} {name}: {reason}")),
    });
}

/// Reads one object of a known kind.
///
/// # Errors
/// When a field has the wrong type, or is none that there is; the message names it.
pub fn object(kind: Kind, mut value: Value) -> Result<Object, ObjectError> {
    if kind != Kind::IngressClass
        && let Some(Value::Object(metadata)) = value.get_mut("metadata")
        && metadata.get("namespace").is_none_or(Value::is_null)
    {
        metadata.insert("namespace".into(), "default".into());
    }
    Ok(match kind {
        Kind::Ingress => Object::Ingress(Arc::new(read(&value)?)),
        Kind::IngressClass => Object::IngressClass(Arc::new(read(&value)?)),
        Kind::Service => Object::Service(Arc::new(read(&value)?)),
        Kind::EndpointSlice => Object::EndpointSlice(Arc::new(read(&value)?)),
        Kind::Secret => {
            let mut secret: k8s_openapi::api::core::v1::Secret = read(&value)?;
            // What the API server does on a write (Secret.stringData: "merged into the data field on write").
            if let Some(strings) = secret.string_data.take() {
                let data = secret.data.get_or_insert_default();
                data.extend(
                    strings
                        .into_iter()
                        .map(|(key, text)| (key, ByteString(text.into_bytes()))),
                );
            }
            Object::Secret(Arc::new(secret))
        }
        Kind::ConfigMap => Object::ConfigMap(Arc::new(read(&value)?)),
        Kind::BackendPolicy => Object::BackendPolicy(Arc::new(read(&value)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |item: Result<Located<Item>, ManifestError>| match item {
            Ok(Located {
                value: Item::Object(object),
                line,
            }) => format!("{line} {} {}", object.kind(), object.key()),
            Ok(Located {
                value: Item::Skipped { kind, key, .. },
                line,
            }) => format!("{line} skipped {kind} {key}"),
            Err(error) => format!("{}:{} {}", error.line, error.column, error.message),
        };
        parse(text).into_iter().map(show).collect()
    }

    #[test]
    fn several_documents_lists_and_json() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n---\n---\n\
            {\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"s\"}},\
            {\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"d\"}}]}\n";
        assert_eq!(
            shown(text),
            [
                "3 Service shop/a",
                "8 Secret default/s",
                "8 skipped Deployment d"
            ]
        );
    }

    #[test]
    fn a_broken_document_costs_only_itself() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nmetadata: {name: b}\n---\nfoo: bar\n---\n\
            apiVersion: v1\nkind: Service\nmetadata: {}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c}\nspec: {ports: 5}\n---\n\
            apiVersion: v1\nkind: Service\nmetadata: {name: good}\n---\na: [\n---\nroutes: []\n---\na:\n\tb: 1\n";
        let shown = shown(text);
        assert!(shown[0].contains("duplicate"), "{shown:?}");
        assert_eq!(
            shown[1],
            "6:0 not a Kubernetes object: apiVersion and kind are needed"
        );
        assert_eq!(shown[2], "8:0 Service without metadata.name");
        assert!(
            shown[3].starts_with("12:0 Service c: spec.ports: invalid type"),
            "{shown:?}"
        );
        assert_eq!(shown[4], "17 Service default/good");
        assert!(shown[5].starts_with("22:"), "{shown:?}");
        assert!(
            shown[6].ends_with("served by `serve --config`"),
            "{shown:?}"
        );
        assert!(
            shown[7].starts_with("26:1 ") && shown[7].contains("a tab"),
            "{shown:?}"
        );
    }
}
