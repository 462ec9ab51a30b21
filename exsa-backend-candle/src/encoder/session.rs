//! Sessions of encoders.

use super::EncoderModel;
use super::layer::Pass;
use super::workspace::Workspace;
use crate::compute::Threads;
use crate::error::CandleError;
use crate::kernels::float::rows;
use crate::kernels::memory::team::Team;
use crate::layers::norm::Input;
use crate::layers::rope::Rope;
use crate::plan;
use crate::shape::BLOCK_TOKENS;
use exsa_core::SeqId;
use exsa_core::backend::{Capabilities, Interrupt, Output, Pooling, Session, SessionOptions};
use exsa_core::batch::{Batch, Embeddings};
use exsa_core::error::{LoadError, StepError};
use exsa_models::{EncoderConfig, RopePairs};
use std::sync::Arc;

/// A session of an [`EncoderModel`]: vectors or scores of whole texts, no generation.
pub(crate) struct EncoderSession {
    model: Arc<EncoderModel>,
    capabilities: Capabilities,
    pooling: Pooling,
    interrupt: Interrupt,
    threads: Threads,
    ropes: Option<[Rope; 2]>,
    space: Workspace,
    /// Memory of [`Batch::validate`].
    met: Vec<bool>,
    /// Vectors of the last [`Session::embed`].
    vectors: Vec<f32>,
}

impl EncoderSession {
    /// A session of `model` by `options`.
    pub fn new(model: Arc<EncoderModel>, options: &SessionOptions) -> Result<Self, LoadError> {
        let pooling = pooling(&model.config, model.ranks(), options)?;
        let capabilities = capabilities(&model.config, pooling, options)?;
        let rope = |config| Rope::new(config, RopePairs::Neox, None);
        Ok(Self {
            pooling,
            interrupt: options.interrupt.clone(),
            threads: Threads::new(options)?,
            ropes: model.config.ropes.as_ref().map(|(global, local)| [rope(global), rope(local)]),
            space: Workspace::default(),
            met: vec![false; capabilities.sequences_max],
            vectors: Vec::new(),
            capabilities,
            model,
        })
    }

    /// Bytes of scratch memory of a session by `options`, without the memory of products.
    pub fn bytes(config: &EncoderConfig, options: &SessionOptions) -> Result<u64, LoadError> {
        let capabilities = capabilities(config, Pooling::Mean, options)?;
        Ok(Workspace::bytes(config, capabilities.batch_tokens_max))
    }
}

/// Pooling of a session: that of the options, else that of the file, else the mean.
fn pooling(config: &EncoderConfig, ranks: bool, options: &SessionOptions) -> Result<Pooling, LoadError> {
    let pooling = options.pooling.or(config.pooling).unwrap_or(Pooling::Mean);
    if pooling == Pooling::Rank && !ranks {
        return Err(LoadError::Option {
            option: "pooling",
            problem: "this model has no classification head to rank with; mean, first and last work"
                .to_owned(),
        });
    }
    Ok(pooling)
}

/// Capabilities of a session: a text is in one batch, and nothing of it stays.
fn capabilities(
    config: &EncoderConfig,
    pooling: Pooling,
    options: &SessionOptions,
) -> Result<Capabilities, LoadError> {
    let plan::Limits { sequences_max, batch_tokens_max, context } = plan::limits(config.n_ctx, options)?;
    let context = context.min(batch_tokens_max);
    let tokens = context.div_ceil(BLOCK_TOKENS).saturating_mul(BLOCK_TOKENS).saturating_mul(sequences_max);
    Ok(Capabilities::new(sequences_max, context)
        .kv_tokens(tokens)
        .block_tokens(BLOCK_TOKENS)
        .batch_tokens(batch_tokens_max)
        .embed(Some(pooling))
        .generate(false)
        .batch_invariant(true))
}

