//! TOML with places. The `toml` crate parses, refuses keys that repeat, and bounds the depth.

use super::{Entry, Lines, Node, Value, number};
use crate::problem::{Place, Wrong};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| {
        let place = error
            .span()
            .map_or(Place::default(), |span| lines.place(span.start));
        Wrong::here(place, error.message())
    })?;
    if table.get_ref().is_empty() {
        return Ok(Node {
            place: Place::default(),
            value: Value::Null,
        });
    }
    let place = lines.place(table.span().start);
    Ok(Node {
        place,
        value: map(table.get_ref(), &lines)?,
    })
}

fn map(table: &DeTable<'_>, lines: &Lines<'_>) -> Result<Value, Wrong> {
    let mut out = Vec::new();
    for (key, value) in table {
        let place = lines.place(key.span().start);
        out.push(Entry {
            key: key.get_ref().to_string(),
            place,
            node: node(value, lines)?,
        });
    }
    Ok(Value::Map(out))
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Result<Node, Wrong> {
    let place = lines.place(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let parsed = i128::from_str_radix(integer.as_str(), integer.radix());
            let too_large = format!("the number {integer} is too large");
            Value::Integer(parsed.map_err(|_| Wrong::here(place, too_large))?)
        }
        DeValue::Float(float) => match number(float.as_str()) {
            Some(Ok(value)) => value,
            Some(Err(message)) => return Err(Wrong::here(place, message)),
            None => return Err(Wrong::here(place, "not a number")),
        },
        DeValue::Boolean(boolean) => Value::Bool(*boolean),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(array) => {
            let all = array.iter().map(|value| node(value, lines));
            Value::List(all.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => map(table, lines)?,
    };
    Ok(Node { place, value })
}
