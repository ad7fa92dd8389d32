//! What becomes of a text: the same tree from three formats, and one clear error with its place for everything else.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::build::Defaults;
use crate::source::translate;
use proptest::prelude::*;
use std::time::Instant;

fn lookup(name: &str) -> Option<String> {
    (name == "PORT").then(|| "80".to_owned())
}

#[track_caller]
fn fails(name: &str, text: &str, expected: &str) {
    let error = translate(Path::new(name), text, &Defaults::default(), true).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

const GOOD: &str =
    "listeners: [{port: 80}]\nroutes: [{backend: a}]\nbackends: {a: {static: ['10.0.0.1:80']}}\n";

#[test]
fn three_formats_are_one_tree() {
    let yaml = "a: 1\nb: [x, true, null, 1.5]\nc: {d: 'y'}\n";
    let json = r#"{"a": 1, "b": ["x", true, null, 1.5], "c": {"d": "\u0079"}}"#;
    let toml = "a = 1\nb = ['x', true, 'null', 1.5]\nc.d = 'y'\n";
    fn shape(node: &Node) -> String {
        match &node.value {
            Value::List(all) => {
                format!("[{}]", all.iter().map(shape).collect::<Vec<_>>().join(" "))
            }
            Value::Map(all) => {
                let each = all.iter().map(|e| format!("{}={}", e.key, shape(&e.node)));
                format!("{{{}}}", each.collect::<Vec<_>>().join(" "))
            }
            other => format!("{other:?}"),
        }
    }
    let expected = "{a=Integer(1) b=[Text(\"x\") Bool(true) Null Float(1.5)] c={d=Text(\"y\")}}";
    assert_eq!(
        shape(&parse(yaml, Format::Yaml, &lookup).unwrap()),
        expected
    );
    assert_eq!(
        shape(&parse(json, Format::Json, &lookup).unwrap()),
        expected
    );
    let no_null = expected.replace("Null", "Text(\"null\")");
    assert_eq!(shape(&parse(toml, Format::Toml, &lookup).unwrap()), no_null);
}

#[test]
fn merge_keys_are_filled_in() {
    let keys = |text: &str| {
        let root = parse(text, Format::Yaml, &lookup).unwrap();
        let Value::Map(all) = &root.value else {
            panic!("{root:?}");
        };
        let Value::Map(all) = &all[all.len() - 1].node.value else {
            panic!("{root:?}");
        };
        let shown = all
            .iter()
            .map(|one| format!("{}={:?}", one.key, one.node.value));
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        keys("a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\n"),
        "y=Integer(2) x=Integer(1)"
    );
    assert_eq!(
        keys("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, {y: 3, z: 3}]}\n"),
        "y=Integer(2) x=Integer(1) z=Integer(3)"
    );
    let fails = |text: &str| parse(text, Format::Yaml, &lookup).unwrap_err().message;
    assert!(fails("a: {<<: {x: 1}, <<: {y: 1}}\n").ends_with("line 1 already"));
    assert_eq!(
        fails("a: {<<: 1}\n"),
        "the merge key \"<<\" wants keys and values, or a list of them"
    );
}

#[test]
fn places_are_lines_and_columns() {
    for (name, text) in [
        ("c.yaml", GOOD.replace("backend: a", "bakend: a")),
        (
            "c.json",
            "{\"listeners\": [{\"port\": 80}],\n\"routes\": [{\"bakend\": \"a\"}]}".to_owned(),
        ),
        (
            "c.toml",
            "[[listeners]]\nport = 80\n[[routes]]\nbakend = 'a'\n".to_owned(),
        ),
    ] {
        let error = translate(Path::new(name), &text, &Defaults::default(), true).unwrap_err();
        let (line, column) = match name {
            "c.yaml" => (2, 11),
            "c.json" => (2, 13),
            _ => (4, 1),
        };
        assert_eq!(
            error.to_string(),
            format!(
                "{name}:{line}:{column}: routes[0].bakend: unknown key \"bakend\", did you mean \"backend\"?"
            )
        );
    }
}

#[test]
fn what_is_no_document() {
    fails("c.yaml", "", "c.yaml: the file is empty");
    fails("c.yaml", "# only a comment\n", "c.yaml: the file is empty");
    fails("c.json", " \n", "c.json: the file is empty");
    fails("c.toml", "# x\n", "c.toml: the file is empty");
    fails(
        "c.yaml",
        "a: 1\na: 2\n",
        "c.yaml:2:1: a: this key stands on line 1 already",
    );
    fails(
        "c.yaml",
        "x:\n- b: {c: 1,\n   c: 2}\n",
        "c.yaml:3:4: x[0].b.c: this key stands on line 2 already",
    );
    fails(
        "c.json",
        "{\"a\": {\"b\": 1,\n \"b\": 2}}",
        "c.json:2:2: a.b: this key stands on line 1 already",
    );
    fails(
        "c.yaml",
        "a: 1\n---\nb: 2\n",
        "c.yaml:2:1: a second document: a configuration is one (Kubernetes objects are served by `serve --manifests`)",
    );
    fails("c.yaml", "a: !x 1\n", "c.yaml:1:7: tags are not supported");
    fails(
        "c.yaml",
        "a:\n- {port: ${PORT}}\n",
        "c.yaml:2:11: while parsing a flow mapping, did not find expected ',' or '}': beside `{` or `[`, ${NAME} is written in quotes",
    );
    fails(
        "c.yaml",
        "? [a]\n: 1\n",
        "c.yaml:1:3: a list or mapping as a key",
    );
    fails("c.json", "{\"a\": 01}", "c.json:1:7: a: not a number");
    fails(
        "c.json",
        "{\"a\": 1} x",
        "c.json:1:10: something behind the end of the value",
    );
    fails(
        "c.json",
        "{\"a\": \"x",
        "c.json:1:7: a: a string without an end",
    );
    fails(
        "c.yaml",
        "- 1\n",
        "c.yaml:1:1: expected keys and values, found a list",
    );
    fails(
        "c.yaml",
        "just text\n",
        "c.yaml:1:1: expected keys and values, found the text \"just text\"",
    );
}

#[test]
fn what_would_be_too_much() {
    for (name, open, close) in [("c.yaml", "[", "]"), ("c.json", "[", "]")] {
        let deep = format!(
            "{{\"a\": {}1{}}}",
            open.repeat(100_000),
            close.repeat(100_000)
        );
        let start = Instant::now();
        let error = translate(Path::new(name), &deep, &Defaults::default(), true).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("nested deeper than 64 levels") || text.contains("recursion"),
            "{text}"
        );
        assert!(start.elapsed().as_secs() < 5);
    }
    let toml = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let error = translate(Path::new("c.toml"), &toml, &Defaults::default(), true).unwrap_err();
    assert!(error.to_string().starts_with("c.toml:1:"), "{error}");
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let all = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{all}]\n"));
    }
    let error = translate(Path::new("c.yaml"), &bomb, &Defaults::default(), true).unwrap_err();
    assert!(
        error.to_string().contains("the aliases expand to too much"),
        "{error}"
    );
    let many = format!("a: [{}]", "1,".repeat(300_000));
    let error = translate(Path::new("c.yaml"), &many, &Defaults::default(), true).unwrap_err();
    assert!(
        error.to_string().contains("more than 200000 values"),
        "{error}"
    );
}

