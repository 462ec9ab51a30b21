//! Ten thousand random schedules on the scripted backend, with invariants checked after every step.
//!
//! Each schedule is generated from a seed: limits (including tiny KV caches), capabilities of the session,
//! modes and their changes, arrivals of all classes and several users, prompts with common prefixes, several
//! answers to one prompt, log-probabilities of prompts, cancellations, deadlines, slow readers, and a draft
//! proposer (with all drafts that fit, a budget, or the engine's default). The seed is in every message, so
//! that a failure can be reproduced alone: `EXSA_SIMULATION_SEED=17 cargo nextest run -p exsa-core --test
//! simulation`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drafts;
mod reference;
mod stores;

use drafts::{Answers, Kind, Oracle};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::queue::{FairOptions, FairQueue, Fcfs, QueueOrder};
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::speculate::{DraftModel, DraftSource, Speculation, SuffixIndex};
use exsa_core::stats::DraftStats;
use exsa_core::stream::{Finished, PromptToken};
use exsa_core::{
    EngineLoop, EngineOptions, Event, FinishReason, Mode, Overflow, PrefixCacheOptions, Priority,
    PromptCacheOptions, Request, SubmitError, TokenId, TokenStream, Usage,
};
use reference::{Expected, Reference};
use std::sync::Arc;
use std::time::Duration;
use stores::MemoryStore;

const SCHEDULES: u64 = 10_000;

/// SplitMix64: all randomness of a schedule comes from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.within(1, 100) <= percent
    }
}

/// A submitted request and its results so far.
struct Submitted {
    prompt: Vec<TokenId>,
    answers: Vec<Answer>,
    /// Whether log-probabilities of the prompt were requested, and those received.
    scores_prompt: bool,
    scored: Vec<PromptToken>,
    /// `None` after it was dropped.
    stream: Option<TokenStream>,
    finished: Option<Finished>,
    cancelled: bool,
    has_deadline: bool,
    has_first_token_limit: bool,
    /// Never reads while the schedule runs.
    asleep: bool,
}

/// One of a request's answers.
#[derive(Default)]
struct Answer {
    /// The complete answer of the request alone, without drafts.
    expected: Expected,
    tokens: Vec<TokenId>,
    end: Option<FinishReason>,
}

impl Submitted {
    fn ended(&mut self, index: usize, reason: &FinishReason, seed: u64) {
        let before = self.answers[index].end.replace(reason.clone());
        assert_eq!(before, None, "seed {seed}: answer {index} ends twice");
    }

