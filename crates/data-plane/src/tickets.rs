//! Session tickets under keys that several replicas share, so that a client may resume wherever it lands.
//!
//! A ticket is the name of its key, when it was made, and what rustls wants to know again, sealed with AES-256-GCM. Tickets
//! are good for half a day; whoever has a key can read the sessions it was used for, so keys should be replaced at least as
//! often: put a new one first, drop the last.

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::server::ProducesTickets;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a ticket is good for.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How far the clocks of replicas may be apart.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);
/// Most keys.
const MAX_KEYS: usize = 16;
/// Bytes of a key, and of its name.
const KEY: usize = 32;
const NAME: usize = 8;
/// Name and time, which are sealed but not hidden.
const HEADER: usize = NAME + 8;

/// The keys of session tickets: the first makes them, all can read them.
pub struct TicketKeys(ArcSwap<Vec<Key>>);

struct Key {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

/// Why keys cannot be used. Never says what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeyError {
    /// A line that is no key.
    #[error("line {0} is not a key of 64 hexadecimal digits (openssl rand -hex 32)")]
    Line(usize),
    /// A key that stands there twice.
    #[error("line {0} repeats a key")]
    Repeated(usize),
    /// Nothing there.
    #[error("there is no key")]
    None,
    /// Too many.
    #[error("there are more than {MAX_KEYS} keys")]
    TooMany,
}

impl TicketKeys {
    /// Reads keys: one a line, as 64 hexadecimal digits; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// See [`TicketKeyError`].
    pub fn new(text: &str) -> Result<Self, TicketKeyError> {
        Ok(Self(ArcSwap::from_pointee(parse(text)?)))
    }

    /// Puts other keys in the place of these. If they cannot be read, these stay.
    ///
    /// # Errors
    /// See [`TicketKeyError`].
    pub fn replace(&self, text: &str) -> Result<(), TicketKeyError> {
        self.0.store(parse(text)?.into());
        Ok(())
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let keys = self.0.load();
        let key = keys.first()?;
        let mut header = [0; HEADER];
        header[..NAME].copy_from_slice(&key.name);
        header[NAME..].copy_from_slice(&now.to_be_bytes());
        let mut sealed = plain.to_vec();
        let aad = Aad::from(&header);
        let nonce = key.key.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some([&header[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (header, rest) = ticket.split_at_checked(HEADER)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let (name, made) = header.split_at(NAME);
        let made = u64::from_be_bytes(made.try_into().ok()?);
        let fresh = made <= now.saturating_add(CLOCK_DIFFERENCE.as_secs())
            && now.saturating_sub(made) <= LIFETIME.as_secs();
        let keys = self.0.load();
        let key = keys.iter().find(|key| key.name == name).filter(|_| fresh)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = key.key.open_in_place(nonce, Aad::from(header), &mut sealed);
        plain.ok().map(|plain| plain.to_vec())
    }
}

impl fmt::Debug for TicketKeys {
    /// Never prints a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({})", self.0.load().len())
    }
}

fn parse(text: &str) -> Result<Vec<Key>, TicketKeyError> {
    let mut keys: Vec<Key> = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bytes = unhex(line).ok_or(TicketKeyError::Line(number + 1))?;
        let mut name = [0; NAME];
        let named = [b"tidegate ticket key".as_slice(), &bytes].concat();
        name.copy_from_slice(&digest(&SHA256, &named).as_ref()[..NAME]);
        if keys.iter().any(|key| key.name == name) {
            return Err(TicketKeyError::Repeated(number + 1));
        }
        if keys.len() == MAX_KEYS {
            return Err(TicketKeyError::TooMany);
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes);
        let key = key.map_err(|_| TicketKeyError::Line(number + 1))?;
        keys.push(Key { name, key });
    }
    if keys.is_empty() {
        return Err(TicketKeyError::None);
    }
    Ok(keys)
}

fn unhex(text: &str) -> Option<[u8; KEY]> {
    if text.len() != KEY * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; KEY];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}

/// Of the wall clock, which is what replicas have in common.
#[allow(
    clippy::disallowed_methods,
    reason = "replicas share no other clock, and a jump costs a full handshake"
)]
fn seconds_now() -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.as_secs())
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, seconds_now()?)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, seconds_now()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const ONE: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    const TWO: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

    #[test]
    fn what_is_no_key() {
        let many: String = (0..17).map(|n| format!("{n:064x}\n")).collect();
        for (text, error) in [
            ("", TicketKeyError::None),
            ("# only\n\n", TicketKeyError::None),
            ("x", TicketKeyError::Line(1)),
            (&ONE[1..], TicketKeyError::Line(1)),
            (&format!("{ONE}\n+{}", &TWO[1..]), TicketKeyError::Line(2)),
            (
                &format!("{ONE}\n\n{}", ONE.to_lowercase()),
                TicketKeyError::Repeated(3),
            ),
            (&many, TicketKeyError::TooMany),
        ] {
            assert_eq!(TicketKeys::new(text).err(), Some(error), "{text}");
        }
        let keys = TicketKeys::new(ONE).unwrap();
        assert_eq!(format!("{keys:?}"), "TicketKeys(1)");
    }

    #[test]
    fn the_first_makes_and_all_read() {
        let old = TicketKeys::new(ONE).unwrap();
        let both = TicketKeys::new(&format!("# new\r\n{TWO}\r\n# old\r\n{ONE}\r\n")).unwrap();
        let new = TicketKeys::new(TWO).unwrap();
        let made = old.seal(b"session", 1_000).unwrap();
        assert_eq!(both.open(&made, 1_000).unwrap(), b"session");
        assert_eq!(new.open(&made, 1_000), None);
        let made = both.seal(b"session", 1_000).unwrap();
        assert_eq!(new.open(&made, 1_000).unwrap(), b"session");
        assert_eq!(old.open(&made, 1_000), None);
        old.replace("no key").unwrap_err();
        assert_eq!(old.open(&made, 1_000), None);
        old.replace(TWO).unwrap();
        assert_eq!(old.open(&made, 1_000).unwrap(), b"session");
    }

    #[test]
    fn only_whole_and_fresh_tickets() {
        let keys = TicketKeys::new(ONE).unwrap();
        let made = keys.seal(b"session", 100_000).unwrap();
        for (now, good) in [
            (100_000, true),
            (99_701, true),
            (99_699, false),
            (100_000 + 12 * 3600, true),
            (100_001 + 12 * 3600, false),
        ] {
            assert_eq!(keys.open(&made, now).is_some(), good, "{now}");
        }
        for position in 0..made.len() {
            let mut changed = made.clone();
            changed[position] ^= 1;
            assert_eq!(keys.open(&changed, 100_000), None, "{position}");
            assert_eq!(keys.open(&made[..position], 100_000), None, "{position}");
        }
        let again = keys.seal(b"session", 100_000).unwrap();
        assert_ne!(made, again, "no nonce is used twice");
    }
}
