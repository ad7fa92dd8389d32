//! A configuration without a cluster, through the whole binary: served, reloaded under load, kept when it breaks, tried.

use bytes::Bytes;
use http::Method;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use test_support::client::{Client, get, over_http1, request, wait_for};
use test_support::dns::{NameServer, Reply, address, srv};
use test_support::load::{Load, Plan};
use test_support::process::{binary, free_port};
use test_support::{Backend, Tidegate, TlsClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SUCCESSES: &str = "tidegate_config_reloads_total{result=\"success\"}";
const FAILURES: &str = "tidegate_config_reloads_total{result=\"failure\"}";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn serve(name: &str, config: &Path) -> Tidegate {
    let config = format!("--config={}", config.display());
    let args = ["serve", &config, "--access-log=off"];
    Tidegate::start(name, &args).ready().await
}

/// Everything goes to one backend.
fn one_backend(port: u16, backend: &Backend) -> String {
    format!(
        "listeners: [{{port: {port}}}]\nroutes: [{{backend: web}}]\nbackends: {{web: {{static: ['{}']}}}}\n",
        backend.addr
    )
}

/// Waits until a metric is at least so much.
async fn reaches(tidegate: &Tidegate, metric: &str, least: f64) {
    let start = Instant::now();
    while tidegate.metric(metric).await < least {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{metric} does not reach {least}:\n{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// As a careful program does it.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

#[tokio::test]
async fn routes_are_served() {
    let (user, cart) = (Backend::start("user").await, Backend::start("cart").await);
    let (http, https, tcp) = (free_port(), free_port(), free_port());
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = test_support::certificate::self_signed(&["a.test"]);
    std::fs::write(directory.path().join("a.pem"), certificate).unwrap();
    std::fs::write(directory.path().join("a.key"), key).unwrap();
    let file = directory.path().join("tidegate.toml");
    let text = format!(
        r#"
        [[listeners]]
        port = {http}
        [[listeners]]
        port = {https}
        protocol = "https"
        tls = [{{ hosts = ["a.test"], certificate = "a.pem", key = "a.key" }}]
        [[listeners]]
        port = {tcp}
        protocol = "tcp"
        backend = "cart"
        [[routes]]
        hosts = ["segments.test"]
        firstPathSegment = true
        [[routes]]
        hosts = ["a.test"]
        backend = "user"
        [[routes]]
        hosts = ["a.test"]
        method = "POST"
        backend = "cart"
        [[routes]]
        hosts = ["a.test"]
        headers = [{{ name = "x-canary", value = "yes" }}]
        query = [{{ name = "q", present = true }}]
        backend = "cart"
        [[routes]]
        hosts = ["a.test"]
        path = {{ exact = "/gone" }}
        respond = 410
        [backends.user]
        static = ["{}"]
        [backends.cart]
        static = ["{}"]
        "#,
        user.addr, cart.addr
    );
    std::fs::write(&file, text).unwrap();
    let _tidegate = serve("standalone-routes", &file).await;
    let addr = local(http);
    for (host, path, expected) in [
        ("segments.test", "/user/actionX", "user"),
        ("segments.test", "/user/", "user"),
        ("segments.test", "/user", "user"),
        ("segments.test", "/cart/1", "cart"),
        ("segments.test", "/", "404 Not Found\n"),
        ("segments.test", "/users", "404 Not Found\n"),
        ("a.test", "/", "user"),
        ("a.test", "/?q=1", "user"),
        ("a.test", "/gone", "410 Gone\n"),
        ("b.test", "/", "404 Not Found\n"),
    ] {
        assert_eq!(
            get(addr, host, path).await.unwrap().text(),
            expected,
            "{host}{path}"
        );
    }
    assert_eq!(user.last().unwrap().target, "/?q=1");
    let mut client = Client::connect(addr).await.unwrap();
    let post = request(Method::POST, "a.test", "/", Bytes::from_static(b"x"));
    assert_eq!(client.send(post).await.unwrap().text(), "cart");
    for (value, path, expected) in [
        ("yes", "/?q", "cart"),
        ("yes", "/", "user"),
        ("no", "/?q", "user"),
    ] {
        let mut canary = request(Method::GET, "a.test", path, Bytes::new());
        canary
            .headers_mut()
            .insert("x-canary", value.parse().unwrap());
        assert_eq!(
            client.send(canary).await.unwrap().text(),
            expected,
            "{value} {path}"
        );
    }
    let tls = TlsClient::new(None)
        .connect(local(https), "a.test")
        .await
        .unwrap();
    assert_eq!(over_http1(tls, "a.test", "/").await, "user");
    let mut relayed = tokio::net::TcpStream::connect(local(tcp)).await.unwrap();
    relayed
        .write_all(b"GET /raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    relayed.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("cart"), "{answer}");
}

#[tokio::test]
async fn two_hundred_reloads_fail_no_request() {
    const RELOADS: usize = 200;
    let backends = [Backend::start("one").await, Backend::start("two").await];
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    std::fs::write(&file, one_backend(port, &backends[0])).unwrap();
    let tidegate = serve("standalone-reloads", &file).await;
    let load = Load::start(Plan {
        addrs: vec![local(port)],
        host: "a.test".into(),
        path: "/".into(),
        posts: true,
        clients: 4,
        rate: 400,
        limit: u64::MAX,
    });
    load.reach(20).await;
    for n in 1..=RELOADS {
        replace(&file, &one_backend(port, &backends[n % 2]));
        reaches(&tidegate, SUCCESSES, n as f64).await;
    }
    let outcome = load.stop().await;
    println!(
        "{RELOADS} reloads, {} requests: {:?}",
        outcome.total(),
        outcome.bodies
    );
    assert_eq!(outcome.failures(), 0, "{:?}", outcome.failed);
    assert!(outcome.bodies["one"] > 0 && outcome.bodies["two"] > 0);
    assert_eq!(tidegate.metric(SUCCESSES).await, RELOADS as f64);
    assert_eq!(tidegate.metric(FAILURES).await, 0.0);
}

#[tokio::test]
async fn what_breaks_is_kept_as_it_was() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let three = Backend::start("three").await;
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    // As a ConfigMap is mounted: the file is a link into what the link ..data leads to.
    let mounted = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("tidegate.yaml"), text).unwrap();
        let link = directory.path().join("..new");
        std::os::unix::fs::symlink(name, &link).unwrap();
        std::fs::rename(link, directory.path().join("..data")).unwrap();
    };
    mounted("..1", &one_backend(port, &one));
    std::os::unix::fs::symlink("..data/tidegate.yaml", &file).unwrap();
    let tidegate = serve("standalone-broken", &file).await;
    let addr = local(port);
    let text = || async { get(addr, "a.test", "/").await.unwrap().text() };
    assert_eq!(text().await, "one");

    mounted("..2", &one_backend(port, &two));
    wait_for(addr, "a.test", "/", |answer| answer.text() == "two").await;
    reaches(&tidegate, SUCCESSES, 1.0).await;
    tidegate.until_logged("configuration reloaded").await;

    mounted("..3", &one_backend(port, &three).replace("routes", "rotes"));
    reaches(&tidegate, "tidegate_config_stale", 1.0).await;
    assert_eq!(text().await, "two");
    let said = "tidegate.yaml:2:1: rotes: unknown key \\\"rotes\\\", did you mean \\\"routes\\\"?";
    let logged = tidegate.until_logged(said).await;
    assert_eq!(logged.matches(said).count(), 1, "{logged}");

    // What SIGHUP finds is as broken, and said again.
    tidegate.hang_up();
    reaches(&tidegate, FAILURES, 2.0).await;
    assert_eq!(text().await, "two");

    mounted("..4", &one_backend(port, &three));
    wait_for(addr, "a.test", "/", |answer| answer.text() == "three").await;
    reaches(&tidegate, SUCCESSES, 2.0).await;
    assert_eq!(tidegate.metric("tidegate_config_stale").await, 0.0);

    // Nothing has changed, but SIGHUP reads again and says so.
    tidegate.hang_up();
    reaches(&tidegate, SUCCESSES, 3.0).await;
    assert_eq!(text().await, "three");
    assert!(tidegate.is_running());
}

#[tokio::test]
async fn a_file_that_is_written_in_pieces_is_read_when_it_is_whole() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    std::fs::write(&file, one_backend(port, &one)).unwrap();
    let tidegate = serve("standalone-pieces", &file).await;
    let whole = one_backend(port, &two);
    let mut written = std::fs::File::create(&file).unwrap();
    for piece in whole.as_bytes().chunks(16) {
        std::io::Write::write_all(&mut written, piece).unwrap();
    }
    wait_for(local(port), "a.test", "/", |answer| answer.text() == "two").await;
    // A truncated file is empty: kept, and later served.
    std::fs::write(&file, "").unwrap();
    reaches(&tidegate, "tidegate_config_stale", 1.0).await;
    tidegate
        .until_logged("tidegate.yaml: the file is empty")
        .await;
    assert_eq!(get(local(port), "a.test", "/").await.unwrap().text(), "two");
    std::fs::write(&file, one_backend(port, &one)).unwrap();
    wait_for(local(port), "a.test", "/", |answer| answer.text() == "one").await;
}

#[tokio::test]
async fn a_port_that_is_taken_fails_a_reload_and_nothing_else() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let port = free_port();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.yaml");
    std::fs::write(&file, one_backend(port, &one)).unwrap();
    let tidegate = serve("standalone-taken", &file).await;
    let both =
        one_backend(port, &two).replace("}]\nroutes", &format!("}}, {{port: {taken}}}]\nroutes"));
    replace(&file, &both);
    reaches(&tidegate, FAILURES, 1.0).await;
    tidegate
        .until_logged(&format!("cannot listen on 127.0.0.1:{taken}"))
        .await;
    assert_eq!(tidegate.metric("tidegate_config_stale").await, 1.0);
    assert_eq!(get(local(port), "a.test", "/").await.unwrap().text(), "two");
    replace(&file, &one_backend(port, &one));
    wait_for(local(port), "a.test", "/", |answer| answer.text() == "one").await;
    reaches(&tidegate, SUCCESSES, 1.0).await;
    assert_eq!(tidegate.metric("tidegate_config_stale").await, 0.0);
}

