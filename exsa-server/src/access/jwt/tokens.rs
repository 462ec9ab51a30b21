//! Verification of tokens, with a cache of the provider's keys and of verified tokens.

use super::claims::{self, Claims};
use super::config::{JwtConfig, JwtConfigError};
use super::keyset::KeySet;
use super::source::KeySource;
use super::verified::{Verified, VerifiedTokens};
use crate::access::Scope;
use crate::access::caller::{Caller, TOKEN_PREFIX};
use crate::access::revocation::Revoker;
use crate::state::unix_seconds;
use jsonwebtoken::crypto::rust_crypto;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Maximum bytes of a token.
const TOKEN_MAX: usize = 16 << 10;

/// Minimum interval between two fetches of the keys, regardless of how many tokens name unknown keys.
const READ_PAUSE: Duration = Duration::from_secs(10);

/// Age after which keys that could not be fetched again are no longer trusted.
const KEYS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reason why a token is refused. Messages never contain parts of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::access) enum TokenError {
    /// The token is not valid.
    Invalid(String),
    /// The token has expired.
    Expired,
    /// The provider's keys are unavailable.
    NoKeys,
    /// The settings were replaced meanwhile.
    Replaced,
}

/// Verifies tokens.
pub(in crate::access) struct Tokens {
    config: JwtConfig,
    algorithms: Vec<Algorithm>,
    source: KeySource,
    keys: RwLock<Option<Known>>,
    /// Time of the last attempt to fetch the keys. Locked during a fetch, on which other tokens wait.
    reading: tokio::sync::Mutex<Option<Instant>>,
    read_pause: Duration,
    verified: VerifiedTokens,
}

/// The fetched keys.
#[derive(Clone)]
struct Known {
    set: Arc<KeySet>,
    at: Instant,
}

impl Tokens {
    /// Checks the settings and reads a key set from a file. A provider's keys are fetched with the first
    /// token, so that the server starts without the provider.
    pub(in crate::access) fn new(config: &JwtConfig) -> Result<Self, JwtConfigError> {
        // If the crate's features enable both providers, or none, it would panic at the first use. An error
        // means that a provider is already installed.
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
            verified: VerifiedTokens::default(),
        })
    }

    /// Prepares new settings. If the provider is the same, its fetched keys are kept.
    pub(in crate::access) fn successor(&self, config: &JwtConfig) -> Result<Self, JwtConfigError> {
        let next = Self::new(config)?;
        let discovers = config.jwks_file.is_none() && self.config.jwks_file.is_none();
        if discovers && config.issuer == self.config.issuer && next.algorithms == self.algorithms {
            *next.keys.write().unwrap_or_else(PoisonError::into_inner) = self.known();
        }
        Ok(next)
    }

    /// Hands verified tokens over to new settings. Tokens that these do not accept, or all if there are none,
    /// are revoked.
    pub(in crate::access) fn retire(&self, next: Option<&Self>) {
        let accept = |verified: &Verified| next?.accepts(verified);
        self.verified.hand_over(next.map(|next| &next.verified), accept);
    }

    /// Returns the caller of a token that was verified under earlier settings, if these settings accept it
    /// without taking away its inference scope or a model.
    fn accepts(&self, verified: &Verified) -> Option<Caller> {
        let Verified { caller, claims, algorithm, key, revoker } = verified;
        let config = &self.config;
        let text = |name| claims.get(name).and_then(Value::as_str);
        let audience = match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::from_iter(text("aud")),
        };
        let known = self.known().is_none_or(|known| known.set.contains(key, *algorithm));
        let sound = text("iss") == Some(config.issuer.as_str())
            && audience.iter().any(|own| config.audience.iter().any(|asked| asked == own))
            && self.algorithms.contains(algorithm)
            && known;
        let grants = claims::grants(claims, config).ok().filter(|_| sound)?;
        let infers = grants.scopes.contains(Scope::Infer) || !caller.scopes.contains(Scope::Infer);
        (infers && grants.models.covers(&caller.models))
            .then(|| Caller::new(&caller.id, &grants, caller.expires, revoker.revocation()))
    }

    /// Returns the caller of a token that was verified before and is still valid. Costs one hash.
    pub(in crate::access) fn remembered(&self, token: &str) -> Option<Caller> {
        self.verified.get(token)
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
        // RFC 7515, section 4.1.11: unknown critical extensions must not be ignored.
        if header.crit.is_some() {
            return Err(invalid("the token needs extensions that are not known"));
        }
        let mut set = self.current().await.ok_or(TokenError::NoKeys)?;
        if set.find(header.kid.as_deref(), header.alg).is_none() {
            // The provider may have a new key.
            self.read_again(Some(&set)).await;
            set = self.known().map(|known| known.set).ok_or(TokenError::NoKeys)?;
        }
        // Verifying a signature takes up to milliseconds, which must not block other connections.
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
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default() as u64;
        let expires = Some(expires.saturating_add(validation.leeway));
        let revoker = Revoker::new(false);
        let caller = Caller::new(&format!("{TOKEN_PREFIX}{subject}"), &grants, expires, revoker.revocation());
        let verified = Verified { caller, claims, algorithm, key: key.print, revoker };
        let caller = self.verified.insert(token, verified).map_err(|_| TokenError::Replaced)?;
        // The provider's keys may have changed since the signature was verified.
        self.sweep();
        match caller.revocation.is_revoked() {
            false => Ok(caller),
            true => Err(TokenError::Invalid("the token's key is not one of the provider's".into())),
        }
    }

    /// Revokes tokens whose key the provider has removed.
    fn sweep(&self) {
        if let Some(known) = self.known() {
            self.verified.sweep(|verified| known.set.contains(&verified.key, verified.algorithm));
        }
    }

    fn known(&self) -> Option<Known> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the current keys if they are recent enough; once `refresh` has passed, they are fetched again
    /// in the background.
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

    /// Fetches the keys, unless they have changed from `seen` meanwhile or were fetched moments ago.
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
                let known = Known { set: Arc::new(set), at: Instant::now() };
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
                // A removed key must not live on in tokens that it verified.
                self.sweep();
            }
            Err(problem) => warn!(problem, "the keys of the identity provider cannot be read"),
        }
    }
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
