//! `tidegate check` and `tidegate translate`: what manifests or a configuration come to, without serving them.

use crate::args::PathArgs;
use crate::expiry::expired;
use crate::output;
use controller::source::directory::{self, Loaded};
use routing_table::text::render;
use routing_table::{RoutingTable, overlap};
use standalone::{Defaults, LoadError, source};
use std::path::Path;
use std::process::ExitCode;
use translate::{Kind, Object, Severity, Snapshot, Translation};

/// Says what is wrong. Exit status 1 if there is an error, 0 with warnings only.
pub(crate) fn check(args: &PathArgs) -> ExitCode {
    if source::is_configuration(&args.path) {
        return check_configuration(args);
    }
    let (loaded, translation) = match translated(args) {
        Ok(both) => both,
        Err(error) => {
            eprintln!("tidegate: {}", crate::one_line(&error));
            return ExitCode::FAILURE;
        }
    };
    let mut errors = loaded.problems.len();
    let mut warnings = 0;
    for problem in &loaded.problems {
        output::line(format_args!(
            "{}: error: {}",
            place(&problem.origin, problem.column),
            problem.message
        ));
    }
    let is_ingress = |object: &Object| matches!(object, Object::Ingress(_));
    let ingresses = loaded
        .objects
        .iter()
        .filter(|(one, _)| is_ingress(one))
        .count();
    let origins = loaded.origins();
    for diagnostic in &translation.diagnostics {
        match diagnostic.severity {
            Severity::Error => errors += 1,
            Severity::Warning => warnings += 1,
        }
        match origins.get(&(diagnostic.object.kind, diagnostic.object.key.clone())) {
            Some(origin) => output::line(format_args!("{origin}: {diagnostic}")),
            None => output::line(format_args!("{diagnostic}")),
        }
    }
    for skipped in &loaded.skipped {
        if skipped.meant().is_some() {
            warnings += 1;
            output::line(format_args!("{}: warning: {skipped}", skipped.origin));
        }
    }
    for ingress in &translation.passed_over {
        warnings += 1;
        match origins.get(&(Kind::Ingress, ingress.key.clone())) {
            Some(origin) => output::line(format_args!("{origin}: warning: {ingress}")),
            None => output::line(format_args!("warning: {ingress}")),
        }
    }
    for expired in expired(&translation.table) {
        warnings += 1;
        output::line(format_args!("warning: {expired}"));
    }
    output::line(format_args!(
        "{} object(s), {} of {ingresses} Ingress(es) ours, {} not read; {errors} error(s), {warnings} warning(s)",
        loaded.objects.len(),
        translation.claimed.len(),
        loaded.skipped.len()
    ));
    if !loaded.skipped.is_empty() {
        output::line(format_args!(
            "not read: {}",
            directory::kinds(&loaded.skipped)
        ));
    }
    if translation.claimed.is_empty() && ingresses > 0 {
        errors += 1;
        output::line(format_args!(
            "{}: error: none of its {ingresses} Ingress(es) would be served",
            args.path.display()
        ));
    }
    if translation.claimed.len() < ingresses {
        output::line(format_args!(
            "{} Ingress(es) are of classes that are not served: see --ingress-class (now {:?}) and --controller-name (now {:?})",
            ingresses - translation.claimed.len(),
            args.routing.ingress_class,
            args.routing.controller_name
        ));
    }
    if loaded.objects.is_empty() && loaded.problems.is_empty() {
        errors += 1;
        output::line(format_args!(
            "{}: error: nothing is in it that could be served: no object of a kind that is read, in files that end in .yaml, .yml or .json",
            args.path.display()
        ));
    }
    if errors > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Says what is wrong with a configuration, certificate files included.
fn check_configuration(args: &PathArgs) -> ExitCode {
    match source::load(&args.path, &args.routing.defaults()) {
        Ok(made) => {
            let table = &made.table;
            let said = made.warnings.iter().cloned();
            for warning in said.chain(expired(table)).chain(beside_admin(table)) {
                output::line(format_args!("warning: {warning}"));
            }
            output::line(format_args!(
                "{} listener(s), {} route(s), {} backend(s); no error",
                table.listeners().len(),
                table.routes().len(),
                table.clusters().as_slice().len()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::line(error);
            ExitCode::FAILURE
        }
    }
}

/// What there is to say of listeners on the port that the admin port has where nothing else is said.
fn beside_admin(table: &RoutingTable) -> Option<String> {
    let admin = crate::args::ADMIN_ADDR;
    let mut listeners = table.listeners().iter();
    let clash = listeners.find(|one| admin.parse().is_ok_and(|admin| overlap(one.addr, admin)))?;
    Some(format!(
        "listener {} is on {}, where the admin port is by default: `serve` needs another --admin-addr",
        clash.id, clash.addr
    ))
}

/// Prints the routing table.
pub(crate) fn translate(args: &PathArgs) -> anyhow::Result<()> {
    if source::is_configuration(&args.path) {
        let made = shown_configuration(&args.path, &args.routing.defaults())?;
        output::print(render(&made.table, &made.endpoints));
        return Ok(());
    }
    let (loaded, translation) = translated(args)?;
    for problem in &loaded.problems {
        eprintln!(
            "{}: error: {}",
            place(&problem.origin, problem.column),
            problem.message
        );
    }
    output::print(render(&translation.table, &translation.endpoints));
    for diagnostic in &translation.diagnostics {
        eprintln!("{diagnostic}");
    }
    Ok(())
}

/// A configuration with its certificates; without them where they cannot be read, as on another machine than it is for.
fn shown_configuration(
    file: &Path,
    defaults: &Defaults,
) -> Result<standalone::Translation, LoadError> {
    match source::load(file, defaults) {
        Err(LoadError::File(problem)) if file != Path::new("-") => {
            eprintln!("{problem}; certificates of listeners are not shown");
            source::load_without_files(file, defaults)
        }
        loaded => loaded,
    }
}

fn place(origin: &directory::Origin, column: usize) -> String {
    if column > 0 {
        format!("{origin}:{column}")
    } else {
        origin.to_string()
    }
}

fn translated(args: &PathArgs) -> anyhow::Result<(Loaded, Translation)> {
    let loaded = directory::load(&args.path)?;
    let mut snapshot = Snapshot::default();
    loaded
        .objects
        .iter()
        .for_each(|(object, _)| snapshot.upsert(object.clone()));
    let usual = translate::Settings::default();
    let settings = args.routing.settings(usual.http, usual.https, true);
    let translation = translate::translate(&snapshot, &settings);
    Ok((loaded, translation))
}
