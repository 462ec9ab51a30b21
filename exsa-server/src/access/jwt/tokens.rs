//! Verification of tokens, with a cache of the provider's keys and of verified tokens.

use super::claims::{self, Claims};
use super::config::{JwtConfig, JwtConfigError};
use super::keyset::KeySet;
use super::source::KeySource;
use crate::access::caller::{Caller, TOKEN_PREFIX};
use crate::access::revocation::Revocation;
use crate::state::unix_seconds;
use jsonwebtoken::crypto::rust_crypto;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Maximum bytes of a token.
const TOKEN_MAX: usize = 16 << 10;

/// Minimum time between two reads of the keys, however many tokens name unknown keys.
const READ_PAUSE: Duration = Duration::from_secs(10);

/// Time after which keys that could not be read again are not trusted any more.
const KEYS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Maximum verified tokens that are remembered.
const VERIFIED_MAX: usize = 1024;

/// The reason for which a token is refused. Texts have no part of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::access) enum TokenError {
    /// The token is not valid.
    Invalid(String),
    /// The token was valid once.
    Expired,
    /// The provider's keys cannot be read.
    NoKeys,
}

/// The hash of a token.
type TokenHash = [u8; 32];

/// Verifies tokens.
pub(in crate::access) struct Tokens {
    config: JwtConfig,
    algorithms: Vec<Algorithm>,
    source: KeySource,
    keys: RwLock<Option<Known>>,
    /// Time of the last attempt to read the keys. Held during a read, which other tokens wait for.
    reading: tokio::sync::Mutex<Option<Instant>>,
    read_pause: Duration,
    verified: Mutex<HashMap<TokenHash, Caller>>,
}

/// Keys that were read.
#[derive(Clone)]
struct Known {
    set: Arc<KeySet>,
    at: Instant,
}

impl Tokens {
    /// Checks the settings and reads a key set in a file. Keys of a provider are read when the first token
    /// comes, so that the server starts without it.
    pub(in crate::access) fn new(config: &JwtConfig) -> Result<Self, JwtConfigError> {
        // With features of both providers on, or none, the crate would panic at the first use. An error tells
        // that a provider is there already.
        let _ = rust_crypto::DEFAULT_PROVIDER.install_default();
        let algorithms = config.check()?;
        let source = KeySource::new(config)?;
        let keys = match source {
            KeySource::File(_) => {
                let set = source.read().and_then(|bytes| KeySet::parse(&bytes, &algorithms));
                let set = set.map_err(|problem| JwtConfigError::new("jwks_file", problem))?;
                Some(Known { set: Arc::new(set), at: Instant::now() })
            }
            KeySource::Discovery { .. } => None,
        };
        Ok(Self {
            config: config.clone(),
            algorithms,
            source,
            keys: RwLock::new(keys),
            reading: tokio::sync::Mutex::new(None),
            read_pause: READ_PAUSE,
            verified: Mutex::default(),
        })
    }

    /// The caller of a token that was verified before and is still valid. Costs one hash.
    pub(in crate::access) fn remembered(&self, token: &str) -> Option<Caller> {
        let now = unix_seconds();
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = verified.get(&hash(token))?;
        caller.expires.is_some_and(|expires| now < expires).then(|| caller.clone())
    }

    /// Verifies a token.
    pub(in crate::access) async fn verify(self: &Arc<Self>, token: &str) -> Result<Caller, TokenError> {
        if token.len() > TOKEN_MAX {
            return Err(TokenError::Invalid(format!("a token has at most {TOKEN_MAX} bytes")));
        }
        let invalid = |problem: &str| TokenError::Invalid(problem.to_owned());
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("this is no token"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(invalid("the token's algorithm is not a configured one"));
        }
        // RFC 7515, section 4.1.11: extensions that are not understood must not be ignored.
        if header.crit.is_some() {
            return Err(invalid("the token needs extensions that are not known"));
        }
        let mut set = self.current().await.ok_or(TokenError::NoKeys)?;
        if set.find(header.kid.as_deref(), header.alg).is_none() {
            // The provider may have a new key.
            self.read_again(Some(&set)).await;
            set = self.known().map(|known| known.set).ok_or(TokenError::NoKeys)?;
        }
        // A signature takes up to milliseconds, in which no other connection must wait.
        let (this, token, algorithm, id) = (self.clone(), token.to_owned(), header.alg, header.kid);
        let verify = move || this.check(&token, &set, id.as_deref(), algorithm);
        match tokio::task::spawn_blocking(verify).await {
            Ok(result) => result,
            Err(_) => Err(invalid("the token could not be verified")),
        }
    }

