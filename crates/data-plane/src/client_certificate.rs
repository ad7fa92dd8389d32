//! Client certificates: asked for in the handshake, judged when a request needs them, told to the upstream.
//!
//! The handshake itself only proves that the client has the key and that what it sent is a chain of bearable size; who is
//! behind it is judged against the demand of the virtual host ([`TlsSession::judge`]), and again when that demand has
//! changed. So a request without a fitting certificate gets an answer (400, as from nginx) instead of a broken
//! connection, an authority that is taken away counts at once, and nobody is thrown off a connection because a Secret was
//! written anew.

use crate::certificate_chain::{MAX_CHAIN, Trust, reason};
use crate::distinguished_name;
use crate::tls::Served;
use routing_table::{CertificateDemand, ClientCertificates};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use webpki::{EndEntityCert, Error, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Beyond this many bytes of authority names none is sent, so that a client can hold the message.
const MAX_HINTS: usize = 16 * 1024;

/// What the handshake asks of a client: a certificate, or none, and proof of its key.
#[derive(Debug)]
pub(crate) struct AskForCertificate {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl AskForCertificate {
    pub(crate) fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Self {
        let size: usize = trust.subjects().map(<[u8]>::len).sum();
        let hints = if size <= MAX_HINTS {
            trust
                .subjects()
                .map(DistinguishedName::in_sequence)
                .collect()
        } else {
            Vec::new()
        };
        Self {
            hints,
            provider: Arc::clone(provider),
        }
    }
}

impl ClientCertVerifier for AskForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    /// Says nothing of who the client is: that is for [`TlsSession::judge`].
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if intermediates.len() >= MAX_CHAIN || EndEntityCert::try_from(leaf).is_err() {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What a handshake came to.
#[derive(Debug)]
pub(crate) struct TlsSession {
    /// The server name the client asked for, in normal form.
    pub(crate) server_name: Option<Box<str>>,
    /// The certificate it was shown.
    pub(crate) served: Arc<Served>,
    /// By what demand it was asked for a certificate.
    pub(crate) asked: Option<Arc<ClientCertificates>>,
    /// What it showed, leaf first.
    chain: Vec<CertificateDer<'static>>,
    /// By what demand that was judged last, and how.
    judged: RefCell<Option<(Arc<ClientCertificates>, Rc<Judgement>)>>,
}

/// What is thought of a client's certificate.
#[derive(Debug)]
pub(crate) struct Judgement {
    verdict: Verdict,
    /// Lines for the upstream.
    fields: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// There is none.
    Absent,
    Valid,
    /// Valid but for who issued it.
    FromStranger,
    Invalid,
}

impl Judgement {
    /// Whether the demand is met.
    pub(crate) fn meets(&self, demand: CertificateDemand) -> bool {
        match self.verdict {
            Verdict::Valid => true,
            Verdict::Absent => demand != CertificateDemand::Required,
            Verdict::FromStranger => demand == CertificateDemand::OptionalFromAnyone,
            Verdict::Invalid => false,
        }
    }
}

impl TlsSession {
    pub(crate) fn new(
        server_name: Option<Box<str>>,
        served: Arc<Served>,
        asked: Option<Arc<ClientCertificates>>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self {
            server_name,
            served,
            asked,
            chain,
            judged: RefCell::new(None),
        }
    }

    /// What was thought of the certificate by this very demand.
    pub(crate) fn judgement(&self, demand: &Arc<ClientCertificates>) -> Option<Rc<Judgement>> {
        let judged = self.judged.borrow();
        let (by, judgement) = judged.as_ref()?;
        Arc::ptr_eq(by, demand).then(|| Rc::clone(judgement))
    }

    /// Judges the certificate by a demand; by one that says the same as the last, only once.
    pub(crate) fn judge(&self, demand: &Arc<ClientCertificates>, trust: &Trust) -> Rc<Judgement> {
        let mut judged = self.judged.borrow_mut();
        let judgement = match judged.take() {
            Some((by, judgement)) if by == *demand => judgement,
            _ => Rc::new(self.judge_anew(demand, trust)),
        };
        *judged = Some((Arc::clone(demand), Rc::clone(&judgement)));
        judgement
    }

    fn judge_anew(&self, demand: &ClientCertificates, trust: &Trust) -> Judgement {
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return Judgement {
                verdict: Verdict::Absent,
                fields: NO_CERTIFICATE.to_owned(),
            };
        };
        let checked = EndEntityCert::try_from(leaf).and_then(|leaf| {
            let now = UnixTime::now();
            let usage = KeyUsage::client_auth();
            trust.check(&leaf, intermediates, usage, now)
        });
        let verdict = match &checked {
            Ok(()) => Verdict::Valid,
            Err(Error::UnknownIssuer | Error::CaUsedAsEndEntity) => Verdict::FromStranger,
            Err(_) => Verdict::Invalid,
        };
        let failure = checked.as_ref().err().map(reason);
        Judgement {
            verdict,
            fields: fields(leaf, failure, demand.pass_certificate),
        }
    }
}

/// What an upstream is told when there is no certificate.
const NO_CERTIFICATE: &str = "ssl-client-verify: NONE\r\n";

/// The fields that ingress-nginx sends, with what nginx's `$ssl_client_*` say.
fn fields(leaf: &CertificateDer<'_>, failure: Option<&str>, pass_certificate: bool) -> String {
    let mut out = String::new();
    if pass_certificate {
        out.push_str("ssl-client-cert: ");
        escaped_pem(&mut out, leaf);
        out.push_str("\r\n");
    }
    // Writing to a String cannot fail.
    let _ = match failure {
        None => write!(out, "ssl-client-verify: SUCCESS\r\n"),
        Some(reason) => write!(out, "ssl-client-verify: FAILED:{reason}\r\n"),
    };
    if let Ok((_, parsed)) = X509Certificate::from_der(leaf) {
        for (name, value) in [
            ("ssl-client-subject-dn", parsed.subject()),
            ("ssl-client-issuer-dn", parsed.issuer()),
        ] {
            let text = distinguished_name::text(value);
            if !text.is_empty() {
                let _ = write!(out, "{name}: {text}\r\n");
            }
        }
    }
    out
}

/// PEM with everything but unreserved characters percent-encoded (nginx's `$ssl_client_escaped_cert`).
fn escaped_pem(out: &mut String, der: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let mut bits = 0u32;
            for position in 0..3 {
                bits = bits << 8 | u32::from(group.get(position).copied().unwrap_or(0));
            }
            for position in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * position) & 63) as usize];
                match digit {
                    _ if position > group.len() => out.push_str("%3D"),
                    b'+' => out.push_str("%2B"),
                    b'/' => out.push_str("%2F"),
                    digit => out.push(char::from(digit)),
                }
            }
        }
        out.push_str("%0A");
    }
    out.push_str("-----END%20CERTIFICATE-----%0A");
}

/// Tells the upstream about the certificate, where the route demands one.
pub(crate) fn write_fields(
    out: &mut Vec<u8>,
    session: Option<&TlsSession>,
    demand: Option<&Arc<ClientCertificates>>,
) {
    let Some(demand) = demand else { return };
    let judged = session.map(|session| session.judged.borrow());
    let fields = match judged.as_deref() {
        // A table that came in since the request was admitted may have put an equal demand in the place of this one.
        Some(Some((by, judgement))) if Arc::ptr_eq(by, demand) || by == demand => &judgement.fields,
        _ => NO_CERTIFICATE,
    };
    out.extend_from_slice(fields.as_bytes());
}

#[cfg(test)]
#[path = "tests/client_certificate.rs"]
mod tests;
