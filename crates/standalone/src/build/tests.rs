//! What a configuration comes to, and what is wrong with it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::build::{Defaults, Translation};
use crate::source::{LoadError, translate};
use routing_table::text::render;
use std::path::Path;

fn built(text: &str) -> Result<Translation, LoadError> {
    translate(Path::new("c.yaml"), text, &Defaults::default(), true)
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let made = built(text).unwrap();
    assert_eq!(render(&made.table, &made.endpoints), expected);
}

#[track_caller]
fn fails(text: &str, expected: &str) {
    assert_eq!(built(text).unwrap_err().to_string(), expected, "{text}");
}

const BACKENDS: &str = "backends:\n  user: {static: ['10.0.0.1:80 weight=3', '10.0.0.2:80 priority=1 max_connections=5']}\n  cart: {static: ['10.0.0.3:80']}\n";

#[test]
fn routes_and_backends() {
    check(
        &format!(
            "{BACKENDS}listeners: [{{port: 80}}, {{port: 81, address: '::', name: inner}}]\nroutes:\n\
             - {{name: api, hosts: [a.test, '*.b.test'], path: {{prefix: /api/}}, backend: user, timeouts: {{connect: 1s}}, retries: {{attempts: 1}}}}\n\
             - {{hosts: [a.test], path: {{prefix: /api}}, method: POST, headers: [{{name: X-A, value: b}}], backend: cart}}\n\
             - {{respond: 403, query: [{{name: q, present: true}}], listeners: [inner]}}\n"
        ),
        "listener http-80 127.0.0.1:80 http
  host a.test
    prefix /api POST header x-a=\"b\" -> standalone/cart:0  [Route/standalone/routes[1] routes[1]]
    prefix /api -> standalone/user:0 connect=1s attempts=1  [Route/standalone/api routes[0]]
  host *.b.test
    prefix /api -> standalone/user:0 connect=1s attempts=1  [Route/standalone/api routes[0]]
listener inner [::]:81 http
  host a.test
    prefix /api POST header x-a=\"b\" -> standalone/cart:0  [Route/standalone/routes[1] routes[1]]
    prefix /api -> standalone/user:0 connect=1s attempts=1  [Route/standalone/api routes[0]]
  host *.b.test
    prefix /api -> standalone/user:0 connect=1s attempts=1  [Route/standalone/api routes[0]]
  host *
    prefix / query q -> 403 configured  [Route/standalone/routes[2] routes[2]]
cluster standalone/cart:0: 10.0.0.3:80
cluster standalone/user:0: 10.0.0.1:80 weight=3 10.0.0.2:80 priority=1 max=5
",
    );
}

#[test]
fn the_first_path_segment_names_the_backend() {
    check(
        &format!(
            "{BACKENDS}listeners: [{{port: 80}}]\nroutes: [{{firstPathSegment: true, backend: cart}}]\n"
        ),
        "listener http-80 127.0.0.1:80 http
  host *
    prefix /cart -> standalone/cart:0  [Route/standalone/routes[0] routes[0].cart]
    prefix /user -> standalone/user:0  [Route/standalone/routes[0] routes[0].user]
    prefix / -> standalone/cart:0  [Route/standalone/routes[0] routes[0]]
cluster standalone/cart:0: 10.0.0.3:80
cluster standalone/user:0: 10.0.0.1:80 weight=3 10.0.0.2:80 priority=1 max=5
",
    );
}

#[test]
fn relays_and_names() {
    check(
        "listeners:\n- {port: 5432, protocol: tcp, backend: db, idleTimeout: 1m}\n\
         - {port: 443, protocol: tls-passthrough, passthrough: [{hosts: ['*.c.test'], backend: db}]}\n\
         backends:\n  db: {dns: 'Db.Test:5432', resolver: '127.0.0.1:53'}\n  x: {srv: _http._tcp.x.test, protocol: h2c, policy: {balancing: random}}\n",
        "listener tcp-5432 127.0.0.1:5432 tcp -> standalone/db:0 idle=60s  [Listener/standalone/tcp-5432 backend]
listener tls-passthrough-443 127.0.0.1:443 https
  certificate default: generated
  passthrough *.c.test -> standalone/db:0  [Listener/standalone/tls-passthrough-443 passthrough[0]]
cluster standalone/db:0: by address db.test. port 5432 @127.0.0.1:53
cluster standalone/x:0 by random: HTTP/2 by SRV _http._tcp.x.test.
",
    );
}

