//! A real instruct model on candle: its answers are right, and drafts do not change them.
#![allow(clippy::unwrap_used, reason = "tests")]

use exsa_backend_candle::CandleBackend;
use exsa_conformance::real_model;
use exsa_core::backend::SessionOptions;
use exsa_core::speculate::{PromptLookup, Speculation};
use exsa_core::{Engine, EngineOptions, Message, Request};

#[test]
fn it_knows_the_capital_of_france() {
    let answer = real_model::answer(&CandleBackend::new(), "What is the capital of France?", 16).unwrap();
    let Some(answer) = answer else { return };
    println!("{answer}");
    assert!(answer.contains("Paris"), "{answer:?}");
}

#[test]
fn drafts_from_the_prompt_change_no_answer() {
    let Some(model) = real_model::load(&CandleBackend::new()) else { return };
    let model = model.unwrap();
    let session = SessionOptions::new().sequences(2).context_tokens(512);
    let engine = Engine::start(model, EngineOptions::default().session(session)).unwrap();
    let text = "Repeat this list: apples, pears, plums, apples, pears, plums, apples, pears, plums.";
    let request = Request::chat([Message::user(text)]).max_tokens(40).seed(3);
    for temperature in [0.0, 0.8] {
        let run = |drafts: usize| {
            let speculation =
                (drafts > 0).then(|| Speculation::new(PromptLookup::default()).drafts_max(drafts));
            engine.speculate(speculation);
            engine.submit(request.clone().temperature(temperature)).unwrap().complete().unwrap().text
        };
        let expected = run(0);
        assert_eq!(run(4), expected, "at temperature {temperature}");
        let stats = engine.stats().scheduler;
        println!("{expected:?}: {} of {} drafts accepted", stats.accepted_drafts, stats.drafted_tokens);
        assert!(stats.accepted_drafts > 0, "nothing was drafted, so that nothing was tested");
    }
}
