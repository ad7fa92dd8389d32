//! `${NAME}` in values becomes what the environment has; `$${` stays `${`. Keys and comments are left alone, and what is
//! filled in is a value whatever it holds: it cannot add keys.

use super::{Lookup, Node, Value};
use crate::problem::{Step, Wrong, printable};

pub(super) fn fill(root: &mut Node, lookup: Lookup<'_>) -> Result<(), Wrong> {
    fill_at(root, lookup, &mut Vec::new())
}

fn fill_at(node: &mut Node, lookup: Lookup<'_>, path: &mut Vec<Step>) -> Result<(), Wrong> {
    match &mut node.value {
        Value::Text(text) | Value::Filled(text) if text.contains("${") => {
            let filled = filled(text, lookup).map_err(|message| Wrong {
                path: path.clone(),
                place: Some(node.place),
                message,
            })?;
            node.value = match filled {
                (text, true) => Value::Filled(text),
                (text, false) => Value::Text(text),
            };
        }
        Value::List(all) => {
            for (index, node) in all.iter_mut().enumerate() {
                path.push(Step::Index(index));
                fill_at(node, lookup, path)?;
                path.pop();
            }
        }
        Value::Map(all) => {
            for entry in all {
                path.push(Step::Key(entry.key.clone()));
                fill_at(&mut entry.node, lookup, path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

/// A text with its variables filled in, and whether it had any.
fn filled(text: &str, lookup: Lookup<'_>) -> Result<(String, bool), String> {
    let mut out = String::with_capacity(text.len());
    let mut any = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some((name, behind)) = rest[at + 2..].split_once('}') else {
            return Err("\"${\" without \"}\"; a literal one is written \"$${\"".to_owned());
        };
        let is_name = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Err(format!(
                "\"{}\" is not the name of a variable",
                printable(name)
            ));
        }
        let value = lookup(name).ok_or_else(|| format!("the variable {name} is not set"))?;
        out.push_str(&value);
        any = true;
        rest = behind;
    }
    out.push_str(rest);
    Ok((out, any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "NESTED" => Some("${A}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let found = filled(text, &lookup).map(|(text, _)| text);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
    }

    #[test]
    fn variables() {
        check("${A}", Ok("1"));
        check("x${A}${A}y", Ok("x11y"));
        check("$A $ {A} $", Ok("$A $ {A} $"));
        check("$${A}", Ok("${A}"));
        check("$${A}${A}", Ok("${A}1"));
        check("${EMPTY}", Ok(""));
        check("${NESTED}", Ok("${A}"));
        check("${MISSING}", Err("the variable MISSING is not set"));
        check(
            "${A",
            Err("\"${\" without \"}\"; a literal one is written \"$${\""),
        );
        check("${}", Err("\"\" is not the name of a variable"));
        check("${a-b}", Err("\"a-b\" is not the name of a variable"));
    }
}
