//! Notices that the API server went back in time: its revision is lower than one it gave out before.
//!
//! An etcd that was restored from a backup does that. A watch from a revision that is still to come is simply silent, so what
//! was made after the backup would stay as a ghost.

use super::known::version;
use super::pacing::random;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The server is asked this often, at the least.
const EVERY: Duration = Duration::from_secs(30);

/// The highest version seen of anything. All kinds count with one counter.
#[derive(Debug, Clone, Default)]
pub(super) struct Highest(Arc<AtomicU64>);

impl Highest {
    /// Takes a version in.
    pub(super) fn saw(&self, version: u64) {
        self.0.fetch_max(version, Ordering::Relaxed);
    }

    /// Takes in the revision the server has now; says whether it went back.
    fn is_back(&self, revision: u64) -> bool {
        if revision == 0 || revision >= self.0.load(Ordering::Relaxed) {
            self.saw(revision);
            return false;
        }
        self.0.store(revision, Ordering::Relaxed);
        true
    }
}

/// Asks for the revision now and then, by a list of one object; `restart` is told when it went back.
pub(super) async fn watch(
    api: Api<DeserializeGuard<Service>>,
    highest: Highest,
    restart: watch::Sender<()>,
) {
    loop {
        // Replicas that started together should not ask together.
        tokio::time::sleep(EVERY.mul_f64(0.5 + random() / 2.0)).await;
        // Whoever watches reports what is wrong with the server.
        let Ok(list) = api.list(&ListParams::default().limit(1)).await else {
            continue;
        };
        if highest.is_back(version(list.metadata.resource_version.as_deref())) {
            tracing::warn!("the API server went back in time; everything is listed again");
            restart.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_revision_is_noticed_once() {
        let highest = Highest::default();
        assert!(!highest.is_back(100));
        highest.saw(120);
        assert!(!highest.is_back(120));
        assert!(highest.is_back(119));
        assert!(!highest.is_back(119));
        assert!(!highest.is_back(0), "no number says nothing");
    }
}
