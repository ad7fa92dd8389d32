//! Programs the tests need that are not ours: found, or installed into the cache.

pub(crate) mod bench;
pub(crate) mod control_plane;
pub(crate) mod envoy;
pub(crate) mod helm;
pub(crate) mod suites;
mod wheel;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Where `PATH` has this program, as a shell would find it.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| {
            path.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}
