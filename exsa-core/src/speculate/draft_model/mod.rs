//! Drafts from a smaller model.

mod source;
mod vocabulary;

pub use source::DraftModelSource;
pub use vocabulary::check_vocabulary;

use super::estimate::Kind;
use super::speculation::Stream;
use super::{DraftContext, DraftSource};
use crate::backend::{Capabilities, Model, Session, SessionOptions};
use crate::batch::{Batch, Span};
use crate::error::LoadError;
use crate::schedule::prefix::common_len;
use crate::schedule::sched_request::SchedRequest;
use crate::token::{RequestId, SeqId, TokenId};
use hashbrown::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A smaller model with the same vocabulary, which drafts for all streams in its own batches, for
/// [`Speculation::draft_model`](super::Speculation::draft_model).
///
/// It draws drafts with the sampler of the answer, that is, with the same seed, position and filters. Since
/// the draws are coupled, the two models draw the same token with a probability of at least (1 − TV) / (1 +
/// TV), where TV is the total variation distance of their distributions. So drafts are accepted about as
/// often as in greedy decoding, at any temperature.
///
/// Its session holds a sequence for each stream. Tokens of a stream that are missing in the session are
/// computed before it drafts: up to 256 tokens per step over all streams, and none for streams whose drafts
/// would not pay off. The draft budget accounts for the measured time of a draft. If a pass fails, its
/// streams have no drafts in that step; after three consecutive failures, or a panic, the model is no longer
/// used.
///
/// ```no_run
/// use exsa_core::backend::{InferenceBackend, Model, SessionOptions};
/// use exsa_core::error::LoadError;
/// use exsa_core::speculate::{DraftModel, Speculation};
/// use std::sync::Arc;
///
/// fn speculation(target: &dyn Model, small: Arc<dyn Model>) -> Result<Speculation, LoadError> {
///     let drafts = DraftModel::new(small, target, &SessionOptions::new().sequences(16))?;
///     Ok(Speculation::default().draft_model(drafts))
/// }
/// ```
pub struct DraftModel {
    /// Keeps the model alive as long as its session.
    model: Arc<dyn Model>,
    session: Box<dyn Session>,
    capabilities: Capabilities,
    held: HashMap<RequestId, Held>,
    free: Vec<SeqId>,
    batch: Batch,
    jobs: Vec<Job>,
    /// Number of consecutive failed passes.
    failures: u32,
    /// Seconds per draft; `None` before the first.
    seconds: Option<f64>,
    step: u64,
}

/// A sequence of the session and the tokens in it.
#[derive(Debug)]
struct Held {
    seq: SeqId,
    tokens: Vec<TokenId>,
    /// The step that used it last.
    used: u64,
    /// Whether its stream was selected to draft but was too far behind: it catches up, whether it drafts or
    /// not.
    catches_up: bool,
}

/// A stream that drafts in this step.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// Index among the streams of the step.
    stream: usize,
    id: RequestId,
    seq: SeqId,
    /// Number of drafts wanted, and number drawn.
    wanted: usize,
    drawn: usize,
}

/// Maximum tokens computed per step for streams that are behind.
const CATCH_UP: usize = 256;
/// Maximum tokens by which a stream may be behind to draft in the same step.
const BEHIND_MAX: usize = 32;
/// Number of consecutive failed passes after which the model is no longer used.
const FAILURES_MAX: u32 = 3;
/// Assumed time of a pass before it is measured, relative to a step of the target.
const SHARE_ASSUMED: f64 = 0.15;
/// Weight of the newest measurement.
const NEWEST: f64 = 0.1;

impl DraftModel {
    /// Uses `draft` to draft for `target`, in a session with these options. Streams that exceed its
    /// sequences, KV or context get no drafts.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unsupported`] if a token differs between the vocabularies, or the session cannot
    /// truncate; and the errors of [`Model::session`].
    pub fn new(
        draft: Arc<dyn Model>,
        target: &dyn Model,
        options: &SessionOptions,
    ) -> Result<Self, LoadError> {
        vocabulary::check(&*draft, target)?;
        let session = draft.session(options)?;
        let capabilities = session.capabilities().clone();
        if !capabilities.truncate {
            return Err(LoadError::Unsupported {
                what: format!("the draft model '{}', whose session cannot truncate", draft.info().name),
                supported: "models whose session can".into(),
            });
        }
        let free = (0..capabilities.sequences_max).rev().map(|seq| SeqId(seq as u32)).collect();
        Ok(Self {
            model: draft,
            session,
            capabilities,
            held: HashMap::new(),
            free,
            batch: Batch::new(),
            jobs: Vec::new(),
            failures: 0,
            seconds: None,
            step: 0,
        })
    }