#[test]
fn types_and_numbers() {
    let with = |what: &str| GOOD.replace("port: 80", what);
    let at = "c.yaml:1:20: listeners[0].port: ";
    for (written, said) in [
        (
            "port: abc",
            "expected a whole number from 0 to 65535, found the text \"abc\"",
        ),
        (
            "port: 70000",
            "expected a whole number from 0 to 65535, found the number 70000",
        ),
        (
            "port: -1",
            "expected a whole number from 0 to 65535, found the number -1",
        ),
        (
            "port: 8.5",
            "expected a whole number from 0 to 65535, found the number 8.5",
        ),
        (
            "port: [1]",
            "expected a whole number from 0 to 65535, found a list",
        ),
        (
            "port: '80'",
            "expected a whole number from 0 to 65535, found the text \"80\"",
        ),
        ("port: 0", "0 is no port to listen on"),
        (
            "port: 99999999999999999999999",
            "the number 99999999999999999999999 is too large",
        ),
    ] {
        fails("c.yaml", &with(written), &format!("{at}{said}"));
    }
    let huge = format!("port: {}", "9".repeat(100));
    let error = translate(
        Path::new("c.yaml"),
        &with(&huge),
        &Defaults::default(),
        true,
    );
    assert!(error.unwrap_err().to_string().ends_with(" is too large"));
    fails(
        "c.yaml",
        &with("port: 80, name: 5"),
        "c.yaml:1:30: listeners[0].name: expected text, found the number 5; put it in quotes",
    );
    fails(
        "c.yaml",
        &with("port: 80, protocol: htps"),
        "c.yaml:1:34: listeners[0].protocol: unknown value \"htps\", did you mean \"https\"?",
    );
    fails(
        "c.yaml",
        &with("name: a"),
        "c.yaml:1:13: listeners[0]: the key \"port\" is missing",
    );
    fails(
        "c.yaml",
        "listeners:\n",
        "c.yaml:1:10: listeners: expected a list, found nothing",
    );
}

