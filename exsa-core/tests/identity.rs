//! An answer is the same with drafts of any kind, with a stream that is often full, and resumed after any of
//! its tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drafts;

use drafts::{Answers, Kind, Oracle};
use exsa_core::backend::{Model, SessionOptions};
use exsa_core::chat::{ChatOptions, ChatTemplate};
use exsa_core::clock::ManualClock;
use exsa_core::queue::Fcfs;
use exsa_core::sampler::{Mirostat, SamplerState, SamplingError, SamplingParams};
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::speculate::{PromptLookup, Speculation};
use exsa_core::stream::{AnswerLogprob, Finished, Token};
use exsa_core::{
    EngineLoop, EngineOptions, Event, FinishReason, Message, PrefixCacheOptions, Request, Resume,
    SubmitError, TokenId,
};
use std::sync::Arc;
use std::time::Duration;

struct Case {
    name: &'static str,
    model: ScriptedModel,
    request: Request,
    /// The request's prompt as token ids.
    prompt: Vec<TokenId>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    tokens: Vec<Token>,
    finished: Finished,
}

impl Answer {
    /// The generated tokens, including the one that ended the answer.
    fn ids(&self) -> Vec<TokenId> {
        let last = match self.finished.reason {
            FinishReason::StopToken(token) => Some(token),
            FinishReason::EndOfGeneration => Some(ByteTokenizer::EOS),
            _ => None,
        };
        self.tokens.iter().map(|token| token.id.unwrap()).chain(last).collect()
    }

    fn text(&self) -> String {
        let tokens = self.tokens.iter().map(|token| token.text.as_str());
        tokens.chain([self.finished.text.as_str()]).collect()
    }
}

fn case(
    name: &'static str,
    model: ScriptedModel,
    prompt: &str,
    request: impl Fn(Request) -> Request,
) -> Case {
    let prompt: Vec<TokenId> = prompt.bytes().map(TokenId::from).collect();
    Case { name, model, request: request(Request::tokens(prompt.clone())), prompt }
}

impl Answer {
    /// The beginning of the answer, from its events.
    fn resume_after(&self, cut: usize) -> Resume {
        let mut resume = Resume::new(&self.ids()[..cut]);
        let mut state = SamplerState::default();
        let mut sum = AnswerLogprob::default();
        for token in self.tokens.iter().take(cut) {
            state.push(&token.observed);
            sum.sum += f64::from(token.logprob.unwrap_or_default());
            sum.tokens += 1;
        }
        resume = resume.sampler_state(Some(state).filter(|state| !state.is_empty()));
        resume.logprob(Some(sum).filter(|_| self.tokens.len() >= cut))
    }
}

fn greedy(request: Request) -> Request {
    request.sampling(SamplingParams::greedy())
}

fn seeded(request: Request) -> Request {
    let params = SamplingParams::default().temperature(1.2).seed(7).logprobs(true);
    request.sampling(params).ignore_eos(true)
}

/// Sampling that adapts to the drawn tokens.
fn feedback(set: impl Fn(SamplingParams) -> SamplingParams) -> impl Fn(Request) -> Request {
    move |request| {
        let mut request = seeded(request).max_tokens(30);
        request.sampling = set(request.sampling.mirostat_tau(2.0).mirostat_eta(0.4));
        request
    }
}

