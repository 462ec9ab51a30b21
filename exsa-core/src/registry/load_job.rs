//! Loading a model, on a separate thread.

use super::adapter_budget::AdapterBudget;
use super::config::ModelConfig;
use super::driver::Inner;
use super::error::RegistryError;
use super::lifecycle::InstanceId;
use super::served::Served;
use crate::backend::{LoadProgress, MemoryEstimate};
use crate::engine::panic_text;
use crate::error::LoadError;
use parking_lot::{Condvar, Mutex};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Maximum pause of a paced load before it checks again whether other models are busy.
const REST: Duration = Duration::from_millis(50);

/// Cancels a load.
#[derive(Default)]
pub(super) struct LoadControl {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

impl LoadControl {
    pub(super) fn cancel(&self) {
        *self.cancelled.lock() = true;
        self.changed.notify_all();
    }

    fn is_cancelled(&self) -> bool {
        *self.cancelled.lock()
    }

    /// Waits for `time`, or until the load is cancelled.
    fn rest(&self, time: Duration) {
        let mut cancelled = self.cancelled.lock();
        if !*cancelled {
            self.changed.wait_for(&mut cancelled, time);
        }
    }
}

/// Estimates the memory of a model: `None` if the backend makes no estimates and no budget needs them.
pub(super) fn estimate(
    config: &ModelConfig,
    has_budget: bool,
) -> Result<Option<MemoryEstimate>, RegistryError> {
    if config.memory.is_some() {
        return Ok(config.memory);
    }
    match caught(config, || config.loader.estimate(&config.source, &config.load, &config.engine)) {
        Ok(memory) => Ok(Some(memory)),
        Err(RegistryError::Load { source, .. })
            if !has_budget && matches!(*source, LoadError::Unsupported { .. }) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Loads a model and starts its engine.
pub(super) fn load(
    inner: &Arc<Inner>,
    config: &ModelConfig,
    control: &LoadControl,
    id: InstanceId,
) -> Result<Arc<Served>, RegistryError> {
    let mut worked_from = inner.now();
    let mut progress = |done: u64, total: u64| {
        inner.event(|lifecycle, now| lifecycle.progress(id, done, total, now));
        rest(inner, control, id, inner.pacing.rest(inner.now().saturating_sub(worked_from)));
        worked_from = inner.now();
        !control.is_cancelled()
    };
    let go_on = || if control.is_cancelled() { Err(LoadError::Cancelled) } else { Ok(()) };
    let loaded = caught(config, || {
        go_on()?;
        let mut progress = LoadProgress::new(&mut progress);
        let engine = config.loader.load(&config.source, &config.load, &config.engine, &mut progress)?;
        if let Some(engine) = engine.as_engine() {
            engine.share_adapter_memory(Arc::new(AdapterBudget::new(id, inner)));
        }
        go_on()?;
        if let Some(prepare) = &config.prepare {
            prepare(&*engine)?;
        }
        Ok(Arc::new(Served::new(engine, &config.name, id, Arc::downgrade(inner))))
    });
    match loaded {
        Err(RegistryError::Load { model, source }) if matches!(*source, LoadError::Cancelled) => {
            Err(RegistryError::Cancelled { model })
        }
        loaded => loaded,
    }
}

/// Pauses for `time`, as long as another model has a request in flight.
fn rest(inner: &Inner, control: &LoadControl, id: InstanceId, time: Duration) {
    let until = inner.now().saturating_add(time);
    while !control.is_cancelled()
        && let Some(left) = until.checked_sub(inner.now()).filter(|left| !left.is_zero())
        && inner.event(|lifecycle, _| lifecycle.is_busy_beside(id))
    {
        control.rest(left.min(REST));
    }
}

/// Calls the backend; a panic becomes an error.
fn caught<T>(config: &ModelConfig, work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, RegistryError> {
    let model = config.name.clone();
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(RegistryError::Load { model, source: Arc::new(error) }),
        Err(panic) => Err(RegistryError::Panicked { model, message: panic_text(&*panic) }),
    }
}
