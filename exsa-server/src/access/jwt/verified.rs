//! Cache of verified tokens, with the means to revoke their requests.

use super::claims::Claims;
use super::keyset::KeyPrint;
use crate::access::caller::Caller;
use crate::access::revocation::Revoker;
use crate::state::unix_seconds;
use jsonwebtoken::Algorithm;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Number of tokens above which those without a running request are forgotten.
const VERIFIED_MAX: usize = 1024;

/// The hash of a token.
type TokenHash = [u8; 32];

/// A verified token.
pub(super) struct Verified {
    pub(super) caller: Caller,
    pub(super) claims: Claims,
    pub(super) algorithm: Algorithm,
    /// The key that verified its signature.
    pub(super) key: KeyPrint,
    pub(super) revoker: Revoker,
}

impl Verified {
    fn is_valid(&self, now: u64) -> bool {
        self.caller.expires.is_some_and(|expires| now < expires)
    }
}

/// The verified tokens of one configuration.
#[derive(Default)]
pub(super) struct VerifiedTokens(Mutex<Table>);

#[derive(Default)]
struct Table {
    tokens: HashMap<TokenHash, Verified>,
    /// Whether another configuration has replaced this one.
    closed: bool,
}

/// Another configuration has replaced the one that verified the token.
#[derive(Debug)]
pub(super) struct Closed;

impl VerifiedTokens {
    /// Returns the caller of a token that is still valid. Costs one hash.
    pub(super) fn get(&self, token: &str) -> Option<Caller> {
        let table = self.lock();
        let verified = table.tokens.get(&hash(token))?;
        verified.is_valid(unix_seconds()).then(|| verified.caller.clone())
    }

    /// Inserts a token. Returns its caller, or the one of a request that verified the same token before.
    ///
    /// # Errors
    ///
    /// The table is closed: the token must be verified under the new configuration.
    pub(super) fn insert(&self, token: &str, verified: Verified) -> Result<Caller, Closed> {
        let mut table = self.lock();
        if table.closed {
            return Err(Closed);
        }
        if table.tokens.len() >= VERIFIED_MAX {
            let now = unix_seconds();
            table.tokens.retain(|_, verified| verified.is_valid(now) || verified.revoker.is_watched());
        }
        if table.tokens.len() >= VERIFIED_MAX {
            // A running request must stay revocable.
            table.tokens.retain(|_, verified| verified.revoker.is_watched());
        }
        let entry = table.tokens.entry(hash(token)).or_insert(verified);
        Ok(entry.caller.clone())
    }

    /// Revokes the tokens that `keep` refuses.
    pub(super) fn sweep(&self, keep: impl Fn(&Verified) -> bool) {
        self.lock().tokens.retain(|_, verified| {
            let kept = keep(verified);
            if !kept {
                verified.revoker.revoke();
            }
            kept
        });
    }

    /// Closes the table and moves the tokens for which `accept` returns a caller to `next`. The others are
    /// revoked.
    pub(super) fn hand_over(&self, next: Option<&Self>, accept: impl Fn(&Verified) -> Option<Caller>) {
        let mut table = self.lock();
        table.closed = true;
        let mut kept = HashMap::new();
        for (hash, verified) in std::mem::take(&mut table.tokens) {
            match accept(&verified) {
                Some(caller) => drop(kept.insert(hash, Verified { caller, ..verified })),
                None => verified.revoker.revoke(),
            }
        }
        drop(table);
        if let Some(next) = next {
            next.lock().tokens.extend(kept);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}