#[tokio::test]
async fn a_certificate_is_read_again_when_it_changes() {
    let web = Backend::start("web").await;
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let (certificate, key) = test_support::certificate::self_signed(&[name]);
        replace(&directory.path().join("a.key"), &key);
        replace(&directory.path().join("a.pem"), &certificate);
        let pem = rustls_pki_types::pem::PemObject::from_pem_slice(certificate.as_bytes());
        let der: rustls_pki_types::CertificateDer<'static> = pem.unwrap();
        der
    };
    let first = write("a.test");
    let file = directory.path().join("tidegate.yaml");
    let text = format!(
        "listeners: [{{port: {port}, protocol: https, tls: [{{certificate: a.pem, key: a.key}}]}}]\n\
         routes: [{{backend: web}}]\nbackends: {{web: {{static: ['{}']}}}}\n",
        web.addr
    );
    std::fs::write(&file, text).unwrap();
    let tidegate = serve("standalone-certificate", &file).await;
    let shown = || async {
        let stream = TlsClient::new(None)
            .connect(local(port), "a.test")
            .await
            .unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    };
    assert_eq!(shown().await, first);
    let second = write("a.test");
    let start = Instant::now();
    while shown().await != second {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            tidegate.logged()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn endpoints_are_found_by_srv() {
    const SRV: &str = "_http._tcp.web.test";
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let server = NameServer::start().await;
    let answer = |backend: &Backend| {
        let records = vec![srv(SRV, 0, 1, backend.addr.port(), "pod.test")];
        let along = vec![address("pod.test", "127.0.0.1")];
        server.answer(SRV, "SRV".parse().unwrap(), Reply::Records(records, along));
    };
    answer(&one);
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.json");
    let text = format!(
        r#"{{"listeners": [{{"port": {port}}}], "routes": [{{"backend": "web"}}],
            "backends": {{"web": {{"srv": "{SRV}", "resolver": "{}"}}}}}}"#,
        server.addr
    );
    std::fs::write(&file, text).unwrap();
    let _tidegate = serve("standalone-srv", &file).await;
    // Ready means that the first answer is there.
    assert_eq!(get(local(port), "a.test", "/").await.unwrap().text(), "one");
    answer(&two);
    wait_for(local(port), "a.test", "/", |answer| answer.text() == "two").await;
}

