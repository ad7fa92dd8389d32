//! What is wrong with one object, said once: it becomes an Event, a metric and a line of `tidegate check`.

use crate::snapshot::ObjectRef;
use std::fmt;

/// One finding about one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The object to mend.
    pub object: ObjectRef,
    /// Where in it, for example `spec.rules[0].http.paths[1].path`; empty for the whole object.
    pub field: String,
    /// How bad it is.
    pub severity: Severity,
    /// One word for machines, used as the Event's reason: for example `BackendNotFound`.
    pub reason: &'static str,
    /// What is wrong and what was done about it, one sentence without a line break, at most 512 characters.
    pub message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something the object asks for is not served.
    Error,
    /// Everything is served, but perhaps not as meant.
    Warning,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.sentence())
    }
}

impl Diagnostic {
    /// What is wrong with what, for where the severity is told otherwise.
    pub fn sentence(&self) -> String {
        let (object, message, reason) = (&self.object, &self.message, self.reason);
        match self.field.as_str() {
            "" => format!("{object}: {message} [{reason}]"),
            field => format!("{object} {field}: {message} [{reason}]"),
        }
    }
}

/// Collects diagnostics during one translation.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Diagnostic>);

impl Findings {
    /// Notes a finding. The message is made fit for an Event: one line, no control characters, at most 512 characters.
    pub(crate) fn add(
        &mut self,
        object: &ObjectRef,
        field: &str,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let message = printable(&message, 512);
        self.0.push(Diagnostic {
            object: object.clone(),
            field: field.to_owned(),
            severity,
            reason,
            message,
        });
    }

    /// Something is not served.
    pub(crate) fn error(
        &mut self,
        object: &ObjectRef,
        field: &str,
        reason: &'static str,
        message: String,
    ) {
        self.add(object, field, Severity::Error, reason, message);
    }

    /// Something may not be as meant.
    pub(crate) fn warning(
        &mut self,
        object: &ObjectRef,
        field: &str,
        reason: &'static str,
        message: String,
    ) {
        self.add(object, field, Severity::Warning, reason, message);
    }

    /// All of them, sorted, each once.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// A text cut to so many characters, with control characters escaped.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count >= most {
            out.push_str("...");
            break;
        }
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}
