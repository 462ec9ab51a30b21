//! Adapters of scripted models: each shifts the logits of the bytes by a number of places.

use crate::backend::{AdapterInfo, AdapterLimits, Fingerprint, ModelSource};
use crate::batch::SpanAdapter;
use crate::error::LoadError;
use crate::token::AdapterId;
use parking_lot::Mutex;
use std::sync::Arc;

/// The adapters of a model and its clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u32,
    shifts: Vec<(AdapterId, usize)>,
}

impl Loaded {
    pub(super) fn load(
        &self,
        source: &ModelSource,
        limits: &AdapterLimits,
    ) -> Result<AdapterInfo, LoadError> {
        let bytes = match source {
            ModelSource::File(path) => {
                std::fs::read(path).map_err(|source| LoadError::Io { path: path.clone(), source })?
            }
            ModelSource::Files(_) => {
                let problem = "it has several files, but 1 is allowed".to_owned();
                return Err(LoadError::Adapter { name: "scripted".to_owned(), problem });
            }
            ModelSource::Embedded(bytes) => bytes.to_vec(),
            ModelSource::Memory(bytes) => bytes.to_vec(),
        };
        if bytes.is_empty() {
            let (name, problem) =
                ("scripted".to_owned(), "it is empty, but at least 1 byte is required".to_owned());
            return Err(LoadError::Adapter { name, problem });
        }
        let needed = bytes.len() as u64;
        if needed > limits.bytes_max {
            return Err(LoadError::Memory { what: "the adapter", needed, available: limits.bytes_max });
        }
        let mut fingerprint = Fingerprint::default();
        fingerprint.update(&bytes);
        let mut state = self.0.lock();
        let id = AdapterId(state.next);
        state.next += 1;
        // Never 0, so that every adapter has an effect.
        state.shifts.push((id, 1 + (fingerprint.0 >> 32) as usize % 250));
        Ok(AdapterInfo::new(id).rank(1).bytes(needed).fingerprint(fingerprint))
    }

    pub(super) fn unload(&self, id: AdapterId) {
        self.0.lock().shifts.retain(|(known, _)| *known != id);
    }

    /// Shifts and scales of these adapters, or the id of the first that is not loaded.
    pub(super) fn effects(&self, adapters: &[SpanAdapter]) -> Result<Vec<(usize, f32)>, AdapterId> {
        let state = self.0.lock();
        let effect = |adapter: &SpanAdapter| {
            let known = state.shifts.iter().find(|(id, _)| *id == adapter.id);
            known.map(|(_, shift)| (*shift, adapter.scale)).ok_or(adapter.id)
        };
        adapters.iter().map(effect).collect()
    }

    /// Total shift of these adapters.
    pub(super) fn shift(&self, adapters: &[SpanAdapter]) -> usize {
        let state = self.0.lock();
        let shift = |adapter: &SpanAdapter| {
            let known = state.shifts.iter().find(|(id, _)| *id == adapter.id);
            known.map_or(0, |(_, shift)| (*shift as f32 * adapter.scale).abs() as usize)
        };
        adapters.iter().map(shift).sum()
    }
}
