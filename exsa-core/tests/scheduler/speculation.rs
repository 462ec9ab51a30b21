//! Drafts: their limits and outcomes, and a check that accepting one draft too many is detected.

use super::bare::capabilities;
use exsa_core::backend::{Capabilities, Model, SessionOptions};
use exsa_core::batch::{Batch, Span};
use exsa_core::priority::Priority;
use exsa_core::queue::{Fcfs, QueueOrder, Service, View};
use exsa_core::schedule::kv::KvOp;
use exsa_core::schedule::{SchedRequest, Scheduler, SchedulerOptions, Work, WorkKind};
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::speculate::{Proposer, Speculation};
use exsa_core::{Mode, RequestId, TokenId};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Drafts the same token repeatedly.
#[derive(Debug)]
struct Repeat(TokenId);

impl Proposer for Repeat {
    fn propose(&mut self, _: RequestId, _: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        drafts.resize(max, self.0);
    }
}

fn repeat(drafts: usize) -> Speculation {
    Speculation::new(Repeat(7)).drafts_max(drafts).adaptive(false)
}

/// A scheduler with one decoding request for each of `prompts`, of that many tokens, with this limit of
/// tokens.
fn decoding(capabilities: &Capabilities, batch: usize, prompts: &[usize], len_max: usize) -> Scheduler {
    // The mode that holds the least KV ready for answers.
    let mode = Mode::Throughput;
    let options = SchedulerOptions { batch_tokens_max: batch, mode, ..SchedulerOptions::default() };
    let mut scheduler = Scheduler::new(capabilities, options, Box::new(Fcfs::new()));
    for (id, prompt) in prompts.iter().enumerate() {
        let tokens = (0..*prompt).map(|i| (id * 1000 + i) as TokenId).collect();
        scheduler.enqueue(SchedRequest::new(id as u64, tokens, len_max), Duration::ZERO);
    }
    for _ in 0..10 {
        let work = scheduler.plan(Duration::ZERO).work.clone();
        if scheduler.last_plan().decodes() == prompts.len() {
            return scheduler;
        }
        for work in &work {
            scheduler.commit(work, &[1][..work.rows]);
        }
    }
    panic!("not all decode: {:?}", scheduler.last_plan())
}

fn drafts(scheduler: &mut Scheduler, max: usize) -> Vec<usize> {
    scheduler.plan_drafts(&mut repeat(max), &mut ());
    scheduler.check().unwrap();
    scheduler.last_plan().work.iter().map(|work| work.drafts).collect()
}

#[test]
fn drafts_take_what_decodes_leave_of_the_batch() {
    let mut scheduler = decoding(&capabilities(1024, 8, 4), 12, &[5, 6, 7], usize::MAX);
    assert_eq!(drafts(&mut scheduler, 6), [6, 3, 0], "in the order of the plan");
    let work = scheduler.last_plan().work[0];
    assert_eq!((work.kind, work.len, work.rows), (WorkKind::Decode, 7, 7));
    assert_eq!(scheduler.tokens_of(&work)[1..], [7; 6]);
    assert_eq!(scheduler.tokens(work.seq).len(), work.known(), "drafts are not known tokens");
}

#[test]
fn drafts_stay_within_the_limits_of_answer_and_context() {
    // Known are 6 tokens; with 2 drafts the last row gives token 9.
    assert_eq!(drafts(&mut decoding(&capabilities(1024, 8, 4), 64, &[5], 9), 8), [2]);
    assert_eq!(drafts(&mut decoding(&capabilities(1024, 8, 4), 64, &[5], 7), 8), [0]);
    let mut context = capabilities(1024, 8, 4);
    context.context_tokens_max = 9;
    assert_eq!(drafts(&mut decoding(&context, 64, &[5], usize::MAX), 8), [2]);
}

#[test]
fn sessions_that_cannot_truncate_get_no_drafts() {
    let capabilities = capabilities(1024, 8, 4).truncate(false);
    assert_eq!(drafts(&mut decoding(&capabilities, 64, &[5, 6], usize::MAX), 8), [0, 0]);
}

