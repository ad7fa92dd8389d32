//! A tree becomes a type, by serde. Errors know their key path, and unknown words get a guess what was meant.

use super::{Entry, Node, Value, number};
use crate::problem::{Place, Step, Wrong, printable, unknown};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use std::fmt;

/// Reads a type.
pub(crate) fn read<T: de::DeserializeOwned>(node: &Node) -> Result<T, Wrong> {
    T::deserialize(Reader(node)).map_err(|error| {
        let mut wrong = error.0;
        wrong.path.reverse();
        wrong
    })
}

/// What is wrong; its path is built from its end.
#[derive(Debug)]
struct Error(Wrong);

impl Error {
    fn new(message: String) -> Self {
        Self(Wrong {
            path: Vec::new(),
            place: None,
            message,
        })
    }

    fn below(mut self, step: Step) -> Self {
        self.0.path.push(step);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let mut expected = words(expected);
        // In text, that is: a number beside this would contradict it.
        if !matches!(found, Unexpected::Str(_))
            && let Some(with_units) = expected.strip_suffix(", or seconds)")
        {
            expected = format!("{with_units})");
        }
        let hint = match found {
            Unexpected::Signed(_)
            | Unexpected::Unsigned(_)
            | Unexpected::Float(_)
            | Unexpected::Bool(_)
                if expected == "text" =>
            {
                "; put it in quotes".to_owned()
            }
            Unexpected::Unsigned(number) if expected.starts_with("a duration") => {
                format!("; give its unit, such as {number}s or {number}ms")
            }
            _ => String::new(),
        };
        Self::new(format!("expected {expected}, found {}{hint}", named(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(unknown("value", variant, expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        if field == "apiVersion" {
            return Self::new(
                "this is a Kubernetes object and no configuration; `serve --manifests` serves it"
                    .to_owned(),
            );
        }
        Self::new(unknown("key", field, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key \"{field}\" is missing"))
    }
}

/// What was expected, in the words of the documentation rather than Rust's.
fn words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "keys and values".to_owned(),
        _ if text.starts_with("struct ") => "keys and values".to_owned(),
        _ if text.starts_with("enum ") => "one of its words".to_owned(),
        _ => text,
    }
}

fn named(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(text) => format!("the text \"{}\"", printable(text)),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "keys and values".to_owned(),
        other => other.to_string(),
    }
}

#[derive(Clone, Copy)]
struct Reader<'a>(&'a Node);

impl<'a> Reader<'a> {
    /// A number or switch may have come from the environment as text.
    fn typed<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Filled(text) = &self.0.value else {
            return self.any(visitor);
        };
        let value = match (text.as_str(), number(text)) {
            ("true", _) => Value::Bool(true),
            ("false", _) => Value::Bool(false),
            (_, Some(Ok(number))) => number,
            (_, Some(Err(message))) => return Err(Error::new(message)),
            (_, None) => Value::Text(text.clone()),
        };
        let node = Node {
            place: self.0.place,
            value,
        };
        Reader(&node).any(visitor)
    }

    fn any<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => Err(Error::new(format!("the number {value} is too large"))),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Filled(text) => visitor.visit_str(text),
            Value::List(all) => visitor.visit_seq(List { all, at: 0 }),
            Value::Map(all) => visitor.visit_map(Map { all, at: 0 }),
        }
    }
}

macro_rules! typed {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.typed(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    typed! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Text(text) | Value::Filled(text) => {
                visitor.visit_enum(StrDeserializer::<Error>::new(text))
            }
            Value::Map(all) => match all.as_slice() {
                [entry] => visitor.visit_enum(Variant(entry)),
                _ => Err(Error::new("expected one key and its value".to_owned())),
            },
            _ => self.any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0.value {
            // Serde would take the values in the order of the fields.
            Value::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct List<'a> {
    all: &'a [Node],
    at: usize,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.all.get(self.at) else {
            return Ok(None);
        };
        let index = self.at;
        self.at += 1;
        let value = seed.deserialize(Reader(node));
        value.map(Some).map_err(|error| error.below(index.into()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.all.len() - self.at)
    }
}

struct Map<'a> {
    all: &'a [Entry],
    at: usize,
}

/// An error of a key stands where the key does.
fn at_key(mut error: Error, key: &str, place: Place) -> Error {
    error.0.place.get_or_insert(place);
    error.below(key.into())
}

impl<'de> MapAccess<'de> for Map<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.all.get(self.at) else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
        let key = seed.deserialize(key);
        key.map(Some)
            .map_err(|error| at_key(error, &entry.key, entry.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.all.get(self.at) else {
            return Err(Error::new("a value without a key".to_owned()));
        };
        self.at += 1;
        let value = seed.deserialize(Reader(&entry.node));
        value.map_err(|error| error.below(entry.key.as_str().into()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.all.len() - self.at)
    }
}

/// An enum written as a mapping of one key.
struct Variant<'a>(&'a Entry);

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let Entry { key, place, .. } = self.0;
        let name: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        let variant = seed.deserialize(name);
        Ok((variant.map_err(|error| at_key(error, key, *place))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.0.node.value {
            Value::Null => Ok(()),
            _ => Err(Error::new("expected nothing here".to_owned()).below((&self.0.key).into())),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let value = seed.deserialize(Reader(&self.0.node));
        value.map_err(|error| error.below((&self.0.key).into()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        let value = Reader(&self.0.node).any(visitor);
        value.map_err(|error| error.below((&self.0.key).into()))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.tuple_variant(0, visitor)
    }
}
