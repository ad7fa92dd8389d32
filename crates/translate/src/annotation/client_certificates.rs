//! Client certificates. They are demanded of a whole host, as in ingress-nginx, so a bad value closes the host.

use super::value::{BOOLEAN, boolean};
use super::{Annotation, Closes};
use routing_table::CertificateDemand;

/// What an Ingress asks for.
#[derive(Debug, Clone)]
pub(crate) struct ClientCertificateWish {
    /// Secret of the authorities, as written.
    pub(crate) secret: Option<String>,
    /// `None`: switched off.
    pub(crate) demand: Option<CertificateDemand>,
    /// Whether `demand` was written down.
    pub(crate) demand_is_set: bool,
    pub(crate) depth: u8,
    pub(crate) pass_certificate: bool,
}

impl Default for ClientCertificateWish {
    fn default() -> Self {
        Self {
            secret: None,
            demand: Some(CertificateDemand::Required),
            demand_is_set: false,
            depth: 1,
            pass_certificate: false,
        }
    }
}

pub(super) const CLIENT_CA_SECRET: Annotation = Annotation {
    name: "client-ca-secret",
    nginx: &["auth-tls-secret"],
    value: "a Secret of the same namespace (`name` or `namespace/name`)",
    doc: "Clients of its hosts must show a certificate from an authority in `ca.crt` of this Secret that no list in `ca.crl` \
          revokes; else 400. If it cannot be used, its hosts answer 503. Counts for a whole host: the oldest Ingress decides. \
          Upstreams get `ssl-client-verify`, `ssl-client-subject-dn`, `ssl-client-issuer-dn`.",
    example: "shop-clients",
    closes: Closes::Hosts,
    apply: |policy, value| {
        if value.is_empty() {
            return Err("it names no Secret".into());
        }
        policy.client_certificates.secret = Some(value.to_owned());
        Ok(())
    },
};

pub(super) const CLIENT_CERTIFICATE: Annotation = Annotation {
    name: "client-certificate",
    nginx: &["auth-tls-verify-client"],
    value: "`on`, `off`, `optional` or `optional_no_ca`",
    doc: "What is demanded: a good certificate; nothing; none or a good one; none or one from any authority, which the upstream \
          must judge by `ssl-client-verify`. Needs `client-ca-secret`. Default on.",
    example: "optional",
    closes: Closes::Hosts,
    apply: |policy, value| {
        let wish = &mut policy.client_certificates;
        wish.demand_is_set = true;
        wish.demand = match value {
            "on" => Some(CertificateDemand::Required),
            "off" => None,
            "optional" => Some(CertificateDemand::Optional),
            "optional_no_ca" => Some(CertificateDemand::OptionalFromAnyone),
            _ => return Err("there is no such demand".into()),
        };
        Ok(())
    },
};

pub(super) const CLIENT_CERTIFICATE_DEPTH: Annotation = Annotation {
    name: "client-certificate-depth",
    nginx: &["auth-tls-verify-depth"],
    value: DEPTH,
    doc: "Most intermediate certificates between a client's and an authority of the Secret. Default 1.",
    example: "2",
    closes: Closes::Hosts,
    apply: |policy, value| {
        policy.client_certificates.depth = depth(value)?;
        Ok(())
    },
};

pub(super) const CLIENT_CERTIFICATE_TO_UPSTREAM: Annotation = Annotation {
    name: "client-certificate-to-upstream",
    nginx: &["auth-tls-pass-certificate-to-upstream"],
    value: BOOLEAN,
    doc: "Send the client's certificate upstream in `ssl-client-cert`, as URL-encoded PEM. Default false.",
    example: "true",
    closes: Closes::Hosts,
    apply: |policy, value| {
        policy.client_certificates.pass_certificate = boolean(value)?;
        Ok(())
    },
};

/// How a depth is written.
pub(super) const DEPTH: &str = "a number from 0 to 6";

/// Reads a depth. A chain with more than six intermediates is never accepted.
pub(super) fn depth(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(depth @ 0..=6) => Ok(depth),
        _ => Err("it must be a number from 0 to 6".into()),
    }
}
