//! Reading files: regular ones only, so that a FIFO never blocks, and only so much of them.

use std::io::Read;
use std::path::Path;

/// Largest certificate file in bytes.
pub(crate) const MAX_PEM: u64 = 1024 * 1024;

/// Reads a file.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file.
pub(crate) fn read(file: &Path, most: u64) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        // Opening a FIFO would block.
        return Err("not a regular file".to_owned());
    }
    if metadata.len() > most {
        return Err(format!("larger than {most} bytes"));
    }
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    bounded(opened, most)
}

/// Reads to the end, which may not be far.
pub(crate) fn bounded(from: impl Read, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // It may grow while it is read.
    let read = from.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("larger than {most} bytes"));
    }
    Ok(bytes)
}

/// Text of bytes.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.contains(&0) {
        return Err("a binary file, not text".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("not UTF-8 (byte {at})")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
