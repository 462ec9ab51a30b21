//! The engine on its thread: streams, limits, cancellation, shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::{Capabilities, Model, Output, Session, SessionOptions};
use exsa_core::batch::Batch;
use exsa_core::chat::{ChatOptions, ChatTemplateSource, Json};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::sampler::SamplingParams;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::speculate::{PromptLookup, Speculation, SpeculationMode};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{
    Engine, EngineOptions, Event, FinishReason, Message, Request, RequestError, SeqId, Shutdown, SubmitError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn engine(model: ScriptedModel) -> Engine {
    Engine::start(model.shared(), EngineOptions::default()).unwrap()
}

/// A request that continues until something else ends it.
fn endless(prompt: &str) -> Request {
    Request::text(prompt).ignore_eos(true)
}

fn greedy(request: Request) -> Request {
    request.sampling(SamplingParams::greedy())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "timed out: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn tokens_come_one_by_one_and_end_once() {
    let engine = engine(ScriptedModel::echo("abc"));
    let events: Vec<_> = engine.submit(greedy(Request::text("x"))).unwrap().collect();
    let texts: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Token(token) => Some(token.text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["a", "b", "c"]);
    let Some(Event::Finished(finished)) = events.last() else { panic!("{events:?}") };
    assert_eq!(finished.reason, FinishReason::EndOfGeneration);
    assert_eq!((finished.usage.prompt_tokens, finished.usage.completion_tokens), (1, 4));
    assert!(finished.usage.time_to_first_token.is_some());
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Finished(_))).count(), 1);
}

#[test]
fn every_limit_ends_an_answer_with_its_reason() {
    let engine = engine(ScriptedModel::echo("one two three").context(64));
    let run = |request| engine.submit(greedy(request)).unwrap().complete().unwrap();
    let answer = run(Request::text("x").max_tokens(3));
    assert_eq!((answer.text.as_str(), answer.reason), ("one", FinishReason::MaxTokens));
    let answer = run(Request::text("x").stop("wx").stop("o th"));
    assert_eq!((answer.text.as_str(), answer.reason), ("one tw", FinishReason::StopString(1)));
    let answer = run(Request::text("x").stop_token(b'w'.into()));
    assert_eq!((answer.text.as_str(), answer.reason), ("one t", FinishReason::StopToken(b'w'.into())));
    let answer = run(endless("x"));
    assert_eq!((answer.reason, answer.usage.completion_tokens), (FinishReason::ContextFull, 63));
}

#[test]
fn text_held_back_for_a_stop_string_comes_with_the_end() {
    let engine = engine(ScriptedModel::echo("ab--"));
    let answer = engine.submit(greedy(Request::text("x").stop("--!"))).unwrap().complete().unwrap();
    assert_eq!((answer.text.as_str(), answer.reason), ("ab--", FinishReason::EndOfGeneration));
}

