//! Says on each object what is wrong with it: diagnostics become Kubernetes Events. Only the leader writes, and not too much.

use crate::lease::Leading;
use crate::metrics::Metrics;
use crate::run::Report;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translate::Diagnostic;

/// The same thing is said again on one object after this long at the earliest.
const AGAIN: Duration = Duration::from_secs(60);
/// So many different messages with one reason are said on one object at a time.
const AT_ONCE: usize = 5;
/// Most Events at once, and how many more each second.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 10.0;
/// What may not be said yet is looked at again after this time.
const HELD: Duration = Duration::from_secs(5);
/// Otherwise everything is looked at this often.
const RECHECK: Duration = Duration::from_secs(3600);
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A failure that lasts is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Who says it, as `reportingController`.
const CONTROLLER: &str = "tidegate.dev/ingress-controller";
/// Longest note, in bytes. Event.note: "Maximal length of the note is 1kB".
const MAX_NOTE: usize = 1024;
/// Longest part of an object's name in an Event's name, which may have 253 bytes.
const MAX_NAME: usize = 230;
/// Events whose number is remembered.
const REMEMBERED: usize = 10_000;

/// Decides which diagnostics are said. Pure: the clock is passed in.
#[derive(Debug)]
struct Limiter {
    /// What was wrong in the last report.
    known: BTreeSet<Diagnostic>,
    /// When something was last said of an object, by its uid and reason, and how much.
    said: BTreeMap<(String, &'static str), (Instant, usize)>,
    tokens: f64,
    filled: Instant,
}

impl Limiter {
    fn new(now: Instant) -> Self {
        Self {
            known: BTreeSet::new(),
            said: BTreeMap::new(),
            tokens: BURST,
            filled: now,
        }
    }

    /// The diagnostics to say now. The others stay unknown, so that the next call comes back to them; `bool` tells whether
    /// there are any.
    fn admit(&mut self, diagnostics: &[Diagnostic], now: Instant) -> (Vec<Diagnostic>, bool) {
        self.tokens =
            (self.tokens + now.duration_since(self.filled).as_secs_f64() * PER_SECOND).min(BURST);
        self.filled = now;
        self.said
            .retain(|_, (at, _)| now.duration_since(*at) < AGAIN);
        let current: BTreeSet<Diagnostic> = diagnostics.iter().cloned().collect();
        self.known.retain(|known| current.contains(known));
        let (mut admitted, mut held) = (Vec::new(), false);
        for diagnostic in current {
            // Without a uid an Event would hang on nothing (objects from files).
            if diagnostic.object.uid.is_empty() || self.known.contains(&diagnostic) {
                continue;
            }
            let key = (diagnostic.object.uid.clone(), diagnostic.reason);
            let (at, count) = self.said.get(&key).copied().unwrap_or((now, 0));
            if at != now || count >= AT_ONCE || self.tokens < 1.0 {
                held = true;
                continue;
            }
            self.tokens -= 1.0;
            self.said.insert(key, (now, count + 1));
            self.known.insert(diagnostic.clone());
            admitted.push(diagnostic);
        }
        (admitted, held)
    }

    /// It could not be said: it is tried again, but not at once.
    fn take_back(&mut self, diagnostic: &Diagnostic) {
        self.known.remove(diagnostic);
    }
}

/// Writes Events until `shutdown`. `instance` is the name of this replica.
pub async fn run(
    client: Client,
    instance: String,
    mut report: watch::Receiver<Option<Report>>,
    leader: watch::Receiver<bool>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let mut leading = Leading::new(leader);
    let mut writer = Writer {
        client,
        instance,
        metrics,
        said: BTreeMap::new(),
        logged: None,
    };
    let mut limiter = Limiter::new(now());
    let mut due = now();
    loop {
        if leading.may_write().await && due <= now() {
            let current = report.borrow_and_update().clone().unwrap_or_default();
            let (admitted, held) = limiter.admit(&current.diagnostics, now());
            due = now() + if held { HELD } else { RECHECK };
            for diagnostic in admitted {
                let written = !shutdown.is_cancelled()
                    && leading.may_write().await
                    && writer.write(&diagnostic).await;
                if !written {
                    limiter.take_back(&diagnostic);
                    due = due.min(now() + HELD);
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = report.changed() => {
                if changed.is_err() {
                    return;
                }
                due = now();
            }
            changed = leading.changed() => {
                if !changed {
                    return;
                }
                due = now();
            }
            () = tokio::time::sleep(Leading::PULSE) => leading.alive().await,
        }
    }
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

struct Writer {
    client: Client,
    instance: String,
    metrics: Metrics,
    /// How often each Event was written, by its name.
    said: BTreeMap<String, i32>,
    /// When a failure was last logged.
    logged: Option<Instant>,
}

impl Writer {
    /// Says whether it was written.
    async fn write(&mut self, diagnostic: &Diagnostic) -> bool {
        let event = event(diagnostic, &self.instance, MicroTime(Timestamp::now()));
        let name = event.metadata.name.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(
            self.client.clone(),
            event.metadata.namespace.as_deref().unwrap_or_default(),
        );
        if self.said.len() >= REMEMBERED {
            self.said.clear();
        }
        let times = self.said.entry(name.clone()).or_default();
        *times += 1;
        let write = async {
            match api.create(&PostParams::default(), &event).await {
                // It was said before, by us or by the last leader.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    *times = (*times).max(2);
                    let series =
                        json!({"series": {"count": *times, "lastObservedTime": event.event_time}});
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(series))
                        .await
                }
                result => result,
            }
        };
        let (label, error) = match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(_)) => ("ok", None),
            Ok(Err(error)) => ("error", Some(error.to_string())),
            Err(_) => ("timeout", Some("no answer".to_owned())),
        };
        self.metrics.events.with_label_values(&[label]).inc();
        let Some(error) = error else { return true };
        if self
            .logged
            .is_none_or(|at| now().duration_since(at) >= LOG_EVERY)
        {
            self.logged = Some(now());
            tracing::warn!(object = %diagnostic.object, error, "Event was not written");
        }
        false
    }
}

