//! Standard output of commands that print and end.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Prints. Whoever reads it may have seen enough, as `head` has: then the process ends at once, quietly and with success.
pub(crate) fn print(text: impl Display) {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("tidegate: cannot write to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// Prints a line, as [`print`] does.
pub(crate) fn line(text: impl Display) {
    print(format_args!("{text}\n"));
}