#[test]
fn one_seed_one_text() {
    let engine = engine(ScriptedModel::ngram(3));
    let run = |seed| {
        let sampling = SamplingParams::default().temperature(1.5).seed(seed);
        engine.submit(endless("x").max_tokens(40).sampling(sampling)).unwrap().complete().unwrap().tokens
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn drafts_are_verified_by_default_unless_the_request_or_the_engine_is_without() {
    let drafted = |model: ScriptedModel, mode: Option<SpeculationMode>, speculates: bool| {
        let options = EngineOptions::default();
        let options = mode.map_or(options.clone(), |mode| options.speculation(mode));
        let engine = Engine::start(model.shared(), options).unwrap();
        let request = greedy(Request::text("x")).speculation(speculates);
        let answer = engine.submit(request).unwrap().complete().unwrap();
        assert_eq!(answer.text, "row row row row row row row");
        assert_eq!(*answer.usage.drafts, engine.stats().scheduler.drafts);
        answer.usage.drafts.accepted()
    };
    let model = || ScriptedModel::echo("row row row row row row row");
    assert!(drafted(model(), None, true) > 5);
    assert_eq!(drafted(model(), None, false), 0);
    assert_eq!(drafted(model(), Some(SpeculationMode::Off), true), 0);
    assert_eq!(drafted(model().without_truncate(), Some(SpeculationMode::On), true), 0);
}

#[test]
fn drafts_can_be_turned_on_and_off() {
    let engine = engine(ScriptedModel::echo("row row row row row row row"));
    let run = || engine.submit(greedy(Request::text("x"))).unwrap().complete().unwrap();
    engine.speculate(None);
    let (plain, steps) = (run(), engine.stats().steps);
    assert!(plain.usage.drafts.is_empty());
    engine.speculate(Some(Speculation::new(PromptLookup::default())));
    let (drafted, with_drafts) = (run(), engine.stats().steps - steps);
    assert_eq!((&drafted.tokens, &drafted.reason), (&plain.tokens, &plain.reason));
    // How many depends on measured costs.
    assert!(with_drafts < steps, "{with_drafts} steps, {steps} without drafts");
    engine.speculate(None);
    assert_eq!(run().tokens, plain.tokens);
    assert_eq!(engine.stats().steps, 2 * steps + with_drafts);
}

#[test]
fn requests_that_cannot_be_answered_are_refused_at_once() {
    let engine = engine(ScriptedModel::echo("a").context(16).kv(4096, 16));
    let refuse = |request| engine.submit(request).err().unwrap();
    assert!(matches!(refuse(Request::text("")), SubmitError::EmptyPrompt));
    assert!(matches!(refuse(Request::tokens([])), SubmitError::EmptyPrompt));
    assert!(matches!(
        refuse(Request::tokens([1, 9999])),
        SubmitError::InvalidToken { token: 9999, n_vocab: 258 }
    ));
    assert!(matches!(
        refuse(Request::text("x").stop_token(300)),
        SubmitError::InvalidToken { token: 300, .. }
    ));
    assert!(matches!(refuse(Request::text("x").max_tokens(0)), SubmitError::NoTokens));
    assert!(matches!(refuse(Request::text("x").stop("")), SubmitError::Stop(_)));
    let error = refuse(Request::text("sixteen tokens.."));
    assert!(matches!(error, SubmitError::PromptTooLong { tokens: 16, limit: 15, .. }), "{error}");
    for sampling in [
        SamplingParams::default().temperature(f32::NAN),
        SamplingParams::default().temperature(-1.0),
        SamplingParams::default().top_p(f32::NAN),
        SamplingParams::default().min_p(-0.5),
        SamplingParams::default().logit_bias([(7, f32::NAN)]),
    ] {
        assert!(matches!(refuse(Request::text("x").sampling(sampling)), SubmitError::Sampling(_)));
    }
    assert_eq!(engine.stats().submitted, 0);
}

#[test]
fn a_full_queue_refuses_with_its_limit() {
    let session = SessionOptions::new().sequences(1);
    let options = EngineOptions::default().session(session).queue_max(2);
    let model = ScriptedModel::ngram(1).context(1 << 30).kv(1 << 20, 16);
    let engine = Engine::start(model.shared(), options).unwrap();
    let running = engine.submit(endless("x")).unwrap();
    let handle = running.cancel_handle();
    let reader = std::thread::spawn(move || running.last());
    wait_until("the first runs", || engine.stats().scheduler.running == 1);
    let waiting: Vec<_> = (0..2).map(|_| engine.submit(endless("y").max_tokens(1)).unwrap()).collect();
    let refused = engine.submit(Request::text("z")).err().unwrap();
    assert!(matches!(refused, SubmitError::QueueFull { waiting: 2, limit: 2, .. }), "{refused}");
    handle.cancel();
    assert!(
        matches!(reader.join().unwrap(), Some(Event::Finished(f)) if f.reason == FinishReason::Cancelled)
    );
    for stream in waiting {
        assert_eq!(stream.complete().unwrap().reason, FinishReason::MaxTokens);
    }
    assert!(engine.submit(endless("z").max_tokens(1)).is_ok(), "places in the queue come back");
}

#[test]
fn a_dropped_or_cancelled_stream_frees_its_kv() {
    let engine = engine(ScriptedModel::ngram(1).kv(1 << 20, 16).context(1 << 20));
    let mut stream = engine.submit(endless("x")).unwrap();
    assert!(stream.next().is_some());
    drop(stream);
    wait_until("the dropped one is gone", || engine.stats().scheduler.kv_tokens_used == 0);
    let stream = engine.submit(endless("x")).unwrap();
    stream.cancel();
    assert_eq!(stream.complete().unwrap().reason, FinishReason::Cancelled);
    wait_until("the cancelled one is gone", || engine.stats().scheduler.kv_tokens_used == 0);
}

#[test]
fn a_consumer_that_does_not_read_stalls_nobody() {
    let session = SessionOptions::new().sequences(2);
    let options = EngineOptions::default().session(session).stream_events_max(4);
    let engine = Engine::start(ScriptedModel::ngram(1).shared(), options).unwrap();
    // As many sleepers as there are sequences: others must still get in, and the sleepers go on later.
    let sleepers: Vec<_> =
        (0..2).map(|_| engine.submit(greedy(endless("zz").max_tokens(50))).unwrap()).collect();
    wait_until("both are paused", || engine.stats().tokens_generated >= 8);
    for _ in 0..4 {
        let answer = engine.submit(greedy(endless("zz").max_tokens(50))).unwrap().complete().unwrap();
        assert_eq!(answer.tokens.len(), 50);
    }
    let awake = engine.submit(greedy(endless("zz").max_tokens(50))).unwrap().complete().unwrap();
    for stream in sleepers {
        assert_eq!(stream.complete().unwrap().tokens, awake.tokens);
    }
}

#[test]
fn a_deadline_ends_running_and_waiting_requests() {
    let session = SessionOptions::new().sequences(1);
    let options = EngineOptions::default().session(session);
    let engine = Engine::start(ScriptedModel::ngram(1).context(1 << 30).shared(), options).unwrap();
    let submit = |ms| engine.submit(endless("x").timeout(Duration::from_millis(ms))).unwrap();
    let (running, waiting) = (submit(60), submit(20));
    assert_eq!(waiting.complete().unwrap().reason, FinishReason::Deadline);
    assert_eq!(running.complete().unwrap().reason, FinishReason::Deadline);
    let now = engine.submit(endless("x").timeout(Duration::ZERO)).unwrap().complete().unwrap();
    assert_eq!((now.reason, now.usage.completion_tokens), (FinishReason::Deadline, 0));
}

#[test]
fn a_drain_answers_what_was_accepted_and_an_abort_does_not() {
    let drained = engine(ScriptedModel::echo("hello"));
    let streams: Vec<_> = (0..40).map(|_| drained.submit(greedy(Request::text("x"))).unwrap()).collect();
    drained.shut_down(Shutdown::Drain);
    for stream in streams {
        assert_eq!(stream.complete().unwrap().text, "hello");
    }
    assert!(matches!(drained.submit(Request::text("x")), Err(SubmitError::ShuttingDown)));

    let aborted = engine(ScriptedModel::ngram(1).context(1 << 30));
    let streams: Vec<_> = (0..40).map(|_| aborted.submit(endless("x")).unwrap()).collect();
    aborted.shut_down(Shutdown::Abort);
    for stream in streams {
        assert_eq!(stream.complete().unwrap().reason, FinishReason::Cancelled);
    }
}

#[test]
fn a_stop_string_may_be_the_text_of_a_control_token() {
    let engine = engine(ScriptedModel::echo("one two"));
    let run = |stop: &[&str], token| {
        let sampling = SamplingParams::greedy().logit_bias(vec![(token, 1000.0)]);
        let request = Request::text("x").sampling(sampling).max_tokens(8);
        let request = stop.iter().fold(request, |request, stop| request.stop(*stop));
        let answer = engine.submit(request).unwrap().complete().unwrap();
        (answer.text, answer.reason, answer.usage.completion_tokens)
    };
    let bos = |stop| run(stop, ByteTokenizer::BOS);
    assert_eq!(bos(&["z", "<|bos|>"]), (String::new(), FinishReason::StopString(1), 1));
    assert_eq!(bos(&["<|bos|><|bos|>"]), (String::new(), FinishReason::StopString(0), 2));
    assert_eq!(bos(&["<|bos|>x"]), (String::new(), FinishReason::MaxTokens, 8));
    assert_eq!(run(&["<|eos|>"], ByteTokenizer::EOS), (String::new(), FinishReason::StopString(0), 1));
    assert_eq!(run(&[], ByteTokenizer::EOS), (String::new(), FinishReason::EndOfGeneration, 1));
    // The possible beginning of a stop string is let through before the token.
    let answer = engine.submit(greedy(Request::text("x")).stop("two<|eos|>").stop("two!")).unwrap();
    let answer = answer.complete().unwrap();
    assert_eq!((answer.text.as_str(), answer.reason), ("one ", FinishReason::StopString(0)));
    let answer = engine.submit(greedy(Request::text("x")).stop("two!").stop("<|eos|>")).unwrap();
    let answer = answer.complete().unwrap();
    assert_eq!((answer.text.as_str(), answer.reason), ("one two", FinishReason::StopString(1)));
}

#[test]
fn dropping_the_engine_ends_its_streams() {
    let engine = engine(ScriptedModel::ngram(1).context(1 << 30));
    let stream = engine.submit(endless("x")).unwrap();
    drop(engine);
    assert_eq!(stream.complete().unwrap().reason, FinishReason::Cancelled);
}

#[test]
fn an_idle_engine_sleeps_and_wakes() {
    let engine = engine(ScriptedModel::echo("a"));
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(20));
        let steps = engine.stats().steps;
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(engine.stats().steps, steps, "no steps while idle");
        assert_eq!(engine.submit(greedy(Request::text("x"))).unwrap().complete().unwrap().text, "a");
    }
}

