//! Saved KV of one sequence: Exsa's header and llama.cpp's state.

use crate::fingerprint::Fingerprint;
use exsa_core::error::KvError;
use std::io::{Read, Write};

/// First bytes of saved KV; the last one is the version of the format.
const MAGIC: [u8; 8] = *b"EXSA-LC\x01";

const HEADER_BYTES: usize = 40;

/// The saved KV of a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Tokens held.
    pub tokens: u64,
    /// State of the sequence, as llama.cpp writes it.
    pub state: Vec<u8>,
}

impl Saved {
    /// Writes the KV, for a session of `model`.
    pub fn write(&self, model: Fingerprint, to: &mut dyn Write) -> Result<(), KvError> {
        to.write_all(&MAGIC)?;
        for value in [model.0, self.tokens, self.state.len() as u64, self.digest(model)] {
            to.write_all(&value.to_le_bytes())?;
        }
        to.write_all(&self.state)?;
        Ok(())
    }

    /// Reads KV of at most `tokens_max` tokens that was written for `model`. Damage is detected before
    /// llama.cpp parses the state.
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
        // Memory grows with the bytes that arrive, not with the length in the header.
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

/// Bytes of llama.cpp's state before the number of streams.
const STREAMS_AT: usize = 8;

/// Converts the state of a sequence in stream `seq` of `streams` to that of a session with a single stream.
/// The state is of a single attention cache and lists the cells of every stream; `None` if its layout is
/// another.
pub(crate) fn to_one_stream(state: &[u8], seq: usize, streams: usize) -> Option<Vec<u8>> {
    let (start, _) = streams_of(state, streams)?;
    // All sequences share the only stream.
    let seq = if streams == 1 { 0 } else { seq };
    // All streams but the sequence's own have 0 cells, a number of four bytes.
    let after = 4 * streams.checked_sub(seq + 1)?;
    let cells = state.get(start + 4 * seq..state.len().checked_sub(after)?)?;
    let empty = state[start..start + 4 * seq].iter().chain(&state[state.len() - after..]);
    if empty.copied().any(|byte| byte != 0) {
        return None;
    }
    Some([&state[..STREAMS_AT], &1u32.to_le_bytes(), cells].concat())
}

/// Converts a state from [`to_one_stream`] for a session with `streams` streams.
pub(crate) fn from_one_stream(state: &[u8], streams: usize) -> Option<Vec<u8>> {
    let (start, header) = streams_of(state, 1)?;
    let number = u32::try_from(streams).ok()?.to_le_bytes();
    Some([header, &number, &state[start..], &vec![0; 4 * streams.checked_sub(1)?]].concat())
}

/// Offset of the first stream, and the bytes before the number of streams, which has to be `streams`.
fn streams_of(state: &[u8], streams: usize) -> Option<(usize, &[u8])> {
    let start = STREAMS_AT + 4;
    let number = state.get(STREAMS_AT..start)?;
    (number == u32::try_from(streams).ok()?.to_le_bytes()).then_some((start, &state[..STREAMS_AT]))
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
    fn streams_are_taken_away_and_added() {
        let of = |streams: u32, before: usize, after: usize| {
            let number = streams.to_le_bytes();
            [&[9; 8][..], &number, &vec![0; 4 * before], &[5, 0, 0, 0, 7, 7], &vec![0; 4 * after]].concat()
        };
        for seq in 0..4 {
            let one = to_one_stream(&of(4, seq, 3 - seq), seq, 4).unwrap();
            assert_eq!(one, of(1, 0, 0));
            assert_eq!(from_one_stream(&one, 3).unwrap(), of(3, 0, 2));
        }
        for seq in [0, 7] {
            assert_eq!(to_one_stream(&of(1, 0, 0), seq, 1).unwrap(), of(1, 0, 0));
        }
        assert_eq!(to_one_stream(&of(4, 1, 2), 0, 4), None);
        assert_eq!(to_one_stream(&of(4, 1, 2), 1, 5), None);
        assert_eq!(to_one_stream(&of(4, 1, 2), 4, 4), None);
        assert_eq!(to_one_stream(&[1, 2], 0, 1), None);
    }

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
