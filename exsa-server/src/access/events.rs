//! Acts that an audit log records.

use super::{Caller, KeyRecord, Scope};
use crate::http::context::RequestContext;
use std::fmt;
use std::sync::OnceLock;

/// An act on keys, or a refusal. None has a key's text or a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AccessEvent<'a> {
    /// A key was made.
    KeyCreated {
        /// The key.
        key: &'a KeyRecord,
        /// The caller that made it.
        by: &'a Caller,
    },
    /// A key was revoked.
    KeyRevoked {
        /// The key.
        key: &'a KeyRecord,
        /// The caller that revoked it.
        by: &'a Caller,
    },
    /// A key has a new secret.
    KeyRotated {
        /// The key.
        key: &'a KeyRecord,
        /// The caller that asked for it.
        by: &'a Caller,
    },
    /// A request came with a wrong, expired or revoked key or token. Those beyond the limit of an address are
    /// left out.
    AuthenticationFailed {
        /// The reason.
        reason: &'a str,
        /// The request.
        context: &'a RequestContext,
    },
    /// A caller lacks the scope for a request.
    PermissionDenied {
        /// The scope.
        scope: Scope,
        /// The caller.
        by: &'a Caller,
        /// The request.
        context: &'a RequestContext,
    },
}

/// A function that events are told to.
type Tell = dyn Fn(&AccessEvent<'_>) + Send + Sync;

/// The function that events are told to, set once.
#[derive(Default)]
pub(super) struct Observer(OnceLock<Box<Tell>>);

impl Observer {
    pub(super) fn set(&self, observer: impl Fn(&AccessEvent<'_>) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(observer));
    }

    pub(super) fn tell(&self, event: &AccessEvent<'_>) {
        if let Some(observer) = self.0.get() {
            observer(event);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Observer").field(&self.0.get().is_some()).finish()
    }
}
