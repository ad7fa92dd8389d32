//! Mistakes on the command line: one clear line that names the thing, exit status 1 or 2, never a panic.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
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

/// A process that is killed when the test is over, however it ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
        &["serve", "--manifests", "x", "--admin-addr", "off"],
        2,
        "the admin port cannot be turned off",
    );
    check(
        &[
            "serve",
            "--backend=https://127.0.0.1:1",
            "--backend-ca=nope.pem",
        ],
        1,
        "--backend-ca: cannot read nope.pem",
    );
    check(
        &[
            "serve",
            "--manifests",
            "x",
            "--trusted-proxy",
            "10.0.0.0/33",
        ],
        2,
        "\"10.0.0.0/33\" is no network: what is behind the slash is from 0 to 32, not \"33\"",
    );
    check(
        &["serve", "--manifests", "x", "--tls-ciphers", ""],
        2,
        "invalid value '' for '--tls-ciphers <NAMES>': no cipher suite is named; without the flag all may be used",
    );
    check(
        &["serve", "--manifests", "x", "--log", "wran"],
        2,
        "invalid value 'wran' for '--log <FILTER>': unknown level \"wran\", did you mean \"warn\"?",
    );
    check(
        &["serve", "--manifests", "x", "--log", "info,data_plan=debug"],
        2,
        "unknown target \"data_plan\", did you mean \"data_plane\"?",
    );
    check(
        &["controller", "--publish-service", "x"],
        2,
        "namespace/name",
    );
    check(
        &["serve", "--manifests", "x", "--ingress-class="],
        2,
        "a value is required for '--ingress-class <NAME>'",
    );
    check(
        &["serve", "--manifests", "x", "--proxy-protocol"],
        2,
        "--proxy-protocol needs --proxy-protocol-from",
    );
    check(
        &["serve", "--manifests", "x", "--admin-token-file=/dev/null"],
        2,
        "cannot use the token of --admin-token-file: it has 0 characters, 16 are the least",
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
    for (text, said) in [
        (
            "",
            "only.yaml: nothing is in it that could be served: no object of a kind that is read (a configuration is served by `serve --config`)",
        ),
        (
            "routes: [{respond: 204}]\n",
            "only.yaml:1: not a Kubernetes object: apiVersion and kind are needed; a configuration of Tidegate is served by `serve --config`; nothing else is in the file that could be served",
        ),
        ("{", "only.yaml:"),
    ] {
        let only = directory.path().join("only.yaml");
        std::fs::write(&only, text).unwrap();
        with(serve(&[], &http, &admin), only.to_str().unwrap(), said);
        std::fs::remove_file(only).unwrap();
    }
    with(
        serve(&["--access-log=/nonexistent/log"], &http, &admin),
        path,
        "cannot open the access log /nonexistent/log",
    );
    with(
        serve(&["--admin-token-file=/nonexistent"], &http, &admin),
        path,
        "cannot use the token of --admin-token-file: cannot read /nonexistent",
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
        2,
        "--http-addr and --https-addr are both 127.0.0.1:80",
    );
    check(
        &["serve", "--manifests", "x", "--http-addr=0.0.0.0:10254"],
        2,
        "--admin-addr is 127.0.0.1:10254, which leaves no room for --http-addr 0.0.0.0:10254",
    );
    let file = directory.path().join("admin.yaml");
    std::fs::write(&file, "listeners: [{port: 10254, name: web}]\n").unwrap();
    let config = format!("--config={}", file.display());
    check(
        &["serve", &config],
        2,
        "--admin-addr and listener web are both 127.0.0.1:10254",
    );
    let said = run(&["check", file.to_str().unwrap()]).stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains(
            "warning: listener web is on 127.0.0.1:10254, where the admin port is by default"
        ),
        "{said}"
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
    let nothing = "error: nothing is in it that could be served";
    let empty = directory.path().join("empty.yaml");
    for text in [None, Some(""), Some("# a comment\n")] {
        if let Some(text) = text {
            std::fs::write(&empty, text).unwrap();
        }
        for path in [directory.path(), &empty]
            .into_iter()
            .filter(|path| path.exists())
        {
            let output = run(&["check", path.to_str().unwrap()]);
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains(&format!("{}: {nothing}", path.display())),
                "{said}"
            );
        }
    }
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

