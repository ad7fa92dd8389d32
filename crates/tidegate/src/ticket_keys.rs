//! The file of session ticket keys: read at start, and again when it changes. A file that has become unreadable changes
//! nothing.

use crate::followed::each_change;
use anyhow::Context;
use data_plane::TicketKeys;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

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
    let followed = Arc::clone(&keys);
    let (files, first) = (vec![file.to_owned()], vec![text.into_bytes()]);
    tokio::spawn(each_change(files, first, shutdown, move |now| {
        let replaced = now.and_then(|read| {
            let text = read.into_iter().next().unwrap_or_default();
            let text = String::from_utf8(text).map_err(|error| error.to_string())?;
            followed.replace(&text).map_err(|error| error.to_string())
        });
        match replaced {
            Ok(()) => tracing::info!(file = shown, "session ticket keys replaced"),
            Err(error) => {
                tracing::error!(
                    file = shown,
                    error,
                    "session ticket keys cannot be used; the last ones are kept"
                );
            }
        }
    }));
    Ok(keys)
}
