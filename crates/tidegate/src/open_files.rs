//! How many files this process may have open: as many as it is let, and a word when that is too few for what it is told to serve.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For what is no connection: sockets that listen, the log, the API server.
const OTHERS: u64 = 256;

/// Raises the limit as far as it goes, and says so when `connections` of clients, each with one to an endpoint, do not fit. Gives
/// how many connections to endpoints do fit beside them; `None`: as many as one likes.
pub(crate) fn raise_limit(connections: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let limit = getrlimit(Resource::Nofile).current;
    if let Some(warning) = too_few(limit, connections) {
        tracing::warn!("{warning}");
    }
    limit.map(|limit| left(limit, connections))
}

/// Where the limit leaves nothing, clients do without a part of what they may have: they wait in the kernel.
fn left(limit: u64, connections: u64) -> u64 {
    let rest = limit.saturating_sub(connections.saturating_add(OTHERS));
    rest.max(limit / 4).max(1)
}

/// What there is to say of this limit; `None` is no limit.
fn too_few(limit: Option<u64>, connections: u64) -> Option<String> {
    let needed = connections.saturating_mul(2).saturating_add(OTHERS);
    let limit = limit.filter(|limit| *limit < needed)?;
    Some(format!(
        "only {limit} files may be open (ulimit -n), {needed} are needed for --max-connections {connections}: \
         what comes beyond waits in the kernel"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_for_endpoints() {
        assert_eq!(left(20_256, 10_000), 10_000);
        assert_eq!(left(1_000, 300), 444);
        assert_eq!((left(256, 10_000), left(0, 1)), (64, 1));
    }

    #[test]
    fn too_few_are_told_of() {
        assert_eq!(too_few(None, u64::MAX), None);
        assert_eq!(too_few(Some(20_256), 10_000), None);
        let said = too_few(Some(1024), 10_000);
        assert!(said.is_some_and(|said| said.contains("1024") && said.contains("20256")));
    }
}
