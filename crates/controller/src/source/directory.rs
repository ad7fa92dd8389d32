//! Manifests from a file or a directory: read at start and again whenever something changes there.
//!
//! A directory is watched as a whole, because ConfigMap and Secret mounts replace a `..data` link rather than files. A file
//! that cannot be read keeps the objects it last had. `load` reads.

mod load;
mod skipped;

pub use load::{Loaded, Origin, Origins, Problem, ReadError, load};
pub use skipped::{Skipped, kinds};

use crate::metrics::Metrics;
use crate::source::Change;
use load::Memory;
use notify::{RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use translate::Kind;

/// Quiet time after a change, so that a half-written file is not read.
const QUIET: Duration = Duration::from_millis(50);
/// Even without a notification the directory is read this often: some file systems send none.
const POLL: Duration = Duration::from_secs(10);

/// Sends the objects of a path now and after every change of it, which SIGHUP makes it look for at once, until `shutdown`.
/// `origins` gets where they stand before they are sent.
///
/// # Errors
/// When the path cannot be read at start, or is a file with nothing in it that could be served. Later it keeps what it had.
pub async fn watch(
    path: PathBuf,
    changes: mpsc::Sender<Change>,
    origins: watch::Sender<Origins>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), ReadError> {
    // Also so that it does not end the process, as it does where nobody listens for it.
    let mut hangup = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "cannot listen for SIGHUP"))
        .ok();
    let (mut memory, loaded) = load_aside(Memory::default(), &path).await;
    let mut said = Said::default();
    let first = loaded?.unwrap_or_default();
    if first.objects.is_empty() && !path.is_dir() {
        return Err(ReadError::nothing(&path, &first));
    }
    origins.send_replace(first.origins());
    said.say(&first);
    send(&first, &changes, &metrics).await;
    let (notify, mut notified) = mpsc::channel::<()>(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too, and it is us who read.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = notify.try_send(());
        }
    });
    let (watched, mode) = watched(&path);
    let _watcher = watcher
        .and_then(|mut watcher| watcher.watch(&watched, mode).map(|()| watcher))
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "no notifications; reading every {POLL:?} instead"));
    // What changed before there was a watch was not notified.
    let mut wait = QUIET;
    let mut failed: Option<String> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = changes.closed() => return Ok(()),
            Some(()) = notified.recv() => {
                tokio::time::sleep(QUIET).await;
                while notified.try_recv().is_ok() {}
            }
            Some(()) = next(&mut hangup) => tracing::info!("SIGHUP: what has changed of the manifests is read"),
            () = tokio::time::sleep(wait) => {}
        }
        wait = POLL;
        let loaded;
        (memory, loaded) = load_aside(memory, &path).await;
        let failure = match loaded {
            Ok(Some(loaded)) => {
                let objects = loaded.origins();
                tracing::info!(objects = objects.len(), "manifests read again");
                origins.send_replace(objects);
                said.say(&loaded);
                send(&loaded, &changes, &metrics).await;
                None
            }
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failure
            .as_ref()
            .filter(|error| failed.as_ref() != Some(*error))
        {
            tracing::error!(error, "manifests are kept as they were");
            metrics.manifest_problems.inc();
        }
        failed = failure;
    }
}

/// The next signal, if they are listened for.
async fn next(signals: &mut Option<Signal>) -> Option<()> {
    signals.as_mut()?.recv().await
}

/// Reads what has changed, on a thread where a slow disk stops nobody else.
async fn load_aside(
    mut memory: Memory,
    path: &Path,
) -> (Memory, Result<Option<Loaded>, ReadError>) {
    let path = path.to_owned();
    let name = path.clone();
    let read = tokio::task::spawn_blocking(move || {
        let loaded = memory.load_changed(&path);
        (memory, loaded)
    });
    // Only if reading panics; then nothing is remembered, and the next reading shows what is there.
    read.await.unwrap_or_else(|error| {
        (
            Memory::default(),
            Err(ReadError::Path {
                path: name,
                source: std::io::Error::other(error),
            }),
        )
    })
}

/// What has to be watched to see a path change. A file by way of its directory, so that a replaced one is still seen, and
/// no deeper: it may be the root directory.
fn watched(path: &Path) -> (PathBuf, RecursiveMode) {
    if path.is_dir() {
        return (path.to_owned(), RecursiveMode::Recursive);
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    (directory.to_owned(), RecursiveMode::NonRecursive)
}

/// What was logged, so that everything is logged once for as long as it stays.
#[derive(Default)]
struct Said {
    problems: BTreeSet<Problem>,
    skipped: BTreeSet<Skipped>,
}

impl Said {
    /// Logs what is new.
    fn say(&mut self, loaded: &Loaded) {
        for problem in &loaded.problems {
            if self.problems.contains(problem) {
                continue;
            }
            match loaded.kept.get(&problem.origin.file) {
                None | Some(0) => tracing::error!("{problem}"),
                Some(count) => tracing::error!(
                    "{problem}; no change of this file counts until it is mended: the {count} object(s) it last had are kept"
                ),
            }
        }
        for skipped in &loaded.skipped {
            if self.skipped.contains(skipped) {
                continue;
            }
            // Whoever wrote an object of an older version expects it to be served; other kinds are for others to read.
            match skipped.meant() {
                Some(_) => tracing::warn!("{}: {skipped}", skipped.origin),
                None => tracing::info!("{}: {skipped}", skipped.origin),
            }
        }
        self.problems = loaded.problems.iter().cloned().collect();
        self.skipped = loaded.skipped.iter().cloned().collect();
    }
}

/// Sends everything; what has not changed has no effect there.
async fn send(loaded: &Loaded, changes: &mpsc::Sender<Change>, metrics: &Metrics) {
    metrics.manifest_problems.set(loaded.problems.len() as i64);
    for kind in Kind::ALL {
        let objects = loaded
            .objects
            .iter()
            .map(|(object, _)| object)
            .filter(|object| object.kind() == kind)
            .cloned()
            .collect();
        if changes.send(Change::Replace(kind, objects)).await.is_err() {
            return;
        }
    }
}
