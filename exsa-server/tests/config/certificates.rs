//! Certificates of the tests: an authority of their own, and keys from fixed seeds.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, Error, IsCa, Issuer, KeyIdMethod, PKCS_ED25519,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls;

/// PKCS #8 of an Ed25519 key, up to the seed (RFC 8410).
const PKCS8_HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Bytes of an Ed25519 public key.
const PUBLIC_BYTES: usize = 32;

/// An Ed25519 key.
pub struct Key {
    pkcs8: Vec<u8>,
    public: Vec<u8>,
    signer: Arc<dyn rustls::sign::SigningKey>,
}

impl Key {
    fn new(seed: u8) -> Self {
        let pkcs8 = [&PKCS8_HEAD[..], &[seed; 32]].concat();
        let signer =
            rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..])).unwrap();
        let info = signer.public_key().unwrap().to_vec();
        Self { public: info[info.len() - PUBLIC_BYTES..].to_vec(), pkcs8, signer }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signer = self.signer.choose_scheme(&[rustls::SignatureScheme::ED25519]).unwrap();
        Ok(signer.sign(message).unwrap())
    }
}

/// A certificate and its key.
pub struct Identity {
    certificate: Certificate,
    key: Key,
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), self.certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), pem("PRIVATE KEY", &self.key.pkcs8)).unwrap();
    }

    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.pkcs8.clone()).into()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, Key>,
    pub certificate: CertificateDer<'static>,
    pub pem: String,
}

impl Authority {
    pub fn new(seed: u8) -> Self {
        let mut params = params(&[], &[(DnType::CommonName, &format!("authority {seed}"))], seed);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = Key::new(seed);
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), certificate: der, pem }
    }

    /// A certificate for `localhost` or a client.
    pub fn issue(&self, names: &[&str], subject: &[(DnType, &str)], seed: u8) -> Identity {
        let key = Key::new(seed);
        let certificate = params(names, subject, seed).signed_by(&key, &self.issuer).unwrap();
        Identity { certificate, key }
    }
}

fn params(names: &[&str], subject: &[(DnType, &str)], seed: u8) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.serial_number = Some(vec![seed.max(1)].into());
    params.key_identifier_method = KeyIdMethod::PreSpecified(vec![seed; 4]);
    params
}