    fn check(
        &self,
        token: &str,
        set: &KeySet,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Caller, TokenError> {
        let key = set.find(id, algorithm);
        let key =
            key.ok_or_else(|| TokenError::Invalid("the token's key is not one of the provider's".into()))?;
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = self.config.leeway.as_secs().min(unix_seconds());
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &validation)
            .map_err(|error| refusal(error.kind()))?;
        let claims = claims.claims;
        let grants = claims::grants(&claims, &self.config).map_err(TokenError::Invalid)?;
        let subject = claims::subject(&claims).map_err(TokenError::Invalid)?;
        let expires = claims.get("exp").and_then(serde_json::Value::as_f64).unwrap_or_default() as u64;
        let expires = expires.saturating_add(validation.leeway);
        let caller =
            Caller::new(&format!("{TOKEN_PREFIX}{subject}"), &grants, Some(expires), Revocation::never());
        self.remember(token, &caller);
        Ok(caller)
    }

    fn remember(&self, token: &str, caller: &Caller) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= VERIFIED_MAX {
            let now = unix_seconds();
            verified.retain(|_, caller| caller.expires.is_some_and(|expires| now < expires));
        }
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(hash(token), caller.clone());
    }

    fn known(&self) -> Option<Known> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys: those at hand while they are young enough, read anew in the background once `refresh` has
    /// passed.
    async fn current(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        match self.known() {
            Some(known) if known.at.elapsed() < self.config.refresh => Some(known.set),
            Some(known) if known.at.elapsed() < KEYS_AGE_MAX => {
                let (this, set) = (self.clone(), known.set.clone());
                tokio::spawn(async move { this.read_again(Some(&set)).await });
                Some(known.set)
            }
            known => {
                self.read_again(known.as_ref().map(|known| &known.set)).await;
                self.known().filter(|known| known.at.elapsed() < KEYS_AGE_MAX).map(|known| known.set)
            }
        }
    }

    /// Reads the keys, unless others than `seen` have come meanwhile or the last read was moments ago.
    async fn read_again(self: &Arc<Self>, seen: Option<&Arc<KeySet>>) {
        let mut reading = self.reading.lock().await;
        let known = self.known();
        let same = match (seen, &known) {
            (Some(seen), Some(known)) => Arc::ptr_eq(seen, &known.set),
            (None, None) => true,
            _ => false,
        };
        if !same || reading.is_some_and(|last| last.elapsed() < self.read_pause) {
            return;
        }
        let this = self.clone();
        let read = move || this.source.read().and_then(|bytes| KeySet::parse(&bytes, &this.algorithms));
        let result = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()));
        *reading = Some(Instant::now());
        match result {
            Ok(set) => {
                info!("keys of the identity provider read");
                // A key that is gone must not live on in tokens that it verified.
                self.verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
                let known = Known { set: Arc::new(set), at: Instant::now() };
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
            }
            Err(problem) => warn!(problem, "the keys of the identity provider cannot be read"),
        }
    }
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

fn refusal(kind: &ErrorKind) -> TokenError {
    let problem = match kind {
        ErrorKind::ExpiredSignature => return TokenError::Expired,
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::MissingRequiredClaim(claim) => {
            return TokenError::Invalid(format!("the token has no claim {claim}"));
        }
        _ => "the token cannot be read",
    };
    TokenError::Invalid(problem.into())
}

#[cfg(test)]
mod tests;