#[test]
fn relays_with_access_lists() {
    check(
        "listeners:\n- {port: 1, protocol: tcp, backend: a, deny: [10.0.0.0/8, '::1'], allow: [fd00::/8]}\n\
         - {port: 2, protocol: tls-passthrough, allow: [10.0.0.1], passthrough: [{hosts: [a.test], backend: a}]}\n\
         backends: {a: {static: ['10.0.0.1:80']}}\n",
        "listener tcp-1 127.0.0.1:1 tcp -> standalone/a:0 deny=10.0.0.0/8,::1/128 allow=fd00::/8  [Listener/standalone/tcp-1 backend]
listener tls-passthrough-2 127.0.0.1:2 https
  certificate default: generated
  passthrough a.test -> standalone/a:0 allow=10.0.0.1/32  [Listener/standalone/tls-passthrough-2 passthrough[0]]
cluster standalone/a:0: 10.0.0.1:80
",
    );
    let wrong = |keys: &str| {
        format!("listeners: [{{port: 1, {keys}}}]\nbackends: {{a: {{static: ['10.0.0.1:80']}}}}\n")
    };
    fails(
        &wrong("protocol: tcp, backend: a, allow: [10.0.0.0/33]"),
        "c.yaml:1:58: listeners[0].allow[0]: \"10.0.0.0/33\" is no network: what is behind the slash is from 0 to 32, not \"33\"",
    );
    fails(
        &wrong("deny: [10.0.0.0/8]"),
        "c.yaml:1:29: listeners[0].deny: this key is for what is passed on without being understood; of http, routes have it",
    );
}

