//! Calibration: sums over the inputs of a model's projections, for importance matrices.

use crate::compute::Threads;
use crate::executor::{Context, Executor, HostExecutor, Ropes};
use crate::input_sums::{InputSums, weight_name};
use crate::kv::BlockTables;
use crate::load::LoadedModel;
use crate::plan::SessionPlan;
use exsa_core::backend::{Capabilities, Interrupt, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::{LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{SeqId, TokenId};
use std::fmt;
use std::sync::Arc;

/// A model that sums up the squared inputs of its projections, made by
/// [`CandleBackend::calibration`](crate::CandleBackend::calibration).
///
/// These sums, divided by the number of rows, are the importance of a matrix's columns: llama.cpp's
/// `llama-imatrix` computes the same.
///
/// ```no_run
/// use exsa_backend_candle::CandleBackend;
/// use exsa_core::backend::{LoadOptions, LoadProgress, ModelSource, SessionOptions};
///
/// let (source, load) = (ModelSource::file("model.gguf"), LoadOptions::default());
/// let options = SessionOptions::new().context_tokens(512);
/// let mut calibration = CandleBackend::new().calibration(&source, &load, &options, &mut LoadProgress::none())?;
/// calibration.add(&[1, 2, 3])?;
/// for sums in calibration.sums() {
///     println!("{}: {} columns, {} rows", sums.weight, sums.squares.len(), sums.rows);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Calibration {
    info: ModelInfo,
    tokenizer: Arc<dyn Tokenizer>,
    model: Arc<LoadedModel>,
    capabilities: Capabilities,
    ropes: Ropes,
    tables: BlockTables,
    interrupt: Interrupt,
    executor: HostExecutor,
    output: bool,
}

/// Sums over the inputs of a projection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProjectionInputs<'a> {
    /// Name of its weight.
    pub weight: String,
    /// Sum of the squares of each column.
    pub squares: &'a [f64],
    /// Rows of the sums: one for each token.
    pub rows: u64,
}

impl Calibration {
    /// The calibration of a model on the host. Adapters have no part in it.
    pub(crate) fn new(
        (info, tokenizer): (ModelInfo, Arc<dyn Tokenizer>),
        model: Arc<LoadedModel>,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        let options = options.clone().sequences(1).idle_sequences(0).adapters(0, 0);
        let plan = SessionPlan::new(&model.config, &options, true)?;
        let ropes = Ropes::of(&model, plan.capabilities.context_tokens_max);
        let mut executor = HostExecutor::new(&model, &plan, &ropes, Threads::new(&options)?)?;
        executor.sum_inputs();
        let SessionPlan { n_blocks, capabilities, .. } = plan;
        let tables = BlockTables::new(capabilities.sequences_max, n_blocks, capabilities.context_tokens_max);
        let interrupt = options.interrupt;
        Ok(Self { info, tokenizer, model, capabilities, ropes, tables, interrupt, executor, output: false })
    }

    /// Sums up the inputs of the output projection too, where it has a weight of its own. Not done by
    /// default, as `llama-imatrix` does not.
    #[must_use]
    pub fn output(mut self, output: bool) -> Self {
        self.output = output;
        self
    }

    /// The model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &dyn Tokenizer {
        &*self.tokenizer
    }

    /// Maximum tokens of a text.
    pub fn context_tokens_max(&self) -> usize {
        self.capabilities.context_tokens_max
    }

    /// Computes a text, which sees no earlier one, and adds its inputs to the sums.
    ///
    /// # Errors
    ///
    /// The text is longer than the context, has a token that the model does not know, or the pass was
    /// interrupted. The sums may then hold a part of the text; they remain sums over whole rows.
    pub fn add(&mut self, tokens: &[TokenId]) -> Result<(), StepError> {
        let seq = SeqId(0);
        let (mut position, mut result) = (0, Ok(()));
        for part in tokens.chunks(self.capabilities.batch_tokens_max.max(1)) {
            let mut batch = Batch::new();
            batch.push(Span::tokens(seq, position, part).rows(part.len()));
            result = self.pass(&batch);
            position += part.len();
            if result.is_err() {
                break;
            }
        }
        self.tables.truncate(seq, 0).ok();
        result
    }

    /// Sums of all projections that had inputs, by layer.
    pub fn sums(&self) -> impl Iterator<Item = ProjectionInputs<'_>> {
        let architecture = self.model.config.architecture;
        self.executor.input_sums().into_iter().flat_map(InputSums::iter).map(|sums| ProjectionInputs {
            weight: weight_name(sums.place, architecture),
            squares: &sums.squares,
            rows: sums.rows,
        })
    }

    fn pass(&mut self, batch: &Batch) -> Result<(), StepError> {
        let Self { model, capabilities, ropes, tables, interrupt, executor, output, .. } = self;
        if interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        let mut met = vec![false; capabilities.sequences_max];
        batch.validate(capabilities, model.n_vocab, &mut met, |seq| tables.len(seq))?;
        tables.check_room(batch.spans())?;
        for span in batch.spans() {
            // Sequences are never forked: there is nothing to copy.
            tables.append(span.seq, span.len())?;
        }
        executor.hidden_states(batch, Context { model, tables, ropes, interrupt })?;
        if *output && model.has_output {
            executor.sum_output_inputs(batch.len(), model.config.n_embd);
        }
        Ok(())
    }
}

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calibration")
            .field("architecture", &self.info.architecture)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}
