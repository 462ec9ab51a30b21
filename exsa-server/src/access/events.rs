//! Acts that an audit log records.

use super::{Caller, KeyRecord, Scope};
use crate::http::context::RequestContext;
use std::fmt;
use std::sync::OnceLock;

/// An act on keys, or a refusal. It never contains the text of a key or a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AccessEvent<'a> {
    /// A key was created.
    KeyCreated {
        /// The key.
        key: &'a KeyRecord,
        /// The caller that created it.
        by: &'a Caller,
    },
    /// A key was revoked.
    KeyRevoked {
        /// The key.
        key: &'a KeyRecord,
        /// The caller that revoked it.
        by: &'a Caller,
    },
    /// The secret of a key was rotated.
    KeyRotated {
        /// The key.
        key: &'a KeyRecord,
        /// The caller that requested it.
        by: &'a Caller,
    },
    /// A request had a wrong, expired or revoked key or token. Failures beyond an address's limit are not
    /// reported.
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

/// A function that is called with events.
type Tell = dyn Fn(&AccessEvent<'_>) + Send + Sync;

/// The observer of events, set once.
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
