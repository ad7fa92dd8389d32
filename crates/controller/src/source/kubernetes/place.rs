//! One kind in one place (a namespace, or all): list, watch, and start over when that is needed.

use super::known::{Known, Listing, version};
use super::pacing::{Pacing, Trouble, random};
use super::revision::Highest;
use crate::trim::trim;
use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use translate::{Object, ObjectKey};

/// What a place has to say.
#[derive(Debug)]
pub(super) enum Found {
    /// All objects there are.
    Listed {
        /// Them.
        objects: Vec<Object>,
        /// What was there before and is not.
        gone: Vec<ObjectKey>,
        /// How many others are missing, but kept until the next list.
        doubtful: usize,
    },
    /// An object is new or different.
    Changed(Object),
    /// An object is gone.
    Gone(ObjectKey),
    /// An object cannot be decoded; it counts as absent.
    Undecodable(ObjectKey, String),
    /// The server did not answer as hoped; what is known stays.
    Failed(watcher::Error),
}

/// One kind in one place.
pub(super) struct Place<K> {
    /// Goes with everything it finds.
    pub(super) number: usize,
    pub(super) api: Api<DeserializeGuard<K>>,
    pub(super) config: watcher::Config,
    pub(super) wrap: fn(Arc<K>) -> Object,
    /// Changes when everything has to be listed again.
    pub(super) restart: watch::Receiver<()>,
    /// Is told of every version seen.
    pub(super) highest: Highest,
}

/// Why a stream of events was left.
enum Ended {
    /// To list again.
    Relist,
    /// Nobody listens any more.
    Unheard,
}

impl<K> Place<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    DeserializeGuard<K>: Resource<DynamicType = ()>,
{
    /// Watches for as long as somebody listens.
    pub(super) async fn watch(mut self, found: mpsc::Sender<(usize, Found)>) {
        let (mut known, mut pacing) = (Known::default(), Pacing::default());
        while let Ended::Relist = self.watch_once(&mut known, &mut pacing, &found).await {}
    }

    /// From a list to the next one that the watcher would not make by itself.
    async fn watch_once(
        &mut self,
        known: &mut Known,
        pacing: &mut Pacing,
        found: &mpsc::Sender<(usize, Found)>,
    ) -> Ended {
        let mut events = std::pin::pin!(watcher(self.api.clone(), self.config.clone()));
        let mut listing: Vec<Object> = Vec::new();
        let mut relist: Option<Instant> = None;
        loop {
            let at = relist.unwrap_or_else(Instant::now);
            let event = tokio::select! {
                () = found.closed() => return Ended::Unheard,
                Ok(()) = self.restart.changed() => {
                    relist = Some(Instant::now() + pacing.until_list(now()));
                    continue;
                }
                () = tokio::time::sleep_until(at), if relist.is_some() => return Ended::Relist,
                event = events.next() => event,
            };
            // The watcher never ends by itself.
            let Some(event) = event else {
                return Ended::Relist;
            };
            let told = match event {
                Ok(Event::Init) => {
                    pacing.listing(now());
                    listing.clear();
                    continue;
                }
                Ok(Event::InitApply(object)) => match self.decode(object) {
                    Ok(object) => {
                        listing.push(object);
                        continue;
                    }
                    Err(undecodable) => undecodable,
                },
                Ok(Event::InitDone) => {
                    pacing.well();
                    let objects = std::mem::take(&mut listing);
                    let names = objects
                        .iter()
                        .map(|object| (object.key(), self.version(object.meta())));
                    let (gone, doubtful) = match known.listed(names) {
                        Listing::Gone(gone) => (gone, 0),
                        Listing::Doubtful(count) => (vec![], count),
                    };
                    relist = (doubtful > 0).then(|| Instant::now() + pacing.until_list(now()));
                    Found::Listed {
                        objects,
                        gone,
                        doubtful,
                    }
                }
                Ok(Event::Apply(object)) => {
                    pacing.well();
                    let key = ObjectKey::of(object.meta());
                    if !known.applied(&key, self.version(object.meta())) {
                        continue;
                    }
                    match self.decode(object) {
                        Ok(object) => Found::Changed(object),
                        Err(undecodable) => undecodable,
                    }
                }
                Ok(Event::Delete(object)) => {
                    pacing.well();
                    let key = ObjectKey::of(object.meta());
                    if !known.deleted(&key, self.version(object.meta())) {
                        continue;
                    }
                    Found::Gone(key)
                }
                Err(error) => {
                    let (trouble, afresh) = trouble(&error);
                    let wait = pacing.wait(trouble, now(), random());
                    if found
                        .send((self.number, Found::Failed(error)))
                        .await
                        .is_err()
                    {
                        return Ended::Unheard;
                    }
                    tokio::select! {
                        () = found.closed() => return Ended::Unheard,
                        () = tokio::time::sleep(wait) => {}
                    }
                    if afresh {
                        return Ended::Relist;
                    }
                    continue;
                }
            };
            if found.send((self.number, told)).await.is_err() {
                return Ended::Unheard;
            }
        }
    }

    fn version(&self, metadata: &ObjectMeta) -> u64 {
        let version = version(metadata.resource_version.as_deref());
        self.highest.saw(version);
        version
    }

    fn decode(&self, object: DeserializeGuard<K>) -> Result<Object, Found> {
        match object.0 {
            Ok(object) => Ok(trim((self.wrap)(Arc::new(object)))),
            Err(invalid) => Err(Found::Undecodable(
                ObjectKey::of(&invalid.metadata),
                invalid.error,
            )),
        }
    }
}

/// What an error means, and whether the watcher has to be made anew, because it would go on from where it is.
fn trouble(error: &watcher::Error) -> (Trouble, bool) {
    match error {
        // It begins anew by itself.
        watcher::Error::InitialListFailed(error) => (failed(error), false),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => match error
        {
            // A line that is no event: what it said is lost. kube takes it for a status without anything in it.
            kube::Error::SerdeError(_) => (Trouble::Stale, true),
            kube::Error::Api(status) if status.code == 0 => (Trouble::Stale, true),
            error => {
                let trouble = failed(error);
                (trouble, trouble == Trouble::Stale)
            }
        },
        // It lists again by itself after this one.
        watcher::Error::WatchError(status) if status.code == 410 => (Trouble::Stale, false),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => {
            (Trouble::Refused(None), false)
        }
    }
}

fn failed(error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) => match status.code {
            410 => Trouble::Stale,
            502..=504 => Trouble::Away,
            _ => {
                let told = status
                    .details
                    .as_ref()
                    .map(|details| Duration::from_secs(details.retry_after_seconds.into()));
                Trouble::Refused(told)
            }
        },
        kube::Error::SerdeError(_) => Trouble::Refused(None),
        _ => Trouble::Away,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