#[test]
fn requests_can_be_without_drafts() {
    let options = SchedulerOptions::default();
    let mut scheduler = Scheduler::new(&capabilities(1024, 8, 4), options, Box::new(Fcfs::new()));
    for id in 0..2 {
        let mut request = SchedRequest::new(id, vec![1, 2, 3], usize::MAX);
        request.speculate = id == 1;
        scheduler.enqueue(request, Duration::ZERO);
    }
    let work = scheduler.plan(Duration::ZERO).work.clone();
    for work in &work {
        scheduler.commit(work, &[4]);
    }
    scheduler.plan(Duration::ZERO);
    assert_eq!(drafts(&mut scheduler, 3), [0, 3]);
}

#[test]
fn drafts_take_free_blocks_only_and_give_them_back() {
    // Twelve blocks of 4: the requests hold two each, for 6 and 7 tokens.
    let mut scheduler = decoding(&capabilities(48, 4, 4), 64, &[5, 6], usize::MAX);
    let before = scheduler.kv().blocks_used();
    assert_eq!((before, scheduler.kv().blocks_free()), (4, 8));
    // The first has 26 tokens then, in seven blocks; three are left for the second: 20 tokens in five.
    assert_eq!(drafts(&mut scheduler, 20), [20, 13]);
    assert_eq!((scheduler.kv().blocks_free(), scheduler.stats().preemptions), (0, 0));
    // A pass that failed leaves nothing behind.
    scheduler.plan(Duration::ZERO);
    scheduler.check().unwrap();
    assert_eq!(scheduler.kv().blocks_used(), before);
    assert_eq!(drafts(&mut scheduler, 20), [20, 13]);
    let work = scheduler.last_plan().work.clone();
    assert_eq!(scheduler.commit(&work[0], &[7, 7, 9]), 2);
    assert_eq!(scheduler.commit(&work[1], &[9]), 0);
    // 8 tokens computed of 9 known, and 7 of 8.
    assert_eq!(scheduler.kv().blocks_used(), before, "the blocks of rejected drafts are free");
    assert_eq!(scheduler.tokens(work[0].seq)[6..], [7, 7, 9]);
    let mut ops = Vec::new();
    scheduler.drain_ops(&mut ops);
    let cut = |work: &Work, len| KvOp::Truncate { seq: work.seq, len };
    assert_eq!(ops, [cut(&work[0], 8), cut(&work[1], 7)]);
    let counters = scheduler.stats();
    assert_eq!((counters.drafted_tokens, counters.accepted_drafts), (33, 2));
    scheduler.check().unwrap();
}

#[test]
fn a_run_that_is_cut_goes_on_from_its_last_token() {
    let mut scheduler = decoding(&capabilities(1024, 8, 4), 64, &[5], usize::MAX);
    drafts(&mut scheduler, 4);
    let work = scheduler.last_plan().work[0];
    // Two of four right drafts are taken, since the stream is full: the row after them was thrown away.
    assert_eq!(scheduler.commit(&work, &[7, 7]), 2);
    let next = scheduler.plan(Duration::ZERO).work[0];
    assert_eq!((next.kind, next.start, next.len, next.rows), (WorkKind::Decode, 7, 1, 1));
    assert_eq!(scheduler.last_plan().kv, [KvOp::Truncate { seq: work.seq, len: 7 }]);
}

/// First come, first served, and what was charged.
struct Charged(Fcfs, Arc<Mutex<Vec<Service>>>);

