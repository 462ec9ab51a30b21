//! Format of a record: a header that identifies the KV, then the session's saved KV.
//!
//! Little-endian: the 8 bytes `EXSA-PR` and version, u64 [`Fingerprint`] of model and KV types, u64 hash of
//! adapter and salt, u64 tokens, each token as u32, u64 hash of everything before; then the output of
//! [`Session::save`](crate::backend::Session::save), which has its own checksum.

use crate::backend::Fingerprint;
use crate::error::KvError;
use crate::schedule::prefix::Namespace;
use crate::token::TokenId;

const MAGIC: [u8; 8] = *b"EXSA-PR\x01";
const FIXED_BYTES: usize = 32;
const HASH_BYTES: usize = 8;
const TOKEN_BYTES: usize = size_of::<TokenId>();

/// Appends everything before the saved KV.
pub(crate) fn write_record(
    to: &mut Vec<u8>,
    fingerprint: Fingerprint,
    namespace: &Namespace,
    tokens: &[TokenId],
) {
    let start = to.len();
    to.extend_from_slice(&MAGIC);
    for value in [fingerprint.0, hash_of(namespace), tokens.len() as u64] {
        to.extend_from_slice(&value.to_le_bytes());
    }
    tokens.iter().for_each(|token| to.extend_from_slice(&token.to_le_bytes()));
    let hash = checksum(&to[start..]);
    to.extend_from_slice(&hash.to_le_bytes());
}

/// Returns the tokens of a record and its saved KV, if the record is undamaged and belongs to the model and
/// namespace.
///
/// # Errors
///
/// [`KvError::Format`] for a record that is damaged, or belongs to another model or namespace.
pub(crate) fn read_record<'a>(
    record: &'a [u8],
    fingerprint: Fingerprint,
    namespace: &Namespace,
) -> Result<(Vec<TokenId>, &'a [u8]), KvError> {
    let refused = |problem: &str| Err(KvError::Format(problem.to_owned()));
    if record.len() < FIXED_BYTES || record[..7] != MAGIC[..7] {
        return refused("it does not start with EXSA-PR");
    }
    if record[7] != MAGIC[7] {
        return refused("its format version is not supported by this program");
    }
    if u64_at(record, 8) != fingerprint.0 {
        return refused("it belongs to another model, or to other KV types");
    }
    if u64_at(record, 16) != hash_of(namespace) {
        return refused("it belongs to another adapter or salt");
    }
    let rest = record.len() - FIXED_BYTES;
    let Some(tokens) = usize::try_from(u64_at(record, 24))
        .ok()
        .and_then(|tokens| tokens.checked_mul(TOKEN_BYTES))
        .filter(|bytes| bytes.checked_add(HASH_BYTES).is_some_and(|bytes| bytes <= rest))
    else {
        return refused("it is truncated before its last token");
    };
    let end = FIXED_BYTES + tokens;
    if u64_at(record, end) != checksum(&record[..end]) {
        return refused("the hash of its tokens is wrong");
    }
    let mut token = [0; TOKEN_BYTES];
    let tokens = record[FIXED_BYTES..end].chunks_exact(TOKEN_BYTES).map(|bytes| {
        token.copy_from_slice(bytes);
        TokenId::from_le_bytes(token)
    });
    Ok((tokens.collect(), &record[end + HASH_BYTES..]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut fingerprint = Fingerprint::default();
    fingerprint.update(bytes);
    fingerprint.0
}

fn hash_of(namespace: &Namespace) -> u64 {
    let mut fingerprint = Fingerprint::default();
    for part in [&namespace.adapter, &namespace.salt] {
        fingerprint.update(&[u8::from(part.is_some())]);
        fingerprint.update(part.as_deref().unwrap_or_default().as_bytes());
    }
    fingerprint.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(salt: Option<&str>) -> Namespace {
        Namespace { adapter: None, salt: salt.map(Into::into) }
    }

    fn refused(record: &[u8], fingerprint: u64, salt: Option<&str>) -> String {
        match read_record(record, Fingerprint(fingerprint), &namespace(salt)) {
            Err(KvError::Format(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_belongs_to_one_model_and_salt() {
        let mut record = Vec::new();
        write_record(&mut record, Fingerprint(5), &namespace(Some("a")), &[7, 8, 9]);
        record.extend_from_slice(b"KV");
        let (tokens, kv) = read_record(&record, Fingerprint(5), &namespace(Some("a"))).unwrap();
        assert_eq!((tokens.as_slice(), kv), (&[7, 8, 9][..], &b"KV"[..]));
        assert!(refused(&record, 6, Some("a")).contains("another model"));
        assert!(refused(&record, 5, Some("b")).contains("salt"));
        assert!(refused(&record, 5, None).contains("salt"));
        // An empty salt is not the lack of one.
        assert_ne!(hash_of(&namespace(Some(""))), hash_of(&namespace(None)));
    }

    #[test]
    fn damage_is_refused_at_every_byte() {
        let mut record = Vec::new();
        write_record(&mut record, Fingerprint(5), &namespace(None), &[1, 2, 3, 4, 5]);
        for at in 0..record.len() {
            for bit in [1, 128] {
                let mut damaged = record.clone();
                damaged[at] ^= bit;
                assert!(!refused(&damaged, 5, None).is_empty(), "byte {at}");
            }
            assert!(!refused(&record[..at], 5, None).is_empty(), "{at} bytes");
        }
        record[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(refused(&record, 5, None).contains("last token"));
    }
}
