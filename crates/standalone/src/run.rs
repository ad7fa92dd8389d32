//! Keeps a table published: at start, whenever the configuration changes, and when the DNS answers.
//!
//! Directories are watched rather than files, because ConfigMap mounts swap a link and editors replace a file. A
//! configuration that cannot be used changes nothing but a log line and a metric.

use crate::build::{Defaults, Translation};
use crate::document::MAX_FILE;
use crate::file::{self, MAX_PEM};
use crate::metrics::Metrics;
use crate::source::{self, LoadError};
use discovery::Discovery;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use routing_table::{Unpublished, Update};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Quiet time after a change, so that a half-written file is not read.
const QUIET: Duration = Duration::from_millis(50);
/// Longest wait for quiet.
const MOST_NOISE: Duration = Duration::from_secs(2);
/// Even without a notification files are looked at this often: some file systems send none, and what a link in the middle
/// of a path leads to may change elsewhere.
const POLL: Duration = Duration::from_secs(5);
/// How long a table waits for the first answers of names that are new in it.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// What the loop is started with.
pub struct Options {
    /// The file, if there is one that can be read again.
    pub file: Option<PathBuf>,
    /// What it came to at start.
    pub first: Translation,
    /// What counts where it says nothing.
    pub defaults: Defaults,
    /// Who asks the DNS for endpoints.
    pub discovery: Discovery,
    /// Where to count.
    pub metrics: Metrics,
}

/// Runs until `shutdown`. Calls `publish` from this task only; an error it returns is logged and counted.
///
/// # Errors
/// When SIGHUP cannot be listened for.
pub async fn run<E: std::fmt::Display>(
    options: Options,
    mut publish: impl FnMut(Update) -> Result<(), E>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let Options {
        file,
        first,
        defaults,
        mut discovery,
        metrics,
    } = options;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut unpublished = Unpublished::default();
    let count = metrics.publish_errors.clone();
    // Whether it was published as a whole.
    let mut publish = |update: Update, unpublished: &mut Unpublished| {
        if matches!(update, Update::Endpoints(_)) {
            // They cannot fail, and say nothing of the table.
            return publish(update).is_ok();
        }
        let attempt = matches!(update, Update::Listeners);
        let result = publish(update).map_err(|error| error.to_string());
        let whole = result.is_ok();
        if !whole && !attempt {
            count.inc();
        }
        if let Some(error) = unpublished.note(result, Instant::now().into_std()) {
            tracing::error!(error, "table was not published as a whole; trying again");
        }
        whole
    };
    let (notify, mut notified) = mpsc::channel::<()>(1);
    let mut watch = file.as_deref().map(|file| Watch::new(file, notify));
    if let Some(watch) = &mut watch {
        watch.follow(&first);
    }
    let mut state = State {
        file,
        defaults,
        current: first,
        contents: None,
        failed: None,
    };
    let mut said = Vec::new();
    warn(&state.current, &mut said);
    let updated = table(&mut discovery, &state.current, &shutdown).await;
    let whole = publish(updated, &mut unpublished);
    metrics.stale.set(i64::from(!whole));
    // What changed before there was a watch was not notified.
    let mut wait = QUIET;
    loop {
        let forced = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            sets = discovery.changed() => {
                publish(Update::Endpoints(sets), &mut unpublished);
                continue;
            }
            () = until(unpublished.due()) => {
                if publish(Update::Listeners, &mut unpublished) && state.failed.is_none() {
                    metrics.stale.set(0);
                }
                continue;
            }
            Some(()) = hangup.recv() => true,
            Some(()) = notified.recv(), if watch.is_some() => {
                let noisy = Instant::now();
                while noisy.elapsed() < MOST_NOISE
                    && timeout(QUIET, notified.recv()).await.is_ok() {}
                false
            }
            () = tokio::time::sleep(wait), if watch.is_some() => false,
        };
        wait = POLL;
        if forced && state.file.is_none() {
            tracing::warn!("SIGHUP: there is no file to read again");
            continue;
        }
        let outcome;
        (state, outcome) = reload(state, forced).await;
        match outcome {
            Outcome::Same => {}
            Outcome::New => {
                if let Some(watch) = &mut watch {
                    watch.follow(&state.current);
                }
                warn(&state.current, &mut said);
                let updated = table(&mut discovery, &state.current, &shutdown).await;
                let whole = publish(updated, &mut unpublished);
                metrics.stale.set(i64::from(!whole));
                if !whole {
                    metrics.reloads.with_label_values(&["failure"]).inc();
                    continue;
                }
                metrics.reloads.with_label_values(&["success"]).inc();
                let table = &state.current.table;
                tracing::info!(
                    listeners = table.listeners().len(),
                    routes = table.routes().len(),
                    backends = table.clusters().as_slice().len(),
                    "configuration reloaded"
                );
            }
            Outcome::Failed(error) => {
                metrics.stale.set(1);
                metrics.reloads.with_label_values(&["failure"]).inc();
                tracing::error!(error, "configuration is kept as it was");
            }
        }
    }
}

