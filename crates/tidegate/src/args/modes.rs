//! Which flags have an effect in which mode. One that has none is refused: whoever gives it believes in something that does not
//! happen, and with `--proxy-protocol` that is who the client is.

use super::Cli;
use clap::error::{Error, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

/// What `tidegate serve` serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Manifests,
    Config,
    Backends,
}

use Mode::{Backends, Config, Manifests};

impl Mode {
    fn of(serve: &ArgMatches) -> Self {
        if serve.contains_id("manifests") {
            Manifests
        } else if serve.contains_id("config") {
            Config
        } else {
            Backends
        }
    }

    /// What brings it about, and what to do instead of giving the flag.
    fn named(self) -> (&'static str, &'static str) {
        match self {
            Manifests => ("--manifests", "leave it out"),
            Config => ("--config", "the file says it, where it can be said"),
            Backends => ("--backend (or BACKEND_1)", "use --config, or leave it out"),
        }
    }
}

const READS_OBJECTS: &[Mode] = &[Manifests];
const LISTENS_BY_FLAG: &[Mode] = &[Manifests, Backends];
/// Listeners that speak TLS, PROXY headers and endpoints that have a zone are in manifests and in a file.
const NOT_BACKENDS: &[Mode] = &[Manifests, Config];
const BACKENDS_ONLY: &[Mode] = &[Backends];

/// Flags of `tidegate serve` that not every mode has a use for, and the modes that do.
const USED_IN: &[(&str, &[Mode])] = &[
    ("allow-external-name", READS_OBJECTS),
    ("backend", BACKENDS_ONLY),
    ("backend-ca", BACKENDS_ONLY),
    ("client-handshake-timeout", NOT_BACKENDS),
    ("close-relays-with-endpoint", READS_OBJECTS),
    ("cluster-domain", READS_OBJECTS),
    ("controller-name", READS_OBJECTS),
    ("default-certificate", READS_OBJECTS),
    ("enable-ssl-passthrough", READS_OBJECTS),
    ("host-ownership", READS_OBJECTS),
    ("http-addr", LISTENS_BY_FLAG),
    ("https-addr", READS_OBJECTS),
    ("ingress-class", READS_OBJECTS),
    ("max-handshakes", NOT_BACKENDS),
    ("max-relays-per-port", READS_OBJECTS),
    ("proxy-protocol", READS_OBJECTS),
    ("proxy-protocol-from", NOT_BACKENDS),
    ("ssl-redirect", READS_OBJECTS),
    ("tcp-idle-timeout", READS_OBJECTS),
    ("tcp-services-configmap", READS_OBJECTS),
    ("tls-ciphers", NOT_BACKENDS),
    ("tls-min-version", NOT_BACKENDS),
    ("tls-ticket-keys", NOT_BACKENDS),
    ("udp-idle-timeout", READS_OBJECTS),
    ("udp-responses", READS_OBJECTS),
    ("udp-services-configmap", READS_OBJECTS),
    ("zone", NOT_BACKENDS),
];

/// Refuses flags that have no effect beside others. Variables of the environment may stand for more than one process, so they are
/// not looked at.
///
/// # Errors
/// Names the flag, and what makes it have no effect.
pub(super) fn check(matches: &ArgMatches) -> Result<(), Error> {
    let Some(("serve", given)) = matches.subcommand() else {
        return Ok(());
    };
    let mut command = Cli::command();
    let Some(serve) = command.find_subcommand_mut("serve") else {
        return Ok(());
    };
    let mode = Mode::of(given);
    let ignored = serve.get_arguments().find_map(|arg| {
        let flag = arg.get_long()?;
        let is_given = given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        (is_given && !is_used(flag, mode)).then(|| flag.to_owned())
    });
    let Some(flag) = ignored else {
        return Ok(());
    };
    let (beside, instead) = mode.named();
    let why = format!("--{flag} has no effect beside {beside}: {instead}");
    Err(serve
        .clone()
        .bin_name("tidegate serve")
        .error(ErrorKind::ArgumentConflict, why))
}

/// What is not in the table is of use everywhere.
fn is_used(flag: &str, mode: Mode) -> bool {
    let row = USED_IN.iter().find(|(of, _)| *of == flag);
    row.is_none_or(|(_, modes)| modes.contains(&mode))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// A value that the flag takes.
    fn value(flag: &str) -> Option<&'static str> {
        Some(match flag {
            "allow-external-name"
            | "close-relays-with-endpoint"
            | "enable-ssl-passthrough"
            | "proxy-protocol" => return None,
            "backend" => "http://127.0.0.1:1",
            "default-certificate" | "tcp-services-configmap" | "udp-services-configmap" => "a/b",
            "host-ownership" => "shared",
            "http-addr" | "https-addr" => "127.0.0.1:0",
            "max-handshakes" | "max-relays-per-port" | "udp-responses" => "1",
            "proxy-protocol-from" => "10.0.0.0/8",
            "ssl-redirect" => "false",
            "client-handshake-timeout" | "tcp-idle-timeout" | "udp-idle-timeout" => "1s",
            "tls-ciphers" => "ECDHE-RSA-AES128-GCM-SHA256",
            "tls-min-version" => "1.3",
            _ => "x",
        })
    }

    fn said(args: &[String]) -> Option<String> {
        let program = ["tidegate".to_owned(), "serve".to_owned()];
        let given = program.iter().chain(args);
        let checked = Cli::command().try_get_matches_from(given);
        let checked = checked.and_then(|matches| check(&matches));
        checked.err().map(|error| error.to_string())
    }

    #[test]
    fn what_has_no_effect_in_a_mode_is_refused_by_both_names() {
        for (flag, used_in) in USED_IN {
            for (mode, by) in [
                (Manifests, "--manifests=x"),
                (Config, "--config=x"),
                (Backends, "--backend=http://127.0.0.1:1"),
            ] {
                let given = value(flag).map_or(String::new(), |value| format!("={value}"));
                let said = said(&[by.to_owned(), format!("--{flag}{given}")]);
                let case = format!("--{flag} beside {by}: {said:?}");
                assert_eq!(said.is_none(), used_in.contains(&mode), "{case}");
                let names = [
                    format!("--{flag}"),
                    by.split('=').next().unwrap().to_owned(),
                ];
                let named = |said: &String| names.iter().all(|name| said.contains(name));
                assert!(said.as_ref().is_none_or(named), "{case}");
            }
        }
    }

    #[test]
    fn every_row_is_a_flag() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let flags: Vec<_> = serve
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .collect();
        for (flag, _) in USED_IN {
            assert!(flags.contains(flag), "{flag}");
        }
    }
}
