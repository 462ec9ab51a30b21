//! Authentication of requests, and checks of scopes.

use super::credential::Credential;
use super::events::AccessEvent;
use super::failures::Failures;
use super::jwt::{JwtConfigError, TokenError, Tokens};
use super::keys::KeyRefusal;
use super::record::is_name;
use super::refusal;
use super::secret::PresentedKey;
use super::{AccessConfig, Caller, KeyFileError, Keys, Scope, Store, StoreError};
use crate::http::context::RequestContext;
use crate::http::error::ApiError;
use crate::observe::metrics::Refusals;
use crate::state::{AppState, unix_seconds};
use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Header in which a trusted proxy names the end user.
const END_USER: HeaderName = HeaderName::from_static("x-exsa-user");

/// Access cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// No data folder is configured.
    #[error("access.data: a folder for the keys is needed")]
    NoData,
    /// The data folder or its database is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys cannot be exported.
    #[error("access.export: {0}")]
    Export(#[source] KeyFileError),
    /// The keys cannot be imported.
    #[error("access.import: {0}")]
    Import(#[source] KeyFileError),
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(#[source] std::io::Error),
    /// A setting of `[access.jwt]` is invalid.
    #[error(transparent)]
    Jwt(#[from] JwtConfigError),
}

/// Authentication of a server's requests. Clones share state.
///
/// ```no_run
/// use exsa_server::access::{Access, AccessConfig};
///
/// let access = Access::open(&AccessConfig::default().data("/var/lib/exsa"))?;
/// # let _ = access;
/// # Ok::<(), exsa_server::access::AccessError>(())
/// ```
#[derive(Clone)]
pub struct Access(Arc<Parts>);

struct Parts {
    keys: Arc<Keys>,
    tokens: ArcSwapOption<Tokens>,
    failures: Failures,
    folder: Option<PathBuf>,
}

impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { keys, tokens, folder, .. } = &*self.0;
        let mut out = out.debug_struct("Access");
        out.field("keys", &keys.len()).field("tokens", &tokens.load().is_some()).field("folder", folder);
        out.finish_non_exhaustive()
    }
}

impl Access {
    /// Opens the database of the configured folder.
    ///
    /// # Errors
    ///
    /// The folder is unusable, another process has the database open, or a setting is invalid.
    pub fn open(config: &AccessConfig) -> Result<Self, AccessError> {
        let folder = config.data.as_ref().ok_or(AccessError::NoData)?;
        let keys = Keys::open(Arc::new(Store::open(folder)?))?;
        let keys = match (&config.export, &config.import) {
            (Some(file), _) => keys.exporting(file).map_err(AccessError::Export)?,
            (None, Some(file)) => keys.importing(file).map_err(AccessError::Import)?,
            (None, None) => keys.owned()?,
        };
        let keys = Arc::new(keys);
        keys.start().map_err(AccessError::Thread)?;
        Self::new(keys, config, Some(folder.clone()))
    }

    /// Uses keys that are already open; the configured folder is not used.
    ///
    /// # Errors
    ///
    /// A setting is invalid.
    pub fn with_keys(keys: Arc<Keys>, config: &AccessConfig) -> Result<Self, AccessError> {
        Self::new(keys, config, None)
    }

    fn new(keys: Arc<Keys>, config: &AccessConfig, folder: Option<PathBuf>) -> Result<Self, AccessError> {
        let tokens = config.jwt.as_ref().map(Tokens::new).transpose()?.map(Arc::new);
        let failures = Failures::new(config.failures_burst, config.failures_per_minute);
        Ok(Self(Arc::new(Parts { keys, tokens: tokens.into(), failures, folder })))
    }

    /// Prepares new settings of tokens and failures, and reads their files. The returned function applies
    /// them atomically. Running streams continue, except those of tokens that the new settings do not accept,
    /// which end as if revoked. Whether keys are enabled, and their folder, cannot change.
    ///
    /// # Errors
    ///
    /// A setting is invalid; nothing changes.
    pub fn prepare(&self, config: &AccessConfig) -> Result<impl FnOnce() + Send + use<>, AccessError> {
        let parts = self.0.clone();
        let current = parts.tokens.load_full();
        let next = config.jwt.as_ref().map(|config| match &current {
            Some(current) => current.successor(config),
            None => Tokens::new(config),
        });
        let next = next.transpose()?.map(Arc::new);
        let (burst, per_minute) = (config.failures_burst, config.failures_per_minute);
        Ok(move || {
            parts.failures.set_limits(burst, per_minute);
            // Tokens are handed over before a request can add one to the new table.
            if let Some(current) = current {
                current.retire(next.as_deref());
            }
            parts.tokens.store(next);
        })
    }

    /// The API keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.0.keys
    }

    /// Sets a function that is called with acts on keys and with refusals, for example to write an audit log.
    /// It runs on the thread of the act. Only the first call has an effect.
    pub fn observe(&self, observer: impl Fn(&AccessEvent<'_>) + Send + Sync + 'static) {
        self.0.keys.observe(observer);
    }

    /// The database, in which other modules keep their own tables.
    pub fn store(&self) -> &Arc<Store> {
        self.0.keys.store()
    }

    /// The data folder, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.0.folder.as_deref()
    }

    /// Identifies the caller of a request.
    async fn identify(&self, headers: &HeaderMap, context: &RequestContext) -> Result<Caller, ApiError> {
        let caller = match Credential::find(headers)? {
            Credential::Key(key) => self.by_key(&key, context)?,
            Credential::Token(token) => self.by_token(token, context).await?,
        };
        if !caller.trusted_proxy {
            return Ok(caller);
        }
        match headers.get(END_USER).map(|user| user.to_str().ok().filter(|user| is_name(user))) {
            None => Ok(caller),
            Some(Some(user)) => Ok(Caller { end_user: Some(user.into()), ..caller }),
            Some(None) => {
                Err(ApiError::invalid("x-exsa-user: 1 to 128 printable ASCII characters are allowed"))
            }
        }
    }

    fn by_key(&self, key: &PresentedKey<'_>, context: &RequestContext) -> Result<Caller, ApiError> {
        self.0.keys.find(key, unix_seconds()).map_err(|reason| {
            let error = match reason {
                KeyRefusal::Unknown => refusal::invalid("the API key is not valid"),
                KeyRefusal::Revoked => refusal::unauthorized("key_revoked", "the API key was revoked"),
                KeyRefusal::Expired => refusal::unauthorized("key_expired", "the API key has expired"),
            };
            self.failed(context, error)
        })
    }

    async fn by_token(&self, token: &str, context: &RequestContext) -> Result<Caller, ApiError> {
        loop {
            let Some(tokens) = self.0.tokens.load_full() else {
                return Err(self.failed(context, refusal::invalid("the API key is not valid")));
            };
            if let Some(caller) = tokens.remembered(token) {
                return Ok(caller);
            }
            // Verifying signatures costs time, so an address without failures left is refused first.
            self.0.failures.check(address(context)).map_err(refusal::too_many)?;
            match tokens.verify(token).await {
                // A reload happened in between.
                Err(TokenError::Replaced) => {}
                result => return result.map_err(|error| self.refused(context, error)),
            }
        }
    }

    /// Returns the response to a refused token.
    fn refused(&self, context: &RequestContext, error: TokenError) -> ApiError {
        match error {
            TokenError::NoKeys => {
                let message = "the keys of the identity provider cannot be read; try again later";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).code("no_issuer_keys")
            }
            TokenError::Expired => {
                self.failed(context, refusal::unauthorized("token_expired", "the token has expired"))
            }
            TokenError::Invalid(problem) => self.failed(context, refusal::invalid(problem)),
            TokenError::Replaced => ApiError::internal("the settings of tokens have changed"),
        }
    }

    /// Counts a failure of an address. Returns the response.
    fn failed(&self, context: &RequestContext, error: ApiError) -> ApiError {
        if let Err(wait) = self.0.failures.count(address(context)) {
            return refusal::too_many(wait);
        }
        let reason = error.to_string();
        tracing::debug!(peer = ?context.peer, reason, "authentication failed");
        self.0.keys.tell(&AccessEvent::AuthenticationFailed { reason: &reason, context });
        error
    }
}

