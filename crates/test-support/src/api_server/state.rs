//! What the fake API server stores, and the log that its watches read.

use super::{Fault, Seen, Verb};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Something every watch is told.
#[derive(Debug, Clone)]
pub(super) enum Signal {
    /// There may be news in the log.
    Changed,
    /// End with 410.
    Expire(&'static str),
    /// End.
    Drop(&'static str),
    /// Say this.
    Line(&'static str, String),
    /// Say the revision.
    Bookmark,
}

/// Namespace and name.
pub(super) type Key = (String, String);

/// What survives a restart.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    pub(super) revision: u64,
    /// Objects by resource, as in `networking.k8s.io/v1/ingresses`.
    objects: BTreeMap<String, BTreeMap<Key, Value>>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) resource: String,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) kind: &'static str,
    pub(super) object: Value,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) stored: Stored,
    pub(super) log: Vec<Entry>,
    /// Watches from before this revision are told 410.
    pub(super) compacted: u64,
    pub(super) seen: Vec<Seen>,
    pub(super) faults: Vec<Fault>,
    pub(super) hidden: Vec<(&'static str, usize)>,
    /// Objects ever made, for their uids and creation times.
    made: u64,
}

/// A write that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u16, pub(super) &'static str);

impl State {
    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.stored
            .objects
            .get(resource)?
            .get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn list(&self, resource: &str) -> impl Iterator<Item = (&Key, &Value)> {
        self.stored.objects.get(resource).into_iter().flatten()
    }

    pub(super) fn put(&mut self, object: Value) -> Value {
        let resource = resource_of(&object);
        let key = key_of(&object);
        match self.get(&resource, &key.0, &key.1).cloned() {
            None => self.insert(&resource, object),
            Some(known) => self.replace(&resource, known, object),
        }
    }

    pub(super) fn create(&mut self, resource: &str, object: Value) -> Result<Value, Refused> {
        let key = key_of(&object);
        match self.get(resource, &key.0, &key.1) {
            Some(_) => Err(Refused(409, "AlreadyExists")),
            None => Ok(self.insert(resource, object)),
        }
    }

    /// Writes the status of an object, or everything but its status.
    pub(super) fn update(
        &mut self,
        resource: &str,
        status: bool,
        key: &Key,
        object: Value,
    ) -> Result<Value, Refused> {
        let known = self
            .get(resource, &key.0, &key.1)
            .cloned()
            .ok_or(Refused(404, "NotFound"))?;
        let wanted = &object["metadata"]["resourceVersion"];
        if wanted.is_null() && resource == super::LEASES {
            return Err(Refused(422, "Invalid"));
        }
        if !wanted.is_null() && *wanted != known["metadata"]["resourceVersion"] {
            return Err(Refused(409, "Conflict"));
        }
        Ok(self.replace(resource, known.clone(), part(known, object, status)))
    }

    pub(super) fn patch(
        &mut self,
        resource: &str,
        status: bool,
        key: &Key,
        patch: &Value,
    ) -> Result<Value, Refused> {
        let known = self
            .get(resource, &key.0, &key.1)
            .cloned()
            .ok_or(Refused(404, "NotFound"))?;
        let mut object = known.clone();
        merge(&mut object, patch);
        self.update(resource, status, key, object)
    }

    pub(super) fn delete(&mut self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let mut object = self
            .stored
            .objects
            .get_mut(resource)?
            .remove(&(namespace.to_owned(), name.to_owned()))?;
        self.stored.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.stored.revision.to_string());
        self.note(resource, "DELETED", &object);
        Some(object)
    }

    pub(super) fn compact(&mut self) {
        // One more, so that even who has seen everything resumes from before it.
        self.stored.revision += 1;
        self.compacted = self.stored.revision;
    }

    pub(super) fn restore(&mut self, stored: Stored) {
        self.stored = stored;
        self.log.clear();
        self.compacted = 0;
    }

    /// The status a request is to fail with, if it is.
    pub(super) fn fault(&mut self, verb: Verb, resource: &str) -> Option<u16> {
        let fault = self
            .faults
            .iter_mut()
            .find(|fault| fault.verb == verb && fault.resource == resource && fault.times > 0)?;
        fault.times -= 1;
        Some(fault.status)
    }

    /// Whether a list is to look empty.
    pub(super) fn hides(&mut self, resource: &str) -> bool {
        let hidden = self
            .hidden
            .iter_mut()
            .find(|(hidden, times)| *hidden == resource && *times > 0);
        hidden.map(|(_, times)| *times -= 1).is_some()
    }

    fn insert(&mut self, resource: &str, mut object: Value) -> Value {
        self.made += 1;
        let made = self.made;
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{made}"));
        if metadata["creationTimestamp"].is_null() {
            let (hour, minute, second) = (made / 3600 % 24, made / 60 % 60, made % 60);
            metadata["creationTimestamp"] =
                json!(format!("2026-01-01T{hour:02}:{minute:02}:{second:02}Z"));
        }
        self.store(resource, "ADDED", object)
    }

    /// Stores an object over the one that is known; without a difference it stays as it is.
    fn replace(&mut self, resource: &str, known: Value, mut object: Value) -> Value {
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            object["metadata"][field] = known["metadata"][field].clone();
        }
        if object == known {
            return known;
        }
        self.store(resource, "MODIFIED", object)
    }

    fn store(&mut self, resource: &str, kind: &'static str, mut object: Value) -> Value {
        self.stored.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.stored.revision.to_string());
        self.stored
            .objects
            .entry(resource.to_owned())
            .or_default()
            .insert(key_of(&object), object.clone());
        self.note(resource, kind, &object);
        object
    }

    fn note(&mut self, resource: &str, kind: &'static str, object: &Value) {
        let resource = resource.to_owned();
        self.log.push(Entry {
            revision: self.stored.revision,
            resource,
            kind,
            object: object.clone(),
        });
    }
}

/// What a write to the object or to its status makes of the object.
fn part(known: Value, written: Value, status: bool) -> Value {
    let (mut base, from) = if status {
        (known, written)
    } else {
        (written, known)
    };
    match &from["status"] {
        Value::Null => drop(
            base.as_object_mut()
                .and_then(|object| object.remove("status")),
        ),
        status => base["status"] = status.clone(),
    }
    base
}

/// JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        unreachable!("made an object just above")
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

pub(super) fn key_of(object: &Value) -> Key {
    let text = |name: &str| {
        object["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("namespace"), text("name"))
}

/// `networking.k8s.io/v1/ingresses` of an object that says `networking.k8s.io/v1` and `Ingress`.
fn resource_of(object: &Value) -> String {
    let kind = object["kind"]
        .as_str()
        .expect("an object has a kind")
        .to_lowercase();
    let plural = if kind.ends_with('s') { "es" } else { "s" };
    format!(
        "{}/{kind}{plural}",
        object["apiVersion"]
            .as_str()
            .expect("an object has an apiVersion")
    )
}
