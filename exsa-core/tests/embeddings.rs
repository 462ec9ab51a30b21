//! Embeddings and rerank scores by the engine: concurrent with streams, in order, with limits, cancellation,
//! deadlines and failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::{Capabilities, Model, Output, Pooling, Session, SessionOptions};
use exsa_core::batch::{Batch, Embeddings, Span};
use exsa_core::clock::ManualClock;
use exsa_core::embed::{
    EmbedError, EmbedInput, EmbedOutput, EmbedRequest, Pending, RerankRequest, Truncate, pending,
};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::queue::Fcfs;
use exsa_core::scripted::ScriptedModel;
use exsa_core::stats::EngineStats;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{
    Engine, EngineLoop, EngineOptions, Generator, Priority, Request, RequestError, SamplingParams, SeqId,
    Shutdown, SubmitError, TokenId, TokenStream,
};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn options(pooling: Pooling) -> EngineOptions {
    let mut options = EngineOptions::default();
    options.session.pooling = Some(pooling);
    options
}

fn engine_loop(model: Arc<dyn Model>, options: EngineOptions, clock: &ManualClock) -> EngineLoop {
    EngineLoop::new(model, options, Box::new(Fcfs::new()), Arc::new(clock.clone())).unwrap()
}

fn model() -> ScriptedModel {
    ScriptedModel::ngram(5)
}

/// The vector of a text, computed in a separate session.
fn alone(text: &str, pooling: Pooling) -> Vec<f32> {
    let options = options(pooling).session;
    let mut session = model().shared().session(&options).unwrap();
    let tokens: Vec<TokenId> = text.bytes().map(TokenId::from).collect();
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &tokens));
    session.embed(&batch).unwrap().vector(0).unwrap().to_vec()
}

fn texts(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{i} is a text of its own, {}", "long ".repeat(i % 7))).collect()
}

fn greedy(prompt: &str, n: usize) -> Request {
    Request::text(prompt).ignore_eos(true).max_tokens(n).sampling(SamplingParams::greedy())
}

fn step_until<T>(engine: &mut EngineLoop, output: &Pending<T>) -> usize {
    (1..10_000)
        .find(|_| {
            engine.step();
            engine.scheduler().check().unwrap();
            output.is_ready()
        })
        .expect("the output comes")
}

#[test]
fn many_texts_beside_streams_keep_their_order_and_harm_no_answer() {
    for kv in [256, 4096] {
        let clock = ManualClock::new();
        let mut options = options(Pooling::Mean).prefill_chunk_max(64);
        options.session.sequences_max = 4;
        options.session.batch_tokens_max = 128;
        let mut engine = engine_loop(model().kv(kv, 16).shared(), options.clone(), &clock);
        let streams: Vec<_> =
            (0..6).map(|i| engine.submit(greedy(&format!("prompt {i}"), 60)).unwrap()).collect();
        let texts = texts(50);
        let output = engine.embed(EmbedRequest::texts(texts.clone()).normalize(false)).unwrap();
        let both = |engine: &EngineLoop| (engine.stats().tokens_generated, engine.stats().texts_embedded);
        let (mut before, mut together) = (both(&engine), 0);
        while !output.is_ready() {
            assert!(engine.step());
            engine.scheduler().check().unwrap();
            let now = both(&engine);
            together += usize::from(now.0 > before.0 && now.1 > before.1);
            before = now;
        }
        assert!(together > 2, "steps generate and embed");
        let output = output.wait().unwrap();
        assert_eq!(output.usage.prompt_tokens, texts.iter().map(String::len).sum::<usize>());
        for (text, vector) in texts.iter().zip(output.into_vectors().unwrap()) {
            assert_eq!(vector, alone(text, Pooling::Mean), "{text}");
        }
        while engine.step() {}
        for (i, stream) in streams.into_iter().enumerate() {
            let mut lone = engine_loop(model().shared(), EngineOptions::default(), &clock);
            let expected = lone.submit(greedy(&format!("prompt {i}"), 60)).unwrap();
            while lone.step() {}
            assert_eq!(stream.complete().unwrap().tokens, expected.complete().unwrap().tokens);
        }
        assert!(engine.is_empty() && engine.stats().scheduler.kv_tokens_used == 0);
    }
}

