//! A key that narrows what is served and says nothing is an error: it must not open what it was written to close.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use crate::build::Defaults;
use crate::source::translate;
use std::path::Path;

const EMPTY: &str =
    "the list is empty, which would restrict nothing: put something in it, or leave the key out";

/// What is said of a configuration with this in its first listener, its only route, and its only backend.
fn said(listener: &str, route: &str, backend: &str) -> String {
    let text = format!(
        "listeners:\n- {{port: 1, {listener}}}\n- {{port: 2}}\nroutes:\n- {{backend: a, {route}}}\n\
         backends:\n  a: {{static: ['10.0.0.1:80'], {backend}}}\n"
    );
    let built = translate(Path::new("c.yaml"), &text, &Defaults::default(), true);
    built.map_or_else(|error| error.to_string(), |_| "nothing".to_owned())
}

#[test]
fn an_empty_list_is_no_list_that_was_left_out() {
    for key in ["allow", "deny"] {
        assert_eq!(
            said(&format!("protocol: tcp, backend: a, {key}: []"), "", ""),
            format!("c.yaml:2:{}: listeners[0].{key}: {EMPTY}", 42 + key.len()),
        );
    }
    for key in [
        "allow",
        "deny",
        "clients",
        "hosts",
        "listeners",
        "headers",
        "query",
        "cookies",
    ] {
        let column = 18 + key.len();
        assert_eq!(
            said("", &format!("{key}: []"), ""),
            format!("c.yaml:5:{column}: routes[0].{key}: {EMPTY}"),
        );
        assert_eq!(
            said("", &format!("{key}:"), ""),
            format!(
                "c.yaml:5:{}: routes[0].{key}: expected a list, found nothing",
                column - 2
            ),
        );
    }
    assert_eq!(said("", "", ""), "nothing");
}

#[test]
fn a_key_without_a_value_is_no_key_that_was_left_out() {
    for (key, expected) in [
        ("path", "keys and values"),
        ("rateLimit", "keys and values"),
        ("method", "text"),
    ] {
        let said = said("", &format!("{key}:"), "");
        let end = format!("routes[0].{key}: expected {expected}, found nothing");
        assert!(said.ends_with(&end), "{said}");
    }
    for (tls, key) in [
        ("tls:", "tls"),
        ("tls: {serverName: a.test, ca: }", "tls.ca"),
    ] {
        let said = said("", "", tls);
        assert!(
            said.contains(&format!("backends.a.{key}: expected "))
                && said.ends_with("found nothing"),
            "{said}"
        );
    }
}

#[test]
fn a_path_alone_is_told_how_to_say_what_it_means() {
    let said = said("", "path: /foo", "");
    assert_eq!(
        said,
        "c.yaml:5:22: routes[0].path: it does not say how the path is compared: {prefix: /foo} (and what is below it), \
         {exact: /foo} or {startsWith: /foo}"
    );
}
