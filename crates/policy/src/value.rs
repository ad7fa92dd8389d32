//! What the text of a field may be. Each type reads one kind of text and refuses every other with a reason.

use routing_table::policy::{self, HashOn, StatusRange};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// No wait is longer: more than a day is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Browsers forget a cookie after 400 days at the latest.
const LONGEST_COOKIE: Duration = Duration::from_secs(400 * 24 * 3600);

/// Declares a type that is read from a string.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $read:path, $pattern:expr, $most:literal, $words:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub struct $name {
            text: String,
            #[serde(skip)]
            value: $inner,
        }

        impl $name {
            /// Reads a text.
            ///
            /// # Errors
            /// What is wrong with it, as the end of a sentence.
            pub fn read(text: &str) -> Result<Self, String> {
                if text.len() > $most {
                    return Err(format!("it has {} bytes, {} are the most", text.len(), $most));
                }
                let value = $read(text)?;
                Ok(Self { text: text.into(), value })
            }

            /// What the text means.
            pub fn get(&self) -> &$inner {
                &self.value
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Reader;

                impl serde::de::Visitor<'_> for Reader {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($words)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::read(text).map_err(|reason| {
                            let shown: String = text.chars().take(64).collect();
                            E::custom(format!("{shown:?} cannot be used: {reason}"))
                        })
                    }
                }

                from.deserialize_str(Reader)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "title": $words, "maxLength": $most, "pattern": $pattern,
                })
            }
        }
    };
}

text_type! {
    /// A duration above 0 and up to 24 hours: `500ms`, `2s`, `1m`, `1h`; a bare number is seconds.
    Span(Duration), duration, "^[0-9]+(ms|s|m|h)?$", 24, "a duration (`500ms`, `2s`, `1m`, `1h`, or seconds)"
}

text_type! {
    /// How long a client keeps a cookie: like a duration, also in days (`7d`), up to 400 days, after which browsers forget it.
    CookieAge(Duration), cookie_age, "^[0-9]+(s|m|h|d)?$", 24, "a duration (`30m`, `1h`, `7d`, or seconds)"
}

text_type! {
    /// What of a request is hashed: `client-ip`, `path`, `path-and-query`, `header:NAME`, `cookie:NAME` or `query:NAME`.
    HashBy(HashOn), hash_on, "^(client-ip|path|path-and-query|(header|cookie|query):.+)$", 256, "`client-ip`, `path`, `path-and-query`, `header:NAME`, `cookie:NAME` or `query:NAME`"
}

text_type! {
    /// A status, `200`, or a range of them, `200-399`.
    Statuses(StatusRange), statuses, "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$", 8, "a status or a range of them"
}

text_type! {
    /// A name as HTTP writes them (a token, RFC 9110 section 5.6.2).
    Token(Arc<str>), token, "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", 256, "a name"
}

text_type! {
    /// A name of a field, in lower case from then on.
    FieldName(Arc<str>), field_name, "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", 256, "a name of a field"
}

text_type! {
    /// A value of a cookie's attribute: nothing that could end it.
    Attribute(Arc<str>), attribute, "^[!#-+\\--:<-\\[\\]-~]+$", 1024, "a value of a cookie's attribute"
}

text_type! {
    /// A path that begins with `/`, with a query or without one; no blanks.
    HttpPath(Arc<str>), http_path, "^/[!-~]*$", 1024, "a path"
}

text_type! {
    /// A value of `Host`: a name or an address, with a port or without one.
    HostField(Arc<str>), host_field, "^[0-9A-Za-z._:\\[\\]-]+$", 260, "a name or an address"
}

text_type! {
    /// A regular expression in the syntax of the crate `regex`.
    Pattern(policy::Pattern), policy::Pattern::new, "^.*$", 512, "a regular expression"
}

text_type! {
    /// Bytes: a text in which `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH` stand for others.
    Bytes(Arc<[u8]>), bytes, "^[ -~]*$", 1024, "a text, with `\\n` and the like"
}

/// Reads a duration above 0 and up to 24 hours; a bare number is seconds.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| "it does not start with a number".to_owned())?;
    let duration = match text[digits..].trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        unit => return Err(format!("the unit {unit:?} is none of ms, s, m, h")),
    };
    match duration {
        Some(duration) if duration.is_zero() => Err("it must be more than 0".into()),
        Some(duration) if duration <= LONGEST => Ok(duration),
        _ => Err("it must be at most 24h".into()),
    }
}

fn cookie_age(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let number: u64 = number.parse().map_err(|_| {
        "it is no whole number of seconds, or one with s, m, h or d behind it".to_owned()
    })?;
    let seconds = match unit {
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        _ => 1,
    };
    let age = number.checked_mul(seconds).map(Duration::from_secs);
    age.filter(|age| !age.is_zero() && *age <= LONGEST_COOKIE)
        .ok_or_else(|| "it is not from one second to 400 days".to_owned())
}

fn hash_on(text: &str) -> Result<HashOn, String> {
    Ok(match text.split_once(':') {
        None if text == "client-ip" => HashOn::ClientIp,
        None if text == "path" => HashOn::Path,
        None if text == "path-and-query" => HashOn::PathAndQuery,
        Some(("header", name)) => HashOn::Header(field_name(name)?),
        Some(("cookie", name)) => HashOn::Cookie(token(name)?),
        Some(("query", name)) => HashOn::Query(token(name)?),
        _ => {
            return Err(
                "it is none of client-ip, path, path-and-query, header:NAME, cookie:NAME, query:NAME"
                    .into(),
            );
        }
    })
}

fn statuses(text: &str) -> Result<StatusRange, String> {
    let number = |text: &str| match text.parse() {
        Ok(status @ 100..=599) if text.len() == 3 => Ok(status),
        _ => Err(format!("{text:?} is no status from 100 to 599")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = StatusRange {
        first: number(first)?,
        last: number(last)?,
    };
    match range.first <= range.last {
        true => Ok(range),
        false => Err("it ends before it begins".into()),
    }
}

/// Reads a token.
///
/// # Errors
/// When it has a character that a token cannot have.
pub fn token(text: &str) -> Result<Arc<str>, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !text.is_empty() && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err("a name has only letters, digits and !#$%&'*+-.^_`|~".into()),
    }
}

/// Reads a name of a field.
///
/// # Errors
/// When it has a character that such a name cannot have.
pub fn field_name(text: &str) -> Result<Arc<str>, String> {
    token(text).map(|name| name.to_ascii_lowercase().into())
}

/// Reads a value of a cookie's attribute.
///
/// # Errors
/// When it has a character that would end it.
pub fn attribute(text: &str) -> Result<Arc<str>, String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b";,\"\\".contains(&byte);
    match !text.is_empty() && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err("it has a character that an attribute of a cookie cannot have".into()),
    }
}

fn http_path(text: &str) -> Result<Arc<str>, String> {
    match text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.into()),
        false => Err("it must begin with / and have no blanks".into()),
    }
}

fn host_field(text: &str) -> Result<Arc<str>, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    match !text.is_empty() && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err("it is no name or address".into()),
    }
}

fn bytes(text: &str) -> Result<Arc<[u8]>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let byte = high.zip(low).map(|(high, low)| (high * 16 + low) as u8);
                byte.ok_or("\\x needs two hexadecimal digits")?
            }
            _ => return Err("a \\ stands only before n, r, t, 0, \\ and xHH".into()),
        });
    }
    Ok(out.into())
}