#[test]
fn several_texts_share_a_pass() {
    let clock = ManualClock::new();
    let mut engine = engine_loop(model().shared(), options(Pooling::Last), &clock);
    let output = engine.embed(EmbedRequest::texts(["a"; 40])).unwrap();
    let passes = step_until(&mut engine, &output);
    let stats = engine.stats();
    // 16 sequences for requests and 32 idle ones hold 40 texts of one token.
    assert_eq!((passes, stats.embed_passes, stats.texts_embedded, stats.tokens_embedded), (1, 1, 40, 40));
    assert_eq!((stats.submitted, stats.finished, stats.failed), (1, 1, 0));
}

#[test]
fn vectors_are_cut_and_then_scaled() {
    let engine = Engine::start(model().shared(), options(Pooling::Mean)).unwrap();
    let run = |request: EmbedRequest| engine.embed(request).unwrap().wait();
    let raw = alone("text", Pooling::Mean);
    let scaled = |values: &[f32]| {
        let norm = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        values.iter().map(|x| (f64::from(*x) / norm) as f32).collect::<Vec<_>>()
    };
    let vector = |request| run(request).unwrap().into_vectors().unwrap().remove(0);
    assert_eq!(vector(EmbedRequest::texts(["text"])), scaled(&raw));
    assert_eq!(vector(EmbedRequest::texts(["text"]).dimensions(5)), scaled(&raw[..5]));
    assert_eq!(vector(EmbedRequest::texts(["text"]).dimensions(5).normalize(false)), raw[..5]);
    let tokens: Vec<TokenId> = "text".bytes().map(TokenId::from).collect();
    assert_eq!(vector(EmbedRequest::texts([tokens])), scaled(&raw));
    let too_many = run(EmbedRequest::texts(["text"]).dimensions(17));
    assert_eq!(too_many.unwrap_err(), EmbedError::Dimensions { asked: 17, width: 16 });
}

#[test]
fn texts_that_cannot_be_embedded_are_refused_with_numbers() {
    let mut options = options(Pooling::Mean);
    options.session.batch_tokens_max = 24;
    let engine = Engine::start(model().kv(256, 16).shared(), options.clone()).unwrap();
    let refuse = |request: EmbedRequest| engine.embed(request).err().unwrap();
    let long = "x".repeat(25);
    let error = refuse(EmbedRequest::texts(["short", &long]));
    assert!(
        matches!(error, SubmitError::TextTooLong { index: 1, tokens: 25, limit: 24, what: "the batch" }),
        "{error}"
    );
    assert!(matches!(refuse(EmbedRequest::texts(["a", ""])), SubmitError::EmptyText { index: 1 }));
    assert!(matches!(refuse(EmbedRequest::new([])), SubmitError::Option { option: "inputs", .. }));
    assert!(matches!(
        refuse(EmbedRequest::texts(["a"]).dimensions(0)),
        SubmitError::Option { option: "dimensions", .. }
    ));
    let unknown = EmbedInput::Tokens(vec![1, 999]);
    assert!(matches!(
        refuse(EmbedRequest::new([unknown])),
        SubmitError::InvalidToken { token: 999, n_vocab: 258 }
    ));
    assert_eq!(engine.stats().submitted, 0);
    let cut = engine.embed(EmbedRequest::texts([long]).truncate(Truncate::End).normalize(false)).unwrap();
    assert_eq!(cut.wait().unwrap().into_vectors().unwrap(), [alone(&"x".repeat(24), Pooling::Mean)]);
    let long = format!("start{}end", "x".repeat(20));
    for (truncate, rest) in [(Truncate::Start, &long[4..]), (Truncate::End, &long[..24])] {
        let cut =
            engine.embed(EmbedRequest::texts([long.clone()]).truncate(truncate).normalize(false)).unwrap();
        assert_eq!(cut.wait().unwrap().into_vectors().unwrap(), [alone(rest, Pooling::Mean)]);
    }
    let kv = Engine::start(model().kv(16, 16).shared(), options).unwrap();
    let error = kv.embed(EmbedRequest::texts(["x".repeat(17)])).err().unwrap();
    assert!(matches!(error, SubmitError::TextTooLong { limit: 16, what: "the KV cache", .. }), "{error}");
}

