//! Flags that contradict each other, or cannot be read.

use super::*;

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn mistakes_are_refused() {
    for bad in [
        &["serve", "--manifests", "x", "--http-addr", "8080"][..],
        &["serve", "--manifests", "x", "--config", "y"],
        &["serve", "--backend", "http://a", "--config", "y"],
        &["serve", "--manifests", "x", "--workers", "0"],
        &["serve", "--manifests", "x", "--tls-min-version", "1.1"],
        &["serve", "--manifests", "x", "--lameduck", "10"],
        &[
            "serve",
            "--manifests",
            "x",
            "--trusted-proxy",
            "10.0.0.0/40",
        ],
        &["controller", "--publish-service", "just-a-name"],
        &[
            "controller",
            "--publish-service",
            "a/b",
            "--publish-address",
            "1.2.3.4",
        ],
        &["serve", "--manifets", "x"],
        &["serve", "--manifests", "x", "--admin-tls-cert", "c"],
        &["serve", "--manifests", "x", "--admin-token-for-metrics"],
    ] {
        assert!(
            Cli::try_parse_from(["tidegate"].iter().chain(bad)).is_err(),
            "{bad:?}"
        );
    }
    assert!(
        Cli::try_parse_from([
            "tidegate",
            "serve",
            "--manifests",
            "x",
            "--https-addr",
            "off",
            "--lameduck",
            "500ms"
        ])
        .is_ok()
    );
}
