//! The text of a manifest becomes documents: YAML between lines of `---`, with merge keys, and JSON, of which several may
//! stand one after another. As `kubectl` reads them.

use super::{Located, ManifestError};
use serde_json::Value;
use serde_yaml::Value as Yaml;

/// Largest document in bytes.
const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// A document, or what is wrong with it.
pub(super) type Document = Result<Located<Value>, ManifestError>;

/// Reads every document of a text. `is_json`: its file is called so, and errors are told in terms of JSON.
pub(super) fn read(text: &str, is_json: bool) -> Vec<Document> {
    // Editors on Windows put it in front; it is no part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = Vec::new();
    for (line, document) in split(text) {
        if document.len() > MAX_DOCUMENT {
            out.push(Err(ManifestError {
                line,
                column: 0,
                message: format!("the document is larger than {MAX_DOCUMENT} bytes"),
            }));
        } else if let Some(inner) = document.trim_start().strip_prefix('{') {
            let read = json(document, line);
            if read.iter().all(Result::is_ok) {
                out.extend(read);
                continue;
            }
            // Flow style of YAML begins in the same way.
            match yaml(document, line) {
                Err(_) if is_json || inner.trim_start().starts_with(['"', '}']) => out.extend(read),
                other => out.push(other),
            }
        } else {
            out.push(yaml(document, line));
        }
    }
    out
}

/// Splits at lines that are `---`; gives each part with its first line.
fn split(text: &str) -> Vec<(usize, &str)> {
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

/// JSON values one after another, up to the first that cannot be read. `first_line` is where the text begins.
fn json(text: &str, first_line: usize) -> Vec<Document> {
    let mut out = Vec::new();
    // By way of a YAML value, which refuses keys that stand twice.
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Yaml>();
    let (mut at, mut line) = (0, first_line);
    loop {
        let rest = &text[values.byte_offset()..];
        let start = text.len() - rest.trim_start().len();
        line += text[at..start].matches('\n').count();
        at = start;
        let read = match values.next() {
            None => return out,
            Some(Ok(value)) => to_json(value, line),
            Some(Err(error)) => Err(ManifestError {
                line: first_line + error.line().saturating_sub(1),
                column: error.column(),
                message: without_place(&error.to_string()),
            }),
        };
        let is_error = read.is_err();
        out.push(read);
        if is_error {
            return out;
        }
    }
}

fn yaml(document: &str, first_line: usize) -> Document {
    let mut value: Yaml = serde_yaml::from_str(document).map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((1, 0), |at| (at.line(), at.column()));
        let mut message = without_place(&error.to_string());
        let before = document
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default();
        // In flow style they may be there.
        let is_flow = document.trim_start().starts_with('{');
        if before.trim_start_matches(' ').starts_with('\t') && !is_flow {
            message.push_str(": a tab, where YAML is indented with spaces");
        }
        ManifestError {
            line: first_line + line.saturating_sub(1),
            column,
            message,
        }
    })?;
    merge(&mut value).map_err(|message| ManifestError {
        line: first_line,
        column: 0,
        message,
    })?;
    to_json(value, first_line)
}

/// The message of a parser without the place in its own text, which is told apart.
fn without_place(message: &str) -> String {
    let text = message.split(" at line ").next();
    text.unwrap_or(message).to_owned()
}

fn to_json(value: Yaml, line: usize) -> Document {
    match serde_json::to_value(value) {
        Ok(value) => Ok(Located { value, line }),
        Err(error) => Err(ManifestError {
            line,
            column: 0,
            message: error.to_string(),
        }),
    }
}

/// Puts what stands below merge keys (`<<: *shared`) into the mappings they are in, whose own keys count first. Aliases
/// are filled in already; what is merged may have merge keys itself.
fn merge(value: &mut Yaml) -> Result<(), String> {
    match value {
        Yaml::Sequence(all) => all.iter_mut().try_for_each(merge),
        Yaml::Tagged(tagged) => merge(&mut tagged.value),
        Yaml::Mapping(map) => {
            map.values_mut().try_for_each(merge)?;
            let shared = match map.remove("<<") {
                None => return Ok(()),
                Some(Yaml::Sequence(all)) => all,
                Some(one) => vec![one],
            };
            for one in shared {
                let Yaml::Mapping(one) = one else {
                    return Err("the merge key `<<` wants a mapping, or a list of them".to_owned());
                };
                for (key, value) in one {
                    map.entry(key).or_insert(value);
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