#[test]
fn pem_that_is_cut_off_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let (certificate, key) = test_support::certificate::self_signed(&["a.test"]);
    write("cut.pem", &certificate[..certificate.len() / 2]);
    write("cut.key", &key[..key.len() / 2]);
    write("a.pem", &certificate);
    write("a.key", &key);
    let file = directory.path().join("tidegate.yaml");
    for (chain, key, cut) in [
        ("cut.pem", "a.key", "cut.pem"),
        ("a.pem", "cut.key", "cut.key"),
    ] {
        let text = format!(
            "listeners: [{{port: 1, protocol: https, tls: [{{certificate: {chain}, key: {key}}}]}}]\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = run(&["check", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains(&format!(
                "{cut} is not PEM: it is cut off: a BEGIN line has no END line"
            )),
            "{said}"
        );
    }
}

/// As in `tidegate translate DIR | head`: who reads has seen enough.
#[test]
fn a_reader_that_goes_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let manifest = write(
        "a.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n",
    );
    let config = write(
        "c.yaml",
        "listeners: [{port: 80}]\nroutes: [{respond: 204}]\n",
    );
    let cases = write(
        "cases.yaml",
        "cases: [{request: {host: a.test, path: /}, expect: {status: 204}}]\n",
    );
    for args in [
        &["translate", &manifest][..],
        &["translate", &config],
        &["check", &manifest],
        &["check", &config],
        &["schema"],
        &["annotations"],
        &["test", &cases, "--config", &config],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(binary()).args(args).stdout(writer).output();
        let output = output.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
        assert!(!errors.contains("panicked"), "{args:?}: {errors}");
    }
}

/// One command starts named endpoints and tries them: ten requests one after the other, ten at once, TLS, and one endpoint
/// killed without a failed request. Then it stays.
#[tokio::test]
async fn the_demo_shows_what_there_is() {
    let (http, https, admin) = (free_port(), free_port(), free_port());
    let demo = Command::new(binary())
        .arg("demo")
        .arg(format!("--http-addr=127.0.0.1:{http}"))
        .arg(format!("--https-addr=127.0.0.1:{https}"))
        .arg(format!("--admin-addr=127.0.0.1:{admin}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut demo = Killed(demo.unwrap());
    let said = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let mut said = said.map_while(Result::ok);
    let shown = said.by_ref();
    let shown: Vec<String> = shown
        .take_while(|line| !line.starts_with("Access log lines follow"))
        .collect();
    let shown = shown.join("\n");
    println!("{shown}");
    let came = |what: &str| {
        let line = shown
            .lines()
            .find(|line| line.trim_start().starts_with(what));
        let line = line.unwrap_or_else(|| panic!("{what:?} is not said"));
        line.trim_start().trim_start_matches(what).trim().to_owned()
    };
    assert_eq!(
        came("10 requests of shop.localhost, one by one"),
        "apple 5, banana 5"
    );
    assert_eq!(came("10 more, all at once"), "apple 5, banana 5");
    assert_eq!(came("shop.localhost/cart/7: the longer path"), "cherry");
    let by_tls = came("the same host by TLS, its certificate checked");
    assert!(["apple", "banana"].contains(&by_tls.as_str()), "{by_tls}");
    assert_eq!(came("unknown.localhost: no route"), "404 Not Found");
    assert_eq!(came("banana is killed, 20 requests"), "apple 20");
    let back = came("banana is back, 10 requests a second later");
    assert_eq!(back, "apple 5, banana 5");

    let addr = SocketAddr::from(([127, 0, 0, 1], http));
    let answer = get(addr, "shop.localhost", "/").await.unwrap();
    assert_eq!(answer.status, 200);
}
