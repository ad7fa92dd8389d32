//! Files that are read at start, and again when they change. What cannot be used any more changes nothing.

use anyhow::anyhow;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often they are looked at. Tokens, keys and certificates change in hours.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Makes something of what is in these files, and again whenever that changes, until `shutdown`. `what` is what errors call it.
/// Must be called on a runtime.
///
/// # Errors
/// When a file cannot be read, or what is in it cannot be used.
pub(crate) fn follow<T: Send + Sync + 'static>(
    what: &'static str,
    files: Vec<PathBuf>,
    make: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + 'static,
    shutdown: CancellationToken,
) -> anyhow::Result<watch::Receiver<T>> {
    let unusable = |why: String| anyhow!("cannot use {what}: {why}");
    let first = read(&files).map_err(unusable)?;
    let made = make(&first).map_err(unusable)?;
    let (sender, receiver) = watch::channel(made);
    tokio::spawn(each_change(files, first, shutdown, move |now| {
        match now.and_then(|read| make(&read)) {
            Ok(made) => {
                sender.send_replace(made);
                tracing::info!("{what} replaced");
            }
            Err(error) => {
                tracing::error!(error, "{what} cannot be used; the last is kept");
            }
        }
    }));
    Ok(receiver)
}

/// Looks at files until `shutdown`, and tells `changed` what is in them, or why they cannot be read, whenever that is another than
/// before.
pub(crate) async fn each_change(
    files: Vec<PathBuf>,
    first: Vec<Vec<u8>>,
    shutdown: CancellationToken,
    mut changed: impl FnMut(Result<Vec<Vec<u8>>, String>),
) {
    let mut last = Ok(first);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Small files, now and then, on a thread that no request waits for.
        let now = read(&files);
        if now != last {
            changed(now.clone());
            last = now;
        }
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let one = |file: &PathBuf| {
        std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    files.iter().map(one).collect()
}
