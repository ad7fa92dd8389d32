//! The fields of a message with what was changed of them, and the names that are ours to decide from then on.
//!
//! Many servers take `_` and `-` in a name for one letter (CGI and WSGI make `HTTP_X_USER` of `X_User` as of `X-User`), so a
//! field that we set or remove has to go in every spelling, or the client's would stand beside ours or in its place.

use http::{HeaderMap, HeaderName};
use std::borrow::Cow;

/// Fields that were changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFields {
    /// All of them, as they are by now.
    pub fields: HeaderMap,
    /// Names that were set or removed. Whoever sent the message has no say in these any more, in its trailers neither.
    pub decided: Vec<HeaderName>,
}

impl ChangedFields {
    /// Fields of which nothing was changed yet.
    pub fn of(fields: HeaderMap) -> Self {
        Self {
            fields,
            decided: Vec::new(),
        }
    }
}

/// A name as servers read it that take `_` for `-`. Allocates only where there is a `_`.
pub fn folded(name: &str) -> Cow<'_, str> {
    if name.contains('_') {
        Cow::Owned(name.replace('_', "-"))
    } else {
        Cow::Borrowed(name)
    }
}

/// Whether some server takes both names for one.
pub fn is_same_field(one: &HeaderName, other: &HeaderName) -> bool {
    one.as_str().len() == other.as_str().len() && folded(one.as_str()) == folded(other.as_str())
}

/// Removes a field in every spelling that some server takes for its name.
pub fn remove_every_spelling(fields: &mut HeaderMap, name: &HeaderName) {
    fields.remove(name);
    let others = fields.keys().filter(|other| is_same_field(other, name));
    let others: Vec<HeaderName> = others.cloned().collect();
    for other in others {
        fields.remove(other);
    }
}
