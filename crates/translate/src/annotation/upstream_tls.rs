//! TLS towards endpoints. What ingress-nginx does by default stays the default: nothing is verified, no name is sent.

use super::client_certificates::{DEPTH, depth};
use super::value::{BOOLEAN, boolean};
use super::{Annotation, Closes};
use routing_table::TlsVersions;

/// What an Ingress asks for.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamTlsWish {
    /// Speak TLS at all.
    pub(crate) https: bool,
    /// Secret of authorities and our own certificate, as written.
    pub(crate) secret: Option<String>,
    pub(crate) verify: bool,
    pub(crate) depth: u8,
    /// The name an endpoint must prove to have.
    pub(crate) name: Option<String>,
    pub(crate) send_name: bool,
    pub(crate) versions: TlsVersions,
}

impl Default for UpstreamTlsWish {
    fn default() -> Self {
        Self {
            https: false,
            secret: None,
            verify: false,
            depth: 1,
            name: None,
            send_name: false,
            versions: TlsVersions::default(),
        }
    }
}

pub(super) const UPSTREAM_TLS_SECRET: Annotation = Annotation {
    name: "upstream-tls-secret",
    nginx: &["proxy-ssl-secret"],
    value: "a Secret of the same namespace (`name` or `namespace/name`)",
    doc: "Where `ca.crt` holds the authorities that may have issued an endpoint's certificate, `ca.crl` what they revoked, and \
          `tls.crt` with `tls.key` the certificate to show to endpoints. Each is optional.",
    example: "shop-upstream",
    closes: Closes::Routes,
    apply: |policy, value| {
        if value.is_empty() {
            return Err("it names no Secret".into());
        }
        policy.upstream_tls.secret = Some(value.to_owned());
        Ok(())
    },
};

pub(super) const UPSTREAM_TLS_VERIFY: Annotation = Annotation {
    name: "upstream-tls-verify",
    nginx: &["proxy-ssl-verify"],
    value: BOOLEAN,
    doc: "Accept only endpoints whose certificate is from an authority in `ca.crt` of `upstream-tls-secret`, and for \
          `upstream-tls-name`; else 502. Default off, as in ingress-nginx: then anybody in between can read along.",
    example: "on",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.upstream_tls.verify = boolean(value)?;
        Ok(())
    },
};

pub(super) const UPSTREAM_TLS_DEPTH: Annotation = Annotation {
    name: "upstream-tls-depth",
    nginx: &["proxy-ssl-verify-depth"],
    value: DEPTH,
    doc: "Most intermediate certificates between an endpoint's and an authority. Default 1.",
    example: "2",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.upstream_tls.depth = depth(value)?;
        Ok(())
    },
};

pub(super) const UPSTREAM_TLS_NAME: Annotation = Annotation {
    name: "upstream-tls-name",
    nginx: &["proxy-ssl-name"],
    value: "a host name or an IP address",
    doc: "The name endpoints must have a certificate for, and the one that is sent if `upstream-tls-server-name` is on. \
          Default `SERVICE.NAMESPACE.svc`.",
    example: "shop.internal",
    closes: Closes::Routes,
    apply: |policy, value| {
        if rustls_pki_types::ServerName::try_from(value).is_err() {
            return Err("it is no name that a certificate can have".into());
        }
        policy.upstream_tls.name = Some(value.to_owned());
        Ok(())
    },
};

pub(super) const UPSTREAM_TLS_SERVER_NAME: Annotation = Annotation {
    name: "upstream-tls-server-name",
    nginx: &["proxy-ssl-server-name"],
    value: BOOLEAN,
    doc: "Send the name in the handshake (SNI). Default off, as in ingress-nginx.",
    example: "on",
    closes: Closes::Routes,
    apply: |policy, value| {
        policy.upstream_tls.send_name = boolean(value)?;
        Ok(())
    },
};

pub(super) const UPSTREAM_TLS_PROTOCOLS: Annotation = Annotation {
    name: "upstream-tls-protocols",
    nginx: &["proxy-ssl-protocols"],
    value: "`TLSv1.2`, `TLSv1.3`, or both",
    doc: "Versions to offer. Older ones may be named too, and are never offered. Default both.",
    example: "TLSv1.2 TLSv1.3",
    closes: Closes::Routes,
    apply: |policy, value| {
        let mut versions = TlsVersions {
            tls12: false,
            tls13: false,
        };
        for version in value.split_ascii_whitespace() {
            match version {
                "TLSv1.2" => versions.tls12 = true,
                "TLSv1.3" => versions.tls13 = true,
                "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => {}
                _ => return Err("there is no such version".into()),
            }
        }
        if !versions.tls12 && !versions.tls13 {
            return Err("none of these versions can be offered".into());
        }
        policy.upstream_tls.versions = versions;
        Ok(())
    },
};