#[test]
fn a_session_that_gives_no_vectors_or_scores_says_so() {
    let plain = Engine::start(model().shared(), EngineOptions::default()).unwrap();
    let error = plain.embed(EmbedRequest::texts(["a"])).err().unwrap();
    assert!(matches!(error, SubmitError::Unsupported { operation: "embed", .. }), "{error}");
    let error = plain.rerank(RerankRequest::new("q", ["d"])).err().unwrap();
    assert!(matches!(error, SubmitError::Unsupported { operation: "rerank", .. }), "{error}");
    let reranker = Engine::start(model().shared(), options(Pooling::Rank)).unwrap();
    let error = reranker.embed(EmbedRequest::texts(["a"])).err().unwrap();
    assert!(error.to_string().contains("reranker"), "{error}");

    /// A generator that only generates text.
    struct Mute;
    impl Generator for Mute {
        fn models(&self) -> Vec<Arc<ModelInfo>> {
            Vec::new()
        }
        fn submit(&self, _: Request) -> Result<TokenStream, SubmitError> {
            Err(SubmitError::ShuttingDown)
        }
        fn stats(&self) -> EngineStats {
            EngineStats::default()
        }
    }
    let mute: Box<dyn Generator> = Box::new(Mute);
    let error = mute.embed(EmbedRequest::texts(["a"])).err().unwrap();
    assert_eq!(error.to_string(), "embed: this generator does not support embeddings");
    assert!(matches!(mute.rerank(RerankRequest::new("q", ["d"])), Err(SubmitError::Unsupported { .. })));
}

