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
        write!(f, "{severity}: {}", self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {} [{}]", self.message, self.reason)
    }
}
