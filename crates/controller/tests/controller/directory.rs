//! Manifests in files, read again when they change.

use crate::harness::{Loop, class, ingress, service, slice};
use controller::source::directory;
use serde_json::Value;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::task::JoinHandle;

struct Served {
    inner: Loop,
    source: JoinHandle<Result<(), directory::ReadError>>,
}

impl Served {
    fn start(path: PathBuf) -> Self {
        let inner = Loop::start(None);
        let source = directory::watch(
            path,
            inner.changes.clone(),
            tokio::sync::watch::channel(directory::Origins::default()).0,
            inner.metrics.clone(),
            inner.shutdown.clone(),
        );
        Self {
            inner,
            source: tokio::spawn(source),
        }
    }

    async fn stop(self) {
        self.inner.stop().await;
        self.source.await.unwrap().unwrap();
    }
}

/// JSON is YAML too.
fn manifests(objects: &[Value]) -> String {
    objects
        .iter()
        .map(|object| format!("---\n{object}\n"))
        .collect()
}

fn shop() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "shop.yaml",
        &manifests(&[class(), service("web"), slice("web", "10.0.0.1")]),
    );
    write(
        dir.path(),
        "web.yaml",
        &manifests(&[ingress("web", "web.test")]),
    );
    dir
}

fn write(dir: &Path, file: &str, text: &str) {
    std::fs::write(dir.join(file), text).unwrap();
}

#[tokio::test]
async fn files_come_change_and_go() {
    let dir = shop();
    let mut served = Served::start(dir.path().to_owned());
    served
        .inner
        .until(|published| published.has("host web.test") && published.has("10.0.0.1:8080"))
        .await;
    write(
        dir.path(),
        "other.yaml",
        &manifests(&[ingress("other", "other.test")]),
    );
    served.inner.until_shows("host other.test").await;
    write(
        dir.path(),
        "other.yaml",
        &manifests(&[ingress("other", "changed.test")]),
    );
    served.inner.until_shows("host changed.test").await;
    std::fs::remove_file(dir.path().join("other.yaml")).unwrap();
    served
        .inner
        .until(|published| !published.has("changed.test"))
        .await;
    let tables = served.inner.now().tables;
    write(
        dir.path(),
        "shop.yaml",
        &manifests(&[class(), service("web"), slice("web", "10.0.0.2")]),
    );
    let after = served.inner.until_shows("10.0.0.2:8080").await;
    assert_eq!(after.tables, tables, "only endpoints changed");
    served.stop().await;
}

#[tokio::test]
async fn a_broken_file_keeps_what_it_had_and_the_others_go_on() {
    let dir = shop();
    let mut served = Served::start(dir.path().to_owned());
    served.inner.until_shows("host web.test").await;
    write(
        dir.path(),
        "web.yaml",
        &format!(
            "{}---\nspec: [\n",
            manifests(&[ingress("web", "half.test")])
        ),
    );
    write(
        dir.path(),
        "other.yaml",
        &manifests(&[ingress("other", "other.test")]),
    );
    let after = served.inner.until_shows("host other.test").await;
    assert!(after.has("host web.test") && !after.has("half.test"));
    assert_eq!(served.inner.metrics.manifest_problems.get(), 1);
    write(
        dir.path(),
        "web.yaml",
        &manifests(&[ingress("web", "mended.test")]),
    );
    served.inner.until_shows("host mended.test").await;
    assert_eq!(served.inner.metrics.manifest_problems.get(), 0);
    served.stop().await;
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped_as_a_whole() {
    let dir = shop();
    let version = |name: &str, host: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        write(
            &dir.path().join(name),
            "mounted.yaml",
            &manifests(&[ingress("mounted", host)]),
        );
    };
    version("..2026_01", "old.test");
    symlink("..2026_01", dir.path().join("..data")).unwrap();
    symlink("..data/mounted.yaml", dir.path().join("mounted.yaml")).unwrap();
    let mut served = Served::start(dir.path().to_owned());
    served.inner.until_shows("host old.test").await;
    version("..2026_02", "new.test");
    symlink("..2026_02", dir.path().join("..data_tmp")).unwrap();
    std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    std::fs::remove_dir_all(dir.path().join("..2026_01")).unwrap();
    served
        .inner
        .until(|published| published.has("host new.test") && !published.has("old.test"))
        .await;
    assert_eq!(served.inner.metrics.manifest_problems.get(), 0);
    served.stop().await;
}

#[tokio::test]
async fn a_single_file_may_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let all = |host: &str| {
        manifests(&[
            class(),
            service("web"),
            slice("web", "10.0.0.1"),
            ingress("web", host),
        ])
    };
    write(dir.path(), "app.yaml", &all("web.test"));
    let mut served = Served::start(dir.path().join("app.yaml"));
    served.inner.until_shows("host web.test").await;
    write(dir.path(), "app.yaml.tmp", &all("new.test"));
    std::fs::rename(dir.path().join("app.yaml.tmp"), dir.path().join("app.yaml")).unwrap();
    served.inner.until_shows("host new.test").await;
    served.stop().await;
}

#[tokio::test]
async fn a_path_that_is_not_there_is_an_error_at_start() {
    let served = Served::start("/nonexistent/manifests".into());
    let error = served.source.await.unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read /nonexistent/manifests: No such file"),
        "{error}"
    );
    served.inner.stop().await;
}
