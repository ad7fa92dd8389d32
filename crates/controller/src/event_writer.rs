//! Says on each object what is wrong with it: diagnostics become Kubernetes Events. Only the leader writes, and not too much.

use crate::metrics::Metrics;
use crate::run::Report;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translate::Diagnostic;

/// The same thing is said again on one object after this long at the earliest.
const AGAIN: Duration = Duration::from_secs(60);
/// Most Events at once, and how many more each second.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 10.0;
/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Decides which diagnostics are said. Pure: the clock is passed in.
#[derive(Debug)]
struct Limiter {
    /// What was wrong in the last report.
    known: BTreeSet<Diagnostic>,
    /// When something was last said of an object, by its uid and reason.
    said: BTreeMap<(String, &'static str), Instant>,
    tokens: f64,
    filled: Instant,
}

impl Limiter {
    fn new(now: Instant) -> Self {
        Self { known: BTreeSet::new(), said: BTreeMap::new(), tokens: BURST, filled: now }
    }

    /// The diagnostics to say now. The others stay unknown, so that the next call comes back to them; `bool` tells whether
    /// there are any.
    fn admit(&mut self, diagnostics: &[Diagnostic], now: Instant) -> (Vec<Diagnostic>, bool) {
        self.tokens = (self.tokens + now.duration_since(self.filled).as_secs_f64() * PER_SECOND).min(BURST);
        self.filled = now;
        self.said.retain(|_, at| now.duration_since(*at) < AGAIN);
        let current: BTreeSet<Diagnostic> = diagnostics.iter().cloned().collect();
        self.known.retain(|known| current.contains(known));
        let (mut admitted, mut held) = (Vec::new(), false);
        for diagnostic in current {
            // Without a uid an Event would hang on nothing (objects from files).
            if diagnostic.object.uid.is_empty() || self.known.contains(&diagnostic) {
                continue;
            }
            let key = (diagnostic.object.uid.clone(), diagnostic.reason);
            if self.said.get(&key).is_some_and(|at| *at != now) || self.tokens < 1.0 {
                held = true;
                continue;
            }
            self.tokens -= 1.0;
            self.said.insert(key, now);
            self.known.insert(diagnostic.clone());
            admitted.push(diagnostic);
        }
        (admitted, held)
    }
}

/// Writes Events until `shutdown`.
pub async fn run(
    client: Client,
    instance: String,
    mut report: watch::Receiver<Option<Report>>,
    mut leader: watch::Receiver<bool>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let reporter = Reporter { controller: "tidegate.dev/ingress-controller".into(), instance: Some(instance) };
    let recorder = Recorder::new(client, reporter);
    let mut limiter = Limiter::new(Instant::now());
    loop {
        let mut held = false;
        if *leader.borrow_and_update() {
            let diagnostics = report.borrow_and_update().as_ref().map(|report| report.diagnostics.clone()).unwrap_or_default();
            let (admitted, more) = limiter.admit(&diagnostics, Instant::now());
            held = more;
            for diagnostic in admitted {
                write(&recorder, &diagnostic, &metrics).await;
            }
        }
        let wait = if held { Duration::from_secs(5) } else { Duration::from_secs(3600) };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = report.changed() => if changed.is_err() { return },
            changed = leader.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn write(recorder: &Recorder, diagnostic: &Diagnostic, metrics: &Metrics) {
    let object = &diagnostic.object;
    let place = if diagnostic.field.is_empty() { String::new() } else { format!("{}: ", diagnostic.field) };
    let event = Event {
        type_: EventType::Warning,
        reason: diagnostic.reason.to_owned(),
        note: Some(format!("{place}{}", diagnostic.message)),
        action: "Translate".into(),
        secondary: None,
    };
    let about = ObjectReference {
        api_version: Some(object.kind.api_version().to_owned()),
        kind: Some(object.kind.as_str().to_owned()),
        namespace: Some(object.key.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(object.key.name.clone()),
        uid: Some(object.uid.clone()),
        ..ObjectReference::default()
    };
    let result = tokio::time::timeout(WRITE_TIMEOUT, recorder.publish(&event, &about)).await;
    let label = match &result {
        Ok(Ok(())) => "ok",
        Ok(Err(error)) => {
            tracing::warn!(%object, %error, "Event was not written");
            "error"
        }
        Err(_) => "timeout",
    };
    metrics.events.with_label_values(&[label]).inc();
}

#[cfg(test)]
mod tests {
    use super::*;
    use translate::{Kind, ObjectKey, ObjectRef, Severity};

    fn diagnostic(uid: &str, message: &str) -> Diagnostic {
        let object = ObjectRef { kind: Kind::Ingress, key: ObjectKey::new("shop", uid), uid: uid.into() };
        Diagnostic { object, field: String::new(), severity: Severity::Error, reason: "BackendNotFound", message: message.into() }
    }

    #[test]
    fn a_thing_is_said_once_and_again_only_after_it_was_mended() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let wrong = [diagnostic("a", "x")];
        assert_eq!(limiter.admit(&wrong, start), (wrong.to_vec(), false));
        assert_eq!(limiter.admit(&wrong, start + AGAIN * 2), (vec![], false));
        assert_eq!(limiter.admit(&[], start + AGAIN * 2), (vec![], false));
        assert_eq!(limiter.admit(&wrong, start + AGAIN * 3), (wrong.to_vec(), false));
    }

    #[test]
    fn a_flapping_object_is_spoken_of_once_a_minute() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let mut said = 0;
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            said += limiter.admit(&[diagnostic("a", &second.to_string())], now).0.len();
        }
        assert_eq!(said, 2);
    }

    #[test]
    fn a_flood_is_spread_out_and_nothing_is_lost() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let wrong: Vec<_> = (0..100).map(|n| diagnostic(&format!("{n:03}"), "x")).collect();
        let (first, held) = limiter.admit(&wrong, start);
        assert_eq!((first.len(), held), (50, true));
        let (second, held) = limiter.admit(&wrong, start + Duration::from_secs(5));
        assert_eq!((second.len(), held), (50, false));
    }
}
