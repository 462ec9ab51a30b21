//! What ends a running pass early.

use crate::clock::Clock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Ends forward passes of a session early, from another thread.
///
/// Clones share one flag. While it is raised, every [`Session::forward`](crate::backend::Session::forward) and
/// [`Session::embed`](crate::backend::Session::embed) of a session made with it returns
/// [`StepError::Interrupted`](crate::error::StepError::Interrupted), the running one within a few milliseconds. Only
/// [`clear`](Self::clear) lowers it.
///
/// It is for programs that drive a session themselves. **An engine makes its own** and gives that to its session in place of
/// the one in [`SessionOptions`](crate::backend::SessionOptions), so engines started from clones of one
/// [`EngineOptions`](crate::EngineOptions) have nothing in common. The engine's ends a pass once every request that it computes
/// for was cancelled or has expired, at [`Engine::interrupt`](crate::Engine::interrupt), and at a
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

    /// Whether a pass shall end. It costs about as much as reading the clock, so that it can be asked many thousand times a
    /// second.
    pub fn is_raised(&self) -> bool {
        self.flag.load(Ordering::Acquire) || self.limit.as_deref().is_some_and(TimeLimit::is_over)
    }

    /// An interrupt with a flag of its own, which counts as raised, too, while `limit` is over.
    pub(crate) fn with_limit(limit: Arc<TimeLimit>) -> Self {
        Self { flag: Arc::default(), limit: Some(limit) }
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt").field("raised", &self.is_raised()).finish()
    }
}

/// A moment in the engine's time, which can be moved while others look whether it has come.
pub(crate) struct TimeLimit {
    clock: Arc<dyn Clock>,
    /// In nanoseconds.
    at: AtomicU64,
}

const NEVER: u64 = u64::MAX;
const AT_ONCE: u64 = 0;

impl TimeLimit {
    /// One that never comes.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, at: AtomicU64::new(NEVER) }
    }

    /// Sets the moment; `None` never comes.
    pub(crate) fn set(&self, at: Option<Duration>) {
        let nanoseconds = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(NEVER);
        self.at.store(at.map_or(NEVER, nanoseconds), Ordering::Release);
    }

    /// It has come.
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
