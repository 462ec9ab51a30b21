//! The authenticated sender of a request.

use super::grants::Grants;
use super::models::AllowedModels;
use super::scope::{Scope, Scopes};
use exsa_core::Priority;
use std::sync::Arc;
use tokio::sync::watch;

/// First part of the ids of callers with a token.
pub(super) const TOKEN_PREFIX: &str = "jwt:";

/// The authenticated sender of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    facts: Arc<Facts>,
    revocation: Revocation,
}

#[derive(Debug)]
struct Facts {
    id: String,
    grants: Grants,
    expires: Option<u64>,
}

impl Caller {
    pub(crate) fn new(id: String, grants: Grants, expires: Option<u64>, revocation: Revocation) -> Self {
        Self { facts: Arc::new(Facts { id, grants, expires }), revocation }
    }

    /// Any sender, for a server without authentication.
    pub fn anonymous() -> Self {
        Self::new("anonymous".into(), Grants::operator(), None, Revocation::never())
    }

    /// The server's operator on this machine, who came through the control socket.
    pub(crate) fn operator() -> Self {
        Self::new("operator".into(), Grants::operator(), None, Revocation::never())
    }

    /// The same caller, authenticated by another secret.
    pub(super) fn with_revocation(&self, revocation: Revocation) -> Self {
        Self { facts: self.facts.clone(), revocation }
    }

    /// The key's id, `jwt:` and the subject of a token, `operator` or `anonymous`.
    pub fn id(&self) -> &str {
        &self.facts.id
    }

    /// Whether the caller came with a token of an identity provider.
    pub fn is_token(&self) -> bool {
        self.id().starts_with(TOKEN_PREFIX)
    }

    /// Rights of the caller.
    pub fn grants(&self) -> &Grants {
        &self.facts.grants
    }

    /// The group whose quota the caller shares.
    pub fn group(&self) -> Option<&str> {
        self.facts.grants.group.as_deref()
    }

    /// Acts that the caller may do.
    pub fn scopes(&self) -> Scopes {
        self.facts.grants.scopes
    }

    /// Whether the caller may do acts of a kind.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes().contains(scope)
    }

    /// Models that the caller may use.
    pub fn models(&self) -> &AllowedModels {
        &self.facts.grants.models
    }

    /// The class of a request that asks for `asked`: no more urgent than the caller's ceiling.
    pub fn capped(&self, asked: Priority) -> Priority {
        asked.max(self.facts.grants.priority_max)
    }

    /// Share of the engine against other callers of the same class.
    pub fn weight(&self) -> f32 {
        self.facts.grants.weight
    }

    /// Unix time in seconds from which the caller's key or token is not valid any more.
    pub fn expires(&self) -> Option<u64> {
        self.facts.expires
    }

    /// The revocation of the key or secret by which the caller came.
    pub fn revocation(&self) -> &Revocation {
        &self.revocation
    }
}

/// Tells whether the secret behind a caller was revoked. Clones watch the same secret.
#[derive(Clone, Debug)]
pub struct Revocation(Option<watch::Receiver<bool>>);

impl Revocation {
    /// A secret that cannot be revoked.
    pub fn never() -> Self {
        Self(None)
    }

    /// Whether the secret was revoked.
    pub fn is_revoked(&self) -> bool {
        self.0.as_ref().is_some_and(|revoked| *revoked.borrow())
    }

    /// Waits until the secret is revoked.
    pub async fn revoked(self) {
        if let Some(mut revoked) = self.0
            && revoked.wait_for(|revoked| *revoked).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Revokes one secret.
#[derive(Debug)]
pub(super) struct Revoker(watch::Sender<bool>);

impl Revoker {
    pub(super) fn new(revoked: bool) -> Self {
        Self(watch::Sender::new(revoked))
    }

    pub(super) fn revocation(&self) -> Revocation {
        Revocation(Some(self.0.subscribe()))
    }

    pub(super) fn revoke(&self) {
        self.0.send_replace(true);
    }
}
