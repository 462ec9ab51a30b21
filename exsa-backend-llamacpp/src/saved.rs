//! The KV of one sequence, saved: a header of ours and what llama.cpp writes.

use crate::fingerprint::Fingerprint;
use exsa_core::error::KvError;
use std::io::{Read, Write};

/// What saved KV begins with; the last byte is the version of the format.
const MAGIC: [u8; 8] = *b"EXSA-LC\x01";

const HEADER_BYTES: usize = 40;

/// The saved KV of a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Tokens held.
    pub tokens: u64,
    /// llama.cpp's bytes.
    pub state: Vec<u8>,
}

impl Saved {
    /// Writes the KV of a session of `model`.
    pub fn write(&self, model: Fingerprint, to: &mut dyn Write) -> Result<(), KvError> {
        to.write_all(&MAGIC)?;
        for value in [model.0, self.tokens, self.state.len() as u64, self.digest(model)] {
            to.write_all(&value.to_le_bytes())?;
        }
        to.write_all(&self.state)?;
        Ok(())
    }

    /// Reads what `write` wrote for `model`: at most `tokens_max` tokens. Damage is found before llama.cpp sees it.
    pub fn read(model: Fingerprint, tokens_max: usize, from: &mut dyn Read) -> Result<Self, KvError> {
        let format = |problem: String| Err(KvError::Format(problem));
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).map_err(truncated)?;
        if header[..7] != MAGIC[..7] {
            return format("it does not start with EXSA-LC".to_owned());
        }
        if header[7] != MAGIC[7] {
            return format(format!("version {}, but this is version {}", header[7], MAGIC[7]));
        }
        let value = |at: usize| {
            header[at..at + 8].iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
        };
        let (owner, tokens, len, digest) = (value(8), value(16), value(24), value(32));
        if owner != model.0 {
            return format("it belongs to another model, or to a session with other types of KV".to_owned());
        }
        if tokens > tokens_max as u64 {
            return format(format!("{tokens} tokens, over the session's context of {tokens_max}"));
        }
        // Memory is taken as bytes arrive, not as the header claims.
        let mut state = Vec::new();
        from.take(len).read_to_end(&mut state)?;
        if state.len() as u64 != len {
            return format("it ends too early".to_owned());
        }
        let saved = Self { tokens, state };
        if saved.digest(model) != digest {
            return format("it is damaged".to_owned());
        }
        Ok(saved)
    }

    fn digest(&self, model: Fingerprint) -> u64 {
        let mut digest = model;
        digest.update(&self.tokens.to_le_bytes());
        digest.update(&self.state);
        digest.0
    }
}

fn truncated(error: std::io::Error) -> KvError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => KvError::Format("it ends too early".to_owned()),
        _ => KvError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let model = Fingerprint(77);
        let saved = Saved { tokens: 3, state: (0..50).collect() };
        let mut bytes = Vec::new();
        saved.write(model, &mut bytes).unwrap();
        assert_eq!(Saved::read(model, 3, &mut bytes.as_slice()).unwrap(), saved);
        assert!(Saved::read(model, 2, &mut bytes.as_slice()).is_err());
        assert!(Saved::read(Fingerprint(78), 3, &mut bytes.as_slice()).is_err());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let result = Saved::read(model, 1 << 40, &mut damaged.as_slice());
            assert!(matches!(result, Err(KvError::Format(_))), "byte {at}");
            let cut = Saved::read(model, 3, &mut &bytes[..at]);
            assert!(matches!(cut, Err(KvError::Format(_))), "{at} bytes");
        }
    }
}