    fn read(&mut self, seed: u64) {
        while let Some(event) = self.stream.as_mut().and_then(TokenStream::try_next) {
            assert!(self.finished.is_none(), "seed {seed}: an event after the last");
            match event {
                Event::Token(token) => {
                    let answer = &mut self.answers[token.index];
                    assert_eq!(answer.end, None, "seed {seed}: a token after the end");
                    answer.tokens.extend(token.id);
                }
                Event::AnswerFinished(end) => self.ended(end.index, &end.reason, seed),
                Event::Finished(finished) => {
                    self.ended(finished.index, &finished.reason, seed);
                    self.finished = Some(finished);
                }
                Event::Prompt(part) => {
                    assert!(self.answers.iter().all(|answer| answer.tokens.is_empty()), "seed {seed}");
                    assert_eq!(
                        part.start,
                        self.scored.len(),
                        "seed {seed}: a part of the prompt out of order"
                    );
                    self.scored.extend(part.tokens);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[derive(Default)]
struct Totals {
    requests: u64,
    steps: u64,
    preemptions: u64,
    saved: u64,
    cached: u64,
    cancelled: u64,
    expired: u64,
    late: u64,
    refused: u64,
    full: u64,
    /// Further answers of requests, and prompts with log-probabilities.
    siblings: u64,
    scored: u64,
    banned: u64,
    rewound: u64,
    shifts: u64,
    /// Prompts restored, and reads without a result, by kind of store.
    stores: [(u64, u64); stores::Kind::ALL.len()],
    /// Requests that waited for a store in vain.
    reads_late: u64,
    /// Drafts verified and accepted, by kind of proposer, and of the engine's own.
    drafts: [(u64, u64); Kind::ALL.len()],
    own: DraftStats,
}

struct Simulation {
    seed: u64,
    random: Random,
    clock: ManualClock,
    model: ScriptedModel,
    context: usize,
    kv: usize,
    truncates: bool,
    engine: EngineLoop,
    requests: Vec<Submitted>,
    /// Common prefixes of prompts.
    stems: Vec<Vec<TokenId>>,
    refused: u64,
    drawn: Random,
    /// The kind of prompt store, and the store.
    store: Option<(usize, MemoryStore)>,
    /// The kind of proposer, and its oracle.
    proposer: Option<(usize, Answers)>,
}

const MODES: [Mode; 3] = [Mode::Latency, Mode::Throughput, Mode::Balanced];

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let clock = ManualClock::new();
        let block = random.within(1, 8);
        let kv = block * random.within(2, 24);
        let context = random.within(8, 96);
        let mut model = ScriptedModel::ngram(seed).kv(kv, block).context(context).cost(
            clock.clone(),
            Duration::from_millis(5),
            Duration::from_millis(1),
        );
        let truncates = !random.chance(20);
        if !truncates {
            model = model.without_truncate();
        }
        if random.chance(20) {
            model = model.without_fork();
        }
        if random.chance(20) {
            model = model.without_save();
        }
        // Not from `random`: schedules are the same with and without drafts.
        let mut drawn = Random(!seed);
        if drawn.chance(30) {
            model = model.erratic_cost();
        }
        let prefix_cache = PrefixCacheOptions::default()
            .enabled(random.chance(85))
            .tokens_max(random.chance(20).then(|| random.within(0, kv)))
            .bytes_max(random.chance(20).then(|| random.within(0, 4 * kv) as u64))
            .sequences_max(random.within(0, 6));
        let options = EngineOptions::default()
            .session(SessionOptions::new().sequences(random.within(1, 8)).batch_tokens(random.within(1, 40)))
            .queue_max(random.within(2, 24))
            .user_queue_max(random.chance(30).then(|| random.within(1, 10)))
            .prefill_chunk_max(random.within(1, 24))
            .mode(MODES[random.within(0, 2)])
            .inter_token_target(Duration::from_millis(random.within(1, 60) as u64))
            .prefix_cache(prefix_cache)
            .fair(FairOptions::default().ageing(Duration::from_millis(random.within(10, 2000) as u64)))
            .saved_kv_bytes_max(if random.chance(30) { 0 } else { random.within(0, 2000) as u64 })
            .preemptions_max(random.within(1, 4) as u32)
            .stream_events_max(random.within(1, 64));
        // Not from `random`: schedules are the same with and without a store until it is used.
        let mut stored = Random(seed ^ 0x5eed);
        let kind = stored.within(0, stores::Kind::ALL.len() + 2);
        let store = stores::Kind::ALL.get(kind).map(|behaviour| (kind, MemoryStore::new(*behaviour, &clock)));
        let options = options.prompt_cache(store.as_ref().map(|(_, store)| {
            PromptCacheOptions::new(Arc::new(store.clone()))
                .cold_after(Duration::from_millis(stored.within(0, 40) as u64))
                .tokens_min(stored.within(1, 12))
                .wait_max(Duration::from_millis(stored.within(1, 300) as u64))
                .checkpoint_tokens(stored.within(1, 30))
        }));
        let queue: Box<dyn QueueOrder> =
            if random.chance(15) { Box::new(Fcfs::new()) } else { Box::new(FairQueue::new(options.fair)) };
        let engine = EngineLoop::new(Arc::new(model.clone()), options, queue, Arc::new(clock.clone()));
        let mut engine = engine.unwrap();
        // The one beyond the kinds is the engine's own speculation.
        let kind = drawn.within(0, Kind::ALL.len());
        let proposer = (kind < Kind::ALL.len()).then(|| {
            let answers = Answers::default();
            let oracle = Oracle::new(Kind::ALL[kind], seed, &answers);
            let speculation = Speculation::new(oracle).drafts_max(drawn.within(1, 9));
            engine.speculate(Some(speculation.adaptive(drawn.chance(50))));
            (kind, answers)
        });
        if kind == Kind::ALL.len() && drawn.chance(50) {
            // Its own, with a draft model that is right sometimes or always.
            let draft = ScriptedModel::ngram(if drawn.chance(50) { seed } else { !seed }).kv(kv, block);
            let draft = draft.context(context).cost(
                clock.clone(),
                Duration::from_micros(500),
                Duration::from_micros(50),
            );
            let session =
                SessionOptions::new().sequences(drawn.within(1, 4)).batch_tokens(drawn.within(1, 40));
            let draft = DraftModel::new(draft.shared(), &model, &session).unwrap();
            engine.speculate(Some(Speculation::default().adaptive(drawn.chance(70)).draft_model(draft)));
        }
        if kind == Kind::ALL.len() && drawn.chance(30) {
            let shared =
                SuffixIndex::default().matched_min(drawn.within(1, 3)).shared(drawn.within(1, 1 << 16));
            engine.speculate(Some(Speculation::new(shared).adaptive(drawn.chance(70))));
        }
        let stems = (0..3).map(|_| (0..40).map(|_| random.within(0, 255) as TokenId).collect()).collect();
        Self {
            seed,
            random,
            clock,
            model,
            context,
            kv,
            truncates,
            engine,
            requests: Vec::new(),
            stems,
            refused: 0,
            drawn,
            store,
            proposer,
        }
    }

    /// A prefix of a stem or of an earlier conversation, followed by new tokens.
    fn prompt(&mut self) -> Vec<TokenId> {
        let random = &mut self.random;
        let length = random.within(1, 40);
        let mut prompt = Vec::new();
        if random.chance(30) && !self.requests.is_empty() {
            let earlier = &self.requests[random.within(0, self.requests.len() - 1)];
            prompt.extend(earlier.prompt.iter().chain(&earlier.answers[0].tokens));
        } else if random.chance(60) {
            prompt.extend(&self.stems[random.within(0, 2)]);
        }
        prompt.truncate(random.within(0, length));
        prompt.extend((prompt.len()..length).map(|_| random.within(0, 255) as TokenId));
        prompt
    }

    fn submit(&mut self) {
        let prompt = self.prompt();
        let random = &mut self.random;
        let tokens_max = random.chance(60).then(|| random.within(1, 40));
        let params = SamplingParams::default()
            .temperature(if random.chance(30) { 0.0 } else { 1.0 })
            .seed(random.next())
            .repetition_penalty(if random.chance(30) { 1.5 } else { 1.0 });
        let mut request = Request::tokens(prompt.clone())
            .sampling(params.clone())
            .priority(Priority::ALL[random.within(0, 2)])
            .user_id(["ann", "bob", "cem"][random.within(0, 2)])
            .weight(random.within(1, 3) as f32);
        request.max_tokens = tokens_max;
        if random.chance(20) {
            request = request.cache_salt("salt");
        }
        let has_first_token_limit = random.chance(10);
        if has_first_token_limit {
            request = request.first_token_timeout(Duration::from_millis(random.within(0, 300) as u64));
        }
        let has_deadline = random.chance(20);
        if has_deadline {
            request = request.timeout(Duration::from_millis(random.within(0, 400) as u64));
        }
        let asleep = random.chance(15);
        // Not from `random`: schedules are the same without these options.
        let drawn = &mut self.drawn;
        let n = if drawn.chance(20) { drawn.within(2, 6) } else { 1 };
        let scores_prompt = drawn.chance(15);
        request = request.n(n).prompt_logprobs(scores_prompt.then_some(1));
        let mut banned: Vec<String> = Vec::new();
        if self.truncates && drawn.chance(25) {
            let mut letter = || char::from(drawn.within(32, 126) as u8);
            banned.push([letter(), letter()].iter().collect());
            let letters = drawn.within(1, 40);
            banned.extend((0..letters).map(|_| char::from(drawn.within(32, 126) as u8).to_string()));
        }
        request.banned_strings = banned.clone();
        request.banned_strings_ignore_case = false;
        // Without a limit, an answer that shifts its context might not end.
        let shifts = tokens_max.is_some() && drawn.chance(25);
        let window = self.context.min(self.kv);
        let keep = shifts.then(|| drawn.within(0, prompt.len()).min(window - window / 4));
        if let Some(keep) = keep {
            request = request.overflow(Overflow::Shift { keep });
        }
        match self.engine.submit(request) {
            Ok(stream) => {
                // An answer that does not shift ends in a KV cache that is full with the token for which
                // there is no room.
                let window = if shifts { window } else { self.context.min(self.kv + 1) };
                let mut answers = Vec::new();
                for index in 0..n as u64 {
                    let params = params.clone().seed(params.seed.unwrap().wrapping_add(index));
                    let reference = Reference::new(&self.model, &prompt, &params);
                    let expected =
                        Reference { tokens_max, window, keep, banned: &banned, ..reference }.answer();
                    if let Some((_, answers)) = &self.proposer {
                        answers.add([prompt.as_slice(), &expected.tokens].concat());
                    }
                    answers.push(Answer { expected, ..Answer::default() });
                }
                self.requests.push(Submitted {
                    prompt,
                    answers,
                    scores_prompt,
                    scored: Vec::new(),
                    stream: Some(stream),
                    finished: None,
                    cancelled: false,
                    has_deadline,
                    has_first_token_limit,
                    asleep,
                });
            }
            Err(
                SubmitError::QueueFull { .. }
                | SubmitError::PromptTooLong { .. }
                | SubmitError::KvTooLarge { .. },
            ) => self.refused += 1,
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    /// Cancels, drops or reads a few streams.
    fn consumers(&mut self) {
        for request in &mut self.requests {
            if self.random.chance(3) {
                request.cancelled = true;
                match &request.stream {
                    Some(stream) if self.random.chance(50) => stream.cancel(),
                    _ => request.stream = None,
                }
            } else if !request.asleep && self.random.chance(60) {
                request.read(self.seed);
            }
        }
    }

    fn step(&mut self) -> bool {
        if let Some((_, store)) = &self.store {
            store.tick();
        }
        let runs = self.engine.step();
        if let Err(problem) = self.engine.scheduler().check() {
            panic!("seed {}: {problem}", self.seed);
        }
        runs
    }

    /// All streams are read and time advances until every request has ended.
    fn finish(&mut self) {
        let mut idle = 0;
        while !self.engine.is_empty() {
            for request in &mut self.requests {
                request.read(self.seed);
            }
            idle = if self.step() { 0 } else { idle + 1 };
            assert!(idle < 3, "seed {}: nothing goes on, but requests are here", self.seed);
            if idle > 0 {
                self.clock.advance(self.engine.until_wakeup().unwrap_or_default());
            }
        }
        for request in &mut self.requests {
            request.read(self.seed);
        }
    }

    /// Compares each request with its answer computed without an engine.
    fn check_answers(&self, totals: &mut Totals) {
        for request in self.requests.iter().filter(|request| request.stream.is_some()) {
            let seed = self.seed;
            let finished = request.finished.as_ref().unwrap_or_else(|| panic!("seed {seed}: did not end"));
            let begun = request.answers.iter().any(|answer| !answer.tokens.is_empty());
            totals.siblings += request.answers.len() as u64 - 1;
            let (mut generated, mut shifted, mut cut_off) = (0, 0, false);
            for answer in &request.answers {
                let expected = &answer.expected;
                let ended_by_token = expected.reason == Some(FinishReason::EndOfGeneration);
                let emitted = &expected.tokens[..expected.tokens.len() - usize::from(ended_by_token)];
                let n = answer.tokens.len();
                assert_eq!(answer.tokens, emitted[..n], "seed {seed}: not the tokens of a run alone");
                let end = answer.end.as_ref().unwrap_or_else(|| panic!("seed {seed}: an answer did not end"));
                shifted += expected.shifted;
                generated += n;
                let complete = match end {
                    FinishReason::Cancelled => {
                        totals.cancelled += 1;
                        request.cancelled
                    }
                    FinishReason::Deadline => {
                        totals.expired += 1;
                        request.has_deadline
                    }
                    FinishReason::FirstTokenTimeout => {
                        totals.late += 1;
                        request.has_first_token_limit && !begun
                    }
                    own => {
                        totals.full += u64::from(*own == FinishReason::ContextFull);
                        totals.banned += u64::from(matches!(own, FinishReason::BannedString(_)));
                        generated += expected.tokens.len() - emitted.len();
                        answer.end == expected.reason && n == emitted.len()
                    }
                };
                cut_off |= answer.end != expected.reason;
                assert!(complete, "seed {seed}: {end:?} after {n} tokens, not {expected:?}");
            }
            if begun || !request.scored.is_empty() {
                self.check_prompt(request, begun);
            }
            totals.scored += u64::from(request.scores_prompt && begun);
            let counted = finished.usage.shifted_tokens;
            assert!(
                if cut_off { counted <= shifted } else { counted == shifted },
                "seed {seed}: {finished:?}"
            );
            let Usage { prompt_tokens, cached_tokens, completion_tokens, .. } = finished.usage;
            assert_eq!(completion_tokens, generated, "seed {seed}: {finished:?}");
            assert!(cached_tokens < prompt_tokens, "seed {seed}: {cached_tokens} of {prompt_tokens} cached");
        }
    }

    /// Checks the log-probabilities of a prompt, which are complete if an answer has `begun`.
    fn check_prompt(&self, request: &Submitted, begun: bool) {
        let (seed, n) = (self.seed, request.scored.len());
        assert!(request.scores_prompt || n == 0, "seed {seed}: not asked for");
        assert!(
            !begun || n == if request.scores_prompt { request.prompt.len() } else { 0 },
            "seed {seed}: {n}"
        );
        let mut row = vec![0.0; ByteTokenizer::N_VOCAB];
        for (i, (token, scored)) in request.prompt.iter().zip(&request.scored).enumerate() {
            assert_eq!(*token, scored.id, "seed {seed}: token {i} of the prompt");
            if i == 0 {
                assert_eq!((scored.logprob, scored.top_logprobs.len()), (None, 0));
                continue;
            }
            self.model.logits(&request.prompt[..i], &mut row);
            let total = row.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln() as f32;
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let expected = (row[*token as usize] - total, best - total);
            let found = (scored.logprob.unwrap(), scored.top_logprobs[0].logprob);
            let close = |a: f32, b: f32| (a - b).abs() < 1e-3;
            assert!(close(found.0, expected.0) && close(found.1, expected.1), "seed {seed}: {found:?}");
        }
    }
}

fn run(seed: u64, totals: &mut Totals) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..simulation.random.within(5, 60) {
        for _ in 0..simulation.random.within(0, 2) {
            simulation.submit();
        }
        if simulation.random.chance(5) {
            let mode = MODES[simulation.random.within(0, 2)];
            simulation.engine.set_mode(mode);
        }
        simulation.step();
        simulation.consumers();
        if simulation.random.chance(10) {
            simulation.clock.advance(Duration::from_millis(50));
        }
    }
    simulation.finish();
    simulation.check_answers(totals);
    let stats = simulation.engine.stats();
    assert_eq!(
        (stats.scheduler.running, stats.scheduler.waiting, stats.scheduler.kv_tokens_used),
        (0, 0, 0),
        "seed {seed}"
    );
    assert_eq!((stats.submitted, stats.failed), (stats.finished, 0), "seed {seed}: each ends exactly once");
    assert_eq!(stats.submitted, simulation.requests.len() as u64, "seed {seed}");
    if let Some((kind, answers)) = &simulation.proposer {
        let counters = simulation.engine.scheduler().stats();
        assert_eq!(answers.verified(), (counters.drafted_tokens, counters.accepted_drafts), "seed {seed}");
        let ended: u64 = simulation.requests.iter().map(|request| request.answers.len() as u64).sum();
        assert_eq!(answers.finished(), ended, "seed {seed}: the proposer hears of each end");
        totals.drafts[*kind].0 += counters.drafted_tokens;
        totals.drafts[*kind].1 += counters.accepted_drafts;
    } else {
        totals.own.merge(&stats.scheduler.drafts);
    }
    let counters = stats.scheduler.drafts;
    assert_eq!(
        (counters.drafted(), counters.accepted()),
        (stats.scheduler.drafted_tokens, stats.scheduler.accepted_drafts),
        "seed {seed}"
    );
    if let Some((kind, _)) = simulation.store {
        totals.stores[kind].0 += stats.prompt_cache.restored;
        totals.stores[kind].1 += stats.prompt_cache.failed;
        totals.reads_late += stats.scheduler.prompt_reads_late;
    }
    totals.requests += stats.submitted;
    totals.steps += stats.steps;
    totals.preemptions += stats.scheduler.preemptions;
    totals.saved += stats.scheduler.preemptions_saved;
    totals.cached += stats.scheduler.cached_tokens;
    totals.refused += simulation.refused;
    totals.rewound += stats.scheduler.rewound_tokens;
    totals.shifts += stats.scheduler.context_shifts;
}

#[test]
fn random_schedules_keep_every_promise() {
    let seeds = match std::env::var("EXSA_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SCHEDULES,
    };
    let mut totals = Totals::default();
    for seed in seeds.clone() {
        run(seed, &mut totals);
    }
    let Totals {
        requests,
        steps,
        preemptions,
        saved,
        cached,
        cancelled,
        expired,
        late,
        refused,
        full,
        siblings,
        scored,
        banned,
        rewound,
        shifts,
        stores,
        reads_late,
        drafts,
        own,
    } = totals;
    println!(
        "{requests} requests in {steps} steps: {preemptions} preemptions, {saved} of them saved, {cached} tokens cached, \
         {cancelled} cancelled, {expired} expired, {late} without a first token in time, {full} filled the context or the KV cache, {refused} refused, \
         {siblings} further answers, {scored} prompts scored, {rewound} tokens taken back, \
         {banned} answers without a token that is not banned, {shifts} context shifts"
    );
    for (kind, (drafted, accepted)) in Kind::ALL.iter().zip(drafts) {
        println!("{kind:?} proposers: {accepted} of {drafted} drafts accepted");
    }
    println!("the engine's own: {} of {} drafts accepted", own.accepted(), own.drafted());
    for (kind, (restored, failed)) in stores::Kind::ALL.iter().zip(stores) {
        println!("{kind:?} stores: {restored} prompts restored, {failed} reads that gave none");
    }
    println!("{reads_late} requests waited for a store in vain");
    if seeds.end - seeds.start == SCHEDULES {
        let of_model = own.by_source[DraftSource::DraftModel.index()];
        assert!(of_model.accepted > 1000 && of_model.drafted > of_model.accepted + 1000, "{own:?}");
        let of_index = own.by_source[DraftSource::SuffixIndex.index()];
        assert!(of_index.accepted > 100 && of_index.drafted > of_index.accepted, "{own:?}");
        for (kind, (restored, failed)) in stores::Kind::ALL.iter().zip(stores) {
            let is_useless =
                matches!(kind, stores::Kind::Failing | stores::Kind::Dropping | stores::Kind::Damaged);
            let expected = if is_useless { restored == 0 && failed > 100 } else { restored > 30 };
            assert!(expected, "{kind:?}: {restored} restored, {failed} failed");
        }
        assert!(reads_late > 100, "{reads_late}");
        for (kind, (drafted, accepted)) in Kind::ALL.iter().zip(drafts) {
            let share = accepted as f64 / drafted as f64;
            let expected = match kind {
                Kind::Right => 0.9..=1.0,
                Kind::Wrong => 0.0..=0.01,
                Kind::Random => 0.0..=0.05,
                Kind::Mixed | Kind::EndOfGeneration => 0.2..=0.8,
                Kind::OutOfVocabulary => 0.9..=1.0,
            };
            assert!(drafted > 1000 && expected.contains(&share), "{kind:?}: {accepted} of {drafted}");
        }
        assert!(
            [preemptions, saved, cached, cancelled, expired, late, refused, full]
                .into_iter()
                .chain([siblings, scored, rewound, shifts])
                .all(|n| n > 1000),
            "all paths are taken"
        );
    }
}
