//! Mistakes on the command line: one clear line that names the thing, exit status 1 or 2, never a panic.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Command, Output};
use test_support::Tidegate;
use test_support::certificate::Authority;
use test_support::client::get;
use test_support::process::{binary, free_port};

fn run(args: &[&str]) -> Output {
    Command::new(binary())
        .args(args)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

#[track_caller]
fn check(args: &[&str], status: i32, said: &str) {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    println!(
        "tidegate {}\n  -> {} (exit status {:?})",
        args.join(" "),
        errors.lines().next().unwrap_or_default(),
        output.status.code()
    );
    assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
    assert!(
        errors.contains(said),
        "{args:?} says {errors:?}, not {said:?}"
    );
    assert!(
        !errors.contains("panicked") && !errors.contains("RUST_BACKTRACE"),
        "{errors}"
    );
}

#[test]
fn bad_flags_exit_with_2() {
    check(&[], 2, "Usage");
    check(&["serv"], 2, "serv");
    check(&["serve"], 2, "--manifests");
    check(
        &["serve", "--manifests", "x", "--http-addr", "8080"],
        2,
        "0.0.0.0:8080",
    );
    check(
        &["serve", "--manifests", "x", "--worker", "2"],
        2,
        "--workers",
    );
    check(
        &[
            "controller",
            "--watch-namespace",
            "a",
            "--publish-service",
            "b/c",
        ],
        1,
        "--publish-service b/c is outside of --watch-namespace a",
    );
    check(
        &["controller", "--publish-service", "x"],
        2,
        "namespace/name",
    );
    check(
        &[
            "serve",
            "--manifests",
            "x",
            "--trusted-proxy",
            "10.0.0.0/99",
        ],
        2,
        "10.0.0.0/99",
    );
}

#[test]
fn what_cannot_be_read_or_opened_exits_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let (http, admin) = (
        format!("127.0.0.1:{}", free_port()),
        format!("127.0.0.1:{}", free_port()),
    );
    let usual = ["--https-addr=off"];
    let serve = |more: &[&'static str], http: &str, admin: &str| {
        let mut args: Vec<String> = vec![
            "serve".into(),
            format!("--http-addr={http}"),
            format!("--admin-addr={admin}"),
        ];
        args.extend(usual.iter().chain(more).map(|arg| (*arg).to_owned()));
        args
    };
    let with = |args: Vec<String>, manifests: &str, said: &str| {
        let mut args = args;
        if !args.iter().any(|arg| arg.starts_with("--manifests")) {
            args.push(format!("--manifests={manifests}"));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        check(&args, 1, said);
    };
    with(
        serve(&["--manifests=/nonexistent"], &http, &admin),
        "",
        "cannot read /nonexistent",
    );
    with(
        serve(&["--access-log=/nonexistent/log"], &http, &admin),
        path,
        "cannot open the access log /nonexistent/log",
    );
    with(
        serve(&["--proxy-protocol"], &http, &admin),
        path,
        "--proxy-protocol-from",
    );
    with(serve(&["--log=x=y=z"], &http, &admin), path, "--log");
    with(
        serve(&["--admin-token-file=/nonexistent"], &http, &admin),
        path,
        "cannot use the token of --admin-token-file: cannot read /nonexistent",
    );
    with(
        serve(&["--admin-token-file=/dev/null"], &http, &admin),
        path,
        "cannot use the token of --admin-token-file: it has 0 characters, 16 are the least",
    );
    with(
        serve(
            &["--admin-tls-cert=/dev/null", "--admin-tls-key=/dev/null"],
            &http,
            &admin,
        ),
        path,
        "cannot use the certificate of --admin-tls-cert: /dev/null holds no certificate",
    );
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = holder.local_addr().unwrap().to_string();
    with(
        serve(&[], &busy, &admin),
        path,
        &format!("cannot listen on {busy}"),
    );
    with(
        serve(&[], &http, &busy),
        path,
        &format!("cannot listen on {busy} (--admin-addr)"),
    );
    check(
        &[
            "controller",
            "--kubeconfig=/nonexistent",
            &format!("--admin-addr={admin}"),
        ],
        1,
        "cannot use kubeconfig /nonexistent",
    );
    check(
        &[
            "serve",
            "--manifests",
            "x",
            "--http-addr=127.0.0.1:80",
            "--https-addr=127.0.0.1:80",
        ],
        1,
        "--http-addr and --https-addr are both 127.0.0.1:80",
    );
    check(&["check", "/nonexistent"], 1, "cannot read /nonexistent");
}

#[test]
fn check_names_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("web.yaml"),
        "# a comment\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  rules:\n  - host: a.test\n    \
         http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: nowhere, port: {number: 80}}}}]}\n---\nkind: [\n",
    )
    .unwrap();
    let output = run(&["check", directory.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("web.yaml:3: error: Ingress default/web spec.rules[0].http.paths[0].backend: Service default/nowhere does not exist"), "{said}");
    assert!(said.contains("web.yaml:12"), "{said}");
    assert!(said.contains("1 of 1 Ingress(es) ours"), "{said}");
    std::fs::remove_file(directory.path().join("web.yaml")).unwrap();
    assert_eq!(
        run(&["check", directory.path().to_str().unwrap()])
            .status
            .code(),
        Some(0)
    );
}

#[test]
fn check_tells_of_certificates_that_have_expired() {
    let directory = tempfile::tempdir().unwrap();
    let expired = Authority::new("authority").expired_client("a.test");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("a.pem", &expired.pem);
    write("a.key", &expired.key_pem);
    write(
        "tidegate.yaml",
        "listeners: [{port: 8443, protocol: https, tls: [{hosts: [a.test], certificate: a.pem, key: a.key}]}]\n",
    );
    let file = directory.path().join("tidegate.yaml");
    let output = run(&["check", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the certificate expired"), "{said}");
    assert!(said.contains("a.pem"), "{said}");
}

/// One command starts named endpoints: ten requests one after the other, and ten at once.
#[tokio::test]
async fn the_demo_shows_what_there_is() {
    let demo = Tidegate::start("demo", &["demo"]).ready().await;
    let mut seen = BTreeSet::new();
    for _ in 0..10 {
        let answer = get(demo.http, "shop.localhost", "/").await.unwrap();
        assert_eq!(answer.status, 200);
        let text = answer.text();
        seen.extend(text.lines().next().map(str::to_owned));
    }
    assert!(seen.len() >= 2, "{seen:?}");
    let all = (0..10).map(|_| {
        let addr = demo.http;
        tokio::spawn(async move { get(addr, "shop.localhost", "/").await.unwrap().status })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), 200);
    }
}
