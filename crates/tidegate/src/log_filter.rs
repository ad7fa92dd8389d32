//! What `--log` may say. The library that reads filters takes a word that is no level for the name of a part of the program, of
//! which nothing would then be logged but that, so every word is looked at first.

use standalone::problem::unknown;
use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Parts that log: our crates, and libraries of which any log something.
const TARGETS: [&str; 24] = [
    "tidegate",
    "controller",
    "data_plane",
    "discovery",
    "standalone",
    "h2",
    "hickory",
    "hickory_net",
    "hickory_proto",
    "hickory_resolver",
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "kube",
    "kube_client",
    "kube_runtime",
    "mio",
    "notify",
    "pprof",
    "rustls",
    "rustls_platform_verifier",
    "tower",
    "tower_http",
    "tracing",
];

/// Reads a filter, and gives it back as it is.
///
/// # Errors
/// What is wrong with it, with the word that was probably meant.
pub(crate) fn checked(filter: &str) -> Result<String, String> {
    if filter.trim().is_empty() {
        return Err("it is empty; \"off\" logs nothing".to_owned());
    }
    for directive in filter.split(',') {
        check(directive)?;
    }
    match EnvFilter::try_new(filter) {
        Ok(_) => Ok(filter.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Looks at one directive: a level, a target, or a target and its level.
fn check(directive: &str) -> Result<(), String> {
    let (target, level) = match directive.rsplit_once('=') {
        // What is in brackets is of spans, for the library to read.
        _ if directive.contains('[') => return Ok(()),
        Some((target, level)) => (Some(target), Some(level)),
        None if is_level(directive) => return Ok(()),
        None => (Some(directive), None),
    };
    if let Some(level) = level
        && !is_level(level)
    {
        return Err(unknown("level", level, &LEVELS));
    }
    match target {
        Some(target) if !is_target(target) => {
            let known = match level {
                // Alone it may have been either.
                None => [&LEVELS[..], &TARGETS].concat(),
                Some(_) => TARGETS.to_vec(),
            };
            let what = level.map_or("level", |_| "target");
            Err(unknown(what, target, &known))
        }
        _ => Ok(()),
    }
}

fn is_level(word: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

/// A crate, with or without a module of it.
fn is_target(word: &str) -> bool {
    let name = word.split("::").next().unwrap_or(word);
    TARGETS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_taken_as_it_is() {
        for filter in [
            "info",
            "WARN",
            "off",
            "info,data_plane=debug",
            "warn,data_plane::health_probe=trace",
            "rustls",
            "info,[request{id=1}]=debug",
        ] {
            assert_eq!(checked(filter).as_deref(), Ok(filter));
        }
    }

    #[track_caller]
    fn refused(filter: &str, expected: &str) {
        let said = checked(filter).expect_err(filter);
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn a_slip_of_the_pen_is_an_error() {
        refused("wran", "unknown level \"wran\", did you mean \"warn\"?");
        refused(
            "data_plan",
            "unknown level \"data_plan\", did you mean \"data_plane\"?",
        );
        refused(
            "info,data-plane=debug",
            "unknown target \"data-plane\", did you mean \"data_plane\"?",
        );
        refused(
            "info,data_plane=debg",
            "unknown level \"debg\", did you mean \"debug\"?",
        );
        refused(
            "x=y=z",
            "unknown level \"z\", known are: error, warn, info, debug, trace, off",
        );
        refused(
            "verbose",
            "unknown level \"verbose\", known are: error, warn",
        );
        refused("", "it is empty");
        refused("info,,debug", "unknown level \"\"");
    }
}