    /// The kind of its drafts.
    pub(super) fn kind() -> Kind {
        Kind::new(DraftSource::DraftModel, 4)
    }

    /// Whether it can draft for a request of `tokens` tokens.
    pub(super) fn is_usable(&self, tokens: usize) -> bool {
        self.failures < FAILURES_MAX && tokens < self.capabilities.context_tokens_max
    }

    /// Seconds per draft in addition to a step of the target with `decodes` decodes that takes `step`
    /// seconds.
    pub(super) fn seconds(&self, step: f64, decodes: usize) -> f64 {
        self.seconds.unwrap_or(SHARE_ASSUMED * step / decodes.max(1) as f64)
    }

    /// Draws the selected drafts of its streams into `drafts`, and reduces the selection to the drafts
    /// actually drawn.
    pub(super) fn draft<'a>(
        &mut self,
        streams: &mut [Stream],
        drafts: &mut [TokenId],
        request: &impl Fn(usize) -> Option<&'a SchedRequest>,
        context: &mut dyn DraftContext,
    ) {
        self.step += 1;
        let begun = context.now();
        self.begin(streams, request);
        let mut drawn = 0;
        while !self.batch.is_empty() {
            let Some(more) = self.pass(streams, drafts, request, context) else {
                self.fail();
                break;
            };
            drawn += more;
        }
        for job in &self.jobs {
            streams[job.stream].selected = job.drawn;
        }
        if drawn > 0 {
            let seconds = context.now().saturating_sub(begun).as_secs_f64() / drawn as f64;
            self.seconds = Some(self.seconds.map_or(seconds, |mean| mean + (seconds - mean) * NEWEST));
        }
    }

    /// Lists the streams that draft, and fills the batch with their missing tokens. Streams that are too far
    /// behind only catch up by a part of these tokens, without drafts in this step.
    fn begin<'a>(&mut self, streams: &mut [Stream], request: &impl Fn(usize) -> Option<&'a SchedRequest>) {
        self.jobs.clear();
        self.batch.clear();
        // The other half of the batch is for streams that draft in this step.
        let mut catch_up = CATCH_UP.min(self.capabilities.batch_tokens_max.div_ceil(2));
        for (number, stream) in streams.iter_mut().enumerate() {
            if stream.kind != Self::kind() {
                continue;
            }
            let wanted = std::mem::take(&mut stream.selected);
            let Some(request) = request(stream.work) else { continue };
            let goes_on = self.held.get(&request.id).is_some_and(|held| held.catches_up);
            if wanted == 0 && !goes_on {
                continue;
            }
            let tokens = request.tokens();
            let end = (tokens.len() + wanted).min(self.capabilities.context_tokens_max);
            let Some(held) = self.hold(request.id, tokens, end) else { continue };
            let (seq, start) = (held.seq, held.tokens.len());
            let behind = tokens.len() - start;
            let drafts = behind <= BEHIND_MAX;
            if let Some(held) = self.held.get_mut(&request.id) {
                held.catches_up = !drafts;
            }
            let len = if drafts { behind } else { behind.min(catch_up) };
            if drafts && wanted == 0 || self.batch.len() + len > self.capabilities.batch_tokens_max {
                continue;
            }
            let new = &tokens[start..start + len];
            self.batch.push(Span::tokens(seq, start, new).rows(usize::from(drafts)));
            if let Some(held) = self.held.get_mut(&request.id) {
                held.tokens.extend_from_slice(new);
            }
            if drafts {
                let wanted = end - tokens.len();
                self.jobs.push(Job { stream: number, id: request.id, seq, wanted, drawn: 0 });
            } else {
                catch_up -= len;
            }
        }
    }

    /// The sequence of a request with these `tokens`, truncated to their common prefix, with room for `end`
    /// tokens. The last token is always left to compute, since its logits are needed.
    fn hold(&mut self, id: RequestId, tokens: &[TokenId], end: usize) -> Option<&Held> {
        let step = self.step;
        if !self.held.contains_key(&id) {
            if self.free.is_empty() {
                self.evict();
            }
            let held = Held { seq: self.free.pop()?, tokens: Vec::new(), used: step, catches_up: false };
            self.held.insert(id, held);
        }
        let held = self.held.get_mut(&id)?;
        held.used = step;
        let kept = common_len(&held.tokens, tokens).min(tokens.len() - 1);
        if kept < held.tokens.len() {
            if kept == 0 {
                self.session.release(held.seq);
            } else if self.session.truncate(held.seq, kept).is_err() {
                self.release(id);
                return None;
            }
            held.tokens.truncate(kept);
        }
        while self.kv_tokens(id, end) > self.capabilities.kv_tokens_max {
            if !self.evict() {
                return None;
            }
        }
        self.held.get(&id)
    }

    /// Tokens of KV in the blocks of all sequences, if that of `id` has `end` tokens.
    fn kv_tokens(&self, id: RequestId, end: usize) -> usize {
        let block = self.capabilities.block_tokens.max(1);
        let of = |tokens: usize| tokens.div_ceil(block) * block;
        let others = self.held.iter().filter(|(other, _)| **other != id);
        // The others draft in this step too, or keep their tokens.
        others.map(|(_, held)| of(held.tokens.len() + BEHIND_MAX)).sum::<usize>() + of(end)
    }

    /// Releases the least recently used sequence that was not used in this step. Returns whether there was
    /// one.
    fn evict(&mut self) -> bool {
        let idle = self.held.iter().filter(|(_, held)| held.used < self.step);
        let oldest = idle.min_by_key(|(id, held)| (held.used, **id)).map(|(id, _)| *id);
        oldest.is_some_and(|id| self.release(id))
    }

    /// Computes the batch, draws a token from each row, and fills the next batch for streams that need more
    /// drafts. Returns the number of tokens drawn; `None` if the pass failed.
    fn pass<'a>(
        &mut self,
        streams: &[Stream],
        drafts: &mut [TokenId],
        request: &impl Fn(usize) -> Option<&'a SchedRequest>,
        context: &mut dyn DraftContext,
    ) -> Option<usize> {
        let (session, batch) = (&mut self.session, &self.batch);
        let pass = move || {
            let session = session;
            session.forward(batch)
        };
        let Ok(passed) = catch_unwind(AssertUnwindSafe(pass)) else {
            self.failures = FAILURES_MAX;
            return None;
        };
        let output = passed.ok().filter(|output| output.rows() == batch.rows())?;
        self.failures = 0;
        let (mut row, mut drawn) = (0, 0);
        for job in self.jobs.iter_mut().filter(|job| job.drawn < job.wanted) {
            let logits = output.row(row)?;
            row += 1;
            let stream = &streams[job.stream];
            let request = request(stream.work)?;
            let held = self.held.get(&job.id)?;
            let token = context.draw(job.id, logits, &held.tokens, request.position(held.tokens.len()));
            match token {
                Some(token) => {
                    drafts[stream.start + job.drawn] = token;
                    job.drawn += 1;
                    drawn += 1;
                }
                None => job.wanted = job.drawn,
            }
        }
        self.batch.clear();
        for job in self.jobs.iter().filter(|job| job.drawn < job.wanted) {
            let held = self.held.get_mut(&job.id)?;
            let token = drafts[streams[job.stream].start + job.drawn - 1];
            self.batch.push(Span::tokens(job.seq, held.tokens.len(), &[token]).rows(1));
            held.tokens.push(token);
        }
        Some(drawn)
    }

    /// Releases all sequences, whose content is undefined after a failed pass.
    fn fail(&mut self) {
        self.failures += 1;
        let ids: Vec<_> = self.held.keys().copied().collect();
        for id in ids {
            self.release(id);
        }
    }

    fn release(&mut self, id: RequestId) -> bool {
        let Some(held) = self.held.remove(&id) else { return false };
        if self.failures < FAILURES_MAX {
            self.session.release(held.seq);
        }
        self.free.push(held.seq);
        true
    }

    pub(super) fn finished(&mut self, id: RequestId) {
        self.release(id);
    }
}

impl fmt::Debug for DraftModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DraftModel")
            .field("model", &self.model.info().name)
            .field("sequences", &self.held.len())
            .field("failures", &self.failures)
            .field("time_per_draft", &self.seconds.map(Duration::from_secs_f64))
            .finish_non_exhaustive()
    }
}