/// The Event for a diagnostic. Its name is made of what it says, so that every replica gives it the same one.
fn event(diagnostic: &Diagnostic, instance: &str, now: MicroTime) -> Event {
    let object = &diagnostic.object;
    let place = if diagnostic.field.is_empty() {
        String::new()
    } else {
        format!("{}: ", diagnostic.field)
    };
    let note = first_bytes(&format!("{place}{}", diagnostic.message), MAX_NOTE).to_owned();
    let mut hasher = DefaultHasher::new();
    (&object.uid, diagnostic.reason, &note).hash(&mut hasher);
    let namespace = Some(object.key.namespace.clone()).filter(|namespace| !namespace.is_empty());
    let metadata = ObjectMeta {
        name: Some(format!(
            "{}.{:016x}",
            first_bytes(&object.key.name, MAX_NAME),
            hasher.finish()
        )),
        // Where Events about objects without a namespace go.
        namespace: namespace.clone().or_else(|| Some("default".to_owned())),
        ..ObjectMeta::default()
    };
    Event {
        metadata,
        action: Some("Translate".into()),
        event_time: Some(now),
        note: Some(note),
        reason: Some(diagnostic.reason.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(object.kind.api_version().to_owned()),
            kind: Some(object.kind.as_str().to_owned()),
            namespace,
            name: Some(object.key.name.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(first_bytes(instance, 128).to_owned()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// The text, cut to so many bytes.
fn first_bytes(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use translate::{Kind, ObjectKey, ObjectRef, Severity};

    fn diagnostic(uid: &str, message: &str) -> Diagnostic {
        let object = ObjectRef {
            kind: Kind::Ingress,
            key: ObjectKey::new("shop", uid),
            uid: uid.into(),
        };
        Diagnostic {
            object,
            field: String::new(),
            severity: Severity::Error,
            reason: "BackendNotFound",
            message: message.into(),
        }
    }

    #[test]
    fn a_thing_is_said_once_and_again_only_after_it_was_mended() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let wrong = [diagnostic("a", "x")];
        assert_eq!(limiter.admit(&wrong, start), (wrong.to_vec(), false));
        assert_eq!(limiter.admit(&wrong, start + AGAIN * 2), (vec![], false));
        assert_eq!(limiter.admit(&[], start + AGAIN * 2), (vec![], false));
        assert_eq!(
            limiter.admit(&wrong, start + AGAIN * 3),
            (wrong.to_vec(), false)
        );
    }

    #[test]
    fn a_flapping_object_is_spoken_of_once_a_minute() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let mut said = 0;
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            said += limiter
                .admit(&[diagnostic("a", &second.to_string())], now)
                .0
                .len();
        }
        assert_eq!(said, 2);
    }

    #[test]
    fn an_event_has_the_same_name_everywhere_and_fits() {
        let now = MicroTime(Timestamp::UNIX_EPOCH);
        let one = event(
            &diagnostic("a", &"\u{e4}".repeat(600)),
            "replica-1",
            now.clone(),
        );
        let two = event(
            &diagnostic("a", &"\u{e4}".repeat(600)),
            "replica-2",
            now.clone(),
        );
        let other = event(&diagnostic("a", "y"), "replica-1", now);
        assert_eq!(one.metadata.name, two.metadata.name);
        assert_ne!(one.metadata.name, other.metadata.name);
        assert_eq!(one.note.map(|note| note.len()), Some(1024));
    }

    #[test]
    fn what_could_not_be_said_is_said_a_minute_later() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let wrong = [diagnostic("a", "x")];
        assert_eq!(limiter.admit(&wrong, start).0.len(), 1);
        limiter.take_back(&wrong[0]);
        assert_eq!(limiter.admit(&wrong, start + AGAIN / 2), (vec![], true));
        assert_eq!(
            limiter.admit(&wrong, start + AGAIN),
            (wrong.to_vec(), false)
        );
    }

    #[test]
    fn a_flood_is_spread_out_and_nothing_is_lost() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let wrong: Vec<_> = (0..100)
            .map(|n| diagnostic(&format!("{n:03}"), "x"))
            .collect();
        let (first, held) = limiter.admit(&wrong, start);
        assert_eq!((first.len(), held), (50, true));
        let (second, held) = limiter.admit(&wrong, start + Duration::from_secs(5));
        assert_eq!((second.len(), held), (50, false));
    }
}
