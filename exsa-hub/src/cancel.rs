//! Cancellation of downloads from another thread.

use crate::error::HubError;
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;

/// Cancels downloads. Clones cancel the same downloads.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    next: u64,
    agents: Vec<(u64, Agent)>,
}

impl Cancel {
    /// Creates a handle that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the downloads that use this handle, including those that wait for a server. Later ones do not
    /// begin.
    pub fn cancel(&self) {
        let agents = {
            let mut state = self.0.state.lock();
            state.cancelled = true;
            std::mem::take(&mut state.agents)
        };
        self.0.changed.notify_all();
        for (_, agent) in agents {
            agent.shutdown();
        }
    }

    /// Returns whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.state.lock().cancelled
    }

    /// # Errors
    ///
    /// [`HubError::Cancelled`].
    pub(crate) fn check(&self) -> Result<(), HubError> {
        if self.is_cancelled() { Err(HubError::Cancelled) } else { Ok(()) }
    }

    /// Sleeps.
    ///
    /// # Errors
    ///
    /// [`HubError::Cancelled`], immediately.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), HubError> {
        let until = Instant::now() + time;
        let mut state = self.0.state.lock();
        while !state.cancelled {
            if self.0.changed.wait_until(&mut state, until).timed_out() {
                return if state.cancelled { Err(HubError::Cancelled) } else { Ok(()) };
            }
        }
        Err(HubError::Cancelled)
    }

    /// Shuts the agent down on cancellation, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`HubError::Cancelled`].
    pub(crate) fn attach(&self, agent: &Agent) -> Result<Attached, HubError> {
        let mut state = self.0.state.lock();
        if state.cancelled {
            return Err(HubError::Cancelled);
        }
        let id = state.next;
        state.next += 1;
        state.agents.push((id, agent.clone()));
        Ok(Attached { cancel: self.clone(), id })
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

/// Keeps an agent attached.
pub(crate) struct Attached {
    cancel: Cancel,
    id: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.cancel.0.state.lock().agents.retain(|(id, _)| *id != self.id);
    }
}
