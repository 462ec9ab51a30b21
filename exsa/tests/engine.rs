//! The whole way from a model to an answer, through the crate alone.
#![cfg(feature = "candle")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "failures of helpers are failures of tests")]

use exsa::core::scripted::ScriptedModel;
use exsa::{Engine, EngineOptions, Error, Generator, LoadError, Message, Request, RequestError, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn story() -> Engine {
    Engine::builder().threads(1).context_tokens(256).sequences(2).load(exsa_tiny::GGUF).unwrap()
}

#[test]
fn streamed_and_whole_answers_are_equal() {
    let engine = story();
    let request = || Request::user("Tell me a story about a frog.").max_tokens(24).seed(1);
    let mut answer = engine.submit(request()).unwrap();
    let streamed: String = answer.text().map(Result::unwrap).collect();
    assert!(!streamed.is_empty());
    assert_eq!(engine.complete(request()).unwrap().text, streamed);
    // A message of a user is a conversation of one message.
    let chat = Request::chat([Message::user("Tell me a story about a frog.")]).max_tokens(24).seed(1);
    assert_eq!(engine.complete(chat).unwrap().text, streamed);
}

#[tokio::test]
async fn asynchronous_answers_are_equal() {
    let engine = story();
    let request = || Request::text("Once upon a time").max_tokens(12).seed(2);
    let whole = engine.complete(request()).unwrap();
    assert_eq!(engine.complete_async(request()).await.unwrap().text, whole.text);
}

#[test]
fn clones_share_one_engine() {
    let engine = story();
    let clone = engine.clone();
    let thread = std::thread::spawn(move || clone.complete(Request::text("A cat").max_tokens(4)).unwrap());
    let tokens = thread.join().unwrap().usage.completion_tokens;
    assert_eq!(engine.stats().tokens_generated, tokens as u64);
    let generator: Arc<dyn Generator> = engine.into_generator();
    assert_eq!(generator.models().len(), 1);
}

#[test]
fn tokens_and_text() {
    let engine = story();
    let ids = engine.tokenize("The cat sat on the mat.");
    assert!(ids.len() > 3);
    assert_eq!(engine.detokenize(&ids), "The cat sat on the mat.");
    // BOS comes before a text prompt where the model wants it.
    let counted = engine.count_tokens(&Request::text("The cat sat on the mat.")).unwrap();
    assert!((ids.len()..=ids.len() + 1).contains(&counted));
    assert_eq!(engine.detokenize(&[u32::MAX]), "");
}

#[test]
fn progress_is_reported_and_cancels() {
    let (bytes, total) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, all) = (bytes.clone(), total.clone());
    let builder = Engine::builder().threads(1).context_tokens(64).progress(move |done, total| {
        seen.store(done, Ordering::Relaxed);
        all.store(total, Ordering::Relaxed);
        true
    });
    builder.load(exsa_tiny::GGUF).unwrap();
    assert!(bytes.load(Ordering::Relaxed) > 0);
    assert_eq!(bytes.load(Ordering::Relaxed), total.load(Ordering::Relaxed));

    let cancelled = Engine::builder().progress(|_, _| false).load(exsa_tiny::GGUF).unwrap_err();
    assert!(matches!(cancelled, Error::Load(LoadError::Cancelled)), "{cancelled}");
}

#[test]
fn memory_is_checked_before_loading() {
    let builder = || Engine::builder().threads(1).context_tokens(64);
    let needed = builder().estimate(exsa_tiny::GGUF).unwrap().total();
    let error = builder().memory_max(needed - 1).load(exsa_tiny::GGUF).unwrap_err();
    assert!(error.to_string().contains(&needed.to_string()), "{error}");
    builder().memory_max(needed).load(exsa_tiny::GGUF).unwrap();
}

#[test]
fn each_step_has_its_error() {
    let missing = Engine::load("/no/such/model.gguf").unwrap_err();
    assert!(missing.to_string().contains("/no/such/model.gguf"), "{missing}");

    let engine = story();
    let refused = engine.complete(Request::text("x").max_tokens(0)).unwrap_err();
    assert!(matches!(refused, Error::Submit(SubmitError::NoTokens)), "{refused}");
    let no_vectors = engine.rank("query", ["document"]).unwrap_err();
    assert!(matches!(no_vectors, Error::Submit(SubmitError::Unsupported { .. })), "{no_vectors}");

    let timeout = Request::text("x").ignore_eos(true).timeout(Duration::ZERO);
    let answer = engine.complete(timeout);
    assert!(answer.is_ok_and(|answer| answer.tokens.is_empty()));
    engine.begin_shutdown(exsa::Shutdown::Abort);
    let ended = engine.complete(Request::text("x").max_tokens(1)).unwrap_err();
    assert!(matches!(
        ended,
        Error::Submit(SubmitError::ShuttingDown) | Error::Request(RequestError::EngineStopped)
    ));
}

#[test]
fn options_without_a_setter() {
    let stopped = |options: EngineOptions| options.chat_template(None).queue_max(3).user_queue_max(1);
    let engine =
        Engine::builder().sequences(1).options(stopped).start(ScriptedModel::echo("x").shared()).unwrap();
    let endless = || Request::text("a").ignore_eos(true).user_id("ann");
    let answers: Vec<_> = (0..4).map(|_| engine.submit(endless())).collect();
    let refused = answers.into_iter().find_map(Result::err).expect("one user has one place in the queue");
    assert!(matches!(refused, SubmitError::QueueFull { limit: 1, .. }), "{refused}");
}

/// A draft model changes no answer, and its memory counts.
#[test]
fn a_draft_model_beside_the_model() {
    let builder = || Engine::builder().threads(1).context_tokens(256).sequences(2);
    let request = || Request::text("Once upon a time").max_tokens(40).seed(4).temperature(0.7);
    let expected = story().complete(request()).unwrap().text;
    let engine = builder().draft_model(exsa_tiny::GGUF).drafts_max(4).load(exsa_tiny::GGUF).unwrap();
    assert_eq!(engine.complete(request()).unwrap().text, expected);
    let alone = builder().estimate(exsa_tiny::GGUF).unwrap();
    let both = builder().draft_model(exsa_tiny::GGUF).estimate(exsa_tiny::GGUF).unwrap();
    assert!(both.weights == 2 * alone.weights && both.kv > alone.kv, "{alone:?}, {both:?}");
    let limited = builder().draft_model(exsa_tiny::GGUF).memory_max(alone.total()).load(exsa_tiny::GGUF);
    assert!(matches!(limited, Err(Error::Load(LoadError::Memory { .. }))), "{limited:?}");
    let other = builder().draft_model(exsa_tiny::GGUF).start(ScriptedModel::echo("a").shared());
    assert!(other.unwrap_err().to_string().contains("same vocabulary"));
}
