//! A running engine of the registry, and leases on it.

use super::driver::Inner;
use super::lifecycle::InstanceId;
use super::managed::Managed;
use crate::model_info::ModelInfo;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

/// A running engine. When the last owner drops it, the registry is notified that its memory is free.
pub(super) struct Served {
    // The order of the fields matters: the report comes after the engine is dropped.
    pub engine: Box<dyn Managed>,
    /// Metadata of the model, under its name in the registry.
    pub info: Arc<ModelInfo>,
    _report: Report,
}

struct Report {
    id: InstanceId,
    registry: Weak<Inner>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.event(|lifecycle, now| lifecycle.gone(self.id, now));
        }
    }
}

impl Served {
    pub(super) fn new(engine: Box<dyn Managed>, name: &str, id: InstanceId, registry: Weak<Inner>) -> Self {
        let info = engine.models().first().map_or_else(ModelInfo::default, |info| (**info).clone());
        let info = Arc::new(ModelInfo { name: name.to_owned(), ..info });
        Self { engine, info, _report: Report { id, registry } }
    }
}

/// A request in flight, or another user of an engine.
pub(super) struct Lease {
    id: InstanceId,
    registry: Arc<Inner>,
    is_submitting: bool,
}

impl Lease {
    /// A lease on the instance that [`Lifecycle::route`](super::lifecycle::Lifecycle::route) returned.
    pub(super) fn new(id: InstanceId, registry: Arc<Inner>) -> Self {
        Self { id, registry, is_submitting: true }
    }

    pub(super) fn id(&self) -> InstanceId {
        self.id
    }

    /// The engine has accepted the request.
    pub(super) fn submitted(&mut self) {
        if std::mem::take(&mut self.is_submitting) {
            self.registry.event(|lifecycle, now| lifecycle.submitted(self.id, now));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Self { id, is_submitting, .. } = *self;
        self.registry.event(|lifecycle, now| {
            if is_submitting {
                lifecycle.submitted(id, now);
            }
            lifecycle.released(id, now);
        });
    }
}

/// Handle of the engine that serves a ready model; returned by [`Registry::engine`](super::Registry::engine).
/// Dereferences to the engine.
///
/// The model counts as busy while the handle exists, and its memory is not freed before the handle is
/// dropped. Unloading the model ends the engine nevertheless, so hold the handle only briefly, and submit
/// requests through the registry.
pub struct EngineHandle {
    pub(super) served: Arc<Served>,
    pub(super) _lease: Lease,
}

impl Deref for EngineHandle {
    type Target = dyn Managed;

    fn deref(&self) -> &Self::Target {
        &*self.served.engine
    }
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EngineHandle").field(&self.served.engine).finish()
    }
}
