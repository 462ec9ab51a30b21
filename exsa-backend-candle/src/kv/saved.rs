//! The format that the KV of a sequence is saved in.
//!
//! Little-endian throughout: the 8 bytes `EXSA-KV` and the version, u64 fingerprint of the model, u32 type of a value
//! (32: f32, 16: f16, 8: bytes with an f32 scale in front of every 32 of a head), u32 layers, u32 values of a token and layer, u64 tokens; then for each layer the keys and the
//! values of all tokens in order; at the end the u64 [`Fingerprint`] of everything before it.

use super::store::KvShape;
use exsa_core::error::KvError;
use std::io::{Read, Write};

const MAGIC: [u8; 8] = *b"EXSA-KV\x01";
const HEADER_BYTES: usize = 8 + 8 + 4 + 4 + 4 + 8;

/// A 64-bit FNV-1a hash: tells different models and damaged files apart, and protects against no attacker.
///
/// Of eight bytes at a time, as words, which changes nothing in what it is for and is eight times as fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Takes in `bytes`. Where they are cut matters: `ab`, `c` is not `a`, `bc`.
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

    fn mix(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
}

/// The header of saved KV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedHeader {
    /// Fingerprint of the model.
    pub model: Fingerprint,
    /// Bits in a value: 32, 16 or 8.
    pub bits: u32,
    /// Layers.
    pub n_layer: u32,
    /// Values of a token in one layer, of keys and of values each.
    pub row: u32,
    /// Tokens.
    pub tokens: u64,
}

impl SavedHeader {
    /// The header of `tokens` tokens of KV in `shape`.
    pub fn new(model: Fingerprint, shape: &KvShape, tokens: usize) -> Self {
        let bits = shape.format.bytes() as u32 * 8;
        let row = (shape.n_head_kv * shape.head_dim) as u32;
        Self { model, bits, n_layer: shape.n_layer as u32, row, tokens: tokens as u64 }
    }

    /// Writes the header.
    pub fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        to.write_all(&MAGIC)?;
        to.write_all(&self.model.0.to_le_bytes())?;
        for value in [self.bits, self.n_layer, self.row] {
            to.write_all(&value.to_le_bytes())?;
        }
        to.write_all(&self.tokens.to_le_bytes())
    }

    /// Reads a header and checks it against `expected` in all but the number of tokens.
    pub fn read(from: &mut dyn Read, expected: &Self) -> Result<Self, KvError> {
        let mut bytes = [0; HEADER_BYTES];
        from.read_exact(&mut bytes).map_err(truncated)?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..7] != MAGIC[..7] {
            return Err(KvError::Format("it does not start with EXSA-KV".to_owned()));
        }
        if bytes[7] != MAGIC[7] {
            return Err(KvError::Format(format!("version {}, but this is version {}", bytes[7], MAGIC[7])));
        }
        let header = Self {
            model: Fingerprint(u64_at(8)),
            bits: u32_at(16),
            n_layer: u32_at(20),
            row: u32_at(24),
            tokens: u64_at(28),
        };
        if header.model != expected.model {
            return Err(KvError::Format("it belongs to another model".to_owned()));
        }
        if (Self { tokens: 0, ..header }) != (Self { tokens: 0, ..*expected }) {
            let shape = |h: &Self| format!("{} layers of {} values of {} bits", h.n_layer, h.row, h.bits);
            return Err(KvError::Format(format!(
                "it has {}, but the session {}",
                shape(&header),
                shape(expected)
            )));
        }
        Ok(header)
    }
}

/// Error of a short read.
pub(crate) fn truncated(error: std::io::Error) -> KvError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => KvError::Format("it ends too early".to_owned()),
        _ => KvError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip_and_damage() {
        let header = SavedHeader { model: Fingerprint(77), bits: 32, n_layer: 3, row: 64, tokens: u64::MAX };
        let mut bytes = Vec::new();
        header.write(&mut bytes).unwrap();
        assert_eq!(bytes.len(), HEADER_BYTES);
        let expected = SavedHeader { tokens: 5, ..header };
        assert_eq!(SavedHeader::read(&mut bytes.as_slice(), &expected).unwrap(), header);
        for at in 0..28 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let result = SavedHeader::read(&mut damaged.as_slice(), &expected);
            assert!(matches!(result, Err(KvError::Format(_))), "byte {at}");
        }
        for len in 0..HEADER_BYTES {
            assert!(matches!(SavedHeader::read(&mut &bytes[..len], &expected), Err(KvError::Format(_))));
        }
    }

    #[test]
    fn fingerprints_differ() {
        let of = |parts: &[&[u8]]| {
            let mut f = Fingerprint::default();
            parts.iter().for_each(|p| f.update(p));
            f
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[&[0; 16]]), of(&[&[0; 8]]));
        assert_ne!(of(&[&[0; 15], &[1]]), of(&[&[0; 15], &[2]]));
    }
}
