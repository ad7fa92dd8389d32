//! The same fields, one string each: `activeCheck.unhealthyAfter` is `active-check-unhealthy-after`. A group that needs none
//! of its fields is had by its own name: `outlier-detection: "true"`.
//!
//! Names, kinds, texts and examples come from the JSON Schema of [`PolicySpec`], so that a new field is an annotation too.

use crate::spec::PolicySpec;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// A field as an annotation.
#[derive(Debug)]
pub struct Field {
    /// Name, without a prefix.
    pub name: String,
    /// What a value looks like.
    pub value: String,
    /// What it does, with its default.
    pub doc: String,
    /// A value that works.
    pub example: String,
    /// Its place in a policy: `activeCheck.interval`.
    pub key: String,
    path: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The group itself, with the defaults of all its fields.
    Group,
    Switch,
    Number,
    Text,
    /// Texts with commas between them.
    List,
}

/// Every field, in the order of their declaration.
pub fn fields() -> &'static [Field] {
    static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
        let mut all = Vec::new();
        collect(&schema(), &[], &mut all);
        all
    });
    &FIELDS
}

/// The JSON Schema of a policy, without references.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings
        .into_generator()
        .into_root_schema_for::<PolicySpec>()
        .to_value()
}

impl Field {
    /// Whether it is a group of fields, which as an annotation is switched on by itself.
    pub fn is_group(&self) -> bool {
        self.kind == Kind::Group
    }

    /// The policy that has this field and nothing else. Switches may be `on` and `off` too.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence.
    pub fn read(&self, text: &str) -> Result<PolicySpec, String> {
        let leaf = match self.kind {
            Kind::Text => Value::from(text),
            Kind::Number => Value::from(
                text.parse::<i64>()
                    .map_err(|_| "it is no whole number".to_owned())?,
            ),
            Kind::Switch => Value::from(switch(text)?),
            Kind::Group => match switch(text)? {
                true => Value::Object(Map::new()),
                false => Value::Null,
            },
            Kind::List => text.split(',').map(str::trim).collect(),
        };
        let nested = self.path.iter().rev().fold(leaf, |inner, name| {
            Value::Object(Map::from_iter([(name.clone(), inner)]))
        });
        serde_json::from_value(nested).map_err(|error| {
            let error = error.to_string();
            // The name, the value and what it may be are told by whoever reads it.
            match error.split_once("cannot be used: ") {
                Some((_, reason)) => reason.to_owned(),
                None if error.starts_with("unknown variant") => "there is none of that name".into(),
                None => error,
            }
        })
    }
}

/// Reads a switch: as Go does (`strconv.ParseBool`), and with it ingress-nginx, or as nginx does.
///
/// # Errors
/// When it is none, as the end of a sentence.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "on" => Ok(true),
        "false" | "f" | "0" | "off" => Ok(false),
        _ => Err("it is neither true nor false".into()),
    }
}

/// The schema of a value that may be absent, for when it is there.
pub fn present(schema: &Value) -> Map<String, Value> {
    let mut all = schema.as_object().cloned().unwrap_or_default();
    for branches in ["anyOf", "oneOf"] {
        if let Some(Value::Array(branches)) = all.remove(branches) {
            let some = branches
                .into_iter()
                .find(|branch| branch.get("type").and_then(Value::as_str) != Some("null"));
            if let Some(Value::Object(some)) = some {
                for (key, value) in some {
                    all.entry(key).or_insert(value);
                }
            }
        }
    }
    all
}

fn collect(group: &Value, path: &[String], out: &mut Vec<Field>) {
    let Some(properties) = group.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (name, schema) in properties {
        let mut path = path.to_vec();
        path.push(name.clone());
        let schema = present(schema);
        let is = |kind: &str| match schema.get("type") {
            Some(Value::String(one)) => one == kind,
            Some(Value::Array(some)) => some.iter().any(|one| one == kind),
            _ => false,
        };
        let kind = if is("object") {
            Kind::Group
        } else if is("array") {
            Kind::List
        } else if is("boolean") {
            Kind::Switch
        } else if is("integer") {
            Kind::Number
        } else {
            Kind::Text
        };
        let example = schema.get("examples").and_then(|all| all.get(0));
        out.push(Field {
            name: path
                .iter()
                .map(|part| kebab(part))
                .collect::<Vec<_>>()
                .join("-"),
            value: value_text(&schema, kind),
            doc: schema
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .replace('\n', " "),
            example: match (kind, example) {
                (Kind::Group, _) => "true".to_owned(),
                (_, Some(Value::String(text))) => text.clone(),
                (_, Some(Value::Array(items))) => {
                    let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                    items.join(", ")
                }
                (_, Some(other)) => other.to_string(),
                (_, None) => String::new(),
            },
            key: path.join("."),
            path: path.clone(),
            kind,
        });
        if kind == Kind::Group {
            collect(&Value::Object(schema), &path, out);
        }
    }
}

fn value_text(schema: &Map<String, Value>, kind: Kind) -> String {
    match kind {
        Kind::Group | Kind::Switch => "`true` or `false`".to_owned(),
        Kind::Number => {
            let bound = |name: &str| schema.get(name).and_then(Value::as_i64).unwrap_or_default();
            format!("a number from {} to {}", bound("minimum"), bound("maximum"))
        }
        Kind::List => "values, with commas between them".to_owned(),
        Kind::Text => {
            if let Some(names) = schema.get("enum").and_then(Value::as_array) {
                let names: Vec<_> = names
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|name| format!("`{name}`"))
                    .collect();
                return names.join(", ");
            }
            let title = schema.get("title").and_then(Value::as_str);
            title.unwrap_or("a text").to_owned()
        }
    }
}

/// `unhealthyAfter` as `unhealthy-after`.
fn kebab(camel: &str) -> String {
    let mut out = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
