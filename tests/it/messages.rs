//! What an operator is told while it serves: each thing once, with what it is about and what to do.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::Tidegate;
use test_support::certificate::Authority;
use test_support::client::get;
use test_support::dns::{NameServer, address};
use test_support::process::{binary, free_port};

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
        tidegate.until_logged(line).await;
    }
    // What is new is said; what was said is not said again.
    write(
        "new.yaml",
        "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: new}\n",
    );
    tidegate.until_logged("Ingress new is not read").await;
    for line in &lines {
        assert_eq!(count(&tidegate, line), 1, "{line}");
    }

    // Both of its Ingresses are of other classes: nobody would be served.
    let (said, status) = check(directory.path());
    assert_eq!(status, Some(1));
    for line in &lines[..4] {
        let (place, sentence) = line["WARN ".len()..].split_once(": ").unwrap();
        let line = format!("{place}: warning: {sentence}");
        assert!(said.contains(&line), "{line}");
    }
    let kinds = "not read: apps/v1 Deployment, extensions/v1beta1 Ingress (2), networking.k8s.io/v1beta1 Ingress";
    assert!(said.contains(kinds), "{said}");
}

/// Whether a listener listens, as metrics have it.
async fn is_up(tidegate: &Tidegate, listener: &str) -> Option<bool> {
    let metrics = get(tidegate.admin, "admin", "/metrics")
        .await
        .unwrap()
        .text();
    let series = format!("tidegate_listener_up{{listener=\"{listener}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.map(|value| value == "1")
}

async fn until_up(tidegate: &Tidegate, listener: &str) {
    let start = Instant::now();
    while is_up(tidegate, listener).await != Some(true) {
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A configuration that relays this port and serves HTTP on the other.
fn relaying(http: u16, tcp: u16) -> String {
    format!(
        "listeners: [{{port: {http}}}, {{port: {tcp}, name: db, protocol: tcp, backend: db}}]\n\
         routes: [{{respond: 204}}]\nbackends: {{db: {{static: ['127.0.0.1:1']}}}}\n"
    )
}

#[tokio::test]
async fn a_relay_whose_port_is_taken_keeps_a_file_from_being_served() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    std::fs::write(&file, relaying(free_port(), taken)).unwrap();
    let config = format!("--config={}", file.display());
    let mut tidegate = Tidegate::start("relay-taken", &["serve", &config]);
    let status = tidegate.wait(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1));
    let said = format!(
        "tidegate: cannot listen on 127.0.0.1:{taken} (listener db): Address already in use (os error 98), by process {} (",
        std::process::id()
    );
    tidegate.until_logged(&said).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_tried_again_after_a_reload() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let (http, free) = (free_port(), free_port());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    std::fs::write(&file, relaying(http, free)).unwrap();
    let config = format!("--config={}", file.display());
    let tidegate = Tidegate::start("relay-again", &["serve", &config, "--access-log=off"]);
    let tidegate = tidegate.ready().await;
    assert_eq!(is_up(&tidegate, "db").await, Some(true));

    std::fs::write(&file, relaying(http, taken)).unwrap();
    let said = format!("cannot listen on 127.0.0.1:{taken} (listener db)");
    tidegate.until_logged(&said).await;
    assert_eq!(is_up(&tidegate, "db").await, Some(false));
    assert_eq!(tidegate.metric("tidegate_config_stale").await, 1.0);
    let http = std::net::SocketAddr::from(([127, 0, 0, 1], http));
    assert_eq!(get(http, "a.test", "/").await.unwrap().status, 204);

    drop(holder);
    until_up(&tidegate, "db").await;
    assert_eq!(tidegate.metric("tidegate_config_stale").await, 0.0);
    assert!(std::net::TcpStream::connect(("127.0.0.1", taken)).is_ok());
    assert_eq!(count(&tidegate, &said), 1, "{}", tidegate.logged());
}

#[tokio::test]
async fn a_relay_of_a_config_map_may_be_missing_at_start() {
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("tcp.yaml"),
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: tcp}}\ndata: {{\"{taken}\": \"default/db:5432\"}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\nspec: {{ports: [{{port: 5432}}]}}\n"
        ),
    )
    .unwrap();
    let manifests = format!("--manifests={}", directory.path().display());
    let args = ["serve", &manifests, "--tcp-services-configmap=default/tcp"];
    let tidegate = Tidegate::start("relay-missing", &args).ready().await;
    let listener = format!("tcp-{taken}");
    assert_eq!(
        is_up(&tidegate, &listener).await,
        Some(false),
        "{}",
        tidegate.logged()
    );
    let said = format!("(listener {listener}): Address already in use");
    tidegate.until_logged(&said).await;
    drop(holder);
    until_up(&tidegate, &listener).await;
    assert_eq!(count(&tidegate, &said), 1, "{}", tidegate.logged());
}

