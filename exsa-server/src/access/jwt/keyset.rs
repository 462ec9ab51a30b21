//! A provider's key set (RFC 7517), limited to keys that verify signatures of the configured algorithms.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Maximum keys of a set.
const KEYS_MAX: usize = 100;

/// Identifies a key: a hash of the key and its id.
pub(super) type KeyPrint = [u8; 32];

/// A key with its allowed algorithms.
pub(super) struct VerificationKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
    pub(super) print: KeyPrint,
}

/// Keys that verify signatures.
pub(super) struct KeySet(Vec<VerificationKey>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Parses a set. Keys for other uses or of unknown kinds are left out.
    ///
    /// # Errors
    ///
    /// Describes the problem of the set.
    pub(super) fn parse(bytes: &[u8], pinned: &[Algorithm]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| format!("this is no JSON Web Key Set: {error}"))?;
        if document.keys.len() > KEYS_MAX {
            return Err(format!(
                "the key set has {} keys; at most {KEYS_MAX} are allowed",
                document.keys.len()
            ));
        }
        let keys: Vec<_> =
            document.keys.into_iter().filter_map(|key| VerificationKey::read(key, pinned)).collect();
        if keys.is_empty() {
            return Err("the key set has no key for the configured algorithms".into());
        }
        Ok(Self(keys))
    }

    /// Returns whether the set has a key for an algorithm.
    pub(super) fn contains(&self, print: &KeyPrint, algorithm: Algorithm) -> bool {
        self.0.iter().any(|key| key.print == *print && key.algorithms.contains(&algorithm))
    }

    /// Finds a key by id for an algorithm. A token without an id is verified with the only key for its
    /// algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&VerificationKey> {
        let mut keys = self.0.iter().filter(|key| key.algorithms.contains(&algorithm));
        match id {
            Some(id) => keys.find(|key| key.id.as_deref() == Some(id)),
            None => keys.next().filter(|_| keys.next().is_none()),
        }
    }
}

impl VerificationKey {
    fn read(key: Value, pinned: &[Algorithm]) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let common = &jwk.common;
        let for_signatures =
            common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let operations = common.key_operations.as_ref();
        if !for_signatures || operations.is_some_and(|list| !list.contains(&KeyOperations::Verify)) {
            return None;
        }
        let own = match common.key_algorithm {
            Some(algorithm) => Some(Algorithm::try_from(algorithm).ok()?),
            None => None,
        };
        let fits = |algorithm: &Algorithm| {
            own.is_none_or(|own| own == *algorithm) && suits(&jwk.algorithm, *algorithm)
        };
        let algorithms: Vec<_> = pinned.iter().copied().filter(fits).collect();
        if algorithms.is_empty() {
            return None;
        }
        let id = common.key_id.clone();
        let parameters = serde_json::to_vec(&(&id, &jwk.algorithm)).ok()?;
        let print = Sha256::digest(parameters).into();
        Some(Self { id, algorithms, key: DecodingKey::from_jwk(&jwk).ok()?, print })
    }
}

/// Returns whether a key has the kind required by an algorithm. A public key must never be used as the secret
/// of an HMAC.
fn suits(key: &AlgorithmParameters, algorithm: Algorithm) -> bool {
    match key {
        AlgorithmParameters::RSA(_) => algorithm.family() == AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => algorithm == Algorithm::ES256,
            EllipticCurve::P384 => algorithm == Algorithm::ES384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(key) => {
            algorithm == Algorithm::EdDSA && key.curve == EllipticCurve::Ed25519
        }
        AlgorithmParameters::OctetKey(_) => algorithm.family() == AlgorithmFamily::Hmac,
        _ => false,
    }
}
