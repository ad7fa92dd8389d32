//! Files that are made from something else in the checkout: `cargo xtask codegen`, and `--check` in tests.
//!
//! To add one, add a row to [`GENERATED`].

use crate::{chart, process};
use anyhow::{Context, bail};
use std::fs;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if a file is not what would be written
    #[arg(long)]
    check: bool,
    /// Only these files, by their paths from the root of the checkout; default: all
    files: Vec<String>,
}

/// One generated file.
struct Generated {
    /// From the root of the checkout.
    path: &'static str,
    render: fn() -> anyhow::Result<String>,
}

const GENERATED: [Generated; 3] = [
    Generated {
        path: chart::MANIFESTS,
        render: chart::manifests,
    },
    Generated {
        path: "docs/annotations.md",
        render: annotations,
    },
    Generated {
        path: "docs/config.schema.json",
        render: config_schema,
    },
];

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let unknown = args
        .files
        .iter()
        .find(|file| GENERATED.iter().all(|known| known.path != **file));
    if let Some(file) = unknown {
        let known: Vec<_> = GENERATED.iter().map(|file| file.path).collect();
        bail!("{file} is not generated; these are: {}", known.join(", "));
    }
    let chosen = |path: &str| args.files.is_empty() || args.files.iter().any(|file| file == path);
    let mut stale = Vec::new();
    for file in GENERATED.iter().filter(|file| chosen(file.path)) {
        let Some(rendered) = rendered_anew(file)? else {
            continue;
        };
        if args.check {
            stale.push(file.path);
            continue;
        }
        let path = process::root().join(file.path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        fs::write(&path, rendered).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", file.path);
    }
    match stale.as_slice() {
        [] => Ok(()),
        stale => bail!(
            "not up to date: {}; run `cargo xtask codegen`",
            stale.join(", ")
        ),
    }
}

/// Fails if this generated file is not what would be written now.
pub(crate) fn check(path: &str) -> anyhow::Result<()> {
    run(Args {
        check: true,
        files: vec![path.to_owned()],
    })
}

/// What the file should be, if it is not.
fn rendered_anew(file: &Generated) -> anyhow::Result<Option<String>> {
    let rendered = (file.render)().with_context(|| format!("cannot make {}", file.path))?;
    // A file that is missing is as stale as one that differs.
    let current = fs::read_to_string(process::root().join(file.path)).ok();
    Ok((current.as_ref() != Some(&rendered)).then_some(rendered))
}

/// The reference of the annotations, from the registry that reads them.
fn annotations() -> anyhow::Result<String> {
    process::output(&mut tidegate(&["annotations"]))
}

/// The JSON Schema of the configuration, from the types that read it.
fn config_schema() -> anyhow::Result<String> {
    process::output(&mut tidegate(&["schema"]))
}

/// A command that runs the `tidegate` of this checkout, built first where needed.
pub(crate) fn tidegate(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(process::root())
        .args(["run", "--quiet", "--package", "tidegate", "--"])
        .args(args);
    command
}