#[test]
fn endpoints_with_names_of_their_own() {
    check(
        "listeners: [{port: 80}]\nroutes: [{backend: a}]\n\
         backends:\n  a: {static: ['10.0.0.1:443', '10.0.0.2:443 sni=Two.test'], tls: {serverName: a.test, verify: false}}\n",
        "listener http-80 127.0.0.1:80 http
  host *
    prefix / -> standalone/a:0  [Route/standalone/routes[0] routes[0]]
cluster standalone/a:0: 10.0.0.1:443 10.0.0.2:443
  TLS to a.test, name sent, 10.0.0.2:443 as two.test, not verified
",
    );
    // That of the name that is looked up, or of all of them.
    for (backend, expected) in [
        (
            "dns: 'A.test.:443'",
            "TLS to a.test, name sent, not verified",
        ),
        (
            "static: ['10.0.0.1:443 sni=x.test']",
            "TLS to x.test, name sent, 10.0.0.1:443 as x.test, not verified",
        ),
        (
            "dns: 'a.test:443', static: ['10.0.0.1:443']",
            "TLS to a.test, name sent, not verified",
        ),
    ] {
        let made = built(&format!(
            "listeners: [{{port: 80}}]\nroutes: [{{backend: a}}]\nbackends:\n  a: {{{backend}, tls: {{verify: false}}}}\n"
        ));
        let made = made.unwrap();
        let text = render(&made.table, &made.endpoints);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn backends_of_several_sources() {
    check(
        "listeners: [{port: 5432, protocol: tcp, backend: a}]\n\
         backends:\n  a: {static: ['10.0.0.1:80 zone=x'], dns: 'a.test:80'}\n  b: {dns: 'a.test:80', srv: _a._tcp.test}\n",
        "listener tcp-5432 127.0.0.1:5432 tcp -> standalone/a:0  [Listener/standalone/tcp-5432 backend]
cluster standalone/a:0: 10.0.0.1:80 zone=x by address a.test. port 80
cluster standalone/b:0: by address a.test. port 80 by SRV _a._tcp.test.
",
    );
}

/// The longest suffix by whole labels counts, for addresses and for SRV.
#[test]
fn names_are_looked_up_by_other_suffixes() {
    check(
        "listeners: [{port: 80}]\nroutes: [{backend: a}]\n\
         nameSuffixes: {staging.service: default.svc.cluster.local, deep.staging.service.: x.test, service: y.test}\n\
         backends:\n  a: {dns: \"a.Staging.service:80\"}\n  b: {srv: _http._tcp.b.deep.staging.service}\n  \
         c: {dns: \"c.notstaging.service:80\"}\n  d: {dns: \"d.other.test:80\"}\n  e: {dns: \"staging.service:80\"}\n",
        "listener http-80 127.0.0.1:80 http
  host *
    prefix / -> standalone/a:0  [Route/standalone/routes[0] routes[0]]
cluster standalone/a:0: by address a.default.svc.cluster.local. port 80
cluster standalone/b:0: by SRV _http._tcp.b.x.test.
cluster standalone/c:0: by address c.notstaging.y.test. port 80
cluster standalone/d:0: by address d.other.test. port 80
cluster standalone/e:0: by address default.svc.cluster.local. port 80
",
    );
}

#[test]
fn what_does_not_go_together() {
    let with = |listener: &str, route: &str, backend: &str| {
        format!(
            "listeners:\n- {{port: 80{listener}}}\nroutes:\n- {{{route}}}\nbackends:\n  a: {{{backend}}}\n"
        )
    };
    let fixed = "static: ['10.0.0.1:80']";
    for (listener, route, backend, expected) in [
        (
            "",
            "backend: b",
            fixed,
            "4:13: routes[0].backend: unknown backend \"b\", known are: a",
        ),
        (
            "",
            "backend: other",
            fixed,
            "4:13: routes[0].backend: unknown backend \"other\", known are: a",
        ),
        (
            "",
            "backend: a, cookies: [{name: 'a b', present: true}]",
            fixed,
            "4:26: routes[0].cookies[0]: \"a b\" is not the name of a cookie",
        ),
        (
            "",
            "backend: a, cookies: [{name: a, value: 'b;c'}]",
            fixed,
            "4:26: routes[0].cookies[0]: no cookie has the value \"b;c\"",
        ),
        (
            "",
            "backend: a, cookies: [{name: a}]",
            fixed,
            "4:26: routes[0].cookies[0]: either \"value\" or \"present: true\" must be given",
        ),
        (
            "",
            "backend: a, clients: [10.0.0.0/40]",
            fixed,
            "4:26: routes[0].clients[0]: \"10.0.0.0/40\" is no network: what is behind the slash is from 0 to 32, not \"40\"",
        ),
        (
            "",
            "name: x",
            fixed,
            "4:3: routes[0]: the key \"backend\" is missing",
        ),
        (
            "",
            "backend: a, respond: 404",
            fixed,
            "4:25: routes[0].respond: only one of \"backend\" and \"respond\" may be given",
        ),
        (
            "",
            "respond: '404'",
            fixed,
            "4:13: routes[0].respond: expected a status from 200 to 599, as a number, found the text \"404\"",
        ),
        (
            "",
            "respond: 99",
            fixed,
            "4:13: routes[0].respond: 99 is no status from 200 to 599",
        ),
        (
            "",
            "backend: a, path: {}",
            fixed,
            "4:22: routes[0].path: exactly one of \"exact\", \"prefix\" and \"startsWith\" must be given",
        ),
        (
            "",
            "backend: a, path: {exact: a}",
            fixed,
            "4:30: routes[0].path.exact: the path does not start with '/'",
        ),
        (
            "",
            "backend: a, path: {exact: /a/../b}",
            fixed,
            "4:30: routes[0].path.exact: the path has a '.' or '..' element",
        ),
        (
            "",
            "backend: a, hosts: [10.0.0.1]",
            fixed,
            "4:24: routes[0].hosts[0]: the host is an IP address, a DNS name is needed",
        ),
        (
            "",
            "backend: a, hosts: ['']",
            fixed,
            "4:24: routes[0].hosts[0]: an empty host; \"*\" is any",
        ),
        (
            "",
            "backend: a, method: get",
            fixed,
            "4:24: routes[0].method: not a method, such as GET or POST",
        ),
        (
            "",
            "backend: a, headers: [{name: a b, value: x}]",
            fixed,
            "4:33: routes[0].headers[0].name: not the name of a header field",
        ),
        (
            "",
            "backend: a, headers: [{name: a}]",
            fixed,
            "4:26: routes[0].headers[0]: either \"value\" or \"present: true\" must be given",
        ),
        (
            "",
            "backend: a, listeners: [htp-80]",
            fixed,
            "4:28: routes[0].listeners[0]: unknown listener of http or https \"htp-80\", did you mean \"http-80\"?",
        ),
        (
            "",
            "backend: a, timeouts: {connect: 5}",
            fixed,
            "4:36: routes[0].timeouts.connect: expected a duration (`500ms`, `2s`, `1m`, `1h`), found the number 5; give its unit, such as 5s or 5ms",
        ),
        (
            "",
            "backend: a, retries: {attempts: 0}",
            fixed,
            "4:36: routes[0].retries.attempts: 0 is not from 1 to 100",
        ),
        (
            ", protocol: https",
            "backend: a",
            fixed,
            "2:3: listeners[0]: the key \"tls\" is missing, or its list is empty",
        ),
        (
            ", backend: a",
            "backend: a",
            fixed,
            "2:23: listeners[0].backend: this key is for protocol tcp; of http, routes have backends",
        ),
        (
            ", address: localhost",
            "backend: a",
            fixed,
            "2:23: listeners[0].address: \"localhost\" is no IP address, such as 0.0.0.0 or ::1",
        ),
        (
            "",
            "backend: a",
            "",
            "6:6: backends.a: endpoints are missing: \"static\", \"dns\" or \"srv\"",
        ),
        (
            "",
            "backend: a",
            "static: [], ",
            "6:15: backends.a.static: the list is empty: a backend needs an endpoint",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.1:80', ' 10.0.0.1:80 ']",
            "6:31: backends.a.static[1]: 10.0.0.1:80 is the endpoint [0] already",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.1:80 wight=1']",
            "6:16: backends.a.static[0]: unknown option \"wight\", did you mean \"weight\"?",
        ),
        (
            "",
            "backend: a",
            "dns: a.test",
            "6:12: backends.a.dns: \"a.test\" has no port; expected name:port",
        ),
        (
            "",
            "backend: a",
            "dns: '10.0.0.1:80'",
            "6:12: backends.a.dns: \"10.0.0.1:80\" is an address; addresses are for \"static\"",
        ),
        (
            "",
            "backend: a",
            "srv: a.test",
            "6:12: backends.a.srv: \"a.test\" does not begin with _service._protocol, such as _http._tcp.api.example.com",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.1:80'], resolver: '127.0.0.1:53'",
            "6:42: backends.a.resolver: a name server is for \"dns\" and \"srv\" only",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.1:80'], tls: {verify: false}",
            "6:37: backends.a.tls: the key \"serverName\" is missing: what do endpoints prove to be called?",
        ),
        (
            "",
            "backend: a",
            "dns: 'a.test:80', srv: _a._tcp.test, tls: {verify: false}",
            "6:49: backends.a.tls: the key \"serverName\" is missing: what do endpoints prove to be called?",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.1:80 sni=a.test']",
            "6:16: backends.a.static[0]: sni is for backends with the key \"tls\"; this one is spoken to in plain",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.2:80', '10.0.0.1:80 sni=-a.test'], tls: {serverName: a.test, verify: false}",
            "6:31: backends.a.static[1]: sni: \"-a.test\" is no name of the DNS",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.1:80'], policy: {balancng: random}",
            "6:41: backends.a.policy.balancng: unknown key \"balancng\", did you mean \"balancing\"?",
        ),
        (
            "",
            "backend: a",
            "static: ['10.0.0.1:80'], policy: {slowStart: fast}",
            "6:52: backends.a.policy.slowStart: \"fast\" cannot be used: it does not start with a number",
        ),
    ] {
        fails(
            &with(listener, route, backend),
            &format!("c.yaml:{expected}"),
        );
    }
    fails(
        "listeners: []\n",
        "c.yaml:1:12: listeners: the list is empty: nothing would be served",
    );
    fails(
        "listeners: [{port: 80}, {port: 80}]\n",
        "c.yaml:1:32: listeners[1].port: listeners[0] is named http-80 already; give one of them another name",
    );
    fails(
        "listeners: [{port: 80}, {port: 80, name: b}]\n",
        "c.yaml:1:32: listeners[1].port: listeners[0] listens on 127.0.0.1:80 already",
    );
    fails(
        "listeners: [{port: 80}, {port: 80, name: b, address: '::'}]\n",
        "c.yaml:1:32: listeners[1].port: listeners[0] listens on 127.0.0.1:80 already, which leaves no room for [::]:80",
    );
    fails(
        &format!(
            "{BACKENDS}listeners: [{{port: 80}}]\nroutes: [{{backend: user}}, {{backend: cart}}]\n"
        ),
        "c.yaml:5:27: routes[1]: can never match: routes[0] has host *, prefix / already",
    );
    fails(
        "listeners: [{port: 80}]\nbackends: {'a/b': {static: ['10.0.0.1:80']}}\n",
        "c.yaml:2:19: backends.a/b: a name is made of 1 to 63 letters, digits, '-', '_' and '.', the last not in front",
    );
}

#[test]
fn files_that_are_named_are_read_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("c.yaml");
    let fifo = directory.path().join("fifo.pem");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let (certificate, key) = test_support::certificate::self_signed(&["a.test"]);
    let (_, other) = test_support::certificate::self_signed(&["a.test"]);
    for (name, text) in [
        ("a.pem", &certificate),
        ("a.key", &key),
        ("other.key", &other),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let load = |chain: &str, key: &str| {
        let text = format!(
            "listeners: [{{port: 443, protocol: https, tls: [{{hosts: [a.test], certificate: {chain}, key: {key}}}]}}]\n"
        );
        translate(&config, &text, &Defaults::default(), true)
    };
    let good = load("a.pem", "a.key").unwrap();
    assert_eq!(
        good.files,
        [
            directory.path().join("a.key"),
            directory.path().join("a.pem")
        ]
    );
    for (chain, key, said) in [
        ("fifo.pem", "a.key", "fifo.pem: not a regular file"),
        (
            "missing.pem",
            "a.key",
            "missing.pem: No such file or directory (os error 2)",
        ),
        ("a.pem", "other.key", "other.key does not belong to"),
        ("a.key", "a.key", "a.key holds no certificate"),
        ("a.pem", "a.pem", "a.pem holds no PEM private key"),
    ] {
        let error = load(chain, key).unwrap_err();
        assert!(matches!(error, LoadError::File(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("c.yaml:1:48: listeners[0].tls[0]: ") && text.contains(said),
            "{text}"
        );
    }
}

#[test]
fn filters() {
    check(
        &format!(
            "{BACKENDS}listeners: [{{port: 80}}]\nroutes:\n\
             - {{name: a, path: {{prefix: /a}}, backend: cart, allow: [10.0.0.0/8], deny: ['10.0.0.1'], rateLimit: {{requests: 10, burst: 20, except: ['10.1.0.0/16']}}, rewrite: {{prefix: /v2/, host: 'in.test:81'}}, upstreamHeader: upstream}}\n\
             - {{name: b, path: {{prefix: /b}}, backend: cart, redirect: {{https: true, port: 8443}}, rewrite: {{base: /base}}, requestHeaders: {{set: {{X-A: b}}, remove: [x-c]}}, responseHeaders: {{remove: [server]}}}}\n\
             - {{name: c, path: {{prefix: /c}}, redirect: {{url: 'https://c.test', withPath: true, status: 301}}}}\n"
        ),
        "listener http-80 127.0.0.1:80 http
  host *
    prefix /a -> standalone/cart:0 deny=10.0.0.1/32 allow=10.0.0.0/8 rate<=10/1s at-once<=20 unlimited=10.1.0.0/16 prefix=/v2 host=in.test:81 upstream-header=upstream  [Route/standalone/a routes[0]]
    prefix /b -> standalone/cart:0 redirect=308:https:8443 base=/base request-headers[-x-c +x-a] response-headers[-server]  [Route/standalone/b routes[1]]
    prefix /c -> 404 redirected redirect=301:https://c.test+path  [Route/standalone/c routes[2]]
cluster standalone/cart:0: 10.0.0.3:80
cluster standalone/user:0: 10.0.0.1:80 weight=3 10.0.0.2:80 priority=1 max=5
",
    );
    for (keys, wrong) in [
        (
            "allow: [all]",
            "allow[0]: \"all\" is no network or address, such as 10.0.0.0/8 or 2001:db8::1",
        ),
        (
            "rateLimit: {requests: 0}",
            "rateLimit.requests: 0 is not from 1 to 1000000",
        ),
        (
            "rewrite: {path: /a, base: /b}",
            "rewrite: only one of \"path\", \"prefix\" and \"base\" may be given",
        ),
        (
            "rewrite: {base: /../x}",
            "rewrite.base: the path has a '.' or '..' element",
        ),
        (
            "rewrite: {host: 'a b'}",
            "rewrite.host: the host has a character that no host name has",
        ),
        (
            "redirect: {https: true, status: 200}",
            "redirect.status: 200 is none of 301, 302, 303, 307, 308",
        ),
        (
            "redirect: {url: //evil.test}",
            "redirect.url: it would lead to another host",
        ),
        (
            "redirect: {url: 'https://a.test/x', withPath: true}",
            "redirect.url: with \"withPath\", it must end with its host",
        ),
        (
            "requestHeaders: {set: {Content-Length: '1'}}",
            "requestHeaders.set.Content-Length: content-length frames the message or is our own word, and cannot be changed",
        ),
    ] {
        let text =
            format!("{BACKENDS}listeners: [{{port: 80}}]\nroutes: [{{backend: cart, {keys}}}]\n");
        let error = built(&text).unwrap_err().to_string();
        assert!(error.ends_with(&format!("routes[0].{wrong}")), "{error}");
    }
}
