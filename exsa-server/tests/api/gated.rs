//! A backend whose loads and passes a test holds up, fails and counts.

use exsa_core::SeqId;
use exsa_core::backend::{
    Capabilities, DeviceInfo, InferenceBackend, LoadOptions, LoadProgress, MemoryEstimate, Model,
    ModelSource, Output, Session, SessionOptions,
};
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::registry::{ModelConfig, Registry, RegistryOptions};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::tokenizer::Tokenizer;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Switches that tests set while requests run.
#[derive(Default)]
pub struct Gates {
    /// Loads wait while it is set.
    pub hold_loads: AtomicBool,
    /// Loads fail while it is set.
    pub fail_loads: AtomicBool,
    /// Passes wait while it is set.
    pub hold_passes: AtomicBool,
    /// Passes take 20 ms while it is set.
    pub slow_passes: AtomicBool,
    /// Loads begun.
    pub loads: AtomicUsize,
    /// Passes begun.
    pub passes: AtomicUsize,
}

/// A scripted backend with gates; each model needs 100 bytes.
pub struct Gated {
    inner: ScriptedBackend,
    pub gates: Arc<Gates>,
}

impl Gated {
    pub fn new(text: &str) -> Arc<Self> {
        let template = "{% for m in messages %}{{ m.content }}\n{% endfor %}";
        let model = ScriptedModel::echo(text).chat_template(template);
        Arc::new(Self { inner: ScriptedBackend::new(model), gates: Arc::default() })
    }
}

/// A registry of unloaded models of these names.
pub fn registry(backend: &Arc<Gated>, names: &[&str], options: RegistryOptions) -> Arc<Registry> {
    let registry = Registry::new(options).unwrap();
    for name in names {
        let config = ModelConfig::new(*name, backend.clone(), ModelSource::file("scripted"));
        registry.add(config.alias(format!("{name}-alias"))).unwrap();
    }
    Arc::new(registry)
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..30_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not in time: {what}");
}

fn wait_while(gate: &AtomicBool) {
    while gate.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl InferenceBackend for Gated {
    fn name(&self) -> &str {
        "gated"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.inner.devices()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        self.inner.inspect(source)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        self.gates.loads.fetch_add(1, Ordering::SeqCst);
        progress.report(30, 100)?;
        while self.gates.hold_loads.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
            progress.report(50, 100)?;
        }
        if self.gates.fail_loads.load(Ordering::SeqCst) {
            return Err(LoadError::Backend("the file is damaged".into()));
        }
        let model = self.inner.load(source, options, &mut LoadProgress::none())?;
        progress.report(100, 100)?;
        Ok(Arc::new(GatedModel(model, self.gates.clone())))
    }

    fn estimate(
        &self,
        _: &ModelSource,
        _: &LoadOptions,
        _: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        Ok(MemoryEstimate::new(60, 30, 10))
    }
}

struct GatedModel(Arc<dyn Model>, Arc<Gates>);

impl Model for GatedModel {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.0.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(GatedSession(self.0.session(options)?, self.1.clone())))
    }
}

struct GatedSession(Box<dyn Session>, Arc<Gates>);

impl Session for GatedSession {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.1.passes.fetch_add(1, Ordering::SeqCst);
        wait_while(&self.1.hold_passes);
        if self.1.slow_passes.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.forward(batch)
    }

    fn release(&mut self, seq: SeqId) {
        self.0.release(seq);
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.0.fork(from, to, len)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.0.truncate(seq, len)
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        self.0.save(seq, to)
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        self.0.restore(seq, from)
    }
}
