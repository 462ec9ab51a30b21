//! Checkpoints: the state of a chain at a time, signed with Ed25519.

use super::chain::Chain;
use super::hash::{Hash, hex, unhex};
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::SystemTime;

/// The state of a chain at a time.
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
    /// The signature and the id of its key, where the log has a key.
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

    /// The signed bytes: a fixed first line, then name, count, hash and time, each with a newline.
    pub fn message(&self) -> String {
        let Self { log, count, hash, time, .. } = self;
        format!("exsa-audit-checkpoint-v1\n{log}\n{count}\n{hash}\n{time}\n")
    }

    /// Whether one of `keys` signed the checkpoint.
    pub fn is_signed_by(&self, keys: &[PublicKey]) -> bool {
        let Some(Signature { key: id, value }) = &self.signature else { return false };
        let Some(signature) = unhex::<64>(value) else { return false };
        let (message, signature) = (self.message(), ed25519_dalek::Signature::from_bytes(&signature));
        let signed = |key: &PublicKey| {
            let verifying = VerifyingKey::from_bytes(&key.0);
            verifying.is_ok_and(|key| key.verify_strict(message.as_bytes(), &signature).is_ok())
        };
        keys.iter().any(|key| key.id() == *id && signed(key))
    }
}

/// A key that verifies checkpoints.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads the text of a key file: 64 hexadecimal digits.
    pub fn read(text: &str) -> Option<Self> {
        unhex(text.trim()).map(Self)
    }

    /// The key's id in signatures.
    pub fn id(&self) -> String {
        Hash::of(&self.0).to_string()[..16].to_owned()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
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
    /// A new key, as PKCS#8 bytes.
    ///
    /// # Errors
    ///
    /// The system gives no random bytes.
    pub fn generate() -> Result<Vec<u8>, &'static str> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| "the system gives no random bytes")?;
        let document = ed25519_dalek::SigningKey::from_bytes(&secret).to_pkcs8_der();
        document.map(|document| document.as_bytes().to_vec()).map_err(|_| "the key has no PKCS#8 form")
    }

    /// Reads PKCS#8 bytes, with or without the public key in them.
    ///
    /// # Errors
    ///
    /// The bytes are no Ed25519 key.
    pub fn read(pkcs8: &[u8]) -> Result<Self, String> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_der(pkcs8);
        key.map(Self).map_err(|error| format!("not an Ed25519 key in PKCS#8: {error}"))
    }

    /// The key that verifies this one's signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
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
