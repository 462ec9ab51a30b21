//! File format of entries.
//!
//! Little-endian. A header of 64 bytes: `EXSA-PC` and version, u32 flags (1: encrypted), u32 bytes of a
//! block, 8 bytes that identify the key, 16 random bytes, u64 bytes of the index, u64 bytes of the record, 8
//! bytes of the BLAKE3 hash of the preceding 56 bytes. Then blocks, each followed by a tag of 16 bytes: block
//! 0 is the index, the others are the record in parts of equal length; the last may be shorter.
//!
//! The index: 16 bytes [`EntryId`], 32 bytes root of the chain, u64 fingerprint of the model, u64 tokens, u64
//! flags (1: engines can use parts of the entry), and 16 bytes for each whole block of 64 tokens. Header and
//! index contain everything needed for lookups, so that records are not read when a cache is opened.

use crate::CacheKey;
use crate::chain::{BLOCK_TOKENS, BlockName, Link};
use crate::seal::{NONCE_BYTES, Sealer, TAG_BYTES};
use exsa_core::prompt_cache::{EntryId, SavedPrompt};
use std::io::{self, ErrorKind, Read, Write};

const MAGIC: [u8; 8] = *b"EXSA-PC\x01";
pub(crate) const HEADER_BYTES: usize = 64;
const INDEX_FIXED: u64 = 72;
/// Maximum bytes of the index: block names for 16 million tokens.
const INDEX_BYTES_MAX: u64 = INDEX_FIXED + 16 * (1 << 18);
/// Bytes per block in files that this version writes.
const BLOCK_BYTES: u32 = 1 << 20;
/// Maximum bytes per block in files.
const BLOCK_BYTES_MAX: u32 = 16 << 20;
/// Maximum bytes of a record, 1 TiB, so that sizes cannot overflow.
const RECORD_BYTES_MAX: u64 = 1 << 40;

/// Error of reading the file of an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The data is damaged, truncated, or not an entry.
    #[error("not an entry of a prompt cache: {0}")]
    Damaged(&'static str),
    /// The file belongs to another key, or to another version of the format.
    #[error("it belongs to {0}")]
    Foreign(&'static str),
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The part of an entry's file that is needed for lookups.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryFile {
    /// The entry.
    pub id: EntryId,
    /// Identifies the model and the KV types.
    pub fingerprint: u64,
    /// Tokens.
    pub tokens: u64,
    /// Whether engines can use parts of the entry.
    pub truncates: bool,
    pub(crate) root: [u8; 32],
    pub(crate) blocks: Box<[BlockName]>,
}

/// A validated header.
#[derive(Debug)]
pub(crate) struct Header {
    bytes: [u8; HEADER_BYTES],
    block_bytes: u32,
    nonce: [u8; NONCE_BYTES],
    index_bytes: u64,
    record_bytes: u64,
}

impl EntryFile {
    /// The entry of a prompt, whose chain is `links` after `root`.
    pub(crate) fn new(id: EntryId, prompt: &SavedPrompt, root: Link, links: &[Link]) -> Self {
        Self {
            id,
            fingerprint: prompt.fingerprint.0,
            tokens: prompt.tokens.len() as u64,
            truncates: prompt.truncates,
            root: root.bytes(),
            blocks: links.iter().map(Link::name).collect(),
        }
    }

    /// Reads and checks a whole file of `bytes` bytes, with the key with which it was written. Also returns
    /// the record.
    ///
    /// # Errors
    ///
    /// [`FormatError`] unless it is a complete, undamaged file of this key.
    pub fn read(
        from: &mut dyn Read,
        bytes: u64,
        key: Option<&CacheKey>,
    ) -> Result<(Self, Vec<u8>), FormatError> {
        let sealer = Sealer::new(key);
        let (header, file) = Self::read_index(from, bytes, &sealer)?;
        let record = header.read_record(from, &sealer)?;
        Ok((file, record))
    }

    /// Reads header and index of a file of `bytes` bytes.
    pub(crate) fn read_index(
        from: &mut dyn Read,
        bytes: u64,
        sealer: &Sealer,
    ) -> Result<(Header, Self), FormatError> {
        let header = Header::read(from, bytes, sealer)?;
        let mut index = vec![0; header.index_bytes as usize];
        header.read_block(from, sealer, 0, &mut index)?;
        let (fixed, names) = index.split_at(INDEX_FIXED as usize);
        let (mut id, mut root) = ([0; 16], [0; 32]);
        id.copy_from_slice(&fixed[..16]);
        root.copy_from_slice(&fixed[16..48]);
        let [fingerprint, tokens, flags] = [48, 56, 64].map(|at| u64_at(fixed, at));
        if flags > 1 {
            return Err(FormatError::Damaged("unknown flags"));
        }
        if tokens / BLOCK_TOKENS as u64 != (names.len() / 16) as u64 {
            return Err(FormatError::Damaged("its number of tokens does not match its number of blocks"));
        }
        let blocks = names.chunks_exact(16).map(|name| {
            let mut block = [0; 16];
            block.copy_from_slice(name);
            block
        });
        let blocks = blocks.collect();
        Ok((header, Self { id: EntryId(id), fingerprint, tokens, truncates: flags == 1, root, blocks }))
    }

    /// Writes the file of this entry with `record`.
    pub(crate) fn write(
        &self,
        record: &[u8],
        nonce: [u8; NONCE_BYTES],
        sealer: &Sealer,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        let mut index = Vec::with_capacity(self.index_bytes() as usize);
        index.extend_from_slice(&self.id.0);
        index.extend_from_slice(&self.root);
        for value in [self.fingerprint, self.tokens, u64::from(self.truncates)] {
            index.extend_from_slice(&value.to_le_bytes());
        }
        self.blocks.iter().for_each(|block| index.extend_from_slice(block));

        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&u32::from(sealer.encrypts()).to_le_bytes());
        header[12..16].copy_from_slice(&BLOCK_BYTES.to_le_bytes());
        header[16..24].copy_from_slice(&sealer.key_id());
        header[24..40].copy_from_slice(&nonce);
        header[40..48].copy_from_slice(&(index.len() as u64).to_le_bytes());
        header[48..56].copy_from_slice(&(record.len() as u64).to_le_bytes());
        let check = header_check(&header);
        header[56..].copy_from_slice(&check);
        to.write_all(&header)?;

        let mut block = Vec::new();
        let parts = std::iter::once(index.as_slice()).chain(record.chunks(BLOCK_BYTES as usize));
        for (number, part) in (0..).zip(parts) {
            block.clear();
            block.extend_from_slice(part);
            let tag = sealer.seal(&header, &nonce, number, &mut block)?;
            to.write_all(&block)?;
            to.write_all(&tag)?;
        }
        Ok(())
    }

    /// Bytes of a file with a record of `record` bytes.
    pub(crate) fn bytes(&self, record: u64) -> u64 {
        file_bytes(self.index_bytes(), record, BLOCK_BYTES)
    }

    fn index_bytes(&self) -> u64 {
        INDEX_FIXED + 16 * self.blocks.len() as u64
    }
}

