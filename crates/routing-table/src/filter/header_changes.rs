//! Sets and removes fields, of requests on their way upstream or of answers on their way to the client.
//!
//! Fields that frame a message, belong to the connection or are our own word about the client cannot be changed
//! ([`may_be_changed`]); values are fixed, there are no variables.

use super::{ApplyFilter, ChangedFields, Ending, Passage, folded, remove_every_spelling};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::net::SocketAddr;
use std::ops::ControlFlow;

/// What is changed: first fields are removed, then set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    /// Every field of this name goes, however its `-` are spelled.
    pub remove: Vec<HeaderName>,
    /// There is exactly this field of the name, however its `-` are spelled.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderChanges {
    /// The names that are changed.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove
            .iter()
            .chain(self.set.iter().map(|(name, _)| name))
    }

    fn apply(&self, headers: &mut HeaderMap) {
        self.clear(headers);
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }

    fn clear(&self, fields: &mut HeaderMap) {
        for name in self.names() {
            remove_every_spelling(fields, name);
        }
    }
}

/// Changes of the fields that the upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeaders(pub HeaderChanges);

impl ApplyFilter for RequestHeaders {
    fn on_request<'a>(&'a self, passage: &mut Passage<'a>) -> ControlFlow<Ending> {
        let sent = passage.sent;
        let changed = passage
            .headers
            .get_or_insert_with(|| ChangedFields::of(sent.clone()));
        self.0.apply(&mut changed.fields);
        changed.decided.extend(self.0.names().cloned());
        ControlFlow::Continue(())
    }
}

/// Changes of the fields that the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHeaders(pub HeaderChanges);

impl ApplyFilter for ResponseHeaders {
    fn on_response(&self, headers: &mut HeaderMap, _: Option<SocketAddr>) {
        self.0.apply(headers);
    }

    fn on_response_apart(&self, fields: &mut HeaderMap) {
        self.0.clear(fields);
    }
}

/// Whether a field may be set or removed.
pub fn may_be_changed(name: &HeaderName) -> bool {
    const NEVER: &[&str] = &[
        "cdn-loop",
        "connection",
        "content-length",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-original-forwarded-for",
        "x-real-ip",
        "x-request-id",
        "x-scheme",
    ];
    const NEVER_BEGINS: &[&str] = &["proxy-", "sec-websocket-", "ssl-client-", "x-forwarded-"];
    let name = folded(name.as_str());
    !NEVER.contains(&&*name) && !NEVER_BEGINS.iter().any(|start| name.starts_with(start))
}

impl fmt::Display for HeaderChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = self.remove.iter().map(|name| format!("-{name}"));
        let set = self.set.iter().map(|(name, _)| format!("+{name}"));
        let all: Vec<String> = removed.chain(set).collect();
        f.write_str(&all.join(" "))
    }
}
