//! The input of the cases: a backend, a model, and the required exactness.

use crate::check::check;
use crate::clause;
use crate::failure::Failure;
use crate::random::Random;
use crate::run::Run;
use exsa_core::TokenId;
use exsa_core::backend::{
    InferenceBackend, Interrupt, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use parking_lot::Mutex;
use std::sync::Arc;

/// A backend with a test model, and its expected properties.
///
/// Small models are best: the cases compute several tens of thousands of tokens.
pub struct Fixture {
    pub(crate) backend: Arc<dyn InferenceBackend>,
    pub(crate) source: ModelSource,
    pub(crate) load_options: LoadOptions,
    session_options: SessionOptions,
    pub(crate) tolerance: f32,
    pub(crate) bitwise: bool,
    pub(crate) checksummed: bool,
    pub(crate) reads_files: bool,
    pub(crate) other_model: Option<ModelSource>,
    pub(crate) adapters: Vec<ModelSource>,
    model: Mutex<Option<Arc<dyn Model>>>,
}

impl Fixture {
    /// Creates a fixture for the model in `source` on `backend`. By default, results must agree within 1e-4,
    /// not bit for bit, and the backend reads GGUF files.
    pub fn new(backend: impl InferenceBackend + 'static, source: ModelSource) -> Self {
        Self {
            backend: Arc::new(backend),
            source,
            load_options: LoadOptions::default(),
            session_options: SessionOptions::default(),
            tolerance: 1e-4,
            bitwise: false,
            checksummed: false,
            reads_files: true,
            other_model: None,
            adapters: Vec::new(),
            model: Mutex::new(None),
        }
    }

    /// Sets the tolerance between logits of the same tokens in different spans or batches: absolute, or
    /// relative to the row's largest logit if that is over 1.
    pub fn tolerance(mut self, tolerance: f32) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Declares that the bits of a row depend only on the tokens of its sequence, as with
    /// [`batch_invariant`](exsa_core::backend::Capabilities::batch_invariant), whatever the number of
    /// threads.
    pub fn bitwise(mut self) -> Self {
        self.bitwise = true;
        self
    }

    /// Declares that saved KV with any changed byte is refused.
    pub fn checksummed(mut self) -> Self {
        self.checksummed = true;
        self
    }

    /// Declares that the backend does not read the bytes of the source, so that damage cannot be detected.
    pub fn reads_no_files(mut self) -> Self {
        self.reads_files = false;
        self
    }

    /// Sets another model, whose saved KV this model must refuse.
    pub fn other_model(mut self, source: ModelSource) -> Self {
        self.other_model = Some(source);
        self
    }

    /// Sets two adapters of the model that change its rows in different ways.
    pub fn adapters(mut self, first: ModelSource, second: ModelSource) -> Self {
        self.adapters = vec![first, second];
        self
    }

    /// Sets the load options.
    pub fn load_options(mut self, options: LoadOptions) -> Self {
        self.load_options = options;
        self
    }

    /// Sets the default session options of the cases. Every session gets its own interrupt.
    pub fn session_options(mut self, options: SessionOptions) -> Self {
        self.session_options = options;
        self
    }

    /// The tolerance between rows of the same sequence: 0 if the fixture guarantees equal bits.
    pub(crate) fn row_tolerance(&self) -> f32 {
        if self.bitwise { 0.0 } else { self.tolerance }
    }

    /// The default session options, with a new interrupt.
    pub(crate) fn options(&self) -> SessionOptions {
        self.session_options.clone().interrupt(&Interrupt::default())
    }

    /// The model, loaded once.
    pub(crate) fn model(&self) -> Result<Arc<dyn Model>, Failure> {
        let mut model = self.model.lock();
        if let Some(model) = &*model {
            return Ok(model.clone());
        }
        let loaded = self.backend.load(&self.source, &self.load_options, &mut LoadProgress::none());
        let loaded = check(clause::MODEL, format!("load {}", self.place())).works(loaded)?;
        Ok(model.insert(loaded).clone())
    }

    /// Creates a session with the fixture's options.
    pub(crate) fn session(&self) -> Result<Run, Failure> {
        self.session_with(&self.options())
    }

    /// Creates a session with other options.
    pub(crate) fn session_with(&self, options: &SessionOptions) -> Result<Run, Failure> {
        Ok(Run::new(self.raw_session(options)?, self.model()?.info().n_vocab))
    }

    fn raw_session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, Failure> {
        check(clause::OWN_KV, format!("make a session with {options:?}"))
            .works(self.model()?.session(options))
    }

    /// Creates a session with a KV cache of about `blocks` blocks, in which a context can take up the whole
    /// cache.
    pub(crate) fn session_of_blocks(&self, blocks: usize) -> Result<Run, Failure> {
        let block_tokens = self.session()?.capabilities().block_tokens.max(1);
        // With blocks of one token, the cache would be too small for any test.
        let tokens = (blocks * block_tokens).max(64);
        self.session_with(&self.options().kv_tokens(tokens))
    }

    /// `n` pseudo-random tokens, determined by `seed`. Without control tokens, since texts contain none.
    pub(crate) fn tokens(&self, n: usize, seed: u64) -> Result<Vec<TokenId>, Failure> {
        let model = self.model()?;
        let tokenizer = model.tokenizer();
        let n_vocab = tokenizer.n_vocab().min(model.info().n_vocab);
        let usable: Vec<TokenId> = (0..n_vocab as TokenId).filter(|id| !tokenizer.is_control(*id)).collect();
        check(clause::FIXTURE, "choose tokens that are not control tokens").holds(
            usable.len() > 8,
            "a vocabulary with more than 8 of them",
            usable.len(),
        )?;
        let mut random = Random::new(seed);
        Ok((0..n).map(|_| usable[random.below(usable.len())]).collect())
    }

    /// `wanted` tokens, limited to the capacity of a sequence and a batch.
    pub(crate) fn fitting(&self, run: &Run, wanted: usize) -> usize {
        let capabilities = run.capabilities();
        let limits =
            [capabilities.context_tokens_max, capabilities.batch_tokens_max, capabilities.kv_tokens_max];
        limits.into_iter().fold(wanted, usize::min)
    }

    /// Human-readable name of the source.
    pub(crate) fn place(&self) -> String {
        match &self.source {
            ModelSource::File(path) => path.display().to_string(),
            ModelSource::Embedded(bytes) => format!("an embedded model of {} bytes", bytes.len()),
            ModelSource::Memory(bytes) => format!("a model of {} bytes in memory", bytes.len()),
            _ => "a model of an unknown source".into(),
        }
    }

    /// The bytes of the model's file.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Failure> {
        match &self.source {
            ModelSource::File(path) => {
                check(clause::SOURCE, format!("read {}", path.display())).works(std::fs::read(path))
            }
            ModelSource::Embedded(bytes) => Ok(bytes.to_vec()),
            ModelSource::Memory(bytes) => Ok(bytes.to_vec()),
            _ => Err(check(clause::SOURCE, "read the model's bytes").fail("a known source", "another")),
        }
    }
}

/// Argument of [`mount!`](crate::mount): a fixture, or none if
/// a prerequisite is missing; then every case reports a skip.
pub trait IntoFixture {
    /// The fixture.
    fn into_fixture(self) -> Option<Fixture>;
}

impl IntoFixture for Fixture {
    fn into_fixture(self) -> Option<Fixture> {
        Some(self)
    }
}

impl IntoFixture for Option<Fixture> {
    fn into_fixture(self) -> Option<Fixture> {
        self
    }
}