#[test]
fn variables_are_values() {
    let read = |text: &str, format| {
        #[derive(Debug, serde::Deserialize)]
        struct Two {
            port: u16,
            name: String,
        }
        let root = parse(text, format, &lookup).unwrap();
        let two: Two = reader::read(&root).unwrap();
        (two.port, two.name)
    };
    let expected = (80, "80".to_owned());
    assert_eq!(
        read("port: ${PORT}\nname: ${PORT}\n", Format::Yaml),
        expected
    );
    assert_eq!(
        read(
            "{\"port\": \"${PORT}\", \"name\": \"${PORT}\"}",
            Format::Json
        ),
        expected
    );
    assert_eq!(
        read("port = '${PORT}'\nname = '${PORT}'\n", Format::Toml),
        expected
    );
    let wrong = parse("a:\n- ok\n- x${MISSING}\n", Format::Yaml, &lookup).unwrap_err();
    let problem = no_document(Path::new("c.yaml"), wrong);
    assert_eq!(
        problem.to_string(),
        "c.yaml:3:3: a[1]: the variable MISSING is not set"
    );
    // What is filled in adds no keys, whatever it holds.
    let evil = |_: &str| Some("x\nroutes: []".to_owned());
    let root = parse("name: ${EVIL}\n", Format::Yaml, &evil).unwrap();
    assert_eq!(
        root.value,
        Value::Map(vec![Entry {
            key: "name".to_owned(),
            place: Place { line: 1, column: 1 },
            node: Node {
                place: Place { line: 1, column: 7 },
                value: Value::Filled("x\nroutes: []".to_owned()),
            },
        }])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Whatever a file holds, there is an answer.
    #[test]
    fn no_text_is_too_strange(
        text in prop_oneof![
            any::<String>(),
            "[\\[\\]{}:,\"'\\\\ \n\t&*!|>%@#?$a0.-]{0,60}",
            prop::collection::vec(prop::sample::select(vec![
                "listeners", "routes", "backends", "port", ":", " ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", "80", "\"", "${X}", "=", "static",
            ]), 0..30).prop_map(|words| words.concat()),
        ],
        name in prop::sample::select(vec!["c.yaml", "c.json", "c.toml"]),
    ) {
        if let Err(error) = translate(Path::new(name), &text, &Defaults::default(), false) {
            let shown = error.to_string();
            prop_assert!(shown.starts_with(name) && shown.lines().count() == 1, "{shown:?}");
        }
    }
}