fn address(context: &RequestContext) -> Option<IpAddr> {
    context.peer.map(|peer| peer.ip())
}

/// Reason why a request has no [`Caller`]. Public routes do not need one.
#[derive(Clone)]
struct Unauthenticated(ApiError);

/// Error code of a request without a key or token. Public routes accept such requests.
const MISSING: &str = "missing_api_key";

/// Identifies the caller of a request and adds it as an extension. Without authentication every caller is
/// [`Caller::anonymous`].
pub(crate) async fn authenticate(
    State(state): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let context = request.extensions().get::<RequestContext>().cloned();
    let found = match (&state.access, context) {
        (None, _) => Ok(Caller::anonymous()),
        (Some(access), Some(context)) => {
            request.extensions_mut().insert(access.clone());
            access.identify(request.headers(), &context).await
        }
        (Some(_), None) => Err(ApiError::internal("the request has no context")),
    };
    match found {
        Ok(caller) => drop(request.extensions_mut().insert(caller)),
        Err(error) => {
            let code = error.code_text();
            if code != MISSING {
                state.metrics.refusals().authentication(code);
            }
            drop(request.extensions_mut().insert(Unauthenticated(error)));
        }
    }
    request.extensions_mut().insert(state.metrics.refusals().clone());
    next.run(request).await
}

/// Accepts only requests whose caller has `scope`.
pub(crate) async fn require(State(scope): State<Scope>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let refusals = extensions.get::<Refusals>();
    let error = match (extensions.get::<Caller>(), extensions.get::<Unauthenticated>()) {
        (Some(caller), _) if caller.scopes.contains(scope) => return next.run(request).await,
        (Some(by), _) => {
            if let (Some(access), Some(context)) = (extensions.get::<Access>(), extensions.get()) {
                access.0.keys.tell(&AccessEvent::PermissionDenied { scope, by, context });
            }
            let error = refusal::missing_scope(scope);
            if let Some(refusals) = refusals {
                refusals.permission(error.code_text());
            }
            error
        }
        (None, Some(Unauthenticated(error))) => {
            if let Some(refusals) = refusals.filter(|_| error.code_text() == MISSING) {
                refusals.authentication(MISSING);
            }
            error.clone()
        }
        (None, None) => ApiError::internal("the request has no sender: its route is not authenticated"),
    };
    refusal::response(request.uri().path(), &error)
}
