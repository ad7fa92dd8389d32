//! Golden cases: manifests in, routing table and diagnostics out.
//!
//! A case is a folder of `tests/golden` with `in.yaml` and `out.txt`. The first comment of `in.yaml` says what it shows. A line
//! `# settings: NAME=VALUE ...` changes settings; `${certificate:NAME}` and `${key:NAME}` stand for a certificate of that name
//! and its key, made on the spot. `UPDATE_GOLDEN=1 cargo test -p translate` writes the outputs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a failed unwrap is a failed test"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the cases are files; the crate under test reads none"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use translate::manifest::{Item, parse};
use translate::{HostOwnership, Object, ObjectKey, Settings, Snapshot, translate};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

fn key(name: &str) -> ObjectKey {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

fn settings(text: &str) -> Settings {
    let mut settings = Settings {
        reserved_ports: vec![10254],
        ..Settings::default()
    };
    for line in text
        .lines()
        .filter_map(|line| line.strip_prefix("# settings:"))
    {
        for (name, value) in line
            .split_whitespace()
            .map(|pair| pair.split_once('=').expect("settings are NAME=VALUE"))
        {
            match (name, value) {
                ("classless", "true") => settings.serve_classless = true,
                ("local", "true") => settings.local_endpoints = true,
                ("external-name", "true") => settings.external_name = true,
                ("proxy-protocol", "true") => settings.proxy_header = true,
                ("tcp-services", name) => settings.tcp_services = Some(key(name)),
                ("udp-services", name) => settings.udp_services = Some(key(name)),
                ("ssl-passthrough", "true") => settings.ssl_passthrough = true,
                ("https", "off") => settings.https = None,
                ("hosts", "shared") => settings.host_ownership = HostOwnership::Shared,
                other => panic!("no such setting: {other:?}"),
            }
        }
    }
    settings
}

/// Fills in certificates, the same one for the same name.
fn with_certificates(text: &str) -> String {
    let mut made: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut out = String::new();
    for line in text.lines() {
        let place = line
            .find("${")
            .and_then(|at| Some((at, line[at..].find('}')? + at)));
        let Some((from, to)) = place else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let (kind, name) = line[from + 2..to]
            .split_once(':')
            .expect("a placeholder is ${kind:name}");
        let (certificate, key) = made.entry(name.to_owned()).or_insert_with(|| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
            (certificate.pem(), key.serialize_pem())
        });
        let pem = if kind == "key" { key } else { certificate };
        let indent = " ".repeat(line.len() - line.trim_start().len());
        out.push_str(&line[..from]);
        out.push_str(&pem.trim_end().replace('\n', &format!("\n{indent}")));
        out.push('\n');
    }
    out
}

fn objects(text: &str) -> Vec<Object> {
    let items = parse(&with_certificates(text), false).into_iter();
    let object = |item: Item| match item {
        Item::Object(object) => object,
        Item::Skipped { kind, .. } => panic!("{kind} is of no kind we read"),
    };
    items
        .map(|item| object(item.expect("golden manifests can be read").value))
        .collect()
}

fn rendered(objects: impl IntoIterator<Item = Object>, settings: &Settings) -> String {
    let mut snapshot = Snapshot::default();
    objects
        .into_iter()
        .for_each(|object| snapshot.upsert(object));
    let translation = translate(&snapshot, settings);
    let mut out = routing_table::text::render(&translation.table, &translation.endpoints);
    out.push('\n');
    for diagnostic in &translation.diagnostics {
        writeln!(out, "{diagnostic}").unwrap();
    }
    let claimed: Vec<String> = translation
        .claimed
        .iter()
        .map(ToString::to_string)
        .collect();
    writeln!(out, "ours: {}", claimed.join(", ")).unwrap();
    for ingress in &translation.passed_over {
        writeln!(out, "passed over: {ingress}").unwrap();
    }
    out
}

#[test]
fn golden() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let files: Vec<_> = std::fs::read_dir(&case)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            files
                .iter()
                .all(|file| file == "in.yaml" || file == "out.txt"),
            "{name} has files that belong to no case: {files:?}"
        );
        let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
        assert!(
            text.starts_with("# "),
            "{name}/in.yaml does not begin by saying what it shows"
        );
        let out = rendered(objects(&text), &settings(&text));
        if update {
            std::fs::write(case.join("out.txt"), &out).unwrap();
        }
        let expected = std::fs::read_to_string(case.join("out.txt")).unwrap_or_default();
        if out != expected {
            wrong.push(format!("== {name}: got\n{out}\n-- expected\n{expected}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n(UPDATE_GOLDEN=1 writes the outputs)",
        wrong.join("\n")
    );
}

/// Whatever order objects come in, they mean the same.
#[test]
fn order_does_not_matter() {
    for case in cases() {
        let text = std::fs::read_to_string(case.join("in.yaml")).unwrap();
        let (settings, all) = (settings(&text), objects(&text));
        let first = rendered(all.clone(), &settings);
        let mut turned = all;
        for _ in 0..turned.len() {
            turned.rotate_left(1);
            assert_eq!(
                rendered(turned.clone(), &settings),
                first,
                "{}",
                case.display()
            );
            assert_eq!(
                rendered(turned.iter().rev().cloned(), &settings),
                first,
                "{}",
                case.display()
            );
        }
    }
}

#[test]
fn the_annotation_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/annotations.md");
    let expected = translate::annotation::markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        expected,
        "run `cargo xtask codegen`"
    );
}