fn cases() -> Vec<Case> {
    let ngram = || ScriptedModel::ngram(11).order(usize::MAX);
    let penalties = |window| {
        move |request: Request| {
            let mut request = seeded(request).max_tokens(30);
            request.sampling.repetition_penalty = 1.4;
            request.sampling.frequency_penalty = 0.5;
            request.sampling.presence_penalty = 0.3;
            request.sampling.penalty_window = window;
            request
        }
    };
    let umlauts = "Grüße, 世界 🎈";
    let mut cases = vec![
        case("greedy", ngram(), "some prompt", |r| greedy(r).ignore_eos(true).max_tokens(30)),
        case("seeded", ngram(), "some prompt", |r| seeded(r).max_tokens(30)),
        case("penalties of all", ScriptedModel::ngram(3).order(1), "aabbcc", penalties(None)),
        case("penalties of a window", ScriptedModel::ngram(3).order(1), "aabbcc", penalties(Some(8))),
        case("every transform", ScriptedModel::ngram(3).order(1), "aabbcc", |r| {
            let mut request = seeded(r).max_tokens(30);
            let sampling = request.sampling.penalize_prompt(false).presence_penalty(0.4).dry_multiplier(0.6);
            let sampling = sampling.top_n_sigma(3.0).typical_p(0.9).xtc_probability(0.5).xtc_threshold(0.05);
            request.sampling = sampling.dynatemp_range(0.5).min_tokens(20);
            request
        }),
        case(
            "mirostat 1",
            ScriptedModel::ngram(5).order(1),
            "aabbcc",
            feedback(|s| s.mirostat(Mirostat::V1)),
        ),
        case(
            "mirostat 2",
            ScriptedModel::ngram(5).order(1),
            "aabbcc",
            feedback(|s| s.mirostat(Mirostat::V2)),
        ),
        case("adaptive-p", ScriptedModel::ngram(5).order(1), "aabbcc", feedback(|s| s.adaptive_target(0.3))),
        case("end of generation", ScriptedModel::echo("one two three"), "x", greedy),
        case("a stop string", ScriptedModel::echo("one two three"), "x", |r| {
            greedy(r).stop("wx").stop("o th")
        }),
        case("a stop string that does not come", ScriptedModel::echo("ab--"), "x", |r| greedy(r).stop("--!")),
        case("stop strings that overlap", ScriptedModel::echo("xabcx"), "y", |r| {
            greedy(r).stop("abcd").stop("bc")
        }),
        case("a stop token", ScriptedModel::echo("one two"), "x", |r| greedy(r).stop_token(b'w'.into())),
        case("characters of several bytes", ScriptedModel::echo(umlauts), "x", greedy),
        case("a stop string of such characters", ScriptedModel::echo(umlauts), "x", |r| {
            greedy(r).stop("界 🎈")
        }),
        case("an end inside a character", ScriptedModel::echo(umlauts), "x", |r| greedy(r).max_tokens(3)),
        case("one token", ngram(), "some prompt", |r| seeded(r).max_tokens(1)),
        case("a full context", ngram().context(40), "some prompt", seeded),
        case("a full KV cache", ngram().kv(32, 8), "some prompt", seeded),
        case("a repetition", ScriptedModel::echo("tick tack tick tack tick tack"), "x", greedy),
    ];
    // Random bytes, with a stop string taken from what they become.
    let text = Engine::new(&cases[1].model, &Setup::default()).run(cases[1].request.clone()).text();
    let stop: String = text.chars().skip(9).take(3).collect();
    cases
        .push(case("a stop string in random text", ngram(), "some prompt", |r| seeded(r).stop(stop.clone())));
    let model = ScriptedModel::echo("I am fine.")
        .chat_template("{% for m in messages %}<|bos|>{{ m.role }}:{{ m.content }}{% endfor %}<|bos|>");
    let messages = vec![Message::user("How are you? <|bos|>")];
    let (tokenizer, info) = (model.tokenizer(), model.info());
    let template = ChatTemplate::for_model(info.chat_template.as_deref(), &*tokenizer).unwrap();
    let rendered = template.render(&messages, &ChatOptions::default()).unwrap();
    let mut prompt = Vec::new();
    tokenizer.encode(&rendered.text, &rendered.encode_options(), &mut prompt);
    cases.push(Case { name: "a chat", request: greedy(Request::chat(messages)), model, prompt });
    cases
}

struct Setup {
    cache: bool,
    /// Capacity of a stream in events. If it is small, one event is read after each step.
    capacity: usize,
    speculation: Option<Speculation>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { cache: false, capacity: 64, speculation: None }
    }
}

struct Engine {
    engine: EngineLoop,
    clock: ManualClock,
    slow: bool,
}

impl Engine {
    fn new(model: &ScriptedModel, setup: &Setup) -> Self {
        let clock = ManualClock::new();
        let options = EngineOptions::default()
            .session(SessionOptions::new().sequences(2))
            .prefix_cache(PrefixCacheOptions::default().enabled(setup.cache))
            .stream_events_max(setup.capacity);
        let model = model.clone().cost(clock.clone(), Duration::from_millis(5), Duration::from_millis(1));
        let engine = EngineLoop::new(model.shared(), options, Box::new(Fcfs::new()), Arc::new(clock.clone()));
        Self { engine: engine.unwrap(), clock, slow: setup.capacity < 8 }
    }

    fn of(model: &ScriptedModel, mut setup: Setup) -> Self {
        let mut engine = Self::new(model, &setup);
        engine.engine.speculate(setup.speculation.take());
        engine
    }

    fn run(&mut self, request: Request) -> Answer {
        let mut stream = self.engine.submit(request).unwrap();
        let (mut tokens, mut idle) = (Vec::new(), 0);
        loop {
            idle = if self.engine.step() { 0 } else { idle + 1 };
            self.engine.scheduler().check().unwrap();
            assert!(idle < 5, "nothing goes on");
            while let Some(event) = stream.try_next() {
                match event {
                    Event::Token(token) => tokens.push(token),
                    Event::Finished(finished) => return Answer { tokens, finished },
                    other => panic!("{other:?}"),
                }
                if self.slow {
                    break;
                }
            }
            if idle > 0 {
                self.clock.advance(self.engine.until_wakeup().unwrap_or_default());
            }
        }
    }
}

