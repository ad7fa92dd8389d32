//! Manifests from files: served, reloaded, and a broken file changes nothing.

use std::path::Path;
use std::time::Duration;
use test_support::client::{get, wait_for};
use test_support::{Backend, Tidegate};

fn manifests(service_port: u16, host: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web}}\nspec:\n  rules:\n  - host: {host}\n    \
         http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{port: {service_port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
    )
}

async fn serve(name: &str, directory: &Path) -> Tidegate {
    let path = format!("--manifests={}", directory.display());
    Tidegate::start(name, &["serve", &path, "--access-log=off"])
        .ready()
        .await
}

#[tokio::test]
async fn a_directory_is_served_and_reloaded() {
    let directory = tempfile::tempdir().unwrap();
    let web = Backend::start("web").await;
    let file = directory.path().join("web.yaml");
    std::fs::write(&file, manifests(web.addr.port(), "a.test")).unwrap();
    let tidegate = serve("files", directory.path()).await;
    assert_eq!(
        get(tidegate.http, "a.test", "/").await.unwrap().text(),
        "web"
    );

    std::fs::write(&file, manifests(web.addr.port(), "b.test")).unwrap();
    wait_for(tidegate.http, "b.test", "/", |answer| answer.status == 200).await;
    assert_eq!(get(tidegate.http, "a.test", "/").await.unwrap().status, 404);

    // Nothing to read again is no reason to end.
    tidegate.hang_up();
    tidegate.until_logged("SIGHUP").await;
    assert_eq!(get(tidegate.http, "b.test", "/").await.unwrap().status, 200);
    tidegate.until_logged("manifests read again").await;

    std::fs::write(&file, "kind: [").unwrap();
    let start = std::time::Instant::now();
    while tidegate.metric("tidegate_manifest_problems").await < 1.0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the broken file is not noticed:\n{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        get(tidegate.http, "b.test", "/").await.unwrap().text(),
        "web",
        "the last good state is kept"
    );
    tidegate.until_logged("web.yaml:2:1: did not find").await;
    // Who reads this is told what is served now.
    tidegate
        .until_logged("no change of this file counts until it is mended: the 3 object(s) it last had are kept")
        .await;

    // As a ConfigMap mount changes: a link is swapped.
    std::fs::create_dir(directory.path().join("..one")).unwrap();
    std::fs::write(
        directory.path().join("..one/web.yaml"),
        manifests(web.addr.port(), "c.test"),
    )
    .unwrap();
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("..one/web.yaml", &file).unwrap();
    wait_for(tidegate.http, "c.test", "/", |answer| answer.status == 200).await;
}
