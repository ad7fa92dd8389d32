//! `tidegate serve` without manifests: a configuration, or backends named by flags or variables. And `tidegate test`.

use crate::args::{Cli, ServeArgs, TestArgs};
use crate::output;
use crate::{UsageError, proxy, telemetry};
use anyhow::Context;
use clap::CommandFactory;
use clap::error::ErrorKind;
use standalone::named_backends::{BackendsError, backends_of, from_backends};
use standalone::source;
use standalone::{Defaults, LoadError, Metrics, Translation};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Serves until a signal.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let defaults = args.proxy.routing.defaults();
    let first = match &args.config {
        Some(file) => load(file, &defaults)?,
        None => of_backends(&args, &defaults)?,
    };
    let listeners = first.table.listeners().iter();
    let listeners: Vec<_> = listeners
        .map(|one| (format!("listener {}", one.id), one.addr))
        .collect();
    args.proxy.check_addresses(&listeners)?;
    telemetry::init(&args.proxy.log, args.proxy.log_format)?;
    let file: Option<PathBuf> = args.config.clone().filter(|file| file != Path::new("-"));
    let lameduck = args.proxy.lameduck.unwrap_or(Duration::ZERO);
    let started: proxy::Started = Box::new(|_| tracing::info!("ready"));
    let stdout = Box::new(std::io::stdout());
    proxy::block_on(proxy::serve(
        &args.proxy,
        lameduck,
        stdout,
        proxy::Missing::Nothing,
        started,
        |publishing| {
            let options = standalone::Options {
                file,
                first,
                defaults,
                discovery: publishing.discovery,
                metrics: Metrics::new(&publishing.registry).context("cannot register metrics")?,
            };
            let running = standalone::run(options, publishing.publish, publishing.shutdown);
            Ok(async move { running.await.context("cannot listen for SIGHUP") })
        },
    ))
}

/// A configuration that is wrong is a mistake of whoever wrote it; a file that it names may only be missing yet.
fn load(file: &Path, defaults: &Defaults) -> anyhow::Result<Translation> {
    source::load(file, defaults).map_err(|error| match error {
        LoadError::Config(problem) => UsageError(problem.to_string()).into(),
        LoadError::File(_) => error.into(),
    })
}

/// One route to the backends that flags or variables name.
fn of_backends(args: &ServeArgs, defaults: &Defaults) -> anyhow::Result<Translation> {
    let wrong = |error: BackendsError| match error {
        BackendsError::Wrong(message) => anyhow::Error::from(UsageError(message)),
        BackendsError::File(_) => error.into(),
    };
    let mut urls = args.backends.clone();
    if urls.is_empty() {
        let named = std::env::vars_os();
        let named = named.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        urls = backends_of(named).map_err(wrong)?;
    }
    if urls.is_empty() {
        let message = "nothing to serve: give --manifests PATH, --config FILE, --backend URL, or set BACKEND_1";
        Cli::command()
            .find_subcommand_mut("serve")
            .map_or_else(Cli::command, |serve| serve.clone())
            .bin_name("tidegate serve")
            .error(ErrorKind::MissingRequiredArgument, message)
            .exit();
    }
    let Some(listen) = args.proxy.http_addr.0 else {
        return Err(UsageError("--backend needs --http-addr".to_owned()).into());
    };
    let ca = args.backend_ca.as_deref();
    from_backends(listen, &urls, ca, defaults).map_err(wrong)
}

/// Tries cases. Exit status 1 if one fails, 2 if a file is malformed.
pub(crate) fn test(args: &TestArgs) -> ExitCode {
    let malformed = |text: String| {
        eprintln!("tidegate: {text}");
        ExitCode::from(2)
    };
    let made = match source::load_without_files(&args.config, &Defaults::default()) {
        Ok(made) => made,
        Err(error) => return malformed(error.to_string()),
    };
    match standalone::cases::run(&args.cases, &made.table) {
        Err(problem) => malformed(problem.to_string()),
        Ok(outcome) => {
            output::print(outcome.report);
            output::line(format_args!(
                "{} passed, {} failed",
                outcome.passed, outcome.failed
            ));
            match outcome.failed {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
    }
}
