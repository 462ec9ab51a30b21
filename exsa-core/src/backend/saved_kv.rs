//! Frame of saved KV: header, payload of the backend, checksum.
//!
//! Little-endian: the 8 bytes
//! `EXSA-KV` and version, 8 bytes that name the backend, u64 [`Fingerprint`] of model and session,
//! u64 tokens, u64 bytes of the payload, the payload, u64 checksum of everything before it.

use super::Fingerprint;
use crate::error::KvError;
use std::io::{ErrorKind, Read, Write};

const MAGIC: [u8; 8] = *b"EXSA-KV\x02";
const HEADER_BYTES: usize = 40;

/// Header of saved KV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedKv {
    /// Name of the backend, padded with zeros.
    pub backend: [u8; 8],
    /// Fingerprint of the model, the KV types and every other property on which the compatibility of KV
    /// depends.
    pub fingerprint: Fingerprint,
    /// Number of tokens.
    pub tokens: u64,
    /// Bytes of the payload.
    pub payload_bytes: u64,
}

impl SavedKv {
    /// The header of `tokens` tokens in a payload of `payload_bytes` bytes. Only the first 8 bytes of
    /// `backend` are used.
    #[must_use]
    pub fn new(backend: &str, fingerprint: Fingerprint, tokens: usize, payload_bytes: usize) -> Self {
        let mut name = [0; 8];
        name.iter_mut().zip(backend.bytes()).for_each(|(to, byte)| *to = byte);
        Self { backend: name, fingerprint, tokens: tokens as u64, payload_bytes: payload_bytes as u64 }
    }

    /// Writes header, payload and checksum; `payload` writes exactly `payload_bytes` bytes.
    ///
    /// # Errors
    ///
    /// Errors of `to` and of `payload`; [`KvError::Format`] if the payload has another length.
    pub fn write(
        &self,
        to: &mut dyn Write,
        payload: impl FnOnce(&mut dyn Write) -> Result<(), KvError>,
    ) -> Result<(), KvError> {
        let mut sum = Checked { inner: &mut *to, checksum: Checksum::default(), bytes: 0 };
        sum.write_all(&MAGIC)?;
        sum.write_all(&self.backend)?;
        for value in [self.fingerprint.0, self.tokens, self.payload_bytes] {
            sum.write_all(&value.to_le_bytes())?;
        }
        sum.bytes = 0;
        payload(&mut sum)?;
        if sum.bytes != self.payload_bytes {
            return Err(KvError::Format(format!(
                "its header announces {} bytes of payload, but {} were written",
                self.payload_bytes, sum.bytes
            )));
        }
        let checksum = sum.checksum.finish();
        Ok(to.write_all(&checksum.to_le_bytes())?)
    }

    /// Reads a header and checks it against `expected`: same backend and fingerprint, at most
    /// `tokens_max` tokens. Then `payload` reads exactly `payload_bytes` bytes; finally the checksum is
    /// compared. `payload` must not trust its input, and its caller drops the result after an error.
    ///
    /// # Errors
    ///
    /// [`KvError::Format`] for KV of another backend, model or session, and
    /// for damaged or truncated data; errors of `from` and of `payload`.
    pub fn read<T>(
        from: &mut dyn Read,
        expected: &Self,
        tokens_max: usize,
        payload: impl FnOnce(&Self, &mut dyn Read) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        let mut sum = Checked { inner: &mut *from, checksum: Checksum::default(), bytes: 0 };
        let header = Self::read_header(&mut sum, expected, tokens_max)?;
        sum.bytes = 0;
        let value = payload(&header, &mut sum)?;
        if sum.bytes != header.payload_bytes {
            return Err(KvError::Format(format!(
                "its payload has {} bytes, but {} were read",
                header.payload_bytes, sum.bytes
            )));
        }
        let checksum = sum.checksum.finish();
        let mut stored = [0; 8];
        from.read_exact(&mut stored).map_err(read_error)?;
        if u64::from_le_bytes(stored) != checksum {
            return Err(KvError::Format("its checksum is wrong".to_owned()));
        }
        Ok(value)
    }