/// Waits until then; for ever where there is nothing to wait for.
async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Says what was not said of the configuration before.
fn warn(translation: &Translation, said: &mut Vec<String>) {
    let new = translation.warnings.iter();
    for warning in new.filter(|warning| !said.contains(*warning)) {
        tracing::warn!("{warning}");
    }
    said.clone_from(&translation.warnings);
}

/// The update for a table, with what the DNS says for names that are new in it.
async fn table(
    discovery: &mut Discovery,
    translation: &Translation,
    shutdown: &CancellationToken,
) -> Update {
    let table = &translation.table;
    let mut endpoints = translation.endpoints.clone();
    endpoints.extend(discovery.apply(table));
    tokio::select! {
        sets = discovery.settled(FIRST_ANSWERS) => endpoints.extend(sets),
        () = shutdown.cancelled() => {}
    }
    Update::Table(Arc::clone(table), endpoints)
}

/// What is known of the file.
struct State {
    file: Option<PathBuf>,
    defaults: Defaults,
    current: Translation,
    /// Of everything that was read, as it was last looked at.
    contents: Option<u64>,
    /// What was said of it last, if it could not be used.
    failed: Option<String>,
}

enum Outcome {
    Same,
    New,
    Failed(String),
}

/// Reads what has changed, on a thread where a slow disk stops nobody else.
async fn reload(state: State, forced: bool) -> (State, Outcome) {
    let read = tokio::task::spawn_blocking(move || {
        let mut state = state;
        let outcome = state.read(forced);
        (state, outcome)
    });
    match read.await {
        Ok(both) => both,
        // Reading does not panic; if it did, there would be nothing left to keep.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl State {
    fn read(&mut self, forced: bool) -> Outcome {
        let Some(file) = &self.file else {
            return Outcome::Same;
        };
        let contents = contents(file, &self.current.files);
        let before = self.contents.replace(contents);
        // A file that was missing may be there now, and is not part of the contents.
        if before == Some(contents) && !forced && self.failed.is_none() {
            return Outcome::Same;
        }
        match source::load(file, &self.defaults) {
            Ok(translation) => {
                let recovered = self.failed.take().is_some();
                let same = translation == self.current;
                self.current = translation;
                match before {
                    // The first look after the start.
                    None if same && !forced && !recovered => Outcome::Same,
                    _ => Outcome::New,
                }
            }
            Err(LoadError::Config(problem) | LoadError::File(problem)) => {
                let text = problem.to_string();
                let known = self.failed.as_ref() == Some(&text) && before == Some(contents);
                self.failed = Some(text.clone());
                if known && !forced {
                    Outcome::Same
                } else {
                    Outcome::Failed(text)
                }
            }
        }
    }
}

/// What tells whether anything has changed.
fn contents(file: &Path, others: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    file::read(file, MAX_FILE).hash(&mut hasher);
    for other in others {
        file::read(other, MAX_PEM).hash(&mut hasher);
    }
    hasher.finish()
}

/// The directories of all files that are read.
struct Watch {
    file: PathBuf,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    fn new(file: &Path, notify: mpsc::Sender<()>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and it is us who read.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = notify.try_send(());
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "no notifications; reading every {POLL:?} instead");
        });
        Self {
            file: file.to_owned(),
            watcher: watcher.ok(),
            watched: BTreeSet::new(),
        }
    }

    /// Watches what a translation was made from, and nothing else.
    fn follow(&mut self, translation: &Translation) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let all = std::iter::once(&self.file).chain(&translation.files);
        let real = all.clone().filter_map(|file| file.canonicalize().ok());
        let files: Vec<PathBuf> = all.cloned().chain(real).collect();
        let wanted: BTreeSet<PathBuf> = files.iter().map(|file| directory(file)).collect();
        for gone in self.watched.difference(&wanted) {
            // It may be gone from the disk too.
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(path = %new.display(), %error, "no notifications; reading every {POLL:?} instead");
            }
        }
        self.watched = wanted;
    }
}

fn directory(file: &Path) -> PathBuf {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}
