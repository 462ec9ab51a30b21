//! The broken backend and its model.

use crate::mutant::Mutant;
use crate::session::MutantSession;
use crate::tokenizer::MutantTokenizer;
use exsa_core::AdapterId;
use exsa_core::backend::{
    AdapterInfo, AdapterLimits, DeviceInfo, InferenceBackend, Interrupt, LoadOptions, LoadProgress,
    MemoryEstimate, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::tokenizer::Tokenizer;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

pub struct MutantBackend {
    mutant: Mutant,
    inner: ScriptedBackend,
    loading: AtomicUsize,
}

impl MutantBackend {
    pub fn new(mutant: Mutant) -> Self {
        let model = ScriptedModel::ngram(5).order(usize::MAX).context(96).kv(4096, 8).adapters(2, 16);
        Self { mutant, inner: ScriptedBackend::new(model), loading: AtomicUsize::new(0) }
    }
}

impl InferenceBackend for MutantBackend {
    fn name(&self) -> &str {
        "mutant"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        if self.mutant == Mutant::NoDevices { Vec::new() } else { self.inner.devices() }
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        let mut info = self.inner.inspect(source)?;
        if self.mutant == Mutant::InspectOfAnother {
            info.n_layer += 1;
        }
        Ok(info)
    }

    /// That of the model, whose file there is none of, and of a session that is made for it.
    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        let model = self.inner.load(source, load, &mut LoadProgress::none())?;
        let tokens = model.session(session)?.capabilities().kv_tokens_max as u64;
        let tokens = if self.mutant == Mutant::EstimateWithoutKv { 0 } else { tokens };
        Ok(MemoryEstimate::new(0, tokens, 0))
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let mut options = options.clone();
        if self.mutant == Mutant::AnyDevice {
            options.device = None;
        }
        let inner = match self.mutant {
            Mutant::ProgressHalfWay => {
                progress.report(1, 2)?;
                self.inner.load(source, &options, &mut LoadProgress::none())?
            }
            Mutant::DeafToCancels => {
                progress.report(1, 1).ok();
                self.inner.load(source, &options, &mut LoadProgress::none())?
            }
            Mutant::OneLoadAtATime => {
                let busy = self.loading.fetch_add(1, Ordering::SeqCst) > 0;
                std::thread::sleep(Duration::from_millis(50));
                self.loading.fetch_sub(1, Ordering::SeqCst);
                if busy {
                    return Err(LoadError::Backend("busy".into()));
                }
                self.inner.load(source, &options, progress)?
            }
            _ => self.inner.load(source, &options, progress)?,
        };
        Ok(Arc::new_cyclic(|this: &Weak<MutantModel>| MutantModel {
            mutant: self.mutant,
            tokenizer: Arc::new(MutantTokenizer::new(self.mutant, inner.tokenizer())),
            inner,
            this: this.clone(),
            working: Arc::default(),
            only: Mutex::default(),
        }))
    }
}

/// The inner state of a session, which a fault may share among sessions.
pub type Inside = Arc<Mutex<Box<dyn Session>>>;

pub struct MutantModel {
    mutant: Mutant,
    inner: Arc<dyn Model>,
    tokenizer: Arc<dyn Tokenizer>,
    this: Weak<Self>,
    working: Arc<AtomicUsize>,
    only: Mutex<Option<Inside>>,
}

/// Hidden inner sequences, which leak blocks.
pub const HIDDEN: usize = 4096;

impl Model for MutantModel {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.tokenizer.clone()
    }

    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        self.inner.load_adapter(source, limits)
    }

    fn unload_adapter(&self, id: AdapterId) {
        self.inner.unload_adapter(id);
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let mut asked = options.clone();
        if self.mutant == Mutant::AnyOptions {
            asked.sequences_max = asked.sequences_max.clamp(1, 16);
            asked.batch_tokens_max = asked.batch_tokens_max.clamp(1, 512);
            asked.context_tokens_max = asked.context_tokens_max.map(|tokens| tokens.max(1));
            asked.kv_tokens_max = asked.kv_tokens_max.map(|tokens| tokens.clamp(1, 4096));
            asked.kv_bytes_max = u64::MAX;
        }
        // Checks the requested options; the inner session gets larger ones.
        let capabilities = self.inner.session(&asked)?.capabilities().clone();
        let mut inside = asked.clone();
        inside.sequences_max = (asked.sequences_max + HIDDEN).min(1 << 16);
        match self.mutant {
            Mutant::NoBatchLimit => inside.batch_tokens_max = 1 << 20,
            Mutant::NoContextLimit => inside.context_tokens_max = None,
            Mutant::ContextOneShort => inside.context_tokens_max = Some(capabilities.context_tokens_max - 1),
            Mutant::LessKvThanItSays => {
                inside.kv_tokens_max = Some(capabilities.kv_tokens_max - capabilities.block_tokens);
            }
            Mutant::DeafToInterrupts | Mutant::InterruptIsAnotherError => {
                inside.interrupt = Interrupt::default();
            }
            _ => {}
        }
        let new = || self.inner.session(&inside).map(|session| Arc::new(Mutex::new(session)));
        let inside = if self.mutant == Mutant::OneKvForAllSessions {
            let mut only = self.only.lock().unwrap();
            match &*only {
                Some(inside) => inside.clone(),
                None => only.insert(new()?).clone(),
            }
        } else {
            new()?
        };
        Ok(Box::new(MutantSession::new(
            self.mutant,
            inside,
            capabilities,
            options.clone(),
            self.working.clone(),
            self.this.clone(),
        )))
    }
}
