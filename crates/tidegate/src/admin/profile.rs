//! `/profile`: where processor time goes, in all threads, for as long as was asked for. Before the first one nothing of it is
//! there: no signal handler, no timer, no memory.

use super::flamegraph::{self, Stacks};
use http::StatusCode;
use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Samples in a second of processor time. No multiple of what timers run at, so that it does not fall in step with them.
const FREQUENCY: i32 = 199;
/// Seconds a profile may take, and takes where nothing is said.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=60;
const USUAL_SECONDS: u64 = 10;

/// Takes profiles, one at a time.
pub(crate) struct Profiler {
    one: Arc<Semaphore>,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    seconds: u64,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Folded,
}

/// A profile, and its media type.
pub(crate) type Taken = (String, &'static str);

impl Profiler {
    pub(crate) fn new() -> Self {
        Self {
            one: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes a profile as the query wants it, and says so when it begins. It ends early when this future is dropped.
    ///
    /// # Errors
    /// Status and reason: the query is wrong, another one is being taken, or it cannot be done here.
    pub(crate) async fn take(
        &self,
        query: Option<&str>,
        begins: impl FnOnce(),
    ) -> Result<Taken, (StatusCode, String)> {
        let Wish { seconds, format } =
            wish(query.unwrap_or("")).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        let Ok(permit) = Arc::clone(&self.one).try_acquire_owned() else {
            let why = "a profile is being taken: there is one at a time";
            return Err((StatusCode::CONFLICT, why.to_owned()));
        };
        begins();
        let sampling = blocking(begin).await?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        blocking(move || {
            let finished = finish(sampling);
            drop(permit);
            let stacks = finished?;
            let samples: u64 = stacks.values().sum();
            let title = format!(
                "{samples} samples in {seconds} s, {FREQUENCY} in a second of processor time"
            );
            Ok(match format {
                Format::Svg => (flamegraph::svg(&stacks, &title), "image/svg+xml"),
                Format::Folded => (flamegraph::folded(&stacks), "text/plain; charset=utf-8"),
            })
        })
        .await
    }
}

/// Reads the query.
fn wish(query: &str) -> Result<Wish, String> {
    let mut wish = Wish {
        seconds: USUAL_SECONDS,
        format: Format::Svg,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value) {
            ("seconds", value) => {
                let seconds = value.parse().ok().filter(|n| SECONDS.contains(n));
                wish.seconds = seconds.ok_or("\"seconds\" is not from 1 to 60")?;
            }
            ("format", "svg") => wish.format = Format::Svg,
            ("format", "folded") => wish.format = Format::Folded,
            ("format", _) => return Err("\"format\" is neither svg nor folded".to_owned()),
            _ => return Err("only \"seconds\" and \"format\" can be asked for".to_owned()),
        }
    }
    Ok(wish)
}

/// Runs what takes its time off the control runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, (StatusCode, String)> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("taking the profile failed".to_owned()))
        .map_err(|why| (StatusCode::INTERNAL_SERVER_ERROR, why))
}

/// Sampling, until it is dropped.
struct Sampling {
    guard: ProfilerGuard<'static>,
    /// The sampler begins a file when it ends too, so this has to go after it.
    _room: Room,
}

/// Where samples go that are more than fit into the sampler's table: in memory, since a container may have no disk to write to.
struct Room(&'static Path);

impl Room {
    fn new() -> io::Result<Self> {
        static PLACE: OnceLock<PathBuf> = OnceLock::new();
        let place = PLACE.get_or_init(|| {
            let memory = PathBuf::from("/dev/shm");
            let below = if memory.is_dir() {
                memory
            } else {
                std::env::temp_dir()
            };
            below.join(format!("tidegate-profile-{}", std::process::id()))
        });
        // Nobody else makes one of our own number, but a process that was killed in the middle of a profile.
        let _ = std::fs::remove_dir_all(place);
        std::fs::create_dir(place)?;
        // Fails only where it was done before.
        let _ = tempfile::env::override_temp_dir(place);
        Ok(Self(place))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

fn begin() -> Result<Sampling, String> {
    let room = Room::new();
    let room = room.map_err(|error| format!("cannot make room for samples: {error}"))?;
    let sampler = || {
        let sampler = ProfilerGuardBuilder::default()
            .frequency(FREQUENCY)
            // The unwind information of the vDSO is not to be relied upon.
            .blocklist(&["vdso"])
            .build();
        sampler.map_err(|error| format!("cannot take a profile: {error}"))
    };
    // The sampler has a file for the next profile from the end of the last one on, which went with that one's room; ending
    // makes another, in this room.
    drop(sampler()?);
    Ok(Sampling {
        guard: sampler()?,
        _room: room,
    })
}

/// Ends the sampling, and names what was met.
fn finish(sampling: Sampling) -> Result<Stacks, String> {
    let sampled = sampling.guard.report().build_unresolved();
    // Before names are looked up, which takes long and should not be in it.
    drop(sampling);
    let mut stacks = Stacks::new();
    let sampled = sampled.map_err(|error| format!("cannot read the samples: {error}"))?;
    for (stack, count) in sampled.data {
        let named = Frames::from(stack);
        let outermost_first = named.frames.iter().rev();
        // What the compiler put into its caller stands innermost first too.
        let frames = outermost_first.flat_map(|inlined| inlined.iter().rev());
        let mut names = vec![named.thread_name_or_id()];
        names.extend(frames.map(ToString::to_string));
        *stacks.entry(names).or_default() += u64::try_from(count).unwrap_or(0);
    }
    Ok(stacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        let of = |seconds, format| Ok(Wish { seconds, format });
        assert_eq!(wish(""), of(10, Format::Svg));
        assert_eq!(wish("seconds=60"), of(60, Format::Svg));
        assert_eq!(wish("format=folded&seconds=1"), of(1, Format::Folded));
        for (query, said) in [
            ("seconds=0", "1 to 60"),
            ("seconds=61", "1 to 60"),
            ("seconds=", "1 to 60"),
            ("seconds=-1", "1 to 60"),
            ("format=pdf", "neither svg nor folded"),
            ("second=2", "only \"seconds\""),
        ] {
            assert!(wish(query).is_err_and(|why| why.contains(said)), "{query}");
        }
    }
}