impl Session for EncoderSession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn kv_bytes_per_token(&self) -> Option<u64> {
        Some(0)
    }

    fn forward(&mut self, _: &Batch) -> Result<Output<'_>, StepError> {
        Err(StepError::Unsupported("forward"))
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        let Self { model, capabilities, pooling, interrupt, threads, ropes, space, met, vectors } = self;
        let sequences = capabilities.sequences_max;
        let length = |seq: SeqId| ((seq.0 as usize) < sequences).then_some(0);
        batch.validate(capabilities, model.n_vocab, met, length)?;
        if batch.spans().any(|span| span.token_ids().is_none()) {
            return Err(StepError::Unsupported("inputs other than tokens"));
        }
        let width = model.head.width(*pooling, model.config.n_embd);
        vectors.clear();
        if !batch.is_empty() {
            let ropes = ropes.as_ref();
            let pass =
                |team: &mut Team| model.embed(batch, *pooling, (ropes, interrupt), space, team, vectors);
            threads.run(pass).map_err(|error| StepError::Backend(error.to_string()))??;
        }
        Ok(Embeddings::new(vectors, width))
    }

    fn release(&mut self, _: SeqId) {}
}

impl EncoderModel {
    /// Appends the vectors of the texts of `batch`.
    fn embed(
        &self,
        batch: &Batch,
        pooling: Pooling,
        (ropes, interrupt): (Option<&[Rope; 2]>, &Interrupt),
        space: &mut Workspace,
        team: &mut Team,
        vectors: &mut Vec<f32>,
    ) -> Result<(), StepError> {
        let (n, width) = (batch.len(), self.config.n_embd);
        space.reserve(&self.config, n);
        self.embed_tokens(batch, space, team)?;
        let mut tables = std::mem::take(&mut space.ropes);
        let views = ropes.map(|ropes| {
            let positions = || space.positions.iter().map(|position| *position as usize);
            for (rope, table) in ropes.iter().zip(&mut tables) {
                rope.host_table(positions(), table);
            }
            [ropes[0].view(&tables[0]), ropes[1].view(&tables[1])]
        });
        let pass = Pass { config: &self.config, slopes: &self.slopes, ropes: views, n };
        for layer in &self.layers {
            if interrupt.is_raised() {
                return Err(StepError::Interrupted);
            }
            layer.forward(&pass, space, team)?;
        }
        space.ropes = tables;
        let Workspace { x, input, activations, .. } = space;
        let norm = self.output_norm.as_ref().map_or(rows::Input::Copy, Input::host);
        rows::input(norm, &x[..n * width], width, &mut input[..n * width], team);
        let mut first = 0;
        for span in batch.spans() {
            let states = input[first * width..(first + span.len()) * width].chunks_exact(width);
            self.head.apply(states, pooling, (&mut *team, &mut *activations), vectors)?;
            first += span.len();
        }
        Ok(())
    }

    /// Fills the hidden states with the embeddings of tokens, token types and positions, normalized.
    fn embed_tokens(&self, batch: &Batch, space: &mut Workspace, team: &mut Team) -> Result<(), StepError> {
        let (n, width) = (batch.len(), self.config.n_embd);
        space.texts.clear();
        space.positions.clear();
        for span in batch.spans() {
            let (first, len) = (space.texts.len() as u32, span.len() as u32);
            space.texts.extend((0..len).map(|_| first..first + len));
            space.positions.extend(0..len);
        }
        let (x, input) = (&mut space.x[..n * width], &mut space.input[..n * width]);
        self.embedding.gather(batch.tokens(), x).step()?;
        if let Some(types) = &self.token_types {
            let first = &mut input[..width];
            types.gather(&[0], first).step()?;
            x.chunks_exact_mut(width).for_each(|x| x.iter_mut().zip(&*first).for_each(|(x, y)| *x += y));
        }
        if let Some(positions) = &self.positions {
            positions.gather(&space.positions, input).step()?;
            x.iter_mut().zip(&*input).for_each(|(x, y)| *x += y);
        }
        if let Some(norm) = &self.embedding_norm {
            rows::input(norm.host(), x, width, input, team);
            x.copy_from_slice(input);
        }
        Ok(())
    }
}