#[test]
fn translate_shows_certificates_and_who_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let (certificate, key) = test_support::certificate::self_signed(&["a.test"]);
    write("a.pem", &certificate);
    write("a.key", &key);
    let file = directory.path().join("tidegate.yaml");
    let text = "listeners: [{port: 443, protocol: https, tls: [{hosts: [a.test], certificate: a.pem, key: a.key}]}]\n\
                routes: [{backend: a}]\nbackends: {a: {static: ['10.0.0.1:443'], tls: {serverName: b.test, ca: a.pem}}}\n";
    write("tidegate.yaml", text);
    let translate = || {
        let output = Command::new(binary())
            .arg("translate")
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let pem = directory.path().join("a.pem").display().to_string();
    let (said, _) = translate();
    assert!(
        said.contains(&format!("certificate a.test: {pem}\n")),
        "{said}"
    );
    let verified = format!("TLS to b.test, name sent, verified by {pem}, ");
    assert!(said.contains(&verified), "{said}");
    // Where keys cannot be read, as on another machine.
    std::fs::remove_file(directory.path().join("a.key")).unwrap();
    let (said, errors) = translate();
    assert!(said.contains(&verified), "{said}");
    assert!(
        said.contains("not read (depth 3)")
            && errors.contains("a.key")
            && errors.contains("are not shown"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_name_that_the_dns_does_not_know_is_one_warning_until_it_does() {
    let server = NameServer::start().await;
    let resolver = format!("--dns-resolver={}", server.addr);
    let args = ["serve", "--backend=http://typo.test:80", &resolver];
    let tidegate = Tidegate::start("dns-unknown", &args).ready().await;
    let said = "the DNS knows no such name";
    tidegate.until_logged(said).await;
    let asked = server.queries();
    let start = Instant::now();
    while server.queries() < asked + 4 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let logged = tidegate.logged();
    let warnings: Vec<&str> = logged.lines().filter(|line| line.contains(said)).collect();
    assert_eq!(warnings.len(), 1, "{logged}");
    assert!(
        warnings[0].contains("WARN") && warnings[0].contains("typo.test"),
        "{logged}"
    );
    let records = vec![address("typo.test", "127.0.0.1")];
    server.records("typo.test", "A".parse().unwrap(), records);
    tidegate.until_logged("the DNS has answers again").await;
}

#[tokio::test]
async fn serving_tells_of_certificates_that_clients_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let expired = Authority::new("authority").expired_client("a.test");
    write("old.pem", &expired.pem);
    write("old.key", &expired.key_pem);
    let (certificate, key) = test_support::certificate::self_signed(&["a.test"]);
    write("a.pem", &certificate);
    write("a.key", &key);
    let text = format!(
        "listeners:\n- port: {}\n  protocol: https\n  tls:\n  - {{certificate: old.pem, key: old.key}}\n  \
         - {{hosts: [a.test], certificate: a.pem, key: a.key}}\n  - {{hosts: [b.test], certificate: a.pem, key: a.key}}\n",
        free_port()
    );
    write("tidegate.yaml", &text);
    let file = directory.path().join("tidegate.yaml");
    let config = format!("--config={}", file.display());
    let tidegate = Tidegate::start("bad-certificates", &["serve", &config])
        .ready()
        .await;
    tidegate.until_logged("the certificate expired").await;
    let pem = |name: &str| directory.path().join(name).display().to_string();
    let old = format!("WARN {}: the certificate expired", pem("old.pem"));
    assert_eq!(count(&tidegate, &old), 1, "{}", tidegate.logged());
    let other = format!(
        "{}:7:5: listeners[0].tls[2]: the certificate {} is not for b.test; it is served all the same, and clients refuse it",
        file.display(),
        pem("a.pem")
    );
    assert_eq!(
        count(&tidegate, &format!("WARN {other}")),
        1,
        "{}",
        tidegate.logged()
    );
    assert_eq!(count(&tidegate, "is not for"), 1, "{}", tidegate.logged());
    let (said, status) = check(&file);
    assert_eq!(status, Some(0));
    assert!(said.contains(&format!("warning: {other}")), "{said}");
}

/// The manifests that the README points to.
#[tokio::test]
async fn the_example_can_be_served_as_it_is() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
    let (said, status) = check(Path::new(examples));
    assert_eq!(status, Some(0));
    assert!(
        said.contains("1 of 1 Ingress(es) ours, 0 not read; 0 error(s), 0 warning(s)"),
        "{said}"
    );
    let manifests = format!("--manifests={examples}");
    let tidegate = Tidegate::start("example", &["serve", &manifests])
        .ready()
        .await;
    // Whether or not somebody listens where its endpoint is.
    let answer = get(tidegate.http, "shop.example.com", "/").await.unwrap();
    assert_ne!(answer.status, 404);
}

/// Every metric that is named in the source is explained.
#[test]
fn every_metric_is_in_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/observability.md")).unwrap();
    let mut files: Vec<_> = [
        "controller",
        "data-plane",
        "discovery",
        "standalone",
        "tidegate",
    ]
    .map(|name| root.join("crates").join(name).join("src"))
    .into();
    let mut names = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for literal in text.split('"').skip(1).step_by(2) {
            let is_name = literal.starts_with("tidegate_")
                && literal
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if is_name {
                names += 1;
                let shown = format!("`{literal}`");
                assert!(page.contains(&shown), "{literal} of {}", path.display());
            }
        }
    }
    assert!(names > 60, "{names}");
}