#[test]
fn the_template_is_that_of_the_request_the_engine_or_the_model() {
    let source = |source: &str| Some(ChatTemplateSource::text(source));
    let start = |template: Option<ChatTemplateSource>| {
        let model = ScriptedModel::echo("ok").chat_template("{{ messages[0].content }}");
        let model = model.named_chat_template("tool_use", "{{ tools | tojson }}{{ messages[0].content }}");
        Engine::start(model.shared(), EngineOptions::default().chat_template(template)).unwrap()
    };
    let tool: Json = r#"{"name": "f"}"#.parse().unwrap();
    let count = |engine: &Engine, options: ChatOptions| {
        engine.count_tokens(&Request::chat([Message::user("four")]).chat_options(options))
    };
    let (model, own) = (start(None), start(source("{{ messages[0].content }}!")));
    let plain = ChatOptions::default;
    assert_eq!(count(&model, plain()).unwrap(), 4);
    assert_eq!(count(&model, plain().tools([tool.clone()])).unwrap(), 4 + r#"[{"name": "f"}]"#.len());
    assert_eq!(count(&own, plain()).unwrap(), 5);
    assert_eq!(count(&own, plain().template(source("!{{ messages[0].content }}!"))).unwrap(), 6);
    let unknown = count(&model, plain().template(ChatTemplateSource::name("x"))).unwrap_err();
    assert!(unknown.to_string().contains("default, tool_use, chatml"), "{unknown}");
    let continued = Request::chat([Message::user("Hi"), Message::assistant("four")])
        .chat_options(plain().template(ChatTemplateSource::name("zephyr")).continue_final_message(true));
    let text = "<|user|>\nHi<|eos|>\n<|assistant|>\nfour";
    assert_eq!(model.count_tokens(&continued).unwrap(), text.len() - "<|eos|>".len() + 1);
    assert_eq!(model.render(&continued).unwrap().text, text);
    assert_eq!(own.render(&Request::chat([Message::user("four")])).unwrap().text, "four!");
    assert_eq!(own.render(&Request::text("four")).unwrap().text, "four");
    assert!(matches!(own.render(&Request::tokens([1])), Err(SubmitError::Unsupported { .. })));
}

#[test]
fn chat_goes_through_the_template_and_user_text_is_no_control_token() {
    let template = "{% for m in messages %}<|bos|>{{ m.role }}:{{ m.content }}{% endfor %}";
    let engine = engine(ScriptedModel::echo("ok").chat_template(template));
    let request = |text: &str| greedy(Request::chat([Message::user(text)]));
    let plain = engine.submit(request("hi")).unwrap().complete().unwrap();
    assert_eq!((plain.text.as_str(), plain.usage.prompt_tokens), ("ok", 1 + "user:hi".len()));
    let attack = engine.submit(request("<|eos|>")).unwrap().complete().unwrap();
    assert_eq!(attack.usage.prompt_tokens, 1 + "user:<|eos|>".len());
}

#[test]
fn control_tokens_in_a_text_prompt_need_permission() {
    let engine = engine(ScriptedModel::echo("ok"));
    let mut request = greedy(Request::text("<|bos|>a"));
    let tokens = |request: Request| engine.submit(request).unwrap().complete().unwrap().usage.prompt_tokens;
    assert_eq!(tokens(request.clone()), 8);
    request.parse_special = true;
    assert_eq!(tokens(request), 2);
}

#[test]
fn the_stream_works_without_a_runtime_of_its_own() {
    use futures_core::Stream;
    use std::pin::Pin;
    use std::task::{Context, Poll, Wake, Waker};

    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let engine = engine(ScriptedModel::echo("stream"));
    let mut stream = engine.submit(greedy(Request::text("x"))).unwrap().into_stream();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut context, mut text) = (Context::from_waker(&waker), String::new());
    loop {
        match Pin::new(&mut stream).poll_next(&mut context) {
            Poll::Pending => std::thread::park(),
            Poll::Ready(None) => break,
            Poll::Ready(Some(Event::Token(token))) => text.push_str(&token.text),
            Poll::Ready(Some(Event::Finished(finished))) => {
                assert_eq!(finished.reason, FinishReason::EndOfGeneration);
            }
            Poll::Ready(Some(event)) => panic!("{event:?}"),
        }
    }
    assert_eq!(text, "stream");
}

