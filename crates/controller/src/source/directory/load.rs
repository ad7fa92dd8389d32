//! What the manifests of a file or directory hold, and where in them. Only regular files are opened, and only so much of
//! them is read.

use super::Skipped;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use translate::manifest::{Item, Located, parse};
use translate::{Kind, Object, ObjectKey};

/// Largest file in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line its document starts on, from 1; 0 for the file as a whole.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        Ok(())
    }
}

/// Where each object stands.
pub type Origins = BTreeMap<(Kind, ObjectKey), Origin>;

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
    /// Objects that are not read: of other kinds, or of other versions of ours.
    pub skipped: Vec<Skipped>,
    /// Files of which something cannot be read, and how many objects they had before, which are those of now.
    pub kept: BTreeMap<PathBuf, usize>,
}

impl Loaded {
    /// Where each object stands.
    pub fn origins(&self) -> Origins {
        self.objects
            .iter()
            .map(|(object, origin)| ((object.kind(), object.key()), origin.clone()))
            .collect()
    }
}

/// A path of which nothing can be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read at all.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a file, and no object that could be served is in it.
    #[error("{0}")]
    Nothing(String),
}

impl ReadError {
    /// Of a file that holds what was loaded: its first problem, or that there is nothing.
    pub(super) fn nothing(file: &Path, loaded: &Loaded) -> Self {
        Self::Nothing(match loaded.problems.first() {
            Some(problem) => {
                format!("{problem}; nothing else is in the file that could be served")
            }
            None => format!(
                "{}: nothing is in it that could be served: no object of a kind that is read (a configuration is served by \
                 `serve --config`)",
                file.display()
            ),
        })
    }
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
pub(super) struct Memory {
    files: BTreeMap<PathBuf, Vec<(Object, usize)>>,
    /// Of the path as it was just before it was last read.
    signature: Option<Signature>,
}

impl Memory {
    /// Reads a path if it is not as it was when it was last read.
    pub(super) fn load_changed(&mut self, path: &Path) -> Result<Option<Loaded>, ReadError> {
        let signature = signature(path);
        if signature.is_some() && signature == self.signature {
            return Ok(None);
        }
        self.signature = signature;
        self.load(path).map(Some)
    }

    /// Reads a path, and remembers what it read.
    pub(super) fn load(&mut self, path: &Path) -> Result<Loaded, ReadError> {
        let mut out = Loaded::default();
        let files = files(path, &mut out.problems).map_err(|source| ReadError::Path {
            path: path.to_owned(),
            source,
        })?;
        // What stands below a directory that cannot be read at the moment is not gone.
        let kept = |known: &PathBuf| {
            files.contains(known)
                || out
                    .problems
                    .iter()
                    .any(|problem| known.starts_with(&problem.origin.file))
        };
        self.files.retain(|known, _| kept(known));
        let all: BTreeSet<PathBuf> = files.iter().chain(self.files.keys()).cloned().collect();
        let mut seen: BTreeMap<(Kind, ObjectKey), Origin> = BTreeMap::new();
        for file in all {
            let found = if files.contains(&file) {
                self.load_file(&file, &mut out)
            } else {
                self.files.get(&file).cloned().unwrap_or_default()
            };
            for (object, line) in found {
                let origin = Origin {
                    file: file.clone(),
                    line,
                };
                let name = (object.kind(), object.key());
                if let Some(first) = seen.get(&name) {
                    let message = format!(
                        "{} {} stands at {first} already, which counts",
                        name.0, name.1
                    );
                    out.problems.push(Problem {
                        origin,
                        column: 0,
                        message,
                    });
                    continue;
                }
                seen.insert(name, origin.clone());
                out.objects.push((object, origin));
            }
        }
        Ok(out)
    }

    fn load_file(&mut self, file: &Path, out: &mut Loaded) -> Vec<(Object, usize)> {
        if is_kustomization(file) {
            out.skipped.push(Skipped {
                origin: Origin {
                    file: file.to_owned(),
                    line: 0,
                },
                api_version: "kustomize.config.k8s.io/v1beta1".to_owned(),
                kind: "Kustomization".to_owned(),
                key: ObjectKey::new("", ""),
            });
            return Vec::new();
        }
        let mut problem = |line, column, message| {
            out.problems.push(Problem {
                origin: Origin {
                    file: file.to_owned(),
                    line,
                },
                column,
                message,
            });
        };
        let mut objects = Vec::new();
        let mut broken = false;
        match read(file) {
            Err(error) => {
                broken = true;
                problem(0, 0, error.to_string());
            }
            Ok(text) => {
                let is_json = file.extension().is_some_and(|end| end == "json");
                for item in parse(&text, is_json) {
                    match item {
                        Ok(Located {
                            value: Item::Object(object),
                            line,
                        }) => objects.push((object, line)),
                        Ok(Located {
                            value:
                                Item::Skipped {
                                    api_version,
                                    kind,
                                    key,
                                },
                            line,
                        }) => out.skipped.push(Skipped {
                            origin: Origin {
                                file: file.to_owned(),
                                line,
                            },
                            api_version,
                            kind,
                            key,
                        }),
                        Err(error) => {
                            broken = true;
                            out.problems.push(Problem {
                                origin: Origin {
                                    file: file.to_owned(),
                                    line: error.line,
                                },
                                column: error.column,
                                message: error.message,
                            });
                        }
                    }
                }
            }
        }
        if broken && let Some(before) = self.files.get(file) {
            out.kept.insert(file.to_owned(), before.len());
            return before.clone();
        }
        self.files.insert(file.to_owned(), objects.clone());
        objects
    }
}

/// What tells whether anything below a path has changed, for a fraction of the price of reading it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature(Vec<(PathBuf, u64, u64, std::time::SystemTime)>);

/// The signature of a path; `None` if something in it cannot be looked at, which should be tried again each time.
pub(super) fn signature(path: &Path) -> Option<Signature> {
    let mut problems = Vec::new();
    let files = files(path, &mut problems)
        .ok()
        .filter(|_| problems.is_empty())?;
    let of = |file: PathBuf| {
        let metadata = std::fs::metadata(&file).ok()?;
        Some((
            file,
            metadata.ino(),
            metadata.len(),
            metadata.modified().ok()?,
        ))
    };
    files
        .into_iter()
        .map(of)
        .collect::<Option<_>>()
        .map(Signature)
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
        if path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
        {
            continue;
        }
        // Follows links, as the files of a mounted ConfigMap are links; a dangling one is skipped.
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            let read = std::fs::canonicalize(&path).and_then(|real| {
                if visited.insert(real) {
                    entries_of(&path)
                } else {
                    Ok(vec![])
                }
            });
            match read {
                Ok(more) => entries.extend(more),
                Err(error) => problems.push(Problem {
                    origin: Origin {
                        file: path,
                        line: 0,
                    },
                    column: 0,
                    message: error.to_string(),
                }),
            }
        } else if metadata.is_file()
            && path
                .extension()
                .is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
        {
            out.insert(path);
        }
    }
    Ok(out)
}

