//! The text of an API key: `exsa-`, the id of its record, `-`, and 256 random bits.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// Prefix of every key, by which secret scanners recognise keys.
const PREFIX: &str = "exsa-";

/// Bytes of a key's id, written as hexadecimal digits.
const ID_BYTES: usize = 8;

/// Bytes of a key's secret.
const SECRET_BYTES: usize = 32;

/// Characters of a secret in base64 without padding.
const SECRET_CHARS: usize = 43;

/// The system returned no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gave no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

impl From<NoRandomness> for std::io::Error {
    fn from(error: NoRandomness) -> Self {
        Self::other(error.to_string())
    }
}

/// The complete text of a key. It is shown once, to its creator; only its hash is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Generates a secret for the record `id`.
    pub(crate) fn generate(id: &str) -> Result<Self, NoRandomness> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(NoRandomness)?;
        Ok(Self(format!("{PREFIX}{id}-{}", URL_SAFE_NO_PAD.encode(secret))))
    }

    /// Returns the text. Callers must not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SecretText(..)")
    }
}

/// Generates a record id: 16 hexadecimal digits.
pub(crate) fn new_id() -> Result<String, NoRandomness> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id).map_err(NoRandomness)?;
    Ok(hex(&id))
}

/// Returns whether `id` has the form of an id.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == 2 * ID_BYTES && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A well-formed key sent by a client, not yet looked up.
pub(crate) struct PresentedKey<'a> {
    pub(crate) id: &'a str,
    pub(crate) hash: SecretHash,
}

impl<'a> PresentedKey<'a> {
    /// Parses the text of a key; `None` for another form.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(2 * ID_BYTES)?;
        let secret = secret.strip_prefix('-')?;
        if !is_id(id) || secret.len() != SECRET_CHARS {
            return None;
        }
        // Rejects characters outside the alphabet and set bits after the last byte, so that each secret has
        // one text.
        let mut bytes = [0; SECRET_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(secret, &mut bytes).ok()?;
        (length == SECRET_BYTES).then(|| Self { id, hash: SecretHash::of(text) })
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PresentedKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The SHA-256 hash of a key's complete text. Keys are random, so a slow password hash would only add load.
#[derive(Clone, Copy)]
pub(crate) struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a text.
    pub(crate) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Compares two hashes in constant time.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SecretHash(..)")
    }
}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        let digits = text.as_bytes().chunks(2);
        let sound = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (byte, pair) in hash.iter_mut().zip(digits) {
            let pair = std::str::from_utf8(pair).ok().filter(|_| sound);
            *byte = pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(|| de::Error::custom("a hash is 64 hexadecimal digits"))?;
        }
        if !sound {
            return Err(de::Error::custom("a hash is 64 hexadecimal digits"));
        }
        Ok(Self(hash))
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn keys_are_read_as_they_are_made() {
        let mut seen = HashSet::new();
        for _ in 0..100 {
            let id = new_id().unwrap();
            let text = SecretText::generate(&id).unwrap();
            let key = PresentedKey::parse(text.expose()).unwrap();
            assert_eq!((key.id, text.expose().len()), (id.as_str(), 65));
            assert!(key.hash.matches(&SecretHash::of(text.expose())));
            assert!(seen.insert(text.expose().to_owned()));
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        let text = SecretText::generate("00112233aabbccdd").unwrap();
        let key = PresentedKey::parse(text.expose()).unwrap();
        let secret = &text.expose()[22..];
        for shown in [format!("{text:?}"), format!("{key:?}"), format!("{:?}", key.hash)] {
            assert!(!shown.contains(secret) && !shown.contains(&hex(&key.hash.0)), "{shown}");
        }
    }

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let hash = SecretHash::of("x");
        let text = serde_json::to_string(&hash).unwrap();
        assert!(serde_json::from_str::<SecretHash>(&text).unwrap().matches(&hash));
        for bad in [
            "\"\"",
            "\"ab\"",
            "\"zz\"",
            &format!("\"{}\"", "g".repeat(64)),
            &format!("\"{}\"", "é".repeat(32)),
        ] {
            assert!(serde_json::from_str::<SecretHash>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            let _ = PresentedKey::parse(&text);
        }

        #[test]
        fn a_key_with_one_character_changed_is_another_or_none(place in 0usize..65, new in any::<char>()) {
            let text = SecretText::generate("00112233aabbccdd").unwrap();
            let mut changed: Vec<char> = text.expose().chars().collect();
            prop_assume!(changed[place] != new);
            changed[place] = new;
            let changed: String = changed.into_iter().collect();
            if let Some(key) = PresentedKey::parse(&changed) {
                prop_assert!(!key.hash.matches(&SecretHash::of(text.expose())));
            }
        }
    }
}
