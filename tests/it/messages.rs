//! What an operator is told while it serves: each thing once, with what it is about and what to do.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::Tidegate;
use test_support::process::binary;

/// Waits until something is logged.
async fn until_logged(tidegate: &Tidegate, said: &str) {
    let start = Instant::now();
    while !tidegate.logged().contains(said) {
        let logged = tidegate.logged();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{said:?} is not in\n{logged}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lines of the log with this in them.
fn count(tidegate: &Tidegate, said: &str) -> usize {
    let logged = tidegate.logged();
    logged.lines().filter(|line| line.contains(said)).count()
}

/// What `tidegate check` prints, and its exit status.
fn check(path: &Path) -> (String, Option<i32>) {
    let output = Command::new(binary())
        .arg("check")
        .arg(path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    (said, output.status.code())
}

#[tokio::test]
async fn what_is_passed_over_is_said_once() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "old.yaml",
        "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: old, namespace: shop}\n---\n\
         apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: beta, namespace: shop}\n",
    );
    write(
        "classes.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: outer}\nspec: {controller: k8s.io/ingress-nginx}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, namespace: shop}\nspec: {ingressClassName: outer}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: b, namespace: shop, annotations: {kubernetes.io/ingress.class: nginx}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n",
    );
    let manifests = format!("--manifests={}", directory.path().display());
    let tidegate = Tidegate::start("passed-over", &["serve", &manifests, "--access-log=off"]);
    let tidegate = tidegate.ready().await;
    let lines = [
        "WARN OLD:1: Ingress shop/old is not read: it is of extensions/v1beta1, and only networking.k8s.io/v1 is; write it as that \
         (kubectl convert -f FILE --output-version networking.k8s.io/v1)",
        "WARN OLD:5: Ingress shop/beta is not read: it is of networking.k8s.io/v1beta1",
        "WARN CLASSES:6: Ingress shop/a is not served: its class \"outer\" is of the controller \"k8s.io/ingress-nginx\"; \
         --controller-name k8s.io/ingress-nginx would serve it",
        "WARN CLASSES:11: Ingress shop/b is not served: its class is \"nginx\"; --ingress-class nginx would serve it",
        "INFO CLASSES:15: Deployment shop/web (apps/v1) is not of a kind that is read",
    ]
    .map(|line| {
        let file = |name: &str| directory.path().join(name).display().to_string();
        line.replace("OLD", &file("old.yaml"))
            .replace("CLASSES", &file("classes.yaml"))
    });
    for line in &lines {
        until_logged(&tidegate, line).await;
    }
    // What is new is said; what was said is not said again.
    write(
        "new.yaml",
        "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: new}\n",
    );
    until_logged(&tidegate, "Ingress new is not read").await;
    for line in &lines {
        assert_eq!(count(&tidegate, line), 1, "{line}");
    }

    let (said, status) = check(directory.path());
    assert_eq!(status, Some(0));
    for line in &lines[..4] {
        let (place, sentence) = line["WARN ".len()..].split_once(": ").unwrap();
        let line = format!("{place}: warning: {sentence}");
        assert!(said.contains(&line), "{line}");
    }
    let kinds = "not read: apps/v1 Deployment, extensions/v1beta1 Ingress (2), networking.k8s.io/v1beta1 Ingress";
    assert!(said.contains(kinds), "{said}");
}
