//! Additions to the products of a pass: adapters of its rows, and sums over their inputs.

use crate::adapters::{LoadedAdapter, Place};
use crate::input_sums::InputSums;
use crate::kernels::float::packed::{LowRankProducts, LowRankScratch, LowRankSizes, RowGroup};
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::Isa;
use crate::load::LoadedModel;
use crate::plan::SessionPlan;
use exsa_core::backend::Capabilities;
use exsa_core::batch::Batch;
use exsa_core::error::{LoadError, StepError};
use std::sync::Arc;

/// Projections of the same hidden states: queries, keys and values.
const OUTPUTS: usize = 3;

/// Groups of rows with the same adapters, and the memory of their products.
pub(super) struct AdapterBatch {
    isa: Isa,
    rank_max: usize,
    /// The adapters of all groups, with the factors on their products.
    adapters: Vec<(Arc<LoadedAdapter>, f32)>,
    /// The group of each span.
    of_spans: Vec<Option<u32>>,
    all: Groups,
    /// Among the rows that want logits, numbered among themselves.
    wanted: Groups,
    scratch: LowRankScratch,
    /// Sums over the inputs of products; `None`, which costs nothing, where no calibration asks for them.
    pub input_sums: Option<Box<InputSums>>,
}

#[derive(Default)]
struct Groups {
    groups: Vec<RowGroup>,
    rows: Vec<u32>,
}

/// Rows that a projection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowsOf {
    /// All rows of the batch.
    Batch,
    /// Those that want logits.
    Wanted,
}

impl AdapterBatch {
    /// Memory for the batches of a session by `plan` on `threads` threads.
    pub fn new(isa: Isa, plan: &SessionPlan, threads: usize) -> Result<Self, LoadError> {
        let sizes = sizes(plan, threads);
        let memory = || LoadError::Memory { what: "adapters in a pass", needed: sizes.bytes(), available: 0 };
        let scratch = LowRankScratch::new(&sizes).ok_or_else(memory)?;
        let (groups, rows) = if sizes.adapters > 0 { (sizes.groups, sizes.rows) } else { (0, 0) };
        let lists = || Groups { groups: Vec::with_capacity(groups), rows: Vec::with_capacity(rows) };
        Ok(Self {
            isa,
            rank_max: plan.adapter_rank_max,
            adapters: Vec::with_capacity(groups * sizes.adapters),
            of_spans: Vec::with_capacity(groups),
            all: lists(),
            wanted: lists(),
            scratch,
            input_sums: None,
        })
    }

    /// Bytes of it.
    pub fn bytes(plan: &SessionPlan, threads: usize) -> u64 {
        let sizes = sizes(plan, threads);
        if sizes.adapters == 0 {
            return 0;
        }
        let group = sizes.adapters * size_of::<(Arc<LoadedAdapter>, f32)>()
            + size_of::<Option<u32>>()
            + 2 * size_of::<RowGroup>();
        sizes.bytes() + (sizes.groups * group + 2 * sizes.rows * size_of::<u32>()) as u64
    }

    /// Groups the rows of `batch`, and holds their adapters until the next batch or [`clear`](Self::clear).
    pub fn fill(&mut self, batch: &Batch, model: &LoadedModel) -> Result<(), StepError> {
        self.clear();
        for span in batch.spans() {
            if span.adapters.is_empty() {
                self.of_spans.push(None);
                continue;
            }
            let adapters = &self.adapters;
            let equal = |group: &RowGroup| {
                let group = &adapters[group.adapters.clone()];
                group.len() == span.adapters.len()
                    && group
                        .iter()
                        .zip(span.adapters)
                        .all(|((adapter, scale), wanted)| (adapter.id(), *scale) == (wanted.id, wanted.scale))
            };
            if let Some(group) = self.all.groups.iter().position(equal) {
                self.of_spans.push(Some(group as u32));
                continue;
            }
            let first = self.adapters.len();
            for wanted in span.adapters {
                let problem = |problem: String| StepError::Sequence { seq: span.seq, problem };
                let adapter = model.adapters.get(wanted.id);
                let adapter =
                    adapter.ok_or_else(|| problem(format!("adapter {} is not loaded", wanted.id.0)))?;
                if adapter.rank() > self.rank_max {
                    return Err(problem(format!(
                        "adapter {} has rank {}, but the session takes {}",
                        wanted.id.0,
                        adapter.rank(),
                        self.rank_max
                    )));
                }
                self.adapters.push((adapter, wanted.scale));
            }
            self.of_spans.push(Some(self.all.groups.len() as u32));
            self.all.groups.push(RowGroup { rows: 0..0, adapters: first..self.adapters.len() });
        }
        self.wanted.groups.extend_from_slice(&self.all.groups);
        for group in 0..self.all.groups.len() {
            let first = (self.all.rows.len(), self.wanted.rows.len());
            let (mut row, mut wanted) = (0, 0);
            for (span, of) in batch.spans().zip(&self.of_spans) {
                let (end, wanted_end) = (row + span.len() as u32, wanted + span.rows as u32);
                if *of == Some(group as u32) {
                    self.all.rows.extend(row..end);
                    self.wanted.rows.extend(wanted..wanted_end);
                }
                (row, wanted) = (end, wanted_end);
            }
            self.all.groups[group].rows = first.0..self.all.rows.len();
            self.wanted.groups[group].rows = first.1..self.wanted.rows.len();
        }
        Ok(())
    }

    /// Lets go of the adapters.
    pub fn clear(&mut self) {
        self.adapters.clear();
        self.of_spans.clear();
        for groups in [&mut self.all, &mut self.wanted] {
            groups.groups.clear();
            groups.rows.clear();
        }
    }

    /// Adds what the adapters give of `x`, `[rows, k]`, to the outputs of projections, `[rows, n]` each;
    /// called after each product.
    pub fn add<const N: usize>(
        &mut self,
        outputs: [(Place, &mut [f32]); N],
        x: &[f32],
        k: usize,
        rows: RowsOf,
        team: &mut Team,
    ) {
        const { assert!(N <= OUTPUTS) };
        if let Some(sums) = &mut self.input_sums {
            sums.add(outputs.each_ref().map(|(place, _)| *place), x, k);
        }
        let Groups { groups, rows } = match rows {
            RowsOf::Batch => &self.all,
            RowsOf::Wanted => &self.wanted,
        };
        let m = x.len() / k;
        if groups.is_empty() || m == 0 {
            return;
        }
        let places = outputs.each_ref().map(|(place, _)| *place);
        let adapters = &self.adapters;
        let matrices = |adapter: usize, output: usize| {
            let (adapter, scale) = &adapters[adapter];
            Some((adapter.low_rank(places[output])?, *scale))
        };
        let outputs = outputs.map(|(_, out)| {
            let n = out.len() / m;
            (out, n)
        });
        let products = LowRankProducts { x, k, outputs, groups, rows };
        self.scratch.add(products, matrices, self.isa, team);
    }
}

fn sizes(plan: &SessionPlan, threads: usize) -> LowRankSizes {
    let Capabilities { batch_tokens_max, sequences_max, span_adapters_max, .. } = plan.capabilities;
    LowRankSizes {
        rows: batch_tokens_max,
        groups: sequences_max.min(batch_tokens_max),
        adapters: span_adapters_max,
        rank: plan.adapter_rank_max,
        outputs: OUTPUTS,
        threads,
    }
}
