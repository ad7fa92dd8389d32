//! Reads manifests: YAML with several documents, JSON, and `List` objects. Pure: text in, objects with their lines out.

mod documents;

use crate::snapshot::{Kind, Object, ObjectKey};
use crate::strict::{ObjectError, read};
use k8s_openapi::ByteString;
use serde_json::Value;
use std::sync::Arc;

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

/// Reads every document of a text. Objects without a namespace are put into `default`, as `kubectl apply` does. `is_json`: its
/// file is called so.
pub fn parse(text: &str, is_json: bool) -> Vec<Result<Located<Item>, ManifestError>> {
    let mut out = Vec::new();
    for document in documents::read(text, is_json) {
        match document {
            Ok(Located { value, .. }) if value.is_null() => {}
            Ok(Located { value, line }) => read_value(value, "", line, &mut out),
            Err(error) => out.push(Err(error)),
        }
    }
    out
}

/// Reads an object, or the items of a list. `place` is where it stands in lists.
fn read_value(
    mut value: Value,
    place: &str,
    line: usize,
    out: &mut Vec<Result<Located<Item>, ManifestError>>,
) {
    let text = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if let Some(of) = kind.strip_suffix("List")
        && let Some(items @ (Value::Array(_) | Value::Null)) = value.get_mut("items")
    {
        let Value::Array(items) = items.take() else {
            return;
        };
        for (index, mut item) in items.into_iter().enumerate() {
            // The API server leaves out of a typed list what all of it is; `kubectl` reads it so.
            if let Value::Object(item) = &mut item
                && !of.is_empty()
                && item.get("kind").is_none_or(Value::is_null)
            {
                item.insert("kind".into(), of.into());
                item.insert("apiVersion".into(), api_version.as_str().into());
            }
            let dot = if place.is_empty() { "" } else { "." };
            read_value(item, &format!("{place}{dot}items[{index}]"), line, out);
        }
        return;
    }
    let error = |message: String| {
        let colon = if place.is_empty() { "" } else { ": " };
        Err(ManifestError {
            line,
            column: 0,
            message: format!("{place}{colon}{message}"),
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
    // What `base64` wraps is one text, as decoders have it.
    for field in ["data", "binaryData"] {
        let is_base64 = field == "binaryData" || kind == Kind::Secret;
        if let Some(Value::Object(all)) = value.get_mut(field).filter(|_| is_base64) {
            for text in all.values_mut() {
                if let Value::String(text) = text {
                    text.retain(|character| !matches!(character, '\r' | '\n'));
                }
            }
        }
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
        parse(text, false).into_iter().map(show).collect()
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
    fn a_byte_order_mark_is_no_part_of_the_text() {
        for text in [
            "\u{feff}apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\nkind: Secret\napiVersion: v1\nmetadata: {name: b}\n",
            "\u{feff}apiVersion: v1\r\nkind: Service\r\nmetadata: {name: a}\r\n---\r\nkind: Secret\r\napiVersion: v1\r\nmetadata: {name: b}\r\n",
        ] {
            assert_eq!(shown(text), ["1 Service default/a", "5 Secret default/b"]);
        }
        let text = "\u{feff}{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}}";
        assert_eq!(shown(text), ["1 Service default/a"]);
    }

    #[test]
    fn json_is_read_as_json() {
        let object = |name: &str| {
            format!(
                "{{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {{\"name\": \"{name}\", \
                 \"annotations\": {{\"a\": \"\\ud83d\\ude00\"}}}}\n}}"
            )
        };
        let two = format!("{}\n{}", object("a"), object("b"));
        assert_eq!(shown(&two), ["1 Service default/a", "6 Service default/b"]);
        let joined = format!("\n{}{}", object("a"), object("b"));
        assert_eq!(
            shown(&joined),
            ["2 Service default/a", "6 Service default/b"]
        );
        // What is broken is told in terms of JSON, and costs what comes after it only.
        let broken = two.replace("\"name\": \"b\"", "\"name\" \"b\"");
        assert_eq!(shown(&broken), ["1 Service default/a", "9:22 expected `:`"]);
        let twice = two.replace("\"kind\": ", "\"kind\": \"x\", \"kind\": ");
        assert!(
            shown(&twice)[0].contains("duplicate entry with key \"kind\""),
            "{twice}"
        );
    }

    #[test]
    fn flow_style_of_yaml_begins_as_json_does() {
        let text = "{apiVersion: v1, kind: Service, # why\n metadata: {name: a,},}\n";
        assert_eq!(shown(text), ["1 Service default/a"]);
        let quoted = "{\"apiVersion\": v1, \"kind\": Service,\n\t\"metadata\": {name: a}} # why\n";
        assert_eq!(shown(quoted), ["1 Service default/a"]);
        let said = |text: &str, is_json: bool| {
            let all = parse(text, is_json).into_iter();
            let errors: Vec<_> = all
                .filter_map(Result::err)
                .map(|error| error.message)
                .collect();
            errors.join("; ")
        };
        let broken = "{apiVersion: v1, kind\n\tx: [}\n";
        assert_eq!(said(broken, true), "key must be a string");
        assert!(!said(broken, false).contains("key must be a string"));
        assert!(!said(broken, false).contains("a tab"));
    }

    #[test]
    fn items_of_a_typed_list_are_what_it_says() {
        let text = "apiVersion: networking.k8s.io/v1\nkind: IngressList\nitems:\n- metadata: {name: a}\n\
            - {apiVersion: v1, kind: Service, metadata: {name: b}}\n- text\n- {metadata: {name: c}, spec: {ruls: []}}\n---\n\
            apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret, metadata: {name: s}}, {apiVersion: v1}]\n---\n\
            {apiVersion: v1, kind: SecretList, items: null}\n---\n\
            {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: [3]}]}\n";
        assert_eq!(
            shown(text),
            [
                "1 Ingress default/a",
                "1 Service default/b",
                "1:0 items[2]: not a Kubernetes object: apiVersion and kind are needed",
                "1:0 items[3]: Ingress c: there is no field spec.ruls; did you mean rules?",
                "9 Secret default/s",
                "9:0 items[1]: not a Kubernetes object: apiVersion and kind are needed",
                "15:0 items[0].items[0]: not a Kubernetes object: apiVersion and kind are needed",
            ]
        );
    }

    #[test]
    fn merge_keys_are_filled_in() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  labels: &one {x: \"1\", y: \"1\"}\n  \
            annotations: &two {<<: *one, y: \"2\"}\nspec: {selector: {<<: [*two, {x: \"3\", z: \"3\"}], w: \"4\"}}\n";
        let Ok(Located {
            value: Item::Object(Object::Service(service)),
            ..
        }) = &parse(text, false)[0]
        else {
            panic!("{:?}", shown(text));
        };
        let entries = |all: &Option<std::collections::BTreeMap<String, String>>| {
            let all = all.iter().flatten();
            let shown: Vec<_> = all.map(|(key, value)| format!("{key}={value}")).collect();
            shown.join(" ")
        };
        assert_eq!(entries(&service.metadata.annotations), "x=1 y=2");
        let selector = service.spec.as_ref().map(|spec| entries(&spec.selector));
        assert_eq!(selector.as_deref(), Some("w=4 x=1 y=2 z=3"));
        assert_eq!(
            shown("a: {<<: 3}"),
            ["1:0 the merge key `<<` wants a mapping, or a list of them"]
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