impl Header {
    fn read(from: &mut dyn Read, file: u64, sealer: &Sealer) -> Result<Self, FormatError> {
        let mut bytes = [0; HEADER_BYTES];
        from.read_exact(&mut bytes).map_err(cut)?;
        if bytes[..7] != MAGIC[..7] {
            return Err(FormatError::Damaged("it does not start with EXSA-PC"));
        }
        if bytes[7] != MAGIC[7] {
            return Err(FormatError::Foreign("another version of the format"));
        }
        if bytes[56..] != header_check(&bytes) {
            return Err(FormatError::Damaged("the hash of its header does not match"));
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (flags, block_bytes) = (u32_at(8), u32_at(12));
        if flags != u32::from(sealer.encrypts()) || bytes[16..24] != sealer.key_id() {
            return Err(FormatError::Foreign("another key"));
        }
        let (index_bytes, record_bytes) = (u64_at(&bytes, 40), u64_at(&bytes, 48));
        let sound = (1..=BLOCK_BYTES_MAX).contains(&block_bytes)
            && (INDEX_FIXED..=INDEX_BYTES_MAX).contains(&index_bytes)
            && (index_bytes - INDEX_FIXED).is_multiple_of(16)
            && record_bytes <= RECORD_BYTES_MAX;
        if !sound || file_bytes(index_bytes, record_bytes, block_bytes) != file {
            return Err(FormatError::Damaged("its length does not match its header"));
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&bytes[24..40]);
        Ok(Self { bytes, block_bytes, nonce, index_bytes, record_bytes })
    }

    /// Reads the record, block by block.
    pub(crate) fn read_record(&self, from: &mut dyn Read, sealer: &Sealer) -> Result<Vec<u8>, FormatError> {
        let too_large = |_| FormatError::Damaged("its record does not fit into memory");
        let bytes = usize::try_from(self.record_bytes)
            .map_err(|_| FormatError::Damaged("its record does not fit into memory"))?;
        let mut record = Vec::new();
        record.try_reserve_exact(bytes).map_err(too_large)?;
        let mut number = 0;
        while record.len() < bytes {
            let start = record.len();
            record.resize(bytes.min(start + self.block_bytes as usize), 0);
            number += 1;
            self.read_block(from, sealer, number, &mut record[start..])?;
        }
        Ok(record)
    }

    fn read_block(
        &self,
        from: &mut dyn Read,
        sealer: &Sealer,
        number: u64,
        data: &mut [u8],
    ) -> Result<(), FormatError> {
        let mut tag = [0; TAG_BYTES];
        from.read_exact(data).map_err(cut)?;
        from.read_exact(&mut tag).map_err(cut)?;
        if !sealer.open(&self.bytes, &self.nonce, number, data, &tag) {
            return Err(FormatError::Damaged("the tag of a block does not match"));
        }
        Ok(())
    }
}

fn cut(error: io::Error) -> FormatError {
    match error.kind() {
        ErrorKind::UnexpectedEof => FormatError::Damaged("it is truncated"),
        _ => FormatError::Io(error),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn header_check(header: &[u8; HEADER_BYTES]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(&header[..56]).as_bytes()[..8]);
    check
}

fn file_bytes(index: u64, record: u64, block: u32) -> u64 {
    let tags = 1 + record.div_ceil(u64::from(block));
    HEADER_BYTES as u64 + index + record + tags * TAG_BYTES as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn file(tokens: u64) -> EntryFile {
        let blocks = (0..tokens / 64).map(|i| [i as u8; 16]).collect();
        EntryFile { id: EntryId([7; 16]), fingerprint: 5, tokens, truncates: true, root: [9; 32], blocks }
    }

    fn written(file: &EntryFile, record: &[u8], key: Option<&CacheKey>) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.write(record, [3; 16], &Sealer::new(key), &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes(record.len() as u64));
        bytes
    }

    fn read(bytes: &[u8], key: Option<&CacheKey>) -> Result<(EntryFile, Vec<u8>), FormatError> {
        EntryFile::read(&mut &*bytes, bytes.len() as u64, key)
    }

    #[test]
    fn files_are_read_as_written() {
        let key = CacheKey::new([1; 32]);
        for key in [None, Some(&key)] {
            for (tokens, bytes) in [(64, 0), (200, 5), (6400, 3 << 20), (6400, (1 << 20) + 1)] {
                let (file, record) = (file(tokens), (0..bytes).map(|i| (i * 7) as u8).collect::<Vec<_>>());
                let bytes = written(&file, &record, key);
                assert_eq!(read(&bytes, key).unwrap(), (file, record));
            }
        }
    }

    #[test]
    fn encrypted_files_tell_nothing_without_the_key() {
        let key = CacheKey::new([1; 32]);
        let record = b"the words of a prompt".repeat(10);
        let bytes = written(&file(640), &record, Some(&key));
        let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!contains(b"the words") && !contains(&[7; 16]) && !contains(&[9; 32]) && !contains(&[2; 16]));
        for other in [None, Some(&CacheKey::new([2; 32]))] {
            assert!(matches!(read(&bytes, other), Err(FormatError::Foreign(_))));
        }
        assert!(matches!(
            read(&written(&file(640), &record, None), Some(&key)),
            Err(FormatError::Foreign(_))
        ));
    }

