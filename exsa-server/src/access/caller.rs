//! The authenticated sender of a request.

use crate::error::ApiError;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use exsa_core::Priority;
use std::sync::Arc;

/// A kind of act that a key permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Generate, embed, rerank, tokenize, list models.
    Infer,
    /// Load, unload and switch models; reload the configuration.
    Models,
    /// Read metrics and statistics.
    Metrics,
    /// Read the audit log.
    Audit,
    /// Make, list and revoke keys.
    Keys,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [Self::Infer, Self::Models, Self::Metrics, Self::Audit, Self::Keys];

    /// Name in configuration and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Models => "models",
            Self::Metrics => "metrics",
            Self::Audit => "audit",
            Self::Keys => "keys",
        }
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// All scopes.
    pub const ALL: Self = Self((1 << Scope::ALL.len()) - 1);

    /// The set with `scope` added.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }

    /// Whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}

/// The sender of a request, an extension of every request that reaches a handler. Clones are cheap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Caller {
    /// Id of the key, `jwt:` and the subject of a token, or `anonymous`.
    pub id: Arc<str>,
    /// Group with which quotas are shared.
    pub group: Option<Arc<str>>,
    /// Permitted acts.
    pub scopes: Scopes,
    /// Names of the permitted models; `None` permits all. A name that ends with `*` permits those that begin like it.
    pub models: Option<Arc<[String]>>,
    /// The most urgent class that requests may have.
    pub priority_max: Priority,
    /// Weight in the fair queue.
    pub weight: f32,
    /// Whether the sender may name its end user.
    pub trusted_proxy: bool,
}

impl Caller {
    /// The sender of every request to a server without authentication: all scopes, all models.
    pub fn anonymous() -> Self {
        Self {
            id: "anonymous".into(),
            group: None,
            scopes: Scopes::ALL,
            models: None,
            priority_max: Priority::default(),
            weight: 1.0,
            trusted_proxy: false,
        }
    }

    /// Whether the sender was not authenticated.
    pub fn is_anonymous(&self) -> bool {
        &*self.id == "anonymous"
    }

    /// Whether the sender may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        let permits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => model == pattern,
        };
        self.models.as_ref().is_none_or(|models| models.iter().any(permits))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::internal("the request has no sender: its route is not authenticated"))
    }
}
