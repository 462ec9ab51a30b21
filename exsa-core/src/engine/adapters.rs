//! The adapters of an engine: names, limits, and resolution of the adapters of a request.

use crate::adapter::memory::AdapterMemory;
use crate::adapter::{AdapterError, AdapterOptions, AdapterStatus, RequestAdapter};
use crate::backend::{AdapterInfo, AdapterLimits, Model, ModelSource};
use crate::batch::SpanAdapter;
use crate::error::LoadError;
use crate::generator::SubmitError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Maximum characters of a name.
const NAME_CHARS_MAX: usize = 200;

/// Adapters by name. Loading and unloading run on the caller's thread, concurrently with the engine's passes.
pub(crate) struct Adapters {
    model: Arc<dyn Model>,
    options: AdapterOptions,
    rank_max: usize,
    loaded: Mutex<BTreeMap<Arc<str>, Arc<Lease>>>,
    /// Bytes of all adapters in memory, including unloaded adapters that requests still use.
    bytes: Arc<Mutex<u64>>,
    /// Held while an adapter is loaded, so that the limits hold.
    loading: Mutex<()>,
    /// The budget that the engine shares with others.
    memory: Mutex<Option<Arc<dyn AdapterMemory>>>,
}

/// Keeps an adapter in memory: by its name, and by each request that uses it.
pub(crate) struct Lease {
    model: Arc<dyn Model>,
    info: AdapterInfo,
    bytes: Arc<Mutex<u64>>,
    memory: Option<Arc<dyn AdapterMemory>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.model.unload_adapter(self.info.id);
        *self.bytes.lock() -= self.info.bytes;
        if let Some(memory) = &self.memory {
            memory.release(self.info.bytes);
        }
    }
}

/// The adapters of a request.
pub(crate) struct ResolvedAdapters {
    /// In summation order, which is by name and so the same in every engine.
    pub(crate) spans: Arc<[SpanAdapter]>,
    /// Identifies the result of these adapters: KV is shared only among requests with the same key.
    pub(crate) key: Arc<str>,
    /// Keeps them in memory.
    pub(crate) leases: Vec<Arc<Lease>>,
}

impl Adapters {
    pub(crate) fn new(model: Arc<dyn Model>, options: AdapterOptions, rank_max: usize) -> Self {
        Self {
            model,
            options,
            rank_max,
            loaded: Mutex::default(),
            bytes: Arc::default(),
            loading: Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// Charges the memory of adapters loaded from now on to a shared budget.
    #[cfg(feature = "registry")]
    pub(crate) fn share_memory(&self, memory: Arc<dyn AdapterMemory>) {
        *self.memory.lock() = Some(memory);
    }

    /// Loads an adapter under a name.
    pub(crate) fn load(&self, name: &str, source: &ModelSource) -> Result<AdapterStatus, AdapterError> {
        check_name(name)?;
        let _loading = self.loading.lock();
        let count = {
            let loaded = self.loaded.lock();
            if loaded.contains_key(name) {
                return Err(AdapterError::AlreadyLoaded { name: name.to_owned() });
            }
            loaded.len()
        };
        if count >= self.options.count_max {
            return Err(AdapterError::TooMany { limit: self.options.count_max });
        }
        let left = self.options.bytes_max.saturating_sub(*self.bytes.lock());
        let memory = self.memory.lock().clone();
        let info = match &memory {
            None => self.load_within(source, left)?,
            Some(memory) => self.load_granted(name, source, left, &**memory)?,
        };
        *self.bytes.lock() += info.bytes;
        let lease = Lease { model: self.model.clone(), info, bytes: self.bytes.clone(), memory };
        let name: Arc<str> = name.into();
        self.loaded.lock().insert(name.clone(), Arc::new(lease));
        Ok(AdapterStatus::new(name, info, 0))
    }

    /// Loads an adapter of at most `bytes_max` bytes.
    fn load_within(&self, source: &ModelSource, bytes_max: u64) -> Result<AdapterInfo, LoadError> {
        let limits = AdapterLimits::new().rank(self.rank_max).bytes(bytes_max);
        let load = || self.model.load_adapter(source, &limits);
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
            let panic = crate::engine::step::panic_text(&*panic);
            Err(LoadError::Backend(format!("panic while loading an adapter: {panic}")))
        })
    }

