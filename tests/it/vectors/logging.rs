//! Steps of X7 and X8: what the access log and the backend are told about a client.

use super::stand::{Setup, Stand};
use super::vector::request;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use test_support::raw::{self, Plan};

/// Longest value of a client's that a log line may have, with room for escapes.
const MAX_LOGGED: usize = 2 * 1024;

/// A long and nasty `User-Agent` makes one line, with its beginning in it.
pub(crate) async fn one_short_line(stand: &Stand) -> Result<(), String> {
    // Its line can be told from those of other times.
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    let times = TIMES.fetch_add(1, Ordering::Relaxed);
    let (path, marker) = (format!("/x8-{times}?"), format!("/x8-marker-{times}"));
    let agent = format!("{}\"\\{}", "u".repeat(500), "m".repeat(8 * 1024));
    let lines = format!("User-Agent: {agent}\r\nReferer: {agent}\r\n");
    let target = format!("GET {path}{} HTTP/1.1", "q".repeat(7 * 1024));
    let mut stream = raw::connect(stand.tidegate.http).await;
    let got = raw::exchange(&mut stream, Plan::new(request(&target, &lines, b""))).await;
    if got.statuses() != [200] {
        return Err(format!("expected 200, got {}", got.summary()));
    }
    let mut stream = raw::connect(stand.tidegate.http).await;
    let last = request(&format!("GET {marker} HTTP/1.1"), "", b"");
    raw::exchange(&mut stream, Plan::new(last)).await;
    let text = stand.logged_until(&marker).await?;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&path)).collect();
    let [line] = lines[..] else {
        return Err(format!("{} lines for one request", lines.len()));
    };
    let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    for field in ["user_agent", "referer", "path"] {
        let value = line[field].as_str().unwrap_or_default();
        if value.len() > MAX_LOGGED || value.len() < 500 {
            return Err(format!("{field} has {} bytes in the log", value.len()));
        }
    }
    if !line["user_agent"]
        .as_str()
        .unwrap_or_default()
        .contains("u\"\\m")
    {
        return Err("the user agent is not what was sent".into());
    }
    Ok(())
}

/// A client whose address is IPv4 mapped into IPv6 is told of, and trusted, as the IPv4 address it is.
pub(crate) async fn mapped_peer(_: &Stand) -> Result<(), String> {
    let flags = ["--trusted-proxy=127.0.0.0/8"];
    let stand = Stand::start_mapped("X7-mapped", &Setup::plain(), &flags).await;
    let mut stream = raw::connect(stand.tidegate.http).await;
    let bytes = request("GET /v HTTP/1.1", "X-Forwarded-For: 1.2.3.4\r\n", b"");
    let got = raw::exchange(&mut stream, Plan::new(bytes)).await;
    if got.statuses() != [200] {
        return Err(format!("expected 200, got {}", got.summary()));
    }
    let seen = stand.backend().seen();
    let told = seen.requests[0].values("x-forwarded-for");
    match told == ["1.2.3.4, 127.0.0.1"] {
        true => Ok(()),
        false => Err(format!("upstream x-forwarded-for is {told:?}")),
    }
}
