//! Drafts on a real model change no byte of an answer: chat, code edits, summaries and JSON by schema, greedy
//! and seeded, with every proposer, in batches, against the same prompts alone and without drafts.
//!
//! `cargo nextest run -p exsa-backend-candle --test speculation --run-ignored all` compares 200 prompts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::real_model;
use exsa_core::backend::{Model, SessionOptions};
use exsa_core::constraint::Constraint;
use exsa_core::speculate::{
    DraftModel, DraftSource, PromptLookup, Speculation, SpeculationMode, SuffixIndex,
};
use exsa_core::stats::DraftStats;
use exsa_core::{Engine, EngineOptions, FinishReason, Message, Request, TokenId};
use std::path::PathBuf;
use std::sync::Arc;

const TOPICS: [&str; 10] =
    ["bread", "rivers", "bicycles", "winter", "the moon", "tea", "maps", "honey bees", "clocks", "gardens"];

const QUESTIONS: [&str; 5] = [
    "Tell me three facts about {}.",
    "Explain {} to a child in two sentences.",
    "Write a short poem about {}.",
    "List five words that have to do with {}, and repeat the list.",
    "What would a world without {} be like?",
];

const FUNCTIONS: [&str; 5] = [
    "def total(values):\n    result = 0\n    for value in values:\n        result = result + value\n    return result\n",
    "def read_lines(path):\n    lines = []\n    with open(path) as file:\n        for line in file:\n            lines.append(line.strip())\n    return lines\n",
    "fn largest(values: &[i32]) -> Option<i32> {\n    let mut best = None;\n    for value in values {\n        if best.is_none() || best < Some(*value) {\n            best = Some(*value);\n        }\n    }\n    best\n}\n",
    "function greet(name, greeting) {\n  const text = greeting + ', ' + name + '!';\n  console.log(text);\n  return text;\n}\n",
    "SELECT name, price FROM products WHERE price > 10 AND stock > 0 ORDER BY price DESC;\n",
];

/// Names and punctuation are forced, values are not.
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "topic": {"type": "string", "maxLength": 40},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
        "count": {"type": "integer"}
    },
    "required": ["topic", "words", "count"],
    "additionalProperties": false
}"#;

/// Requests that are answered at once.
const TOGETHER: usize = 8;

/// The four kinds of requests, 50 of each.
fn request(number: usize) -> Request {
    let (kind, number) = (number % 4, number / 4);
    let topic = TOPICS[number % TOPICS.len()];
    let variant = number / TOPICS.len() % 5;
    match kind {
        0 => Request::chat([Message::user(QUESTIONS[variant].replace("{}", topic))]),
        1 => {
            let name = topic.replace(' ', "_");
            let code = FUNCTIONS[variant];
            let text =
                format!("Add a comment that mentions {name} and repeat the code unchanged:\n```\n{code}```");
            Request::chat([Message::user(text)])
        }
        2 => {
            let facts = (1..=4).map(|i| {
                format!("Fact {i} about {topic}: there are {} of them in town. ", i * (variant + 3))
            });
            let text = format!("Repeat the facts, then sum them up.\n{}", facts.collect::<String>());
            Request::chat([Message::user(text)])
        }
        _ => {
            let text = format!(
                "Give a JSON object with the keys topic, words and count for {topic}, number {variant}."
            );
            Request::chat([Message::user(text)]).constraint(Constraint::json_schema(SCHEMA))
        }
    }
}

/// Tokens, text and end of an answer.
type Answer = (Vec<TokenId>, String, FinishReason);

/// The answers to `requests`, up to `together` at once, and the drafts that were verified.
fn answers(
    model: &Arc<dyn Model>,
    speculation: Option<Speculation>,
    together: usize,
    requests: Vec<Request>,
) -> (Vec<Answer>, DraftStats) {
    let options = EngineOptions::default().session(session(together)).speculation(SpeculationMode::Off);
    let engine = Engine::start(model.clone(), options).unwrap();
    engine.speculate(speculation);
    let streams: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    let complete = streams.into_iter().map(|stream| stream.complete().unwrap());
    let answers = complete.map(|answer| {
        let tokens = answer.tokens.iter().filter_map(|token| token.id).collect();
        (tokens, answer.text, answer.reason)
    });
    (answers.collect(), engine.stats().scheduler.drafts)
}

fn session(sequences: usize) -> SessionOptions {
    SessionOptions::new().sequences(sequences).context_tokens(768)
}