#[tokio::test]
async fn backends_may_be_flags_or_variables() {
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let flags = [
        format!("--backend=http://{}", one.addr),
        format!("--backend= {} ", two.addr),
    ];
    let args = ["serve", &flags[0], &flags[1], "--access-log=off"];
    let tidegate = Tidegate::start("standalone-flags", &args).ready().await;
    let mut client = Client::connect(tidegate.http).await.unwrap();
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(client.get("any.test", "/x").await.unwrap().text());
    }
    names.sort();
    assert_eq!(names, ["one", "one", "two", "two"]);
    // There is no file to read again, and that is no reason to end.
    tidegate.hang_up();
    tidegate.until_logged("SIGHUP: there is no file").await;
    assert_eq!(client.get("any.test", "/x").await.unwrap().status, 200);
}

fn run(args: &[&str], env: &[(&str, &str)], stdin: &str) -> Output {
    let mut child = Command::new(binary())
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without reading.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
fn ends(args: &[&str], env: &[(&str, &str)], stdin: &str, status: i32, said: &str) {
    let output = run(args, env, stdin);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
    assert!(
        errors.contains(said),
        "{args:?} says {errors:?}, not {said:?}"
    );
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn mistakes_are_one_line_and_an_exit_status() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let admin = format!("--admin-addr=127.0.0.1:{}", free_port());
    let config = |name: &str, status: i32, said: &str| {
        ends(
            &["serve", "--config", &path(name), &admin],
            &[],
            "",
            status,
            said,
        );
    };
    let write =
        |name: &str, text: &[u8]| std::fs::write(directory.path().join(name), text).unwrap();
    write("empty.yaml", b"");
    config("empty.yaml", 2, "empty.yaml: the file is empty");
    write("binary.yaml", &[0, 159, 146, 150]);
    config("binary.yaml", 2, "binary.yaml: a binary file, not text");
    let large = std::fs::File::create(directory.path().join("large.yaml")).unwrap();
    large.set_len(100 * 1024 * 1024).unwrap();
    config("large.yaml", 2, "large.yaml: larger than 4194304 bytes");
    assert!(
        Command::new("mkfifo")
            .arg(path("fifo"))
            .status()
            .unwrap()
            .success()
    );
    config("fifo", 2, "fifo: not a regular file");
    config("missing.yaml", 2, "missing.yaml: No such file");
    write(
        "unset.yaml",
        b"listeners:\n- port: ${TIDEGATE_TEST_UNSET}\n",
    );
    config(
        "unset.yaml",
        2,
        "unset.yaml:2:9: listeners[0].port: the variable TIDEGATE_TEST_UNSET is not set",
    );
    write("typo.yaml", b"listeners: [{port: 1}]\nruotes: []\n");
    config(
        "typo.yaml",
        2,
        "typo.yaml:2:1: ruotes: unknown key \"ruotes\", did you mean \"routes\"?",
    );

    let tls = |certificate: &str| {
        let port = free_port();
        format!(
            "listeners:\n- port: {port}\n  protocol: https\n  tls:\n  - {{certificate: {certificate}, key: a.key}}\n"
        )
    };
    write("no-certificate.yaml", tls("none.pem").as_bytes());
    config(
        "no-certificate.yaml",
        1,
        "no-certificate.yaml:5:5: listeners[0].tls[0]: cannot read",
    );
    write("fifo-certificate.yaml", tls("fifo").as_bytes());
    config("fifo-certificate.yaml", 1, "fifo: not a regular file");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    write(
        "taken.yaml",
        format!("listeners: [{{port: {port}}}]\n").as_bytes(),
    );
    config(
        "taken.yaml",
        1,
        &format!("cannot listen on 127.0.0.1:{port}"),
    );

    ends(
        &["serve", "--config", "-"],
        &[],
        "listeners: 5\n",
        2,
        "-:1:12: listeners: expected a list, found the number 5",
    );
    ends(&["serve"], &[], "", 2, "--config FILE");
    ends(
        &["serve"],
        &[("BACKEND_1", "http://a"), ("BACKEND_3", "http://c")],
        "",
        2,
        "BACKEND_3 is set, but BACKEND_2 is not",
    );
    ends(
        &[
            "serve",
            "--backend",
            "http://10.0.0.1",
            "--backend",
            "10.0.0.1:80",
        ],
        &[],
        "",
        2,
        "10.0.0.1:80 is given twice",
    );
    ends(&["serve", "--backend", " "], &[], "", 2, "has no host");
}

#[test]
fn rules_are_tried() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "c.yaml",
        "listeners: [{port: 80}]\nroutes:\n- {name: api, path: {prefix: /api}, backend: a}\n- {name: posts, method: POST, backend: b}\n\
         - {name: v2, path: {prefix: /v1}, backend: a, rewrite: {prefix: /v2}, allow: [10.0.0.0/8]}\n\
         - {name: old, path: {prefix: /old}, redirect: {url: 'https://new.test', status: 301}}\n\
         backends: {a: {static: ['10.0.0.1:80']}, b: {static: ['10.0.0.2:80']}}\n",
    );
    write(
        "good.yaml",
        "cases:\n- request: {host: x.test, path: /api/%61?q=1}\n  expect: {route: api, backend: a, path: /api/a?q=1}\n\
         - request: {method: POST, host: x.test, path: /}\n  expect: {route: posts}\n\
         - request: {host: x.test, path: /v1/x?q=1}\n  expect: {backend: a, path: /v2/x?q=1}\n\
         - request: {host: x.test, path: /old/x}\n  expect: {route: old, status: 301}\n\
         - request: {host: x.test, path: /}\n  expect: {status: 404}\n",
    );
    let test = |cases: &str| {
        let output = run(
            &["test", &path(cases), "--config", &path("c.yaml")],
            &[],
            "",
        );
        let both = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), both)
    };
    assert_eq!(
        test("good.yaml"),
        (Some(0), ["5 passed, 0 failed\n".to_owned(), String::new()])
    );
    write(
        "bad.yaml",
        "cases:\n- name: to b\n  request: {host: x.test, path: /api}\n  expect:\n    path: /api\n    backend: b\n\
         - request: {host: x.test, path: /}\n  expect: {status: 404}\n",
    );
    let (status, [report, errors]) = test("bad.yaml");
    let expected = format!(
        "{}:2: case 0 \"to b\": GET x.test/api\n  line 6: backend: expected b, found a\n1 passed, 1 failed\n",
        path("bad.yaml")
    );
    assert_eq!((status, report, errors.as_str()), (Some(1), expected, ""));
    write(
        "malformed.yaml",
        "cases:\n- request: {host: x.test, pth: /}\n  expect: {status: 404}\n",
    );
    let (status, [report, errors]) = test("malformed.yaml");
    assert_eq!((status, report.as_str()), (Some(2), ""));
    let said =
        "malformed.yaml:2:27: cases[0].request.pth: unknown key \"pth\", did you mean \"path\"?";
    assert!(errors.contains(said), "{errors}");
}

#[test]
fn check_and_translate_take_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "listeners: [{port: 80}]\nroutes: [{respond: 204}]\n").unwrap();
    let output = run(&["check", path], &[], "");
    assert_eq!(
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).as_ref()
        ),
        (
            Some(0),
            "1 listener(s), 1 route(s), 0 backend(s); no error\n"
        )
    );
    let output = run(&["translate", path], &[], "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "listener http-80 127.0.0.1:80 http\n  host *\n    prefix / -> 204 configured body<=1048576  [Route/standalone/routes[0] routes[0]]\n"
    );
    std::fs::write(&file, "listeners: [{port: 80}]\nroutes: [{respnd: 204}]\n").unwrap();
    let output = run(&["check", path], &[], "");
    assert_eq!(output.status.code(), Some(1));
    let said = "c.yaml:2:11: routes[0].respnd: unknown key \"respnd\", did you mean \"respond\"?";
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(said),
        "{output:?}"
    );
}
