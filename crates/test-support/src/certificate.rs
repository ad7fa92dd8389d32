//! Certificates made on the spot, so that no private key is ever committed.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

/// PEM of a self-signed certificate for these names, and of its key.
pub fn self_signed(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// An authority that issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub der: CertificateDer<'static>,
    /// The same as PEM.
    pub pem: String,
}

/// A certificate with its key and what is sent along.
#[derive(Debug)]
pub struct Issued {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PEM of the whole chain.
    pub pem: String,
    /// PEM of the key.
    pub key_pem: String,
    /// To revoke it by.
    pub serial: SerialNumber,
}

impl Clone for Issued {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            pem: self.pem.clone(),
            key_pem: self.key_pem.clone(),
            serial: self.serial.clone(),
        }
    }
}

fn authority_parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

impl Authority {
    /// A root.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let parameters = authority_parameters(name);
        let certificate = parameters.self_signed(&key).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// An authority below this one.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let parameters = authority_parameters(name);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// A certificate for a client.
    pub fn client(&self, name: &str) -> Issued {
        self.issue(name, |parameters| {
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A certificate for a client that has expired.
    pub fn expired_client(&self, name: &str) -> Issued {
        self.issue(name, |parameters| {
            parameters.not_before = date_time_ymd(2019, 1, 1);
            parameters.not_after = date_time_ymd(2020, 1, 1);
        })
    }

    /// A client's certificate with an extension of this many bytes.
    pub fn bulky_client(&self, name: &str, bytes: usize) -> Issued {
        self.issue(name, |parameters| {
            // An octet string, as DER wants it.
            let mut content = vec![0x04, 0x82, (bytes >> 8) as u8, bytes as u8];
            content.resize(bytes + 4, 0);
            let extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], content);
            parameters.custom_extensions.push(extension);
        })
    }

    /// A certificate for a server of these names.
    pub fn server(&self, names: &[&str]) -> Issued {
        self.issue(names[0], |parameters| {
            let names = names.iter().map(|name| match name.parse() {
                Ok(ip) => rcgen::SanType::IpAddress(ip),
                Err(_) => rcgen::SanType::DnsName((*name).try_into().unwrap()),
            });
            parameters.subject_alt_names = names.collect();
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CountryName, "DE");
        parameters
            .distinguished_name
            .push(DnType::OrganizationName, "Shop, Inc.");
        parameters.distinguished_name.push(DnType::CommonName, name);
        let digest: Vec<u8> = key.serialize_der().iter().rev().take(8).copied().collect();
        let mut serial = vec![1];
        serial.extend(digest);
        let serial = SerialNumber::from(serial);
        parameters.serial_number = Some(serial.clone());
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: vec![certificate.der().clone()],
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            serial,
        }
    }

    /// PEM of a list that revokes these.
    pub fn revocation_list(&self, revoked: &[&Issued]) -> String {
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let parameters = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        parameters.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Issued {
    /// Sends these authorities along.
    pub fn through(mut self, authorities: &[&Authority]) -> Self {
        for authority in authorities {
            self.chain.push(authority.der.clone());
            self.pem.push_str(&authority.pem);
        }
        self
    }
}
