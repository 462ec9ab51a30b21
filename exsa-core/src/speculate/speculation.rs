//! Proposers, their limits, and the drafts of the step being planned.

use super::estimate::{Estimates, Kind, Outcome};
use super::{DraftContext, DraftModel, DraftSource, PromptLookup, Proposer, SuffixIndex};
use crate::schedule::sched_request::SchedRequest;
use crate::schedule::scheduler::draft_budget::{self, Candidate};
use crate::schedule::scheduler::draft_costs::RowCost;
use crate::token::{RequestId, TokenId};
use hashbrown::HashMap;

/// Proposers and their limits, for [`Engine::speculate`](crate::Engine::speculate).
///
/// ```
/// use exsa_core::scripted::ScriptedModel;
/// use exsa_core::speculate::{PromptLookup, Speculation, SuffixIndex};
/// use exsa_core::{Engine, EngineOptions, Request};
///
/// let model = ScriptedModel::echo("tick tock tick tock tick tock");
/// let engine = Engine::start(model.shared(), EngineOptions::default())?;
/// let proposers = Speculation::new(SuffixIndex::default()).otherwise(PromptLookup::default());
/// engine.speculate(Some(proposers.drafts_max(8)));
/// let answer = engine.submit(Request::text("tick tock").max_tokens(20))?.complete()?;
/// assert_eq!(answer.text, " tick tock tick tock");
/// println!("{:?}", answer.usage.drafts); // drafts verified and accepted
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Speculation {
    proposers: Vec<Box<dyn Proposer>>,
    model: Option<DraftModel>,
    drafts_max: usize,
    adaptive: bool,
    n_vocab: usize,
    /// Averages over all requests.
    estimates: Estimates,
    requests: HashMap<RequestId, Estimates>,
    /// Streams of the step that have drafts.
    streams: Vec<Stream>,
    /// Their drafts.
    drafts: Vec<TokenId>,
    candidates: Vec<Candidate>,
    proposed: Vec<TokenId>,
}

/// A stream for which drafts were proposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// Index of its work in the plan.
    pub(crate) work: usize,
    id: RequestId,
    /// Number of its tokens.
    known: usize,
    /// The kind of its drafts.
    pub(crate) kind: Kind,
    /// Index of the first of its drafts among the drafts of the step.
    pub(super) start: usize,
    /// Drafts proposed.
    len: usize,
    /// Drafts to verify.
    pub(super) selected: usize,
}

/// Default of [`Speculation::drafts_max`].
pub(super) const DRAFTS_MAX: usize = 16;

impl Default for Speculation {
    /// A [`SuffixIndex`], with [`PromptLookup`] as fallback.
    fn default() -> Self {
        Self::new(SuffixIndex::default()).otherwise(PromptLookup::default())
    }
}

impl Speculation {
    /// Creates speculation with `proposer` and at most 16 drafts per request and step.
    pub fn new(proposer: impl Proposer + 'static) -> Self {
        Self {
            proposers: vec![Box::new(proposer)],
            model: None,
            drafts_max: DRAFTS_MAX,
            adaptive: true,
            n_vocab: usize::MAX,
            estimates: Estimates::default(),
            requests: HashMap::new(),
            streams: Vec::new(),
            drafts: Vec::new(),
            candidates: Vec::new(),
            proposed: Vec::new(),
        }
    }

    /// Adds a fallback proposer, for requests for which the previous proposers have no drafts in a step, or
    /// only drafts that are not accepted. Proposers should be of different [kinds](Proposer::source), since
    /// proposers of one kind share their estimates.
    #[must_use]
    pub fn otherwise(mut self, proposer: impl Proposer + 'static) -> Self {
        self.proposers.push(Box::new(proposer));
        self
    }

    /// Adds a draft model, for requests for which no proposer has drafts in a step, or whose drafts are
    /// accepted less than half as often as the model's.
    #[must_use]
    pub fn draft_model(mut self, model: DraftModel) -> Self {
        self.model = Some(model);
        self
    }

    /// Sets the maximum drafts per request and step.
    #[must_use]
    pub fn drafts_max(mut self, drafts: usize) -> Self {
        self.drafts_max = drafts;
        self
    }

