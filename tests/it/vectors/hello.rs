//! ClientHellos as bytes, right or wrong (RFC 5246 section 7.4.1.2). They offer TLS 1.2, in which the server's certificate
//! comes back in the clear.

/// What a ClientHello says.
#[derive(Clone)]
pub(crate) struct Hello {
    /// `0x0303` is TLS 1.2.
    pub(crate) version: u16,
    pub(crate) ciphers: Vec<u16>,
    pub(crate) name: Option<Vec<u8>>,
    /// Bytes of padding (RFC 7685).
    pub(crate) padding: usize,
}

/// ECDHE with AES-128-GCM, for ECDSA and for RSA.
const USUAL: [u16; 2] = [0xc02b, 0xc02f];

impl Hello {
    /// One that any server answers.
    pub(crate) fn usual() -> Self {
        Self {
            version: 0x0303,
            ciphers: USUAL.to_vec(),
            name: None,
            padding: 0,
        }
    }

    /// The same with this server name.
    pub(crate) fn named(name: impl Into<Vec<u8>>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::usual()
        }
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut extension = |id: u16, body: &[u8]| {
            extensions.extend_from_slice(&id.to_be_bytes());
            extensions.extend(with_length(body));
        };
        if let Some(name) = &self.name {
            let entry = [&[0][..], &with_length(name)].concat();
            extension(0x0000, &with_length(&entry));
        }
        // Groups P-256 and X25519; points uncompressed; ECDSA and RSA with SHA-256.
        extension(0x000a, &with_length(&[0, 0x17, 0, 0x1d]));
        extension(0x000b, &[1, 0]);
        extension(0x000d, &with_length(&[4, 3, 8, 4, 4, 1]));
        if self.padding > 0 {
            extension(0x0015, &vec![0; self.padding]);
        }
        let ciphers: Vec<u8> = self
            .ciphers
            .iter()
            .flat_map(|one| one.to_be_bytes())
            .collect();
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend(with_length(&ciphers));
        body.extend_from_slice(&[1, 0]);
        body.extend(with_length(&extensions));
        let length = (body.len() as u32).to_be_bytes();
        [&[1][..], &length[1..], &body].concat()
    }

    /// The message in records of so many bytes.
    pub(crate) fn records(&self, size: usize) -> Vec<u8> {
        let message = self.message();
        let records = message.chunks(size).map(|part| {
            let version = self.version.min(0x0301).to_be_bytes();
            [&[22][..], &version, &with_length(part)].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    /// The message in as few records as it takes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.records(16_384)
    }
}

/// Bytes behind their length of two bytes.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}