/// Compares each answer, alone and token by token, with those of batches with the drafts of every proposer.
fn compare(prompts: usize, max_tokens: usize) {
    let Some(model) = real_model::load(&CandleBackend::new()) else { return };
    let model = model.unwrap();
    // Half of each kind is greedy, the other half seeded.
    let request = |i: usize| {
        let temperature = if i / 4 % 2 == i % 2 { 0.0 } else { 0.8 };
        request(i).temperature(temperature).seed(i as u64).max_tokens(max_tokens)
    };
    // With log-probabilities no token is forced without a row, so that these are drawn one by one.
    let alone = (0..prompts).map(|i| {
        let mut request = request(i);
        request.sampling.logprobs = true;
        request
    });
    let (expected, none) = answers(&model, None, 1, alone.collect());
    assert!(none.is_empty());
    // The model is its own draft model: it drafts where prompt lookup has nothing.
    let draft = DraftModel::new(model.clone(), &*model, &session(TOGETHER)).unwrap();
    let lookup = || Speculation::new(PromptLookup::default());
    // The default drafts where it pays, which depends on the machine; without the budget there are always
    // drafts.
    let all = |speculation: Speculation| Some(speculation.adaptive(false).drafts_max(4));
    let contenders = [
        ("no proposer", None, None),
        ("prompt lookup", all(lookup()), Some(DraftSource::PromptLookup)),
        ("suffix index", all(Speculation::new(SuffixIndex::default())), Some(DraftSource::SuffixIndex)),
        ("draft model", all(lookup().draft_model(draft)), Some(DraftSource::DraftModel)),
        ("default", Some(Speculation::default()), None),
    ];
    for (name, speculation, source) in contenders {
        let (drafted, stats) = answers(&model, speculation, TOGETHER, (0..prompts).map(request).collect());
        for (i, (drafted, expected)) in drafted.iter().zip(&expected).enumerate() {
            assert_eq!(drafted, expected, "prompt {i} with {name}");
        }
        println!("{name}: {} of {} drafts accepted", stats.accepted(), stats.drafted());
        let of_source = source.map_or(1, |source| stats.by_source[source.index()].accepted);
        assert!(of_source > 0, "nothing of {name} was accepted, so that nothing was tested");
    }
}

/// The built-in model with the draft that was trained for it.
#[test]
fn a_draft_model_changes_no_byte() {
    let Some(data) = std::env::var_os("EXSA_TEST_DATA").map(PathBuf::from) else {
        eprintln!("skipped: EXSA_TEST_DATA is not set, the folder with models/exsa-draft-f16.gguf");
        return;
    };
    let model =
        support::load(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf")));
    let draft = support::load(data.join("models/exsa-draft-f16.gguf"));
    let session = SessionOptions::new().sequences(4);
    for temperature in [0.0, 0.8] {
        let run = |draft: Option<DraftModel>| {
            let options = EngineOptions::default().session(session.clone()).speculation(SpeculationMode::Off);
            let engine = Engine::start(model.clone(), options).unwrap();
            engine.speculate(
                draft.map(|draft| Speculation::default().adaptive(false).drafts_max(3).draft_model(draft)),
            );
            let begin =
                ["Once upon a time", "The little frog", "Tom and his dog", "One day a girl", "In the garden"];
            let requests = begin
                .iter()
                .enumerate()
                .map(|(i, text)| Request::text(*text).max_tokens(80).temperature(temperature).seed(i as u64));
            let streams: Vec<_> = requests.map(|request| engine.submit(request).unwrap()).collect();
            let answers: Vec<_> = streams.into_iter().map(|stream| stream.complete().unwrap().text).collect();
            (answers, engine.stats().scheduler.drafts)
        };
        let (expected, _) = run(None);
        let (answers, stats) = run(Some(DraftModel::new(draft.clone(), &*model, &session).unwrap()));
        assert_eq!(answers, expected, "at temperature {temperature}");
        let of_model = stats.by_source[DraftSource::DraftModel.index()];
        println!(
            "at temperature {temperature}: {} of {} drafts accepted",
            of_model.accepted, of_model.drafted
        );
        assert!(of_model.accepted * 5 > of_model.drafted, "{stats:?}");
    }
}

#[test]
fn a_draft_model_with_another_vocabulary_is_refused() {
    let Some(target) = real_model::load(&CandleBackend::new()) else { return };
    let draft =
        support::load(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf")));
    let error = DraftModel::new(draft, &*target.unwrap(), &SessionOptions::new()).unwrap_err().to_string();
    assert!(error.contains("the target has 49152") && error.contains("same vocabulary"), "{error}");
}

#[test]
fn drafts_change_no_byte_of_four_answers() {
    compare(4, 24);
}

/// `EXSA_TEST_PROMPTS` takes another number of them.
#[test]
#[ignore = "takes many minutes"]
fn drafts_change_no_byte_of_200_answers() {
    let prompts = std::env::var("EXSA_TEST_PROMPTS").map_or(200, |prompts| prompts.parse().unwrap());
    compare(prompts, 48);
}