    /// Sets whether the number of drafts is determined from estimated acceptance and measured costs; `true`
    /// by default. Otherwise all proposed drafts that fit are verified, in the order of the plan.
    #[must_use]
    pub fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// Sets the size of the vocabulary.
    #[must_use]
    pub(crate) fn n_vocab(mut self, n_vocab: usize) -> Self {
        self.n_vocab = n_vocab;
        self
    }

    pub(crate) fn is_adaptive(&self) -> bool {
        self.adaptive
    }

    /// Begins the drafts of a step.
    pub(crate) fn begin(&mut self) {
        self.streams.clear();
        self.drafts.clear();
    }

    /// Proposes up to `max` drafts for a request whose work has the index `work` in the plan. `plausible`
    /// counts the drafts that can be accepted. The first proposer with drafts is used.
    pub(crate) fn propose(
        &mut self,
        work: usize,
        request: &SchedRequest,
        max: usize,
        mut plausible: impl FnMut(&[TokenId]) -> usize,
    ) {
        let max = max.min(self.drafts_max);
        if max == 0 {
            return;
        }
        let (id, tokens) = (request.id, request.tokens());
        let estimates = self.requests.get(&id).unwrap_or(&self.estimates);
        let known = tokens.len();
        let usable = |kind, len| if self.adaptive { estimates.usable(kind, known, len) } else { len };
        let first = |kind| estimates.expected(kind, known).next().unwrap_or(0.0);
        let start = self.drafts.len();
        let model = self.model.as_ref().filter(|model| model.is_usable(known));
        let model =
            model.map(|_| (DraftModel::kind(), usable(DraftModel::kind(), max))).filter(|(_, len)| *len > 0);
        for proposer in &mut self.proposers {
            self.proposed.clear();
            proposer.propose_in(id, &request.namespace, tokens, max, &mut self.proposed);
            let kind = Kind::new(proposer.source(), proposer.matched());
            let proposed = self.proposed.iter().take(max);
            let len = proposed.take_while(|draft| (**draft as usize) < self.n_vocab).count();
            let mut len = usable(kind, len);
            if model.is_some_and(|(model, _)| 2.0 * first(kind) < first(model)) {
                len = 0;
            }
            if len > 0 {
                len = plausible(&self.proposed[..len]).min(len);
            }
            if len > 0 {
                self.drafts.extend_from_slice(&self.proposed[..len]);
                self.streams.push(Stream { work, id, known, kind, start, len, selected: len });
                return;
            }
        }
        if let Some((kind, len)) = model {
            // Drawn later, when it is known how many pay off.
            self.drafts.resize(start + len, 0);
            self.streams.push(Stream { work, id, known, kind, start, len, selected: len });
        }
    }

    /// Selects at most `room` drafts that pay off in a step with `decodes` decodes. The cost of a step is
    /// that of the linear model `cost`, times the factor of its number of rows.
    pub(crate) fn select(
        &mut self,
        cost: RowCost,
        decodes: usize,
        room: usize,
        factor: impl Fn(usize) -> f64,
    ) {
        self.candidates.clear();
        let seconds = self.model.as_ref().map_or(0.0, |model| model.seconds(cost.step, decodes)) as f32;
        for (number, stream) in self.streams.iter_mut().enumerate() {
            let estimates = self.requests.get(&stream.id).unwrap_or(&self.estimates);
            let expected = estimates.expected(stream.kind, stream.known).take(stream.len);
            self.candidates.extend(expected.enumerate().map(|(position, expected)| Candidate {
                stream: number as u32,
                position: position as u32,
                expected,
                seconds: if stream.kind.source == DraftSource::DraftModel { seconds } else { 0.0 },
            }));
            stream.selected = 0;
        }
        let streams = &mut self.streams;
        draft_budget::select(&mut self.candidates, cost, decodes, room, factor, |stream| {
            streams[stream].selected += 1;
        });
    }

