//! Values that several annotations share.

use routing_table::filter::{IpNet, network};

/// How a switch is written.
pub(super) const BOOLEAN: &str = "`true` or `false` (`on`, `off`)";

/// Why an annotation that protects something cannot be empty, as charts leave it whose value is not set.
pub(super) const EMPTY: &str =
    "it is empty; take the annotation away where nothing is to be restricted";

/// Reads a switch.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    policy::annotations::switch(text).map_err(|_| "it is neither".into())
}

/// How a duration is written.
pub(super) const DURATION: &str = "a duration (`500ms`, `2s`, `1m`, `1h`, or seconds)";

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

/// Reads a list of networks. An empty one is a mistake: it would open what it was written to close.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    if text.is_empty() {
        return Err(EMPTY.into());
    }
    text.split(',').map(|one| network(one.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_as_go_reads_them() {
        for (texts, value) in [
            (["1", "t", "T", "TRUE", "true", "True", "on"], true),
            (["0", "f", "F", "FALSE", "false", "False", "off"], false),
        ] {
            for text in texts {
                assert_eq!(boolean(text), Ok(value), "{text}");
            }
        }
        for bad in ["", "yes", "2", "onn", "tru"] {
            assert_eq!(boolean(bad), Err("it is neither".to_owned()), "{bad}");
        }
    }

    #[test]
    fn lists_of_networks() {
        assert_eq!(
            networks("10.0.0.0/8,2001:db8::1").map(|all| all.len()),
            Ok(2)
        );
        for bad in ["", ",", "10.0.0.0/8,", "all", "10.0.0.0/8 10.0.0.1"] {
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
