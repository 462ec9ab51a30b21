//! A fault-injecting decorator for any backend.
//!
//! [`FaultyBackend`] and [`FaultyModel`] forward all calls to the decorated object and inject [`Faults`], for
//! tests of the layers above the backend.
//!
//! ```
//! use exsa_conformance::faulty::{Effect, Faults, FaultyModel, Operation, When};
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions, Request};
//!
//! let faults = Faults::new();
//! let model = FaultyModel::new(ScriptedModel::echo("Hello").shared(), faults.clone());
//! let engine = Engine::start(model.shared(), EngineOptions::default())?;
//! faults.add(When::Nth(Operation::Forward, 1), Effect::Fail);
//! let first = engine.submit(Request::text("x"))?.complete();
//! assert!(first.unwrap_err().to_string().contains("on purpose"));
//! // The engine goes on.
//! assert_eq!(engine.submit(Request::text("x"))?.complete()?.text, "Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod faults;
mod session;

pub use faults::{Effect, Faults, Operation, When};

use exsa_core::AdapterId;
use exsa_core::backend::{
    AdapterInfo, AdapterLimits, DeviceInfo, Fingerprint, InferenceBackend, LoadOptions, LoadProgress,
    MemoryEstimate, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::tokenizer::Tokenizer;
use session::FaultySession;
use std::sync::Arc;

/// A backend that behaves like the decorated one, except for its faults.
pub struct FaultyBackend {
    inner: Arc<dyn InferenceBackend>,
    faults: Faults,
}

impl FaultyBackend {
    /// Decorates `inner`.
    pub fn new(inner: impl InferenceBackend + 'static, faults: Faults) -> Self {
        Self { inner: Arc::new(inner), faults }
    }
}

fn load_error(problem: String) -> LoadError {
    LoadError::Backend(problem)
}

impl InferenceBackend for FaultyBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.inner.devices()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        self.faults.call(Operation::Inspect, || self.inner.inspect(source), load_error)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let inner =
            self.faults.call(Operation::Load, || self.inner.load(source, options, progress), load_error)?;
        Ok(Arc::new(FaultyModel::new(inner, self.faults.clone())))
    }

    fn prepare(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<(), LoadError> {
        self.inner.prepare(source, options, progress)
    }

    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        self.inner.estimate(source, load, session)
    }
}

/// A model that behaves like the decorated one, except for its faults.
pub struct FaultyModel {
    inner: Arc<dyn Model>,
    faults: Faults,
}

impl FaultyModel {
    /// Decorates `inner`.
    pub fn new(inner: Arc<dyn Model>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// Converts the model to the engine's type.
    pub fn shared(self) -> Arc<dyn Model> {
        Arc::new(self)
    }
}

impl Model for FaultyModel {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.inner.tokenizer()
    }

    fn fingerprint(&self) -> Fingerprint {
        self.inner.fingerprint()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let inner = self.faults.call(Operation::Session, || self.inner.session(options), load_error)?;
        Ok(Box::new(FaultySession::new(inner, self.faults.clone(), options.interrupt.clone())))
    }

    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        self.inner.load_adapter(source, limits)
    }

    fn unload_adapter(&self, id: AdapterId) {
        self.inner.unload_adapter(id);
    }
}