#[test]
fn documents_are_scored_in_the_order_of_the_request() {
    let engine = Engine::start(model().shared(), options(Pooling::Rank)).unwrap();
    let documents = texts(30);
    let output = engine.rerank(RerankRequest::new("query ", documents.clone())).unwrap().wait().unwrap();
    assert_eq!(output.scores.len(), 30);
    for (i, (scored, document)) in output.scores.iter().zip(&documents).enumerate() {
        let expected = alone(&format!("query {document}"), Pooling::Rank)[0];
        assert_eq!((scored.index, &scored.score), (i, &Ok(expected)));
    }
    let ranking = output.ranking();
    assert!(ranking.len() == 30 && ranking.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    let refused = engine.rerank(RerankRequest::new("q", Vec::<String>::new()));
    assert!(matches!(refused, Err(SubmitError::Option { option: "documents", .. })));
    // A query that fills the batch cannot be cut to make room for a document.
    let query = RerankRequest::new("q".repeat(600), ["d"]).truncate(Truncate::End);
    assert!(matches!(engine.rerank(query), Err(SubmitError::TextTooLong { tokens: 601, limit: 512, .. })));
    let long = RerankRequest::new("q", ["d".repeat(600)]).truncate(Truncate::End);
    assert_eq!(engine.rerank(long).unwrap().wait().unwrap().usage.prompt_tokens, 512);
}

#[test]
fn a_dropped_output_cancels_and_a_deadline_ends() {
    let clock = ManualClock::new();
    let mut options = options(Pooling::Mean);
    options.session.batch_tokens_max = 16;
    let mut engine = engine_loop(model().shared(), options, &clock);
    let request = || EmbedRequest::texts(["0123456789"; 100]);
    let dropped = engine.embed(request()).unwrap();
    let late = engine.embed(request().timeout(Duration::from_millis(5))).unwrap();
    assert!(engine.step() && engine.step());
    drop(dropped);
    engine.step();
    let stats = engine.stats();
    assert_eq!((stats.submitted, stats.finished, stats.texts_embedded), (2, 1, 3));
    assert_eq!(engine.until_wakeup(), Some(Duration::from_millis(5)));
    clock.advance(Duration::from_millis(5));
    engine.step();
    assert_eq!(late.wait(), Err(EmbedError::Deadline));
    assert!(engine.is_empty() && engine.stats().texts_embedded == 3, "no pass for what is gone");
    assert!(!engine.step());
}

#[test]
fn a_pass_ends_early_once_its_requests_expire() {
    let clock = ManualClock::new();
    let slow = model().cost(clock.clone(), Duration::from_secs(1), Duration::ZERO);
    let model = Arc::new(Wrapped { model: slow.shared(), fault: Fault::InterruptedAfterwards });
    let mut engine = engine_loop(model, options(Pooling::Mean), &clock);
    let late = engine.embed(EmbedRequest::texts(["a"]).timeout(Duration::from_millis(100))).unwrap();
    engine.step();
    assert!(!late.is_ready(), "the pass was interrupted, and the text waits again");
    engine.step();
    assert_eq!(late.wait(), Err(EmbedError::Deadline));
}

#[test]
fn texts_get_their_turn_where_requests_fill_every_sequence_and_block() {
    let clock = ManualClock::new();
    let slow =
        model().kv(128, 16).without_save().cost(clock.clone(), Duration::from_millis(10), Duration::ZERO);
    let mut options = options(Pooling::Mean).prefix_cache(exsa_core::PrefixCacheOptions::disabled());
    options.session.sequences_max = 2;
    let mut engine = engine_loop(slow.shared(), options, &clock);
    // More requests than could ever run, and the text needs all of the KV.
    let mut streams: Vec<_> = (0..200).map(|_| engine.submit(greedy("0123456789", 50)).unwrap()).collect();
    engine.step();
    let output = engine.embed(EmbedRequest::texts(["x".repeat(128)])).unwrap();
    step_until(&mut engine, &output);
    assert!(output.wait().is_ok());
    let waiting = engine.stats().scheduler.waiting;
    assert!(waiting > 100, "{waiting} requests wait: the text did not have to see them all through");
    for _ in 0..20 {
        engine.step();
    }
    assert!(engine.stats().scheduler.running > 0, "requests are admitted again");

    // Two requests whose streams are not read hold every sequence: they are preempted.
    drop(streams.split_off(0));
    let mut options = options_of_two();
    options.stream_events_max = 1;
    let mut engine = engine_loop(model().kv(128, 16).without_save().shared(), options, &clock);
    let unread: Vec<_> = (0..2).map(|_| engine.submit(greedy("0123456789", 50)).unwrap()).collect();
    while engine.step() {}
    assert_eq!(engine.stats().scheduler.running, 2);
    let output = engine.embed(EmbedRequest::texts(["x".repeat(128)])).unwrap();
    for _ in 0..10 {
        engine.step();
        clock.advance(Duration::from_millis(200));
    }
    assert!(output.wait().is_ok());
    drop(unread);
}

fn options_of_two() -> EngineOptions {
    let mut options = options(Pooling::Mean).prefix_cache(exsa_core::PrefixCacheOptions::disabled());
    options.session.sequences_max = 2;
    options
}

#[test]
fn a_text_that_fails_leaves_the_others() {
    let wrapped = |fault| Arc::new(Wrapped { model: model().shared(), fault });
    let engine = Engine::start(wrapped(Fault::BadText), options(Pooling::Mean)).unwrap();
    let output =
        engine.embed(EmbedRequest::texts(["good", "bad!", "fine"]).normalize(false)).unwrap().wait().unwrap();
    assert_eq!(output.embeddings[0], Ok(alone("good", Pooling::Mean)));
    assert_eq!(output.embeddings[2], Ok(alone("fine", Pooling::Mean)));
    let error = output.embeddings[1].clone().unwrap_err();
    assert!(matches!(&error, RequestError::Step(StepError::Sequence { .. })), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!((engine.stats().finished, engine.stats().failed), (1, 0));

    let engine = Engine::start(wrapped(Fault::Pass), options(Pooling::Mean)).unwrap();
    let output = engine.embed(EmbedRequest::texts(["good", "fine"])).unwrap().wait().unwrap();
    assert!(output.embeddings.iter().all(|vector| matches!(vector, Err(RequestError::Step(_)))));
    assert_eq!((engine.stats().finished, engine.stats().failed), (1, 1));

    let engine = Engine::start(wrapped(Fault::NotFinite), options(Pooling::Mean)).unwrap();
    let output = engine.embed(EmbedRequest::texts(["good"])).unwrap().wait().unwrap();
    assert!(matches!(output.embeddings[0], Err(RequestError::NotFinite { index: 3, .. })));
}

#[test]
fn a_panic_and_a_shutdown_end_every_request() {
    let model: Arc<dyn Model> = Arc::new(Wrapped { model: model().shared(), fault: Fault::Panic });
    let engine = Engine::start(model, options(Pooling::Mean)).unwrap();
    let stream = engine.submit(Request::text("x").ignore_eos(true)).unwrap();
    let output = engine.embed(EmbedRequest::texts(["a"])).unwrap();
    let error = RequestError::Panicked("embed panics on purpose".into());
    assert_eq!(output.wait(), Err(EmbedError::Failed(error.clone())));
    assert_eq!(stream.complete().unwrap_err(), error);

    let clock = ManualClock::new();
    let mut drained = engine_loop(self::model().shared(), options(Pooling::Mean), &clock);
    let output = drained.embed(EmbedRequest::texts(["a"])).unwrap();
    drained.end_all(&exsa_core::FinishReason::Cancelled);
    assert_eq!(output.wait(), Err(EmbedError::Cancelled));
    assert!(matches!(drained.embed(EmbedRequest::texts(["a"])), Err(SubmitError::ShuttingDown)));

    let engine = Engine::start(self::model().shared(), options(Pooling::Mean)).unwrap();
    let outputs: Vec<_> = (0..20).map(|_| engine.embed(EmbedRequest::texts(texts(20))).unwrap()).collect();
    engine.shut_down(Shutdown::Drain);
    assert!(outputs.into_iter().all(|output| output.wait().is_ok()), "a drain embeds what was accepted");
}

#[test]
fn a_full_queue_refuses_texts_too() {
    let clock = ManualClock::new();
    let options = options(Pooling::Mean).queue_max(2).user_queue_max(1);
    let mut engine = engine_loop(model().shared(), options, &clock);
    let request = |user: &str| EmbedRequest::texts(["a"]).user_id(user).priority(Priority::Batch);
    let first = engine.embed(request("a")).unwrap();
    assert!(matches!(engine.embed(request("a")), Err(SubmitError::QueueFull { waiting: 1, limit: 1, .. })));
    let second = engine.embed(request("b")).unwrap();
    assert!(matches!(engine.embed(request("c")), Err(SubmitError::QueueFull { waiting: 2, limit: 2, .. })));
    engine.step();
    assert!(first.wait().is_ok() && second.wait().is_ok());
    assert!(engine.embed(request("a")).is_ok(), "places in the queue come back");
}

#[test]
fn an_output_is_a_future_and_outlives_its_engine() {
    let engine = Engine::start(model().shared(), options(Pooling::Mean)).unwrap();
    let mut output = pin!(engine.embed(EmbedRequest::texts(["a"])).unwrap());
    let mut context = Context::from_waker(Waker::noop());
    let output = loop {
        match output.as_mut().poll(&mut context) {
            Poll::Pending => std::thread::yield_now(),
            Poll::Ready(output) => break output,
        }
    };
    assert_eq!(output.unwrap().embeddings.len(), 1);

    let (sender, output) = pending::<EmbedOutput>(|| {});
    let output = output.wait_timeout(Duration::from_millis(1)).expect_err("it has not come");
    drop(sender);
    let failed = output.wait_timeout(Duration::MAX).unwrap();
    assert_eq!(failed, Err(EmbedError::Failed(RequestError::EngineStopped)));
}

/// A fault of [`Session::embed`].
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// A text with `!` fails by name.
    BadText,
    /// The pass fails.
    Pass,
    /// A value is not a number.
    NotFinite,
    Panic,
    /// The interrupt is looked at when the time of the pass is over.
    InterruptedAfterwards,
}

struct Wrapped {
    model: Arc<dyn Model>,
    fault: Fault,
}

struct WrappedSession {
    session: Box<dyn Session>,
    fault: Fault,
    interrupt: exsa_core::backend::Interrupt,
    vectors: Vec<f32>,
}

impl Model for Wrapped {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.model.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let (session, interrupt) = (self.model.session(options)?, options.interrupt.clone());
        Ok(Box::new(WrappedSession { session, fault: self.fault, interrupt, vectors: Vec::new() }))
    }
}

impl Session for WrappedSession {
    fn capabilities(&self) -> &Capabilities {
        self.session.capabilities()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.session.forward(batch)
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        if self.fault == Fault::BadText {
            let bad = TokenId::from(b'!');
            let bad = batch.spans().find(|span| span.token_ids().unwrap().contains(&bad));
            if let Some(span) = bad {
                return Err(StepError::Sequence { seq: span.seq, problem: "bad text".into() });
            }
        }
        match self.fault {
            Fault::Pass => return Err(StepError::Backend("on purpose".into())),
            Fault::Panic => panic!("embed panics on purpose"),
            _ => {}
        }
        let vectors = self.session.embed(batch)?;
        let width = vectors.width();
        self.vectors = (0..vectors.len()).flat_map(|i| vectors.vector(i).unwrap()).copied().collect();
        if self.fault == Fault::NotFinite {
            self.vectors[3] = f32::NAN;
        }
        if self.fault == Fault::InterruptedAfterwards && self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        Ok(Embeddings::new(&self.vectors, width))
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