/// The answers are equal, apart from times and cached tokens.
fn assert_same(a: &Answer, b: &Answer, what: &str) {
    assert_eq!(a.tokens, b.tokens, "{what}");
    assert_eq!((&a.finished.text, &a.finished.reason), (&b.finished.text, &b.finished.reason), "{what}");
    let counts =
        |answer: &Answer| (answer.finished.usage.prompt_tokens, answer.finished.usage.completion_tokens);
    assert_eq!(counts(a), counts(b), "{what}");
    if let (Some(a), Some(b)) = (a.finished.logprob, b.finished.logprob) {
        assert_eq!(a, b, "{what}");
    }
}

#[test]
fn drafts_change_no_answer() {
    let mut fewer_steps = 0;
    for case in cases() {
        let mut alone = Engine::new(&case.model, &Setup::default());
        let expected = alone.run(case.request.clone());
        for (kind, drafts_max, capacity) in
            Kind::ALL.into_iter().flat_map(|kind| [(kind, 1, 64), (kind, 3, 64), (kind, 8, 64), (kind, 5, 2)])
        {
            let what = format!("{}, {kind:?} with {drafts_max} drafts, {capacity} events", case.name);
            let answers = Answers::default();
            answers.add([case.prompt.as_slice(), &expected.ids()].concat());
            let oracle = Oracle::new(kind, drafts_max as u64, &answers);
            let speculation = Some(Speculation::new(oracle).drafts_max(drafts_max).adaptive(false));
            let mut engine = Engine::of(&case.model, Setup { capacity, speculation, ..Setup::default() });
            assert_same(&engine.run(case.request.clone()), &expected, &what);
            assert_eq!(answers.finished(), 1, "{what}");
            let (drafted, accepted) = answers.verified();
            match kind {
                // A run is cut where its stream is full or the answer ends.
                Kind::Right if capacity > 8 => assert_eq!(drafted, accepted, "{what}"),
                Kind::Wrong => assert_eq!(accepted, 0, "{what}"),
                _ => {}
            }
            let (steps, steps_alone) = (engine.engine.stats().steps, alone.engine.stats().steps);
            assert_eq!(engine.engine.stats().tokens_generated, expected.ids().len() as u64, "{what}");
            if kind == Kind::Right && drafts_max == 8 && expected.ids().len() > 20 {
                assert!(steps * 3 < steps_alone, "{what}: {steps} steps, {steps_alone} without drafts");
                fewer_steps += 1;
            }
        }
        let lookup = Some(Speculation::new(PromptLookup::default()));
        let mut engine = Engine::of(&case.model, Setup { speculation: lookup, ..Setup::default() });
        assert_same(&engine.run(case.request.clone()), &expected, case.name);
        if case.name == "a repetition" {
            let accepted = engine.engine.scheduler().stats().accepted_drafts;
            assert!(accepted > 10, "prompt lookup finds what repeats: {accepted}");
        }
    }
    assert!(fewer_steps > 3);
}

/// Interrupts each answer after every token, including before the first and after the last.
fn resume_everywhere(setup: impl Fn(&Answers) -> Setup) {
    for case in cases() {
        let answers = Answers::default();
        let uncut = Engine::new(&case.model, &Setup::default()).run(case.request.clone());
        let ids = uncut.ids();
        assert_eq!(ids.len(), uncut.finished.usage.completion_tokens, "{}", case.name);
        answers.add([case.prompt.as_slice(), &ids].concat());
        let mut engine = Engine::of(&case.model, setup(&answers));
        for cut in 0..=ids.len() {
            let request = case.request.clone().resume(uncut.resume_after(cut));
            let rest = engine.run(request);
            let first = cut.min(uncut.tokens.len());
            let expected =
                Answer { tokens: uncut.tokens[first..].to_vec(), finished: uncut.finished.clone() };
            assert_same(&rest, &expected, &format!("{}, cut after {cut} of {} tokens", case.name, ids.len()));
        }
    }
}

#[test]
fn an_answer_resumes_after_any_token() {
    resume_everywhere(|_| Setup::default());
}

#[test]
fn an_answer_resumes_from_cached_prefixes() {
    resume_everywhere(|_| Setup { cache: true, ..Setup::default() });
}

#[test]
fn an_answer_resumes_with_drafts() {
    for kind in [Kind::Right, Kind::Mixed] {
        resume_everywhere(|answers| {
            let speculation = Some(Speculation::new(Oracle::new(kind, 1, answers)).drafts_max(4));
            Setup { speculation, cache: true, ..Setup::default() }
        });
    }
}

