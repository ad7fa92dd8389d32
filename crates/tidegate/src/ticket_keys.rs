//! The file of session ticket keys: read at start, and again when it changes. A file that has become unreadable changes
//! nothing.

use anyhow::Context;
use data_plane::TicketKeys;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at. Keys change in hours.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads keys, and goes on looking at their file until `shutdown`. Must be called on a runtime.
///
/// # Errors
/// When the file cannot be read, or holds no keys.
pub(crate) fn follow(file: &Path, shutdown: CancellationToken) -> anyhow::Result<Arc<TicketKeys>> {
    let shown = file.display().to_string();
    let read = std::fs::read_to_string(file);
    let text = read.with_context(|| format!("cannot read the ticket keys in {shown}"))?;
    let keys =
        TicketKeys::new(&text).with_context(|| format!("cannot use the ticket keys in {shown}"))?;
    let keys = Arc::new(keys);
    let (followed, file) = (Arc::clone(&keys), file.to_owned());
    tokio::spawn(async move {
        let mut last: Result<String, String> = Ok(text);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let read = tokio::fs::read_to_string(&file).await;
            let read = read.map_err(|error| error.to_string());
            if read == last {
                continue;
            }
            let outcome = match &read {
                Ok(text) => followed.replace(text).map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            };
            match outcome {
                Ok(()) => tracing::info!(file = shown, "session ticket keys replaced"),
                Err(error) => {
                    tracing::error!(
                        file = shown,
                        error,
                        "session ticket keys cannot be used; the last ones are kept"
                    );
                }
            }
            last = read;
        }
    });
    Ok(keys)
}
