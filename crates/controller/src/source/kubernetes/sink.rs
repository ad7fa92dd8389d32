//! Where the objects of one kind go: what its places found becomes changes, errors become log lines and numbers.

use super::place::Found;
use crate::metrics::Metrics;
use crate::source::Change;
use kube::runtime::watcher;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use translate::{Kind, Object, ObjectKey};

/// An error that lasts is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What is known before every place was listed once.
enum First {
    /// By place: its objects, when they were listed.
    Waiting(Vec<Option<BTreeMap<ObjectKey, Object>>>),
    /// Every place was; this many there are.
    Done(usize),
}

/// Whether an API server says that there is no such kind, or that we may not read it: a definition or a role that is older
/// than we are.
fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => {
            matches!(status.code, 403 | 404)
        }
        _ => false,
    }
}

/// Where the objects of one kind go, from all its places.
pub(super) struct Sink {
    kind: Kind,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
    first: First,
    logged: Option<Instant>,
}

impl Sink {
    /// A sink for so many places.
    pub(super) fn new(
        kind: Kind,
        places: usize,
        changes: mpsc::Sender<Change>,
        metrics: Metrics,
    ) -> Self {
        metrics.synced.with_label_values(&[kind.as_str()]).set(0);
        Self {
            kind,
            changes,
            metrics,
            first: First::Waiting(vec![None; places]),
            logged: None,
        }
    }

    /// Sends on what is found until there is nobody who could find or hear anything.
    pub(super) async fn run(mut self, mut received: mpsc::Receiver<(usize, Found)>) {
        while let Some((place, found)) = received.recv().await {
            for change in self.changes(place, found) {
                if self.changes.send(change).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What something found comes to.
    fn changes(&mut self, place: usize, found: Found) -> Vec<Change> {
        let label = [self.kind.as_str()];
        match found {
            Found::Listed {
                objects,
                gone,
                doubtful,
            } => {
                if doubtful > 0 {
                    self.metrics.doubtful_lists.with_label_values(&label).inc();
                    tracing::warn!(kind = %self.kind, doubtful, "most objects are missing from a list; they are kept until a second one agrees");
                }
                self.listed(place, objects, gone, doubtful > 0)
            }
            Found::Changed(object) => match &mut self.first {
                First::Waiting(places) => {
                    if let Some(known) = &mut places[place] {
                        known.insert(object.key(), object);
                    }
                    vec![]
                }
                First::Done(_) => vec![Change::Upsert(object)],
            },
            Found::Gone(key) => self.gone(place, key),
            Found::Undecodable(key, error) => {
                self.metrics.undecodable.with_label_values(&label).inc();
                tracing::warn!(kind = %self.kind, object = %key, error, "object cannot be decoded and was left out");
                self.gone(place, key)
            }
            // Until the kind is installed there are no objects of it; waiting for it would keep everything else from serving.
            Found::Failed(error) if self.kind == Kind::BackendPolicy && is_absent(&error) => {
                if self.logged.is_none() {
                    self.logged = Some(Instant::now());
                    tracing::warn!(kind = %self.kind, %error, "kind cannot be read: taken for empty until it can");
                }
                match &self.first {
                    First::Waiting(places) if places[place].is_none() => {
                        self.listed(place, vec![], vec![], false)
                    }
                    _ => vec![],
                }
            }
            Found::Failed(error) => {
                self.metrics.watch_errors.with_label_values(&label).inc();
                if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                    self.logged = Some(Instant::now());
                    tracing::warn!(kind = %self.kind, %error, "watch failed; what is known is kept");
                }
                vec![]
            }
        }
    }

    fn listed(
        &mut self,
        place: usize,
        objects: Vec<Object>,
        gone: Vec<ObjectKey>,
        doubtful: bool,
    ) -> Vec<Change> {
        match &mut self.first {
            First::Waiting(places) => {
                places[place] = Some(
                    objects
                        .into_iter()
                        .map(|object| (object.key(), object))
                        .collect(),
                );
                if places.iter().any(Option::is_none) {
                    return vec![];
                }
                let all = places
                    .iter_mut()
                    .filter_map(Option::take)
                    .flat_map(BTreeMap::into_values)
                    .collect();
                self.first = First::Done(places.len());
                self.metrics
                    .synced
                    .with_label_values(&[self.kind.as_str()])
                    .set(1);
                vec![Change::Replace(self.kind, all)]
            }
            First::Done(1) if !doubtful => vec![Change::Replace(self.kind, objects)],
            // The list says nothing about other places, or about what is doubtful. First what is new, then what is gone.
            First::Done(_) => {
                let changed = objects.into_iter().map(Change::Upsert);
                changed
                    .chain(gone.into_iter().map(|key| Change::Delete(self.kind, key)))
                    .collect()
            }
        }
    }

    fn gone(&mut self, place: usize, key: ObjectKey) -> Vec<Change> {
        match &mut self.first {
            First::Waiting(places) => {
                if let Some(known) = &mut places[place] {
                    known.remove(&key);
                }
                vec![]
            }
            First::Done(_) => vec![Change::Delete(self.kind, key)],
        }
    }
}
