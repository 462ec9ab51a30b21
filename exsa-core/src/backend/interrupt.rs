//! Interruption of running passes.

use crate::clock::Clock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Aborts forward passes of a session from another thread.
///
/// Clones share one flag. While the flag is raised, every
/// [`Session::forward`](crate::backend::Session::forward) and
/// [`Session::embed`](crate::backend::Session::embed) of a session with this interrupt returns
/// [`StepError::Interrupted`](crate::error::StepError::Interrupted); a running pass does so within a few
/// milliseconds. Only [`clear`](Self::clear) lowers the flag.
///
/// It is meant for programs that drive a session themselves. **An engine creates its own** and uses it in
/// place of the one in [`SessionOptions`](crate::backend::SessionOptions), so engines started from clones of
/// one [`EngineOptions`](crate::EngineOptions) share nothing. The engine's interrupt ends a pass once all
/// requests in it are cancelled or expired, on [`Engine::interrupt`](crate::Engine::interrupt), and on
/// [`Shutdown::Abort`](crate::Shutdown::Abort).
#[derive(Clone, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    limit: Option<Arc<TimeLimit>>,
}

impl Interrupt {
    /// Raises the flag.
    pub fn raise(&self) {
        self.flag.store(true, Ordering::Release);
    }

    /// Lowers the flag.
    pub fn clear(&self) {
        self.flag.store(false, Ordering::Release);
    }

    /// Whether a pass must end. Costs about as much as a clock
    /// read, so it can be called many thousand times per second.
    pub fn is_raised(&self) -> bool {
        self.flag.load(Ordering::Acquire) || self.limit.as_deref().is_some_and(TimeLimit::is_over)
    }

    /// An interrupt with a new flag, which also counts as raised once `limit` has passed.
    pub(crate) fn with_limit(limit: Arc<TimeLimit>) -> Self {
        Self { flag: Arc::default(), limit: Some(limit) }
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt").field("raised", &self.is_raised()).finish()
    }
}

/// A time limit on the engine's clock, which can be changed while other threads check it.
pub(crate) struct TimeLimit {
    clock: Arc<dyn Clock>,
    /// The limit in nanoseconds.
    at: AtomicU64,
}

const NEVER: u64 = u64::MAX;
const AT_ONCE: u64 = 0;

impl TimeLimit {
    /// Creates a limit that never passes.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, at: AtomicU64::new(NEVER) }
    }

    /// Sets the limit; `None` never passes.
    pub(crate) fn set(&self, at: Option<Duration>) {
        let nanoseconds = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(NEVER);
        self.at.store(at.map_or(NEVER, nanoseconds), Ordering::Release);
    }

    /// Makes the limit pass at once.
    pub(crate) fn end(&self) {
        self.at.store(AT_ONCE, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        match self.at.load(Ordering::Acquire) {
            NEVER => false,
            AT_ONCE => true,
            at => self.clock.now() >= Duration::from_nanos(at),
        }
    }
}
