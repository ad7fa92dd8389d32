//! What the bench needs from Debian: found, or named together with the package that has it.

use super::on_path;
use anyhow::bail;
use std::path::{Path, PathBuf};

/// A program, and the Debian package it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program(pub(crate) &'static str, pub(crate) &'static str);

pub(crate) const NGINX: Program = Program("nginx", "nginx-light");
pub(crate) const HAPROXY: Program = Program("haproxy", "haproxy");
pub(crate) const WRK: Program = Program("wrk", "wrk");
pub(crate) const H2LOAD: Program = Program("h2load", "nghttp2-client");
pub(crate) const OPENSSL: Program = Program("openssl", "openssl");
pub(crate) const TASKSET: Program = Program("taskset", "util-linux");
pub(crate) const PRLIMIT: Program = Program("prlimit", "util-linux");
pub(crate) const CC: Program = Program("cc", "gcc");
pub(crate) const VALGRIND: Program = Program("valgrind", "valgrind");
pub(crate) const STRACE: Program = Program("strace", "strace");

impl Program {
    /// Where it is: on `PATH`, or in `/usr/sbin`, which is not on everybody's.
    ///
    /// # Errors
    ///
    /// When it is not there; the error names the package.
    pub(crate) fn find(self) -> anyhow::Result<PathBuf> {
        let sbin = Path::new("/usr/sbin").join(self.0);
        match on_path(self.0).or_else(|| sbin.is_file().then_some(sbin)) {
            Some(path) => Ok(path),
            None => bail!("{} is not installed (Debian package {})", self.0, self.1),
        }
    }
}
