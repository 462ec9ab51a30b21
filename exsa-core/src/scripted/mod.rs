//! A small deterministic backend for doctests, examples, simulations and tests of the layers above the
//! backend.
//!
//! It runs no neural network, but follows the [`Session`] contract exactly and strictly: misuse that a real
//! backend might tolerate is an error. Its tokens are bytes.

mod adapters;
mod plan;
mod saved;
mod session;
mod tokenizer;

pub use session::ScriptedSession;
pub use tokenizer::ByteTokenizer;

use crate::backend::{
    AdapterInfo, AdapterLimits, DeviceInfo, DeviceKind, Fingerprint, InferenceBackend, LoadOptions,
    LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use crate::batch::SpanAdapter;
use crate::clock::{Clock, ManualClock};
use crate::error::LoadError;
use crate::model_info::ModelInfo;
use crate::token::{AdapterId, TokenId};
use crate::tokenizer::Tokenizer;
use std::sync::Arc;
use std::time::Duration;

/// Loads the same [`ScriptedModel`] from any source.
#[derive(Debug)]
pub struct ScriptedBackend {
    model: ScriptedModel,
}

impl ScriptedBackend {
    /// A backend that serves `model`.
    pub fn new(model: ScriptedModel) -> Self {
        Self { model }
    }
}

impl InferenceBackend for ScriptedBackend {
    fn name(&self) -> &str {
        "scripted"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        vec![DeviceInfo { name: "cpu".into(), kind: DeviceKind::Cpu, memory_total: None, memory_free: None }]
    }

    fn inspect(&self, _source: &ModelSource) -> Result<ModelInfo, LoadError> {
        Ok(self.model.info.clone())
    }

    fn load(
        &self,
        _source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        if let Some(name) = options.device.as_deref().filter(|name| *name != "cpu") {
            let problem = format!("there is no device '{name}'; the only device is cpu");
            return Err(LoadError::Option { option: "device", problem });
        }
        progress.report(1, 1)?;
        Ok(Arc::new(self.model.clone()))
    }
}

/// Rule for the next token of a scripted model.
#[derive(Clone, Debug)]
enum Behaviour {
    /// Continues this text from the longest prefix with which the sequence ends, then ends.
    Echo(Vec<TokenId>),
    /// Pseudo-random logits that depend on the seed and the last `order` tokens.
    NGram { seed: u64, order: usize },
}

/// A model whose logits follow a rule; see [`ScriptedModel::echo`] and [`ScriptedModel::ngram`].
#[derive(Clone, Debug)]
pub struct ScriptedModel {
    behaviour: Behaviour,
    info: ModelInfo,
    kv_tokens_max: usize,
    block_tokens: usize,
    can_truncate: bool,
    can_fork: bool,
    can_save: bool,
    /// Maximum adapters of a span, and sets of adapters in a batch.
    adapters_max: (usize, usize),
    adapters: adapters::Loaded,
    cost: Option<Cost>,
}

/// Simulated duration of a pass.
#[derive(Clone, Debug)]
struct Cost {
    clock: ManualClock,
    per_pass: Duration,
    per_token: Duration,
    erratic: bool,
}

impl Cost {
    /// Advances the clock by the cost of a pass.
    fn spend_pass(&self) {
        let draw = if self.erratic { mix(self.clock.now().as_nanos() as u64) % 40 } else { 0 };
        let times = match draw {
            0 => 1,
            1..30 => draw as u32 % 4,
            _ => draw as u32,
        };
        self.clock.advance(self.per_pass * times);
    }
}

impl ScriptedModel {
    fn new(behaviour: Behaviour) -> Self {
        let info = ModelInfo {
            name: "scripted".into(),
            architecture: "scripted".into(),
            quantization: "F32".into(),
            kv_bytes_per_token: 4,
            n_ctx: 4096,
            n_vocab: ByteTokenizer::N_VOCAB,
            n_layer: 1,
            n_embd: 1,
            ..ModelInfo::default()
        };
        Self {
            behaviour,
            info,
            kv_tokens_max: 1 << 16,
            block_tokens: 16,
            can_truncate: true,
            can_fork: true,
            can_save: true,
            adapters_max: (0, 1),
            adapters: adapters::Loaded::default(),
            cost: None,
        }
    }

    /// Answers `text`, then ends. If the sequence ends with a prefix of `text`, continues from there.
    pub fn echo(text: &str) -> Self {
        Self::new(Behaviour::Echo(text.bytes().map(TokenId::from).collect()))
    }

    /// Derives logits from a hash of `seed` and the last three
    /// tokens: the same tokens always get the same continuation.
    pub fn ngram(seed: u64) -> Self {
        Self::new(Behaviour::NGram { seed, order: 3 })
    }

    /// Sets the number of last tokens that [`ngram`](Self::ngram) depends on; with `usize::MAX`, it depends
    /// on all tokens, so that an error anywhere in a sequence changes the output.
    pub fn order(mut self, tokens: usize) -> Self {
        if let Behaviour::NGram { order, .. } = &mut self.behaviour {
            *order = tokens;
        }
        self
    }

    /// Sets the size of the KV cache in tokens and the size of a block.
    pub fn kv(mut self, kv_tokens_max: usize, block_tokens: usize) -> Self {
        self.block_tokens = block_tokens.max(1);
        self.kv_tokens_max = kv_tokens_max / self.block_tokens * self.block_tokens;
        self
    }

    /// Sets the context length in tokens.
    pub fn context(mut self, n_ctx: usize) -> Self {
        self.info.n_ctx = n_ctx;
        self
    }

    /// Adds a named chat template, such as `tool_use`.
    pub fn named_chat_template(mut self, name: &str, template: &str) -> Self {
        self.info.chat_templates.insert(name.into(), template.into());
        self
    }

    /// Sets the chat template.
    pub fn chat_template(mut self, template: &str) -> Self {
        self.info.chat_template = Some(template.into());
        self
    }

    /// Makes sessions unable to truncate, like recurrent models.
    pub fn without_truncate(mut self) -> Self {
        self.can_truncate = false;
        self
    }

    /// Makes sessions unable to fork.
    pub fn without_fork(mut self) -> Self {
        self.can_fork = false;
        self
    }

    /// Makes sessions unable to save.
    pub fn without_save(mut self) -> Self {
        self.can_save = false;
        self
    }

    /// Makes sessions support up to `span_max` adapters per span and `batch_sets_max` sets of adapters per
    /// batch. Any bytes are a valid adapter: their hash determines by how many places it rotates the logits
    /// of the bytes.
    pub fn adapters(mut self, span_max: usize, batch_sets_max: usize) -> Self {
        self.adapters_max = (span_max, batch_sets_max);
        self
    }

    /// Advances `clock` by `per_pass` for each forward pass, and by `per_token` for each token in it.
    pub fn cost(mut self, clock: ManualClock, per_pass: Duration, per_token: Duration) -> Self {
        self.cost = Some(Cost { clock, per_pass, per_token, erratic: false });
        self
    }

    /// Makes passes take between 0 and 39 times their [cost](Self::cost), as on a busy machine.
    pub fn erratic_cost(mut self) -> Self {
        if let Some(cost) = &mut self.cost {
            cost.erratic = true;
        }
        self
    }

    /// Converts the model to the engine's type.
    pub fn shared(self) -> Arc<dyn Model> {
        Arc::new(self)
    }

    /// Writes the logits after `tokens` into `row`, of [`ByteTokenizer::N_VOCAB`] values.
    pub fn logits(&self, tokens: &[TokenId], row: &mut [f32]) {
        match &self.behaviour {
            Behaviour::Echo(script) => {
                row.fill(0.0);
                let said = (0..=script.len()).rev().find(|n| tokens.ends_with(&script[..*n])).unwrap_or(0);
                let next = script.get(said).copied().unwrap_or(ByteTokenizer::EOS);
                if let Some(logit) = row.get_mut(next as usize) {
                    *logit = 20.0;
                }
            }
            Behaviour::NGram { seed, order } => {
                let context = tokens.iter().rev().take(*order).fold(*seed, |hash, token| {
                    mix(hash ^ u64::from(*token).wrapping_add(0x9e37_79b9_7f4a_7c15))
                });
                for (i, logit) in row.iter_mut().enumerate() {
                    *logit = (mix(context.wrapping_add(i as u64)) >> 40) as f32 / (1 << 22) as f32;
                }
            }
        }
    }
}

impl ScriptedModel {
    /// The logits after `tokens` with these adapters, all of which are loaded.
    fn adapted_logits(&self, tokens: &[TokenId], adapters: &[SpanAdapter], row: &mut [f32]) {
        self.logits(tokens, row);
        let bytes = &mut row[..256];
        bytes.rotate_right(self.adapters.shift(adapters) % bytes.len());
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Model for ScriptedModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::new(ByteTokenizer::new())
    }

    fn fingerprint(&self) -> Fingerprint {
        saved::fingerprint(self)
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(ScriptedSession::new(self.clone(), options)?))
    }

    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        if self.adapters_max.0 == 0 {
            let (what, supported) = ("adapters for single sequences".to_owned(), "none".to_owned());
            return Err(LoadError::Unsupported { what, supported });
        }
        self.adapters.load(source, limits)
    }

    fn unload_adapter(&self, id: AdapterId) {
        self.adapters.unload(id);
    }
}