    #[test]
    fn damage_of_any_byte_and_any_cut_are_refused() {
        let key = CacheKey::new([1; 32]);
        for key in [None, Some(&key)] {
            let bytes = written(&file(130), &[5; 40], key);
            for at in 0..bytes.len() {
                for bit in [1, 16] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= bit;
                    assert!(read(&damaged, key).is_err(), "byte {at}");
                }
                assert!(matches!(read(&bytes[..at], key), Err(FormatError::Damaged(_))), "{at} bytes");
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert!(matches!(read(&longer, key), Err(FormatError::Damaged(_))));
        }
    }

    #[test]
    fn blocks_cannot_be_exchanged() {
        let key = CacheKey::new([1; 32]);
        for key in [None, Some(&key)] {
            let record = [vec![1; 1 << 20], vec![2; 1 << 20]].concat();
            let mut bytes = written(&file(64), &record, key);
            let sealed = (1 << 20) + 16;
            let start = bytes.len() - 2 * sealed;
            bytes[start..].rotate_left(sealed);
            assert!(matches!(read(&bytes, key), Err(FormatError::Damaged(_))));
        }
    }

    #[test]
    fn sizes_are_checked_before_memory_is_taken() {
        let bytes = written(&file(64), &[5; 40], None);
        for (at, value) in [(48, u64::MAX), (48, 1 << 39), (40, u64::MAX), (40, 72 + 15), (40, 0)] {
            let mut lying = bytes.clone();
            lying[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
            let mut header = [0; HEADER_BYTES];
            header.copy_from_slice(&lying[..HEADER_BYTES]);
            lying[56..64].copy_from_slice(&header_check(&header));
            assert!(matches!(read(&lying, None), Err(FormatError::Damaged(_))), "{value} at {at}");
        }
    }
}
