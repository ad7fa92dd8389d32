//! Manifests from a file or a directory: read at start and again whenever something changes there.
//!
//! A directory is watched as a whole, because ConfigMap and Secret mounts replace a `..data` link rather than files. A file
//! that cannot be read keeps the objects it last had. Only regular files are opened, and only so much of them is read.

use crate::metrics::Metrics;
use crate::source::Change;
use notify::{RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use translate::manifest::{Item, Located, parse};
use translate::{Kind, Object, ObjectKey};

/// Largest file in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Quiet time after a change, so that a half-written file is not read.
const QUIET: Duration = Duration::from_millis(50);
/// Even without a notification the directory is read this often: some file systems send none.
const POLL: Duration = Duration::from_secs(10);

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line its document starts on, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A document or file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// Column from 1, or 0.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What a path holds.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Objects of the kinds we read, with their places. The first of two with one name is the one that counts.
    pub objects: Vec<(Object, Origin)>,
    /// What cannot be read.
    pub problems: Vec<Problem>,
    /// How many objects are of other kinds.
    pub skipped: usize,
}

impl Loaded {
    /// Where each object stands.
    pub fn origins(&self) -> BTreeMap<(Kind, ObjectKey), &Origin> {
        self.objects.iter().map(|(object, origin)| ((object.kind(), object.key()), origin)).collect()
    }
}

/// A path that cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}", path = .path.display())]
pub struct ReadError {
    path: PathBuf,
    source: std::io::Error,
}

/// Reads every manifest of a file or directory (`.yaml`, `.yml`, `.json`, subdirectories too, no dotfiles).
///
/// # Errors
/// When the path itself cannot be read. Anything wrong inside it is a [`Problem`].
pub fn load(path: &Path) -> Result<Loaded, ReadError> {
    Memory::default().load(path)
}

/// What each file held when it was last readable.
#[derive(Debug, Default)]
struct Memory(BTreeMap<PathBuf, Vec<(Object, usize)>>);

impl Memory {
    fn load(&mut self, path: &Path) -> Result<Loaded, ReadError> {
        let mut out = Loaded::default();
        let files = files(path, &mut out.problems).map_err(|source| ReadError { path: path.to_owned(), source })?;
        // What stands below a directory that cannot be read at the moment is not gone.
        let kept = |known: &PathBuf| files.contains(known) || out.problems.iter().any(|problem| known.starts_with(&problem.origin.file));
        self.0.retain(|known, _| kept(known));
        let all: BTreeSet<PathBuf> = files.iter().chain(self.0.keys()).cloned().collect();
        let mut seen: BTreeMap<(Kind, ObjectKey), Origin> = BTreeMap::new();
        for file in all {
            let found = if files.contains(&file) { self.load_file(&file, &mut out) } else { self.0.get(&file).cloned().unwrap_or_default() };
            for (object, line) in found {
                let origin = Origin { file: file.clone(), line };
                let name = (object.kind(), object.key());
                if let Some(first) = seen.get(&name) {
                    let message = format!("{} {} stands at {first} already, which counts", name.0, name.1);
                    out.problems.push(Problem { origin, column: 0, message });
                    continue;
                }
                seen.insert(name, origin.clone());
                out.objects.push((object, origin));
            }
        }
        Ok(out)
    }

    fn load_file(&mut self, file: &Path, out: &mut Loaded) -> Vec<(Object, usize)> {
        let mut problem = |line, column, message| {
            out.problems.push(Problem { origin: Origin { file: file.to_owned(), line }, column, message });
        };
        let mut objects = Vec::new();
        let mut broken = false;
        match read(file) {
            Err(error) => {
                broken = true;
                problem(0, 0, error.to_string());
            }
            Ok(text) => {
                for item in parse(&text) {
                    match item {
                        Ok(Located { value: Item::Object(object), line }) => objects.push((object, line)),
                        Ok(Located { value: Item::Skipped { .. }, .. }) => out.skipped += 1,
                        Err(error) => {
                            broken = true;
                            out.problems.push(Problem {
                                origin: Origin { file: file.to_owned(), line: error.line },
                                column: error.column,
                                message: error.message,
                            });
                        }
                    }
                }
            }
        }
        if broken && let Some(before) = self.0.get(file) {
            return before.clone();
        }
        self.0.insert(file.to_owned(), objects.clone());
        objects
    }
}

/// The manifest files of a path. A directory in it that cannot be read is a problem.
fn files(path: &Path, problems: &mut Vec<Problem>) -> std::io::Result<BTreeSet<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(BTreeSet::from([path.to_owned()]));
    }
    let mut out = BTreeSet::new();
    // Where we have been, by real path: links may lead in circles.
    let mut visited = BTreeSet::from([std::fs::canonicalize(path)?]);
    let mut entries: Vec<PathBuf> = entries_of(path)?;
    while let Some(path) = entries.pop() {
        if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        // Follows links, as the files of a mounted ConfigMap are links; a dangling one is skipped.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            let read = std::fs::canonicalize(&path).and_then(|real| if visited.insert(real) { entries_of(&path) } else { Ok(vec![]) });
            match read {
                Ok(more) => entries.extend(more),
                Err(error) => problems.push(Problem { origin: Origin { file: path, line: 0 }, column: 0, message: error.to_string() }),
            }
        } else if metadata.is_file() && path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            out.insert(path);
        }
    }
    Ok(out)
}

