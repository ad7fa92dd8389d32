//! Names of the DNS as people write them.

use crate::problem::printable;
use routing_table::is_dns_name;
use std::net::IpAddr;
use std::sync::Arc;

/// A name of the DNS, with the dot at its end.
///
/// # Errors
/// When it is none.
pub(crate) fn absolute(name: &str) -> Result<Arc<str>, String> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    if !is_dns_name(bare) {
        return Err(format!("\"{}\" is no name of the DNS", printable(name)));
    }
    Ok(format!("{}.", bare.to_ascii_lowercase()).into())
}

/// What a server proves to be called: an IP address, or a name of the DNS without the dot at its end.
///
/// # Errors
/// When it is neither.
pub(crate) fn of_server(text: &str) -> Result<Arc<str>, String> {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(ip.to_string().into());
    }
    let name = absolute(text)?;
    let bare = name.trim_end_matches('.');
    // All digits at the end is an address that is none (RFC 1123 section 2.1), and no certificate can be for it.
    let last = bare.rsplit('.').next().unwrap_or_default();
    match last.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Err(format!(
            "\"{}\" is neither a name of the DNS nor an IP address",
            printable(text)
        )),
        false => Ok(bare.into()),
    }
}
