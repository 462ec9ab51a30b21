//! Checkpoints: signed (Ed25519) states of a chain.

use super::chain::Chain;
use super::hash::{Hash, hex, unhex};
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::SystemTime;

/// State of a chain at a point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCheckpoint {
    /// Name of the log.
    pub log: String,
    /// Lines so far.
    pub count: u64,
    /// Hash of line `count`.
    pub hash: Hash,
    /// Time, RFC 3339.
    pub time: String,
    /// The signature and the id of its key, if the log has a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A signature in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Id of the key: the first 16 digits of the SHA-256 of the public key.
    pub key: String,
    /// Ed25519 signature of the checkpoint's [message](SignedCheckpoint::message).
    pub value: String,
}

impl SignedCheckpoint {
    /// The checkpoint of `chain`.
    pub(super) fn new(log: &str, chain: Chain, now: SystemTime, key: Option<&SigningKey>) -> Self {
        let time = humantime::format_rfc3339_millis(now).to_string();
        let mut checkpoint =
            Self { log: log.to_owned(), count: chain.count, hash: chain.last, time, signature: None };
        checkpoint.signature = key.map(|key| key.sign(&checkpoint.message()));
        checkpoint
    }

    /// The signed bytes: a fixed first line, then name, count, hash and time, each followed by a newline.
    pub fn message(&self) -> String {
        let Self { log, count, hash, time, .. } = self;
        format!("exsa-audit-checkpoint-v1\n{log}\n{count}\n{hash}\n{time}\n")
    }

    /// Returns whether one of `keys` signed the checkpoint.
    pub fn is_signed_by(&self, keys: &[PublicKey]) -> bool {
        let Some(Signature { key: id, value }) = &self.signature else { return false };
        let Some(signature) = unhex::<64>(value) else { return false };
        let message = self.message();
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        let signed = |key: &PublicKey| key.0.verify_strict(message.as_bytes(), &signature).is_ok();
        keys.iter().any(|key| key.id() == *id && signed(key))
    }
}

/// A key that verifies checkpoints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Parses the text of a key file: 64 hexadecimal digits.
    pub fn read(text: &str) -> Option<Self> {
        VerifyingKey::from_bytes(&unhex(text.trim())?).ok().map(Self)
    }

    /// The key's id in signatures.
    pub fn id(&self) -> String {
        Hash::of(self.0.as_bytes()).to_string()[..16].to_owned()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A key that signs checkpoints.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Generates a key.
    ///
    /// # Errors
    ///
    /// The system returns no random bytes.
    pub fn generate() -> Result<Self, String> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&secret)))
    }

    /// Reads PKCS#8, as DER or PEM.
    ///
    /// # Errors
    ///
    /// The bytes are not an Ed25519 key.
    pub fn read(pkcs8: &[u8]) -> Result<Self, String> {
        let key = match std::str::from_utf8(pkcs8) {
            Ok(text) if text.starts_with("-----BEGIN") => DecodePrivateKey::from_pkcs8_pem(text),
            _ => DecodePrivateKey::from_pkcs8_der(pkcs8),
        };
        key.map(Self).map_err(|error| format!("not an Ed25519 key in PKCS#8: {error}"))
    }

    /// The key in PKCS#8, as PEM.
    ///
    /// # Errors
    ///
    /// The key cannot be encoded.
    pub fn pem(&self) -> Result<String, String> {
        let pem = self.0.to_pkcs8_pem(Default::default());
        pem.map(|pem| pem.to_string()).map_err(|error| error.to_string())
    }

    /// Returns the public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    fn sign(&self, message: &str) -> Signature {
        Signature { key: self.public().id(), value: hex(&self.0.sign(message.as_bytes()).to_bytes()) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}
