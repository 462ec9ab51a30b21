//! Sequential reader of a header, which counts bytes and checks every length before use.

use super::GgufError;
use super::limits::HEADER_BYTES_MAX;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Bytes taken at a time, so that memory grows with what was read and not with what a length claims.
const CHUNK_BYTES: usize = 1 << 16;

/// The rest of a file, with its place in it.
pub(super) struct Source<R> {
    reader: BufReader<R>,
    offset: u64,
    len: u64,
    /// Offset of the first text that is not UTF-8 since this was last taken.
    not_utf8: Option<u64>,
}

impl<R: Read + Seek> Source<R> {
    /// The whole of `reader`, from its first byte on.
    pub(super) fn new(mut reader: R) -> Result<Self, GgufError> {
        let len = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self { reader: BufReader::with_capacity(CHUNK_BYTES, reader), offset: 0, len, not_utf8: None })
    }
}

impl<R: Read> Source<R> {
    /// Bytes read so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Checks that `needed` bytes are left, in the file and in what a header may take.
    fn demand(&self, needed: u64, what: &str) -> Result<(), GgufError> {
        let (offset, left) = (self.offset, self.len - self.offset);
        if needed > left {
            return Err(GgufError::Truncated { what: what.to_owned(), offset, needed, left });
        }
        if offset + needed > HEADER_BYTES_MAX {
            let what = format!("the end of {what}");
            return Err(GgufError::Limit { what, offset, value: offset + needed, limit: HEADER_BYTES_MAX });
        }
        Ok(())
    }

    /// Fills `into`, which `demand` has allowed.
    fn fill(&mut self, into: &mut [u8]) -> Result<(), GgufError> {
        self.reader.read_exact(into)?;
        self.offset += into.len() as u64;
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        self.demand(N as u64, what)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// A number of things, at most `max`, that take `bytes_min` bytes each at least.
    pub(super) fn count(&mut self, what: &str, max: u64, bytes_min: u64) -> Result<u64, GgufError> {
        let offset = self.offset;
        let value = self.u64(what)?;
        let limit = max.min((self.len.min(HEADER_BYTES_MAX) - self.offset) / bytes_min);
        if value > limit {
            return Err(GgufError::Limit { what: what.to_owned(), offset, value, limit });
        }
        Ok(value)
    }

    /// A text of at most `bytes_max` bytes, after its length.
    pub(super) fn string(&mut self, what: &str, bytes_max: u64) -> Result<String, GgufError> {
        let text = self.lossy_string(what, bytes_max)?;
        match self.take_not_utf8() {
            None => Ok(text),
            Some(offset) => Err(GgufError::Text { what: what.to_owned(), offset }),
        }
    }

    /// Offset of the first text that was not UTF-8 since the last call.
    pub(super) fn take_not_utf8(&mut self) -> Option<u64> {
        self.not_utf8.take()
    }

    /// The same, with U+FFFD for bytes that are not UTF-8; [`take_not_utf8`](Self::take_not_utf8) tells of
    /// them.
    pub(super) fn lossy_string(&mut self, what: &str, bytes_max: u64) -> Result<String, GgufError> {
        let at = self.offset;
        let length = self.u64(what)?;
        self.demand(length, what)?;
        if length > bytes_max {
            let what = format!("the length of {what}");
            return Err(GgufError::Limit { what, offset: at, value: length, limit: bytes_max });
        }
        let length = length as usize;
        let mut text = Vec::new();
        while text.len() < length {
            let start = text.len();
            text.resize(length.min(start + CHUNK_BYTES), 0);
            self.fill(&mut text[start..])?;
        }
        Ok(String::from_utf8(text).unwrap_or_else(|error| {
            self.not_utf8.get_or_insert(at + 8);
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }))
    }

    /// `n` items of `N` bytes each.
    pub(super) fn items<T, const N: usize>(
        &mut self,
        n: u64,
        what: &str,
        from: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, GgufError> {
        self.demand(n.saturating_mul(N as u64), what)?;
        let mut chunk = vec![0; CHUNK_BYTES.min(n as usize * N)];
        let mut items = Vec::new();
        while (items.len() as u64) < n {
            let bytes = (n as usize - items.len()).min(CHUNK_BYTES / N) * N;
            self.fill(&mut chunk[..bytes])?;
            items.extend(chunk[..bytes].as_chunks().0.iter().map(|item| from(*item)));
        }
        Ok(items)
    }
}
