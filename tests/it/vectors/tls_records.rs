//! A TLS client that writes its own records once the handshake is over: what a library would never send, properly encrypted.
//!
//! rustls makes the handshake and then gives its keys away (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3, RFC 5288).

use super::stand::Stand;
use super::tls_client::connect_with;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ProtocolVersion, SupportedProtocolVersion};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Types of records.
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// The version that records say they are, of TLS 1.2 and later.
const RECORD_VERSION: [u8; 2] = [3, 3];
/// Bytes of a nonce that TLS 1.2 sends along, and of those before it that it does not.
const EXPLICIT: usize = 8;
const IMPLICIT: usize = 4;
const TAG: usize = 16;

/// The client, behind its handshake.
pub(crate) struct RecordClient {
    pub(crate) stream: TcpStream,
    key: LessSafeKey,
    iv: [u8; IMPLICIT + EXPLICIT],
    /// Number of the next record.
    next: u64,
    is_tls13: bool,
}

impl RecordClient {
    /// Connects with the server name `a.test`, HTTP/1.1 and this version.
    pub(crate) async fn connect(
        stand: &Stand,
        version: &'static SupportedProtocolVersion,
    ) -> Result<Self, String> {
        let mut config = crate::tls::client_of("http/1.1", &[version]);
        config.enable_secret_extraction = true;
        let stream = connect_with(stand, "a.test", Arc::new(config)).await?;
        let (stream, connection) = stream.into_inner();
        let is_tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let secrets = connection
            .dangerous_extract_secrets()
            .map_err(|error| error.to_string())?;
        let (next, secrets) = secrets.tx;
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err("neither side asked for this cipher".into()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|error| error.to_string())?;
        let iv = iv.as_ref().try_into().map_err(|_| "an IV of 12 bytes")?;
        Ok(Self {
            stream,
            key: LessSafeKey::new(key),
            iv,
            next,
            is_tls13,
        })
    }

    /// The next record.
    pub(crate) fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let number = self.next;
        self.next += 1;
        match self.is_tls13 {
            true => self.seal_tls13(number, kind, content),
            false => self.seal_tls12(number, kind, content),
        }
    }

    /// The type is encrypted too, behind the content; all records look like data.
    fn seal_tls13(&self, number: u64, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut sealed = [content, &[kind]].concat();
        let head = head(DATA, sealed.len() + TAG);
        let mut nonce = self.iv;
        for (byte, count) in nonce[IMPLICIT..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= count;
        }
        self.encrypt(nonce, &head, &mut sealed);
        [&head[..], &sealed].concat()
    }

    /// The nonce is the number of the record, so that it is none of those that rustls has used: it begins elsewhere.
    fn seal_tls12(&self, number: u64, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut sealed = content.to_vec();
        let mut nonce = self.iv;
        nonce[IMPLICIT..].copy_from_slice(&number.to_be_bytes());
        let plain = [&number.to_be_bytes()[..], &head(kind, content.len())].concat();
        self.encrypt(nonce, &plain, &mut sealed);
        let head = head(kind, EXPLICIT + sealed.len());
        [&head[..], &nonce[IMPLICIT..], &sealed].concat()
    }

    fn encrypt(&self, nonce: [u8; IMPLICIT + EXPLICIT], authentic: &[u8], content: &mut Vec<u8>) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, Aad::from(authentic), content);
        sealed.expect("a record is short enough");
    }
}

/// Type, version and length of a record.
fn head(kind: u8, length: usize) -> [u8; 5] {
    let [high, low] = (length as u16).to_be_bytes();
    [kind, RECORD_VERSION[0], RECORD_VERSION[1], high, low]
}
