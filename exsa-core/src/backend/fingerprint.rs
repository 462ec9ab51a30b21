//! Fingerprints of models and sessions.

/// 64-bit hash (FNV-1a over words, with a rotation) that identifies models
/// and sessions. It guards against mistakes, not against an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Fingerprint(pub u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds `bytes`. Call boundaries matter: `ab`, `c` differs from `a`, `bc`.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            self.mix(u64::from_le_bytes(value));
        }
        for &byte in words.remainder() {
            self.mix(u64::from(byte));
        }
        self.mix(bytes.len() as u64);
    }

    pub(super) fn mix(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_differ() {
        let of = |parts: &[&[u8]]| {
            let mut fingerprint = Fingerprint::default();
            parts.iter().for_each(|part| fingerprint.update(part));
            fingerprint
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[&[0; 16]]), of(&[&[0; 8]]));
        assert_ne!(of(&[&[0; 15], &[1]]), of(&[&[0; 15], &[2]]));
        assert_ne!(of(&[b"abcdefgh12345678"]), of(&[b"12345678abcdefgh"]));
    }
}
