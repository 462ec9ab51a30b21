//! Progress of a load that has several phases.

use exsa_core::backend::LoadProgress;
use exsa_core::error::LoadError;

/// Counts the bytes of a load.
pub(crate) struct LoadSteps<'a, 'p> {
    progress: &'a mut LoadProgress<'p>,
    done: u64,
    total: u64,
    /// Bytes that are done at the end of the phase.
    phase_end: u64,
}

impl<'a, 'p> LoadSteps<'a, 'p> {
    /// Of `total` bytes, of which none is done.
    pub fn new(progress: &'a mut LoadProgress<'p>, total: u64) -> Result<Self, LoadError> {
        let mut steps = Self { progress, done: 0, total, phase_end: 0 };
        steps.report()?;
        Ok(steps)
    }

    /// Begins a phase of `bytes` bytes more than were counted before.
    pub fn begin_phase(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.phase_end = self.done.saturating_add(bytes);
    }

    /// Ends the phase, with all its bytes done or not needed.
    pub fn end_phase(&mut self) {
        self.done = self.done.max(self.phase_end);
    }

    /// Notes that `bytes` more are done. The error is that the load was cancelled.
    pub fn add(&mut self, bytes: u64) -> Result<(), LoadError> {
        self.done = self.done.saturating_add(bytes).min(self.total);
        self.report()
    }

    /// Asks whether to go on.
    pub fn report(&mut self) -> Result<(), LoadError> {
        self.progress.report(self.done, self.total)
    }
}