impl QueueOrder for Charged {
    fn push(&mut self, request: SchedRequest, now: Duration) {
        self.0.push(request, now);
    }
    fn choose(&mut self, view: &View<'_>) -> Option<RequestId> {
        self.0.choose(view)
    }
    fn chosen(&self) -> Option<&SchedRequest> {
        self.0.chosen()
    }
    fn pop(&mut self, now: Duration) -> Option<SchedRequest> {
        self.0.pop(now)
    }
    fn remove(&mut self, id: RequestId) -> Option<SchedRequest> {
        self.0.remove(id)
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn depth(&self, priority: Priority) -> usize {
        self.0.depth(priority)
    }
    fn position(&self, id: RequestId) -> Option<usize> {
        self.0.position(id)
    }
    fn charge(&mut self, service: Service) {
        self.1.lock().unwrap().push(service);
    }
}

#[test]
fn users_pay_for_tokens_and_not_for_drafts() {
    let charged = Arc::<Mutex<Vec<Service>>>::default();
    let queue = Box::new(Charged(Fcfs::new(), charged.clone()));
    let mut scheduler = Scheduler::new(&capabilities(1024, 8, 4), SchedulerOptions::default(), queue);
    scheduler.enqueue(SchedRequest::new(0, vec![1, 2, 3], usize::MAX), Duration::ZERO);
    let work = scheduler.plan(Duration::ZERO).work[0];
    scheduler.commit(&work, &[4]);
    scheduler.plan(Duration::ZERO);
    drafts(&mut scheduler, 5);
    let work = scheduler.last_plan().work[0];
    assert_eq!(work.drafts, 5);
    scheduler.commit(&work, &[7, 7, 8]);
    let charged: Vec<_> =
        charged.lock().unwrap().iter().map(|service| (service.input, service.output)).collect();
    assert_eq!(charged, [(3, 0), (0, 1), (0, 3)]);
}

/// Drafts the tokens of an answer, every fourth of them wrong.
#[derive(Debug)]
struct Nearly(Vec<TokenId>);

impl Proposer for Nearly {
    fn propose(&mut self, _: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        let rest = self.0.iter().enumerate().skip(tokens.len()).take(max);
        drafts.extend(rest.map(|(i, token)| if i % 4 == 0 { (token + 1) % 256 } else { *token }));
    }
}

const PROMPT: usize = 20;
const ANSWER: usize = 40;

fn best(row: &[f32]) -> TokenId {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(token, _)| token as TokenId).unwrap()
}

/// Prompt and greedy answer, computed token by token from the model's rule.
fn alone(model: &ScriptedModel) -> Vec<TokenId> {
    let mut tokens: Vec<TokenId> = (0..PROMPT as TokenId).collect();
    let mut row = vec![0.0; ByteTokenizer::N_VOCAB];
    while tokens.len() < PROMPT + ANSWER {
        model.logits(&tokens, &mut row);
        tokens.push(best(&row));
    }
    tokens
}

/// Prompt and greedy answer from scheduler and session, and the number of passes. After the first draft that
/// is not the token drawn in its place, `extra` rows more are taken for right.
fn speculated(model: &ScriptedModel, extra: usize) -> (Vec<TokenId>, usize) {
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let mut scheduler =
        Scheduler::new(session.capabilities(), SchedulerOptions::default(), Box::new(Fcfs::new()));
    let mut speculation = Speculation::new(Nearly(alone(model))).drafts_max(6).adaptive(false);
    let prompt = (0..PROMPT as TokenId).collect();
    scheduler.enqueue(SchedRequest::new(0, prompt, PROMPT + ANSWER), Duration::ZERO);
    let (mut batch, mut passes) = (Batch::new(), 0);
    loop {
        scheduler.plan(Duration::ZERO);
        scheduler.plan_drafts(&mut speculation, &mut ());
        scheduler.check().unwrap();
        for op in &scheduler.last_plan().kv {
            let KvOp::Truncate { seq, len } = *op else { panic!("{op:?}") };
            session.truncate(seq, len).unwrap();
        }
        let work = scheduler.last_plan().work[0];
        let tokens = scheduler.tokens_of(&work);
        batch.clear();
        batch.push(Span::tokens(work.seq, work.start, tokens).rows(work.rows));
        let logits = session.forward(&batch).unwrap().logits().unwrap();
        let drawn: Vec<TokenId> = (0..work.rows).map(|row| best(logits.row(row).unwrap())).collect();
        let drafts = &tokens[work.len - work.drafts..];
        let accepted = drafts.iter().zip(&drawn).take_while(|(draft, token)| draft == token).count();
        let taken = (accepted + 1 + extra).min(drawn.len());
        scheduler.commit(&work, &drawn[..taken]);
        passes += 1;
        let tokens = scheduler.tokens(work.seq);
        if tokens.len() >= PROMPT + ANSWER {
            return (tokens.to_vec(), passes);
        }
    }
}

#[test]
fn one_token_too_many_is_another_answer() {
    let model = ScriptedModel::ngram(5).order(usize::MAX);
    let expected = alone(&model);
    let (tokens, passes) = speculated(&model, 0);
    assert_eq!(tokens, expected);
    assert!(passes < 2 + ANSWER / 3, "{passes} passes for {ANSWER} tokens");
    assert_ne!(speculated(&model, 1).0, expected, "the row after a rejected draft follows another text");
}
