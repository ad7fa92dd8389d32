//! Which cipher suites clients may use, by the names that people have in their configurations.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use std::str::FromStr;

/// Names of IANA as rustls has them, and those of OpenSSL where they are others. All there are: ephemeral keys and authenticated
/// encryption only.
const NAMES: [(&str, &str); 9] = [
    ("TLS13_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    ("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    (
        "TLS13_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
];

/// The suites that clients may use. Of a version of TLS of which none is named all may be used, as OpenSSL has it.
#[derive(Debug, Clone, PartialEq)]
pub struct CipherSuites(Vec<SupportedCipherSuite>);

/// A name that is none of those there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no cipher suite {0:?}; there are {known}", known = known())]
pub struct UnknownCipherSuite(String);

fn known() -> String {
    NAMES.map(|(_, openssl)| openssl).join(", ")
}

impl CipherSuites {
    pub(crate) fn get(&self) -> &[SupportedCipherSuite] {
        &self.0
    }
}

impl FromStr for CipherSuites {
    type Err = UnknownCipherSuite;

    /// Reads names with `:`, `,` or blanks between them, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split([':', ',', ' ']).filter(|name| !name.is_empty());
        let mut named: Vec<SupportedCipherSuite> = names.map(suite).collect::<Result<_, _>>()?;
        for tls13 in [false, true] {
            let of_version = |suite: &SupportedCipherSuite| suite.tls13().is_some() == tls13;
            if !named.iter().any(of_version) {
                let all = ALL_CIPHER_SUITES.iter().copied();
                named.extend(all.filter(of_version));
            }
        }
        Ok(Self(named))
    }
}

fn suite(name: &str) -> Result<SupportedCipherSuite, UnknownCipherSuite> {
    let unknown = || UnknownCipherSuite(name.to_owned());
    let same = |known: &str| known.eq_ignore_ascii_case(name);
    let row = NAMES
        .iter()
        .find(|(iana, openssl)| same(iana) || same(openssl));
    let (iana, _) = row.ok_or_else(unknown)?;
    let mut all = ALL_CIPHER_SUITES.iter();
    let suite = all.find(|suite| suite.suite().as_str() == Some(iana));
    suite.copied().ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        let suites = text.parse::<CipherSuites>().unwrap();
        let names = suites.0.iter().filter_map(|one| one.suite().as_str());
        names.collect()
    }

    #[test]
    fn every_suite_has_its_names() {
        assert_eq!(ALL_CIPHER_SUITES.len(), NAMES.len());
        for (iana, openssl) in NAMES {
            assert_eq!(names(iana)[0], iana);
            assert_eq!(names(&openssl.to_lowercase())[0], iana);
        }
    }

    #[test]
    fn of_a_version_that_is_not_mentioned_all_stay() {
        let some = names("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256");
        assert_eq!(some.len(), 2 + 3);
        assert_eq!(names("TLS_AES_128_GCM_SHA256").len(), 1 + 6);
        assert_eq!(names("").len(), 9);
    }

    #[test]
    fn a_wrong_name_is_named() {
        let error = "ECDHE-RSA-AES128-GCM-SHA256:RC4-MD5".parse::<CipherSuites>();
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("no cipher suite \"RC4-MD5\"; there are TLS_AES_128"),
            "{error}"
        );
    }
}
