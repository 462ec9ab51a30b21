//! The authenticated caller of a request.

use super::grants::Grants;
use super::models::AllowedModels;
use super::revocation::Revocation;
use super::scope::Scopes;
use crate::http::error::ApiError;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use exsa_core::Priority;
use serde_json::Value;
use std::sync::Arc;

/// Prefix of the ids of callers with a token.
pub(super) const TOKEN_PREFIX: &str = "jwt:";

/// The caller of a request; an extension of every request that reaches a handler. Clones are cheap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Caller {
    /// Key id, `jwt:` and the subject of a token, `operator` for the control socket, or `anonymous`.
    pub id: Arc<str>,
    /// Group whose quota is shared.
    pub group: Option<Arc<str>>,
    /// Granted scopes.
    pub scopes: Scopes,
    /// Allowed models.
    pub models: AllowedModels,
    /// The most urgent class allowed for requests.
    pub priority_max: Priority,
    /// Weight in the fair queue.
    pub weight: f32,
    /// Whether the caller may name its end user.
    pub trusted_proxy: bool,
    /// The end user named by a trusted proxy in the header `x-exsa-user`.
    pub end_user: Option<Arc<str>>,
    /// Quota of this caller.
    pub quota: Option<Arc<Value>>,
    /// Unix time in seconds at which the key or token expires.
    pub expires: Option<u64>,
    /// Revocation of the caller's secret.
    pub revocation: Revocation,
}

impl Caller {
    /// The caller of every request to a server without authentication: all scopes, all models.
    pub fn anonymous() -> Self {
        Self {
            id: "anonymous".into(),
            group: None,
            scopes: Scopes::ALL,
            models: AllowedModels::ALL,
            priority_max: Priority::default(),
            weight: 1.0,
            trusted_proxy: false,
            end_user: None,
            quota: None,
            expires: None,
            revocation: Revocation::never(),
        }
    }

    /// Creates a caller with the rights of a key or token.
    pub(crate) fn new(id: &str, grants: &Grants, expires: Option<u64>, revocation: Revocation) -> Self {
        let Grants { scopes, models, priority_max, weight, group, trusted_proxy, quota } = grants.clone();
        Self {
            id: id.into(),
            group: group.map(Arc::from),
            scopes,
            models,
            priority_max,
            weight,
            trusted_proxy,
            end_user: None,
            quota: quota.map(Arc::new),
            expires,
            revocation,
        }
    }

    /// The server's operator, who has access to its data folder.
    pub fn operator() -> Self {
        Self::new("operator", &Grants::operator(), None, Revocation::never())
    }

    /// Returns whether the caller was not authenticated.
    pub fn is_anonymous(&self) -> bool {
        &*self.id == "anonymous"
    }

    /// Returns whether the caller used a token of an identity provider.
    pub fn is_token(&self) -> bool {
        self.id.starts_with(TOKEN_PREFIX)
    }

    /// Returns whether the caller may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        self.models.allow(model)
    }

    /// Returns the rights of the caller.
    pub fn grants(&self) -> Grants {
        Grants {
            scopes: self.scopes,
            models: self.models.clone(),
            priority_max: self.priority_max,
            weight: self.weight,
            group: self.group.as_deref().map(str::to_owned),
            trusted_proxy: self.trusted_proxy,
            quota: self.quota.as_deref().cloned(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::internal("the request has no sender: its route is not authenticated"))
    }
}
