//! Manifests from a file or a directory: read at start and again whenever something changes there.
//!
//! A directory is watched as a whole, because ConfigMap and Secret mounts replace a `..data` link rather than files. A file
//! that cannot be read keeps the objects it last had.

use crate::metrics::Metrics;
use crate::source::Change;
use notify::{RecursiveMode, Watcher};
use std::collections::BTreeMap;
use std::fmt;
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
        let files = files(path).map_err(|source| ReadError { path: path.to_owned(), source })?;
        self.0.retain(|known, _| files.contains(known));
        let mut out = Loaded::default();
        let mut seen: BTreeMap<(Kind, ObjectKey), Origin> = BTreeMap::new();
        for file in files {
            let found = self.load_file(&file, &mut out);
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

/// The manifest files of a path, sorted by name.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut directories = vec![(path.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            // Follows links, as the files of a mounted ConfigMap are links; a dangling one is skipped.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
            if metadata.is_dir() && depth < 8 {
                directories.push((path, depth + 1));
            } else if metadata.is_file() && manifest {
                out.push(path);
            }
        }
    }
    out.sort();
    Ok(out)
}

fn read(file: &Path) -> std::io::Result<String> {
    let metadata = std::fs::metadata(file)?;
    if !metadata.is_file() {
        // Opening a FIFO would block.
        return Err(std::io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(std::io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    std::fs::read_to_string(file)
}

/// What tells whether a file has changed: its name, size and time of change.
type Signature = Vec<(PathBuf, u64, Option<std::time::SystemTime>)>;

/// The signature of every file of a path; `None` when it cannot be read.
fn signature(path: &Path) -> Option<Signature> {
    let of = |file: PathBuf| {
        let metadata = std::fs::metadata(&file).ok();
        let size = metadata.as_ref().map_or(0, std::fs::Metadata::len);
        (file, size, metadata.and_then(|metadata| metadata.modified().ok()))
    };
    Some(files(path).ok()?.into_iter().map(of).collect())
}

/// Sends the objects of a path now and after every change of it, until `shutdown`.
///
/// # Errors
/// When the path cannot be read at start. Later it keeps what it had.
pub async fn watch(path: PathBuf, changes: mpsc::Sender<Change>, metrics: Metrics, shutdown: CancellationToken) -> Result<(), ReadError> {
    let mut memory = Memory::default();
    let mut read = signature(&path);
    let loaded = memory.load(&path)?;
    let mut said = Vec::new();
    send(&loaded, &mut said, &changes, &metrics).await;
    let (notify, mut notified) = mpsc::channel::<()>(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too, and it is us who read.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = notify.try_send(());
        }
    });
    // A file is watched by way of its directory, so that a replaced file is still seen.
    let directory = if path.is_dir() { path.clone() } else { path.parent().map_or_else(|| ".".into(), Path::to_owned) };
    let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
    let _watcher = watcher
        .and_then(|mut watcher| watcher.watch(&directory, RecursiveMode::Recursive).map(|()| watcher))
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "no notifications; reading every {POLL:?} instead"));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(()) = notified.recv() => {
                tokio::time::sleep(QUIET).await;
                while notified.try_recv().is_ok() {}
            }
            () = tokio::time::sleep(POLL) => {}
        }
        let now = signature(&path);
        if now.is_some() && now == read {
            continue;
        }
        read = now;
        match memory.load(&path) {
            Ok(loaded) => send(&loaded, &mut said, &changes, &metrics).await,
            Err(error) => tracing::error!(%error, "manifests are kept as they were"),
        }
    }
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
