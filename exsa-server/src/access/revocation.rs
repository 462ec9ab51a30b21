//! Revocation of secrets, which immediately reaches the streams of their callers.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// Signals whether the secret of a caller was revoked. Clones watch the same secret.
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

    /// Returns a watch for poll functions.
    pub(crate) fn watch(&self) -> RevocationWatch {
        RevocationWatch(self.0.is_some().then(|| Box::pin(self.clone().revoked()) as _))
    }
}

/// Wakes a task when a secret is revoked.
pub(crate) struct RevocationWatch(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl RevocationWatch {
    /// Returns whether the secret was revoked; wakes the task of `context` when it is.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let Some(revoked) = &mut self.0 else { return false };
        matches!(revoked.as_mut().poll(context), Poll::Ready(()))
    }
}

impl fmt::Debug for RevocationWatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("RevocationWatch")
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

    /// Returns whether a clone of the caller exists elsewhere.
    pub(super) fn is_watched(&self) -> bool {
        self.0.receiver_count() > 1
    }

    pub(super) fn revoke(&self) {
        self.0.send_replace(true);
    }
}