    /// Loads an adapter of at most `left` bytes, for which `memory` grants the bytes.
    fn load_granted(
        &self,
        name: &str,
        source: &ModelSource,
        left: u64,
        memory: &dyn AdapterMemory,
    ) -> Result<AdapterInfo, AdapterError> {
        // Limits are checked before weights are read, so the refusal of a limit of 0 tells the size.
        let needed = match self.load_within(source, 0) {
            Err(LoadError::Memory { needed, .. }) => needed,
            Err(error) => return Err(error.into()),
            // The adapter needs no memory, or the backend ignores limits.
            Ok(info) => {
                let granted = memory.reserve(name, info.bytes);
                return granted.map(|()| info).inspect_err(|_| self.model.unload_adapter(info.id));
            }
        };
        if needed > left {
            return Err(LoadError::Memory { what: "the adapter", needed, available: left }.into());
        }
        memory.reserve(name, needed)?;
        let loaded = self.load_within(source, needed);
        // The file may have changed since.
        memory.release(needed - loaded.as_ref().map_or(0, |info| info.bytes.min(needed)));
        Ok(loaded?)
    }

    /// Removes a name. The adapter is freed when the last request that uses it has ended.
    pub(crate) fn unload(&self, name: &str) -> Result<(), AdapterError> {
        let mut loaded = self.loaded.lock();
        let Some(lease) = loaded.remove(name) else {
            let loaded = loaded.keys().map(|name| name.to_string()).collect();
            return Err(AdapterError::Unknown { name: name.to_owned(), loaded });
        };
        drop(loaded);
        // Possibly the last lease: its memory is freed outside the lock.
        drop(lease);
        Ok(())
    }

    /// The loaded adapters, by name.
    pub(crate) fn list(&self) -> Vec<AdapterStatus> {
        let loaded = self.loaded.lock();
        let status = |(name, lease): (&Arc<str>, &Arc<Lease>)| {
            AdapterStatus::new(name.clone(), lease.info, Arc::strong_count(lease) - 1)
        };
        loaded.iter().map(status).collect()
    }

    /// Looks up the adapters of a request; `None` if it uses none.
    pub(crate) fn resolve(&self, wanted: &[RequestAdapter]) -> Result<Option<ResolvedAdapters>, SubmitError> {
        // An adapter with scale 0 has no effect.
        let mut wanted: Vec<_> = wanted.iter().filter(|adapter| adapter.scale != 0.0).collect();
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        if wanted.is_empty() {
            return Ok(None);
        }
        let loaded = self.loaded.lock();
        let (mut spans, mut leases, mut key) = (Vec::new(), Vec::new(), String::new());
        for RequestAdapter { name, scale } in wanted {
            let Some(lease) = loaded.get(name.as_str()) else {
                let loaded = loaded.keys().map(|name| name.to_string()).collect();
                return Err(SubmitError::UnknownAdapter { adapter: name.clone(), loaded });
            };
            let (fingerprint, separator) = (lease.info.fingerprint.0, if key.is_empty() { "" } else { "+" });
            // Writing to a text does not fail.
            let _ = write!(key, "{separator}{name}@{fingerprint:016x}");
            if *scale != 1.0 {
                let _ = write!(key, "*{scale}");
            }
            spans.push(SpanAdapter { id: lease.info.id, scale: *scale });
            leases.push(lease.clone());
        }
        Ok(Some(ResolvedAdapters { spans: spans.into(), key: key.into(), leases }))
    }
}

/// Refuses adapters of a request that are invalid for any engine whose sessions allow `span_max` adapters.
pub(crate) fn check(wanted: &[RequestAdapter], span_max: usize) -> Result<(), SubmitError> {
    let refused = |problem: String| Err(SubmitError::Option { option: "lora", problem });
    if wanted.is_empty() {
        return Ok(());
    }
    if span_max == 0 {
        let reason = "this engine does not support adapters per request".to_owned();
        return Err(SubmitError::Unsupported { operation: "lora", reason });
    }
    if wanted.len() > span_max {
        return refused(format!("{} adapters, but at most {span_max} are allowed", wanted.len()));
    }
    for (i, adapter) in wanted.iter().enumerate() {
        if !adapter.scale.is_finite() {
            return refused(format!("the scale of '{}' is {}", adapter.name, adapter.scale));
        }
        if wanted[..i].iter().any(|other| other.name == adapter.name) {
            return refused(format!("'{}' is named twice", adapter.name));
        }
    }
    Ok(())
}

/// Names appear in the keys of cached KV, in JSON and in log lines.
fn check_name(name: &str) -> Result<(), AdapterError> {
    let allowed = |c: char| c.is_alphanumeric() || "-_.:/ ".contains(c);
    let len = name.chars().count();
    if (1..=NAME_CHARS_MAX).contains(&len) && name.chars().all(allowed) {
        return Ok(());
    }
    let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    Err(AdapterError::Name { name })
}
