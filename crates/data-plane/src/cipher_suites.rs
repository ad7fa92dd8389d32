//! Which cipher suites clients may use, by the names that people have in their configurations.

use crate::tls::MinTlsVersion;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::{SignatureAlgorithm, SignatureScheme, SupportedCipherSuite, Tls12CipherSuite};
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

/// The suites that clients may use, the ones to take rather first. Of a version of TLS of which none is named all may be used, as OpenSSL has it.
#[derive(Debug, Clone, PartialEq)]
pub struct CipherSuites {
    all: Vec<SupportedCipherSuite>,
    /// Those that were named, of TLS 1.2.
    named_tls12: Vec<&'static Tls12CipherSuite>,
}

/// Why a list of suites cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCipherSuites {
    /// A name is none of those there are.
    #[error("no cipher suite {0:?}; there are {known}", known = known())]
    Unknown(String),
    /// No name at all.
    #[error("no cipher suite is named; without the flag all may be used")]
    Empty,
}

fn known() -> String {
    NAMES.map(|(_, openssl)| openssl).join(", ")
}

impl CipherSuites {
    pub(crate) fn get(&self) -> &[SupportedCipherSuite] {
        &self.all
    }

    /// What there is to say of these suites beside this oldest version of TLS.
    pub fn warning(&self, oldest: MinTlsVersion) -> Option<String> {
        let excluded = oldest == MinTlsVersion::Tls13 && !self.named_tls12.is_empty();
        excluded.then(|| {
            format!(
                "{} of --tls-ciphers are never used: they are of TLS 1.2, and --tls-min-version is 1.3",
                shown(self.named_tls12.iter().copied())
            )
        })
    }

    /// What there is to say of these suites beside the keys of the certificates that are served, each with where it came from.
    /// In TLS 1.2 a suite is for one kind of key.
    pub(crate) fn warnings(&self, keys: &[(SignatureAlgorithm, &str)]) -> Vec<String> {
        if self.named_tls12.is_empty() || keys.is_empty() {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let named = self.named_tls12.iter().copied();
        let unusable = named.filter(|suite| !keys.iter().any(|(key, _)| fits(suite, *key)));
        let unusable = shown(unusable);
        if !unusable.is_empty() {
            warnings.push(format!(
                "{unusable} of --tls-ciphers are never used: no certificate that is served has a key for them"
            ));
        }
        for (key, source) in keys {
            if !self.named_tls12.iter().any(|suite| fits(suite, *key)) {
                warnings.push(format!(
                    "{source}: no suite of --tls-ciphers is for its {key:?} key, so clients of TLS 1.2 are refused"
                ));
            }
        }
        warnings
    }
}

/// Whether a suite of TLS 1.2 is for this kind of key: each is for one kind, and signs with it in several ways.
fn fits(suite: &Tls12CipherSuite, key: SignatureAlgorithm) -> bool {
    let one_way = match key {
        SignatureAlgorithm::RSA => SignatureScheme::RSA_PSS_SHA256,
        SignatureAlgorithm::ECDSA => SignatureScheme::ECDSA_NISTP256_SHA256,
        _ => SignatureScheme::ED25519,
    };
    suite.sign.contains(&one_way)
}

/// The names of suites, as OpenSSL has them.
fn shown<'a>(suites: impl Iterator<Item = &'a Tls12CipherSuite>) -> String {
    let names = suites.map(|suite| {
        let iana = suite.common.suite.as_str().unwrap_or_default();
        let row = NAMES.iter().find(|(known, _)| *known == iana);
        row.map_or(iana, |(_, openssl)| openssl)
    });
    names.collect::<Vec<_>>().join(", ")
}

impl FromStr for CipherSuites {
    type Err = BadCipherSuites;

    /// Reads names with `:`, `,` or blanks between them, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split([':', ',', ' ']).filter(|name| !name.is_empty());
        let mut named: Vec<SupportedCipherSuite> = names.map(suite).collect::<Result<_, _>>()?;
        if named.is_empty() {
            return Err(BadCipherSuites::Empty);
        }
        let tls12 = named.iter().filter_map(|suite| match suite {
            SupportedCipherSuite::Tls12(suite) => Some(*suite),
            SupportedCipherSuite::Tls13(_) => None,
        });
        let named_tls12 = tls12.collect();
        for tls13 in [false, true] {
            let of_version = |suite: &SupportedCipherSuite| suite.tls13().is_some() == tls13;
            if !named.iter().any(of_version) {
                let all = ALL_CIPHER_SUITES.iter().copied();
                named.extend(all.filter(of_version));
            }
        }
        Ok(Self {
            all: named,
            named_tls12,
        })
    }
}

fn suite(name: &str) -> Result<SupportedCipherSuite, BadCipherSuites> {
    let unknown = || BadCipherSuites::Unknown(name.to_owned());
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
        let names = suites.all.iter().filter_map(|one| one.suite().as_str());
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
        for empty in ["", " ", ":,"] {
            assert_eq!(empty.parse::<CipherSuites>(), Err(BadCipherSuites::Empty));
        }
    }

    #[test]
    fn what_can_never_be_used_is_told() {
        let suites: CipherSuites = "ECDHE-RSA-AES128-GCM-SHA256,TLS_AES_128_GCM_SHA256"
            .parse()
            .unwrap();
        assert_eq!(suites.warning(MinTlsVersion::Tls12), None);
        assert_eq!(
            suites.warning(MinTlsVersion::Tls13).unwrap(),
            "ECDHE-RSA-AES128-GCM-SHA256 of --tls-ciphers are never used: they are of TLS 1.2, and --tls-min-version is 1.3"
        );
        let (rsa, ecdsa) = (SignatureAlgorithm::RSA, SignatureAlgorithm::ECDSA);
        assert!(suites.warnings(&[(rsa, "a.pem")]).is_empty());
        assert_eq!(
            suites.warnings(&[(ecdsa, "b.pem")]),
            [
                "ECDHE-RSA-AES128-GCM-SHA256 of --tls-ciphers are never used: no certificate that is served has a key for them",
                "b.pem: no suite of --tls-ciphers is for its ECDSA key, so clients of TLS 1.2 are refused"
            ]
        );
        assert_eq!(
            suites.warnings(&[(rsa, "a.pem"), (ecdsa, "b.pem")]).len(),
            1
        );
        let only_13: CipherSuites = "TLS_AES_128_GCM_SHA256".parse().unwrap();
        assert!(only_13.warnings(&[(ecdsa, "b.pem")]).is_empty());
        assert_eq!(only_13.warning(MinTlsVersion::Tls13), None);
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