    fn read_header(from: &mut dyn Read, expected: &Self, tokens_max: usize) -> Result<Self, KvError> {
        let format = |problem: String| Err(KvError::Format(problem));
        let mut bytes = [0; HEADER_BYTES];
        from.read_exact(&mut bytes).map_err(read_error)?;
        if bytes[..7] != MAGIC[..7] {
            return format("it does not start with EXSA-KV".to_owned());
        }
        if bytes[7] != MAGIC[7] {
            let (found, supported) = (bytes[7], MAGIC[7]);
            return format(format!("it has format version {found}, but only {supported} is supported"));
        }
        let u64_at = |at: usize| {
            bytes[at..at + 8].iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte))
        };
        let mut backend = [0; 8];
        backend.copy_from_slice(&bytes[8..16]);
        let header = Self {
            backend,
            fingerprint: Fingerprint(u64_at(16)),
            tokens: u64_at(24),
            payload_bytes: u64_at(32),
        };
        if header.backend != expected.backend {
            let name = |name: &[u8; 8]| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            return format(format!(
                "it belongs to backend '{}', not '{}'",
                name(&header.backend),
                name(&expected.backend)
            ));
        }
        if header.fingerprint != expected.fingerprint {
            return format("it belongs to another model, or to a session with other KV types".to_owned());
        }
        if header.tokens > tokens_max as u64 {
            let tokens = header.tokens;
            return format(format!("its {tokens} tokens exceed the session's context of {tokens_max}"));
        }
        Ok(header)
    }
}

/// Converts a failed read: an unexpected end of the data is a format error.
#[must_use]
pub fn read_error(error: std::io::Error) -> KvError {
    match error.kind() {
        ErrorKind::UnexpectedEof => KvError::Format("it is truncated".to_owned()),
        _ => KvError::Io(error),
    }
}

/// Counts and checksums the bytes that pass through.
struct Checked<T> {
    inner: T,
    checksum: Checksum,
    bytes: u64,
}

impl<W: Write + ?Sized> Write for Checked<&mut W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.checksum.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read + ?Sized> Read for Checked<&mut R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(into)?;
        self.checksum.update(&into[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Checksum of a stream, independent of how it is split into calls: FNV-1a over 64-bit words with a rotation.
#[derive(Default)]
struct Checksum {
    state: Fingerprint,
    partial: [u8; 8],
    filled: usize,
    bytes: u64,
}

impl Checksum {
    fn update(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.filled > 0 {
            let n = bytes.len().min(8 - self.filled);
            self.partial[self.filled..self.filled + n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
            if self.filled < 8 {
                return;
            }
            self.state.mix(u64::from_le_bytes(self.partial));
            self.filled = 0;
        }
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            self.state.mix(u64::from_le_bytes(value));
        }
        let rest = words.remainder();
        self.partial[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    fn finish(mut self) -> u64 {
        self.partial[self.filled..].fill(0);
        self.state.mix(u64::from_le_bytes(self.partial));
        self.state.mix(self.bytes);
        self.state.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(len: usize) -> SavedKv {
        SavedKv::new("scripted", Fingerprint(77), 3, len)
    }

    fn written(payload: &[u8], cut: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let parts = |to: &mut dyn Write| {
            payload.chunks(cut.max(1)).try_for_each(|part| to.write_all(part)).map_err(KvError::Io)
        };
        header(payload.len()).write(&mut bytes, parts).unwrap();
        bytes
    }

    fn read(bytes: &[u8], expected: &SavedKv, tokens_max: usize) -> Result<Vec<u8>, KvError> {
        SavedKv::read(&mut &bytes[..], expected, tokens_max, |header, from| {
            let mut payload = Vec::new();
            from.take(header.payload_bytes).read_to_end(&mut payload)?;
            Ok(payload)
        })
    }

    proptest! {
        #[test]
        fn any_cut_reads_back(payload in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..40) {
            let bytes = written(&payload, cut);
            prop_assert_eq!(&bytes, &written(&payload, 1000));
            prop_assert_eq!(read(&bytes, &header(0), 3).unwrap(), payload);
        }
    }

    #[test]
    fn damage_and_strangers_are_refused() {
        let payload: Vec<u8> = (0..50).collect();
        let bytes = written(&payload, 7);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let result = read(&damaged, &header(0), 1 << 40);
            assert!(matches!(result, Err(KvError::Format(_))), "byte {at}: {result:?}");
            let cut = read(&bytes[..at], &header(0), 3);
            assert!(matches!(cut, Err(KvError::Format(_))), "{at} bytes: {cut:?}");
        }
        let refused = |expected: SavedKv, tokens_max| match read(&bytes, &expected, tokens_max) {
            Err(KvError::Format(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(refused(header(0), 2).contains("3 tokens exceed"));
        assert!(
            refused(SavedKv::new("candle", Fingerprint(77), 0, 0), 3).contains("'scripted', not 'candle'")
        );
        assert!(refused(SavedKv::new("scripted", Fingerprint(78), 0, 0), 3).contains("another model"));
    }

    #[test]
    fn a_payload_of_another_length_is_refused() {
        let short = header(5).write(&mut Vec::new(), |to| Ok(to.write_all(&[1; 4])?));
        assert!(matches!(short, Err(KvError::Format(_))));
        let bytes = written(&[1; 8], 8);
        let unread = SavedKv::read(&mut bytes.as_slice(), &header(0), 3, |_, _| Ok(()));
        assert!(matches!(unread, Err(KvError::Format(_))));
    }
}