#[test]
fn tokens_after_the_end_of_a_resumed_answer_do_not_count() {
    let mut engine = Engine::new(&ScriptedModel::echo("one two three"), &Setup::default());
    let tokens = |answer: &str| answer.bytes().map(TokenId::from).collect::<Vec<_>>();
    let resume = |answer: &str| Request::text("x").resume(Resume::new(tokens(answer)));
    for (request, reason, completion) in [
        (resume("one two").stop_token(b'e'.into()), FinishReason::StopToken(b'e'.into()), 3),
        (resume("one two").stop("e t"), FinishReason::StopString(0), 5),
        (resume("one two").max_tokens(4), FinishReason::MaxTokens, 4),
    ] {
        let answer = engine.run(greedy(request));
        assert_eq!((answer.tokens.len(), &answer.finished.reason), (0, &reason));
        assert_eq!(
            (answer.finished.usage.prompt_tokens, answer.finished.usage.completion_tokens),
            (1, completion)
        );
        assert_eq!(answer.finished.text, "");
    }
    let stats = engine.engine.stats();
    assert_eq!((stats.submitted, stats.finished, stats.steps), (3, 3, 0), "nothing is computed for them");
}

#[test]
fn time_spent_before_counts() {
    let model = ScriptedModel::ngram(1);
    let ms = Duration::from_millis;
    let resume = |generated: usize, elapsed| {
        let (prompt, answer) = [1, 2, 3, 4].split_at(4 - generated);
        let request = greedy(Request::tokens(prompt)).ignore_eos(true);
        request.resume(Resume::new(answer).elapsed(ms(elapsed)))
    };
    let run = |request| Engine::new(&model, &Setup::default()).run(request);
    let late = run(resume(2, 100).timeout(ms(100)));
    assert_eq!((late.finished.reason.clone(), late.ids().len()), (FinishReason::Deadline, 0));
    assert_eq!((late.finished.usage.completion_tokens, late.finished.usage.total_time), (2, ms(100)));
    // A step takes 6 ms, the first 9 ms, and a pass ends early when its request expires.
    let some = run(resume(2, 60).timeout(ms(100)));
    assert_eq!((some.finished.reason.clone(), some.ids().len()), (FinishReason::Deadline, 6));
    let whole = run(resume(0, 0).timeout(ms(100)));
    assert!(whole.ids().len() > 2 * some.ids().len());

    let first = run(resume(0, 30).first_token_timeout(ms(30)).max_tokens(3));
    assert_eq!(first.finished.reason, FinishReason::FirstTokenTimeout);
    let met = run(resume(1, 30).first_token_timeout(ms(30)).max_tokens(3));
    assert_eq!((met.finished.reason.clone(), met.ids().len()), (FinishReason::MaxTokens, 2));
    assert_eq!(met.finished.usage.time_to_first_token, None);
    let begun = run(resume(0, 30).max_tokens(3));
    assert_eq!(begun.finished.usage.time_to_first_token, Some(ms(39)));
    assert_eq!(begun.finished.usage.total_time, ms(30 + 9 + 6 + 6));
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let engine = Engine::new(&ScriptedModel::echo("a").context(16), &Setup::default()).engine;
    let refuse = |request: Request| engine.submit(request).err().unwrap();
    let error = refuse(Request::tokens([]).resume(Resume::new([1, 2])));
    assert!(matches!(error, SubmitError::EmptyPrompt), "{error}");
    let error = refuse(Request::text("abc").resume(Resume::new([1, TokenId::MAX])));
    assert!(matches!(error, SubmitError::InvalidToken { token: TokenId::MAX, .. }), "{error}");
    let error = refuse(Request::tokens([1; 12]).resume(Resume::new([1; 5])));
    assert!(matches!(error, SubmitError::PromptTooLong { tokens: 17, limit: 16, .. }), "{error}");
    let error = refuse(Request::tokens([1; 16]).resume(Resume::new([])));
    assert!(matches!(error, SubmitError::PromptTooLong { tokens: 16, limit: 15, .. }), "{error}");
    let mirostat = |request: Request| request.sampling(SamplingParams::default().mirostat(Mirostat::V2));
    let mut other = Engine::new(&ScriptedModel::echo("a").context(16), &Setup::default());
    let state = other.run(mirostat(Request::tokens([1, 2])).max_tokens(2)).finished.sampler_state;
    assert!(state.is_some());
    let resume = Resume::new([2]).sampler_state(state);
    let error = refuse(Request::tokens([1]).resume(resume.clone()));
    assert!(
        matches!(error, SubmitError::Sampling(SamplingError::State { found: 1, expected: 0 })),
        "{error}"
    );
    assert!(engine.submit(mirostat(Request::tokens([1]).resume(resume))).is_ok());
    assert!(engine.submit(Request::text("abc").resume(Resume::new([]))).is_ok(), "nothing was generated yet");
    let filled = Request::tokens([1; 11]).resume(Resume::new([1; 5]));
    assert!(engine.submit(filled).is_ok(), "the context was filled");
}