/// Whether a file tells `kustomize` what to build, which it may without saying its kind.
fn is_kustomization(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    matches!(name, Some("kustomization.yaml" | "kustomization.yml"))
}

fn entries_of(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

fn read(file: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(file)?.is_file() {
        // Opening a FIFO would block.
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    // It may grow while it is read.
    std::fs::File::open(file)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!(
            "larger than {MAX_FILE} bytes"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn service(name: &str) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
    }

    fn names(loaded: &Loaded) -> Vec<String> {
        loaded
            .objects
            .iter()
            .map(|(object, _)| object.key().name)
            .collect()
    }

    #[test]
    fn a_broken_file_keeps_what_it_had_and_names_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, service("a")).unwrap();
        std::fs::write(
            dir.path().join("b.json"),
            r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"}}"#,
        )
        .unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), service("hidden")).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "not a manifest").unwrap();
        let mut memory = Memory::default();
        assert_eq!(names(&memory.load(dir.path()).unwrap()), ["a", "b"]);
        std::fs::write(&file, format!("{}---\nkind: [\n", service("changed"))).unwrap();
        let loaded = memory.load(dir.path()).unwrap();
        assert_eq!(names(&loaded), ["a", "b"]);
        assert_eq!(loaded.kept, BTreeMap::from([(file.clone(), 1)]));
        assert!(
            loaded.problems[0]
                .to_string()
                .starts_with(&format!("{}:", file.display())),
            "{}",
            loaded.problems[0]
        );
        std::fs::remove_file(&file).unwrap();
        assert_eq!(names(&memory.load(dir.path()).unwrap()), ["b"]);
    }

    #[test]
    fn errors_of_json_files_are_told_in_terms_of_json() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        std::fs::write(&file, "{\n\tapiVersion: [\n}").unwrap();
        let loaded = load(dir.path()).unwrap();
        let said = format!("{}:2:2: key must be a string", file.display());
        assert_eq!(loaded.problems[0].to_string(), said);
        assert!(loaded.kept.is_empty());
    }

    #[test]
    fn a_kustomization_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kustomization.yaml");
        std::fs::write(&file, "resources: [a.yaml]\n").unwrap();
        std::fs::write(dir.path().join("a.yaml"), service("a")).unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!(
            (names(&loaded), loaded.problems.len()),
            (vec!["a".to_owned()], 0)
        );
        let said = "Kustomization (kustomize.config.k8s.io/v1beta1) is not of a kind that is read";
        assert_eq!(loaded.skipped[0].to_string(), said);
    }

    #[test]
    fn the_first_of_two_counts() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.yaml", "b.yaml"] {
            std::fs::write(dir.path().join(file), service("same")).unwrap();
        }
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.objects.len(), 1);
        assert!(
            loaded.problems[0].to_string().contains("a.yaml:1 already"),
            "{}",
            loaded.problems[0]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = load(Path::new("/nonexistent/manifests")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read /nonexistent/manifests: No such file"),
            "{error}"
        );
    }

    #[test]
    fn links_may_lead_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a.yaml"), service("a")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("sub/up")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), dir.path().join("dangling.yaml"))
            .unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!(
            (names(&loaded), loaded.problems),
            (vec!["a".to_owned()], vec![])
        );
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo.yaml");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(
            load(&fifo).unwrap().problems[0].message,
            "not a regular file"
        );
        let large = dir.path().join("large.yaml");
        std::fs::File::create(&large)
            .unwrap()
            .set_len(MAX_FILE + 1)
            .unwrap();
        std::fs::write(dir.path().join("latin1.yaml"), b"a: \xe4").unwrap();
        std::fs::write(dir.path().join("small.yaml"), service("small")).unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!(names(&loaded), ["small"], "the FIFO did not block");
        let problems: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
        assert!(
            problems[0].ends_with("large.yaml: larger than 16777216 bytes"),
            "{problems:?}"
        );
        assert!(
            problems[1].ends_with("latin1.yaml: stream did not contain valid UTF-8"),
            "{problems:?}"
        );
    }
}
