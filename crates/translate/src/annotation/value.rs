//! Values that several annotations share.

use routing_table::filter::{IpNet, network};
use std::time::Duration;

/// Longest time that can be set.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// How a switch is written.
pub(super) const BOOLEAN: &str = "`true` or `false` (`on`, `off`)";

/// Reads a switch.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" => Ok(true),
        "false" | "off" => Ok(false),
        _ => Err("it is neither".into()),
    }
}

/// How a duration is written.
pub(super) const DURATION: &str = "a duration (`500ms`, `2s`, `1m`, `1h`, or seconds)";

/// Reads a duration above 0 and up to 24 hours; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| "it does not start with a number".to_owned())?;
    let duration = match text[digits..].trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        unit => return Err(format!("the unit {unit:?} is none of ms, s, m, h")),
    };
    match duration {
        Some(duration) if duration.is_zero() => Err("it must be more than 0".into()),
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err("it must be at most 24h".into()),
    }
}

/// Reads a size in bytes: `8m` as nginx writes it, `8Mi` as Kubernetes does.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| "it does not start with a number".to_owned())?;
    let unit: u64 = match text[digits..].trim() {
        "" | "b" | "B" => 1,
        "k" | "K" | "Ki" => 1 << 10,
        "m" | "M" | "Mi" => 1 << 20,
        "g" | "G" | "Gi" => 1 << 30,
        unit => return Err(format!("the unit {unit:?} is none of k, m, g, Ki, Mi, Gi")),
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| "it is too large".into())
}

/// Reads a list of networks; nothing at all is an empty list, as charts write it that have no use for one.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(|one| network(one.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("2", 2_000),
            ("1m", 60_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "-1s",
            "99999h",
            "1e9",
            "NaN",
            "",
            "s",
            "0",
            "0s",
            "1.5s",
            "18446744073709551615h",
            "99999999999999999999s",
            "2s;",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_networks() {
        assert_eq!(networks("").map(|all| all.len()), Ok(0));
        assert_eq!(
            networks("10.0.0.0/8,2001:db8::1").map(|all| all.len()),
            Ok(2)
        );
        for bad in [",", "10.0.0.0/8,", "all", "10.0.0.0/8 10.0.0.1"] {
            assert!(networks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1m", 1 << 20),
            ("8k", 8192),
            ("2Gi", 2 << 30),
            ("10", 10),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["-1", "1e9", "x", "", "1t", "18446744073709551615g"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