#[test]
fn a_multi_byte_character_is_never_split() {
    let text = "Grüße, 世界 🎈";
    let engine = engine(ScriptedModel::echo(text));
    let answer = engine.submit(greedy(Request::text("x"))).unwrap().complete().unwrap();
    assert_eq!(answer.text, text);
    assert!(answer.tokens.iter().all(|token| !token.text.contains('\u{fffd}')));
}

#[test]
fn submitting_from_many_threads_answers_each() {
    let engine = Arc::new(engine(ScriptedModel::ngram(9).kv(512, 16)));
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let engine = engine.clone();
            std::thread::spawn(move || {
                for n in 1..20 {
                    let request = greedy(endless(&format!("{i}{n}")).max_tokens(n));
                    let answer = engine.submit(request).unwrap().complete().unwrap();
                    assert_eq!(answer.tokens.len(), n);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let stats = engine.stats();
    assert_eq!((stats.submitted, stats.failed), (8 * 19, 0));
}

#[test]
fn the_engine_outlives_its_model_handle_and_errors_are_send() {
    fn assert_send<T: Send + Sync + 'static>() {}
    assert_send::<Engine>();
    assert_send::<SubmitError>();
    assert_send::<RequestError>();
    assert_send::<exsa_core::error::LoadError>();
    let model: Arc<dyn Model> = ScriptedModel::echo("a").shared();
    assert_eq!(model.tokenizer().n_vocab(), ByteTokenizer::N_VOCAB);
}

#[test]
fn text_holds_back_nothing_in_the_end() {
    // A stop string that began and was never completed, and bytes that are no whole character.
    let run = |prompt: &str, request: fn(Request) -> Request| {
        let engine = engine(ScriptedModel::echo("ab-- ü"));
        let mut stream = engine.submit(request(greedy(Request::text(prompt)))).unwrap();
        let pieces: Vec<_> = stream.text().map(|piece| piece.unwrap()).collect();
        assert!(pieces.iter().all(|piece| !piece.is_empty()), "{pieces:?}");
        assert_eq!(
            stream.usage().unwrap().completion_tokens,
            stream.finished().unwrap().usage.completion_tokens
        );
        pieces.concat()
    };
    assert_eq!(run("x", |request| request.stop("-- ü!")), "ab-- ü");
    assert_eq!(run("x", |request| request.max_tokens(4).stop("--!")), "ab--");
    assert_eq!(run("x", |request| request.max_tokens(6)), "ab-- \u{fffd}");
}

#[test]
fn the_reported_seed_gives_the_same_answer() {
    let engine = engine(ScriptedModel::ngram(3));
    let run = |seed: Option<u64>| {
        let request = endless("x").max_tokens(40).temperature(1.5).seed(seed);
        engine.submit(request).unwrap().complete().unwrap()
    };
    let (first, other) = (run(None), run(None));
    assert_ne!(first.tokens, other.tokens, "every request without a seed gets its own");
    let seed = first.seed.expect("the engine reports the seed");
    assert_eq!(run(Some(seed)).tokens, first.tokens);
    assert_eq!(run(Some(7)).seed, Some(7));
}

#[test]
fn counting_tokens_submits_nothing() {
    let engine = engine(ScriptedModel::echo("ok").chat_template("{{ messages[0].content }}!"));
    assert_eq!(engine.count_tokens(&Request::text("four")).unwrap(), 4);
    assert_eq!(engine.count_tokens(&Request::chat([Message::user("four")])).unwrap(), 5);
    assert_eq!(engine.stats().submitted, 0);
    assert_eq!(engine.models()[0].name, engine.model().name);
    assert_eq!(engine.tokenizer().n_vocab(), ByteTokenizer::N_VOCAB);
}

/// A model that counts the passes that were interrupted.
#[derive(Clone)]
struct Interruptions {
    model: Arc<dyn Model>,
    passes: Arc<AtomicUsize>,
    interrupted: Arc<AtomicUsize>,
}

struct Counted {
    session: Box<dyn Session>,
    counts: Interruptions,
}

impl Model for Interruptions {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.model.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(Counted { session: self.model.session(options)?, counts: self.clone() }))
    }
}

impl Session for Counted {
    fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        let result = self.session.forward(batch);
        self.counts.passes.fetch_add(1, Ordering::Relaxed);
        if matches!(result, Err(StepError::Interrupted)) {
            self.counts.interrupted.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn release(&mut self, seq: SeqId) {
        self.session.release(seq);
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.session.truncate(seq, len)
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.session.fork(from, to, len)
    }
}

/// Regression: a dropped engine left the interrupt in its options raised, so that the next engine from a
/// clone of the options lost its first pass.
#[test]
fn engines_from_clones_of_the_same_options_share_no_interrupt() {
    let counts = Interruptions {
        model: ScriptedModel::echo("hello").without_save().shared(),
        passes: Arc::default(),
        interrupted: Arc::default(),
    };
    let options = EngineOptions::default();
    let start = || Engine::start(Arc::new(counts.clone()), options.clone()).unwrap();
    let answer =
        |engine: &Engine| engine.submit(greedy(Request::text("x"))).unwrap().complete().unwrap().text;
    let bystander = start();
    let first = start();
    assert_eq!(answer(&first), "hello");
    drop(first);
    let second = start();
    counts.passes.store(0, Ordering::Relaxed);
    assert_eq!(answer(&second), "hello");
    assert_eq!(answer(&bystander), "hello");
    // Five tokens and the end, twice.
    assert_eq!((counts.passes.load(Ordering::Relaxed), counts.interrupted.load(Ordering::Relaxed)), (12, 0));
    assert!(!options.session.interrupt.is_raised(), "the host's flag is the host's");
}

#[test]
fn a_shutdown_can_be_begun_awaited_and_asked_about() {
    let engine = Arc::new(engine(ScriptedModel::ngram(1).context(1 << 30)));
    let stream = engine.submit(endless("x")).unwrap();
    let start = Instant::now();
    engine.begin_shutdown(Shutdown::Drain);
    engine.begin_shutdown(Shutdown::Drain);
    assert!(!engine.shut_down_timeout(Shutdown::Drain, Duration::from_millis(20)), "a request still runs");
    assert!(!engine.is_shut_down() && start.elapsed() < Duration::from_secs(10));
    assert!(matches!(engine.submit(Request::text("x")), Err(SubmitError::ShuttingDown)));
    // Whoever waits, waits to the end.
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let engine = engine.clone();
            std::thread::spawn(move || {
                engine.shut_down(Shutdown::Drain);
                assert!(engine.is_shut_down());
            })
        })
        .collect();
    assert!(engine.shut_down_timeout(Shutdown::Abort, Duration::from_secs(20)), "an abort follows a drain");
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    assert_eq!(stream.complete().unwrap().reason, FinishReason::Cancelled);
    assert!(engine.shut_down_timeout(Shutdown::Drain, Duration::ZERO));
}