    /// Draws the selected drafts with the draft model. `request` returns the request of a work by index.
    pub(crate) fn run_model<'a>(
        &mut self,
        request: &impl Fn(usize) -> Option<&'a SchedRequest>,
        context: &mut dyn DraftContext,
    ) {
        let Some(model) = &mut self.model else { return };
        model.draft(&mut self.streams, &mut self.drafts, request, context);
        for stream in self.streams.iter_mut().filter(|stream| stream.kind == DraftModel::kind()) {
            if stream.selected > 0 {
                let drafts = &self.drafts[stream.start..stream.start + stream.selected];
                stream.selected = context.plausible(stream.id, drafts).min(stream.selected);
            }
        }
    }

    /// Number of streams with drafts in the step.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// A stream of the step and its selected drafts.
    pub(crate) fn stream(&self, number: usize) -> (Stream, &[TokenId]) {
        let stream = self.streams[number];
        (stream, &self.drafts[stream.start..stream.start + stream.selected])
    }

    /// Records the outcome of the `drafted` drafts of a request's last step.
    pub(crate) fn verified(&mut self, id: RequestId, kind: Kind, drafted: usize, outcome: Outcome) {
        if self.adaptive {
            let estimates = &self.estimates;
            self.requests.entry(id).or_insert_with(|| estimates.clone()).verified(kind, outcome);
            self.estimates.average(kind, outcome);
        }
        let mut proposers = self.proposers.iter_mut();
        if let Some(proposer) = proposers.find(|proposer| proposer.source() == kind.source) {
            proposer.verified(id, drafted, outcome.accepted);
        }
    }

    pub(crate) fn changed(&mut self, id: RequestId, kept: usize) {
        self.proposers.iter_mut().for_each(|proposer| proposer.changed(id, kept));
    }

    pub(crate) fn finished(&mut self, id: RequestId) {
        self.requests.remove(&id);
        if let Some(model) = &mut self.model {
            model.finished(id);
        }
        self.proposers.iter_mut().for_each(|proposer| proposer.finished(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::DraftSource;

    /// Drafts the given tokens, and checks what it is told.
    #[derive(Debug)]
    struct Scripted {
        source: DraftSource,
        drafts: &'static [TokenId],
    }

    impl Proposer for Scripted {
        fn propose(&mut self, _: RequestId, _: &[TokenId], _: usize, drafts: &mut Vec<TokenId>) {
            drafts.extend(self.drafts);
        }

        fn source(&self) -> DraftSource {
            self.source
        }

        fn verified(&mut self, _: RequestId, drafted: usize, accepted: usize) {
            assert_eq!((self.source, drafted, accepted), (DraftSource::Custom, 1, 0));
        }
    }

    fn proposers(first: &'static [TokenId]) -> Speculation {
        let first = Scripted { source: DraftSource::Custom, drafts: first };
        let second = Scripted { source: DraftSource::PromptLookup, drafts: &[7, 8, 9] };
        Speculation::new(first).otherwise(second).n_vocab(10).drafts_max(2)
    }

    fn propose(speculation: &mut Speculation) -> Vec<(DraftSource, Vec<TokenId>)> {
        let request = SchedRequest::new(0, vec![1, 2, 3], usize::MAX);
        speculation.begin();
        speculation.propose(0, &request, 5, |drafts| drafts.len());
        let streams = (0..speculation.streams()).map(|number| speculation.stream(number));
        streams.map(|(stream, drafts)| (stream.kind.source, drafts.to_vec())).collect()
    }

    #[test]
    fn the_first_proposer_with_drafts_of_the_vocabulary_counts() {
        assert_eq!(propose(&mut proposers(&[4, 5, 6])), [(DraftSource::Custom, vec![4, 5])]);
        assert_eq!(propose(&mut proposers(&[4, 10, 6])), [(DraftSource::Custom, vec![4])]);
        assert_eq!(propose(&mut proposers(&[10])), [(DraftSource::PromptLookup, vec![7, 8])]);
        assert_eq!(propose(&mut proposers(&[4]).drafts_max(0)), []);
    }

    #[test]
    fn a_proposer_that_fails_makes_room_for_the_next() {
        let mut speculation = proposers(&[4]);
        for _ in 0..4 {
            let outcome = Outcome { accepted: 0, rejected: true, len: 3 };
            assert_eq!(propose(&mut speculation)[0].0, DraftSource::Custom);
            speculation.verified(RequestId(0), Kind::new(DraftSource::Custom, 0), 1, outcome);
        }
        assert_eq!(propose(&mut speculation)[0].0, DraftSource::PromptLookup);
        speculation.finished(RequestId(0));
        assert_eq!(propose(&mut speculation)[0].0, DraftSource::Custom, "a new request");
    }
}