fn entries_of(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

fn read(file: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(file)?.is_file() {
        // Opening a FIFO would block.
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    // It may grow while it is read.
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Sends the objects of a path now and after every change of it, until `shutdown`.
///
/// # Errors
/// When the path cannot be read at start. Later it keeps what it had.
pub async fn watch(path: PathBuf, changes: mpsc::Sender<Change>, metrics: Metrics, shutdown: CancellationToken) -> Result<(), ReadError> {
    let (mut memory, loaded) = load_aside(Memory::default(), &path).await;
    let mut said = Vec::new();
    send(&loaded?, &mut said, &changes, &metrics).await;
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
    let mut failed = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = changes.closed() => return Ok(()),
            Some(()) = notified.recv() => {
                tokio::time::sleep(QUIET).await;
                while notified.try_recv().is_ok() {}
            }
            () = tokio::time::sleep(wait) => {}
        }
        wait = POLL;
        let loaded;
        (memory, loaded) = load_aside(memory, &path).await;
        let failure = match loaded {
            Ok(loaded) => {
                send(&loaded, &mut said, &changes, &metrics).await;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failure.as_ref().filter(|error| failed.as_ref() != Some(error)) {
            tracing::error!(error, "manifests are kept as they were");
            metrics.manifest_problems.inc();
        }
        failed = failure;
    }
}

/// Reads on a thread where a slow disk stops nobody else.
async fn load_aside(mut memory: Memory, path: &Path) -> (Memory, Result<Loaded, ReadError>) {
    let path = path.to_owned();
    let name = path.clone();
    let read = tokio::task::spawn_blocking(move || {
        let loaded = memory.load(&path);
        (memory, loaded)
    });
    // Only if reading panics; then nothing is remembered, and the next reading shows what is there.
    read.await.unwrap_or_else(|error| (Memory::default(), Err(ReadError { path: name, source: std::io::Error::other(error) })))
}

/// What has to be watched to see a path change. A file by way of its directory, so that a replaced one is still seen, and
/// no deeper: it may be the root directory.
fn watched(path: &Path) -> (PathBuf, RecursiveMode) {
    if path.is_dir() {
        return (path.to_owned(), RecursiveMode::Recursive);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (directory.to_owned(), RecursiveMode::NonRecursive)
}

/// Sends everything; what has not changed has no effect there. Problems are logged when they are new.
async fn send(loaded: &Loaded, said: &mut Vec<Problem>, changes: &mpsc::Sender<Change>, metrics: &Metrics) {
    for problem in loaded.problems.iter().filter(|problem| !said.contains(problem)) {
        tracing::error!("{problem}");
    }
    said.clone_from(&loaded.problems);
    metrics.manifest_problems.set(loaded.problems.len() as i64);
    for kind in Kind::ALL {
        let objects = loaded.objects.iter().map(|(object, _)| object).filter(|object| object.kind() == kind).cloned().collect();
        if changes.send(Change::Replace(kind, objects)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn service(name: &str) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
    }

    fn names(loaded: &Loaded) -> Vec<String> {
        loaded.objects.iter().map(|(object, _)| object.key().name).collect()
    }

    #[test]
    fn a_broken_file_keeps_what_it_had_and_names_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, service("a")).unwrap();
        std::fs::write(dir.path().join("b.json"), r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"}}"#).unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), service("hidden")).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not a manifest").unwrap();
        let mut memory = Memory::default();
        assert_eq!(names(&memory.load(dir.path()).unwrap()), ["a", "b"]);
        std::fs::write(&file, format!("{}---\nkind: [\n", service("changed"))).unwrap();
        let loaded = memory.load(dir.path()).unwrap();
        assert_eq!(names(&loaded), ["a", "b"]);
        assert!(loaded.problems[0].to_string().starts_with(&format!("{}:", file.display())), "{}", loaded.problems[0]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(names(&memory.load(dir.path()).unwrap()), ["b"]);
    }

    #[test]
    fn the_first_of_two_counts() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.yaml", "b.yaml"] {
            std::fs::write(dir.path().join(file), service("same")).unwrap();
        }
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.objects.len(), 1);
        assert!(loaded.problems[0].to_string().contains("a.yaml:1 already"), "{}", loaded.problems[0]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = load(Path::new("/nonexistent/manifests")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read /nonexistent/manifests: No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), service("a")).unwrap();
        let (changes, mut received) = mpsc::channel(64);
        let (metrics, shutdown) = (Metrics::new(&prometheus::Registry::new()).unwrap(), CancellationToken::new());
        let task = tokio::spawn(watch(dir.path().to_owned(), changes, metrics, shutdown.clone()));
        let mut services = async |wanted: &[&str]| {
            let seen = async {
                loop {
                    if let Some(Change::Replace(Kind::Service, objects)) = received.recv().await
                        && objects.iter().map(|object| object.key().name).collect::<Vec<_>>() == wanted
                    {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
        };
        services(&["a"]).await;
        // As a ConfigMap mount does it: a new directory, then a link swapped over the old one.
        std::fs::write(dir.path().join(".new.tmp"), service("b")).unwrap();
        std::fs::rename(dir.path().join(".new.tmp"), dir.path().join("b.yaml")).unwrap();
        services(&["a", "b"]).await;
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }
}
