//! Keys that narrow what is served. Where one is left out nothing is narrowed, so one that is written and says nothing (an empty
//! list, or a key without a value, as templates make them) must not be taken for one that is left out: it would open what it was
//! written to close.

use super::PathConfig;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// A list that was left out, or that has something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T>(Vec<T>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Listed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let list = Vec::deserialize(from)?;
        if list.is_empty() {
            let message = "the list is empty, which would restrict nothing: put something in it, or leave the key out";
            return Err(D::Error::custom(message));
        }
        Ok(Self(list))
    }
}

impl<T: JsonSchema> JsonSchema for Listed<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Listed_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Vec::<T>::json_schema(generator);
        schema.insert("minItems".to_owned(), 1.into());
        schema
    }
}

/// Reads a key that may be left out, but not be without a value.
pub(super) fn value<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Reads a status to answer with. Whether it is one of those is for `build` to say, but who wrote no number is told them too.
pub(super) fn status<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    struct Status(u16);

    impl<'de> Deserialize<'de> for Status {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_u16(StatusReader).map(Self)
        }
    }

    Option::<Status>::deserialize(from).map(|status| status.map(|Status(number)| number))
}

struct StatusReader;

impl Visitor<'_> for StatusReader {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status from 200 to 599, as a number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u16, E> {
        u16::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

/// Reads the path of a route, which may not be left without its kind.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathConfig>, D::Error> {
    from.deserialize_any(PathReader).map(Some)
}

struct PathReader;

impl<'de> Visitor<'de> for PathReader {
    type Value = PathConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys and values")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PathConfig, E> {
        let text = crate::problem::printable(text);
        Err(E::custom(format!(
            "it does not say how the path is compared: {{prefix: {text}}} (and what is below it), {{exact: {text}}} or \
             {{startsWith: {text}}}"
        )))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PathConfig, A::Error> {
        PathConfig::deserialize(MapAccessDeserializer::new(map))
    }
}
