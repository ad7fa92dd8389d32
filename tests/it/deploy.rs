//! The files below `deploy/` for machines without a cluster: their command lines and configurations are ones that the binary takes.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use test_support::process::binary;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap()
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).env("HOSTNAME", "one").output().unwrap()
}

#[track_caller]
fn succeeds(args: &[&str]) {
    let output = run(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
}

/// Every flag before `--help` is read first, and then nothing is started.
#[track_caller]
fn is_taken(args: &[&str]) {
    succeeds(&[args, &["--help"]].concat());
}

#[test]
fn the_unit_of_systemd_has_flags_that_we_know_and_is_well_formed() {
    let unit = read("systemd/tidegate.service");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words: Vec<&str> = start.unwrap().split_whitespace().collect();
    is_taken(&words[1..]);
    for setting in [
        "DynamicUser=yes",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
    ] {
        assert!(unit.lines().any(|line| line == setting), "{setting}");
    }
    // It looks for the binary too, so it is told of ours.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.service");
    let ours = unit.replace(words[0], &binary().display().to_string());
    std::fs::write(&file, ours).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&file);
    match verify.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            println!("systemd-analyze verify: {} {said}", output.status);
            assert!(output.status.success(), "{said}");
            assert!(!said.contains("tidegate.service:"), "{said}");
        }
        Err(error) => println!("not verified by systemd: {error}"),
    }
}

#[test]
fn the_compose_file_has_flags_and_files_that_fit() {
    let compose: Value = serde_yaml::from_str(&read("compose/compose.yaml")).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().unwrap().iter();
        all.map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    for name in ["tidegate", "backend"] {
        let service = &compose["services"][name];
        let command = texts(&service["command"]);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        is_taken(&command);
        let volumes = texts(&service["volumes"]);
        let (file, mounted) = volumes[0].split_once(':').unwrap();
        let mounted = mounted.trim_end_matches(":ro");
        assert!(command.contains(&mounted), "{command:?} and {mounted}");
        let file = deploy("compose").join(file);
        succeeds(&["check", file.to_str().unwrap()]);
        assert_eq!(service["read_only"], true);
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]));
    }
}
