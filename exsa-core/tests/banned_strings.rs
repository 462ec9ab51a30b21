//! Answers without banned strings: their text, their independence of interruptions, and their limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drafts;
mod reference;

use drafts::{Answers, Kind, Oracle};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::queue::Fcfs;
use exsa_core::scripted::ScriptedModel;
use exsa_core::speculate::Speculation;
use exsa_core::stream::Finished;
use exsa_core::{
    EngineLoop, EngineOptions, Event, FinishReason, Mode, Overflow, Prompt, Request, Resume, SamplingParams,
    SubmitError, TokenId, TokenStream,
};
use proptest::prelude::*;
use reference::{Expected, Reference, ids, text};
use std::sync::Arc;
use std::time::Duration;

/// A stream, and what was read of it.
struct Reader {
    stream: TokenStream,
    tokens: Vec<TokenId>,
    text: String,
    finished: Option<Finished>,
}

impl Reader {
    fn new(engine: &EngineLoop, request: Request) -> Self {
        let stream = engine.submit(request).unwrap();
        Self { stream, tokens: Vec::new(), text: String::new(), finished: None }
    }

    /// Reads up to `max` events.
    fn read(&mut self, max: usize) {
        for event in std::iter::from_fn(|| self.stream.try_next()).take(max) {
            match event {
                Event::Token(token) => {
                    self.tokens.extend(token.id);
                    self.text += &token.text;
                }
                Event::Finished(finished) => {
                    self.text += &finished.text;
                    self.finished = Some(finished);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn reason(&self) -> Option<&FinishReason> {
        self.finished.as_ref().map(|finished| &finished.reason)
    }
}

fn engine(model: &ScriptedModel, options: EngineOptions) -> EngineLoop {
    let clock = ManualClock::new();
    EngineLoop::new(model.clone().shared(), options, Box::new(Fcfs::new()), Arc::new(clock)).unwrap()
}

/// Runs requests together until all have ended.
fn run(engine: &mut EngineLoop, requests: Vec<Request>) -> Vec<Reader> {
    let mut readers: Vec<_> = requests.into_iter().map(|request| Reader::new(engine, request)).collect();
    for _ in 0..200_000 {
        engine.step();
        engine.scheduler().check().unwrap();
        readers.iter_mut().for_each(|reader| reader.read(usize::MAX));
        if readers.iter().all(|reader| reader.finished.is_some()) {
            assert_eq!(engine.stats().scheduler.kv_tokens_used, 0);
            return readers;
        }
    }
    panic!("the answers do not end");
}

fn alone(model: &ScriptedModel, request: Request) -> Reader {
    run(&mut engine(model, EngineOptions::default()), vec![request]).remove(0)
}

/// Sampling among the letters a to d.
fn letters(seed: u64) -> SamplingParams {
    let letters = (b'a'..=b'd').map(|letter| (TokenId::from(letter), 40.0)).collect::<Vec<_>>();
    SamplingParams::default().temperature(1.0).top_k(0).min_p(0.0).seed(seed).logit_bias(letters)
}

#[derive(Clone)]
struct Case {
    model: ScriptedModel,
    params: SamplingParams,
    prompt: Vec<TokenId>,
    max: usize,
    banned: Vec<String>,
}

impl Case {
    fn new(seed: u64, max: usize, banned: &[&str]) -> Self {
        let banned = banned.iter().map(|&text| text.into()).collect();
        let (model, params) = (ScriptedModel::ngram(seed).order(usize::MAX), letters(seed));
        Self { model, params, prompt: ids("some prompt"), max, banned }
    }

    fn request(&self) -> Request {
        let request = Request::tokens(self.prompt.clone()).sampling(self.params.clone()).max_tokens(self.max);
        let request = self.banned.iter().fold(request, Request::banned_string);
        request.banned_strings_ignore_case(false)
    }

    fn expected(&self) -> Expected {
        let reference = Reference::new(&self.model, &self.prompt, &self.params);
        Reference { tokens_max: Some(self.max), banned: &self.banned, ..reference }.answer()
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::new(1, 60, &["ab"]),
        Case::new(2, 60, &["abc", "cab", "bb"]),
        Case::new(3, 60, &["aa", "bb", "cc", "dd"]),
        Case::new(4, 60, &["a", "b"]),
        Case::new(5, 60, &["abab", "ba", "cdcd", "dc"]),
        // Only the second is ever reached, and its end is that of the first.
        Case::new(6, 60, &["dab", "ab"]),
        // After the text of one, the beginning of the other may have been emitted.
        Case::new(7, 80, &["abcd", "bcc", "cda", "add", "dbb", "caa"]),
    ]
}

#[track_caller]
fn assert_is(reader: &Reader, expected: &Expected, what: &str) {
    assert_eq!(text(&reader.tokens), text(&expected.tokens), "{what}");
    assert_eq!(reader.reason(), expected.reason.as_ref(), "{what}");
    let usage = &reader.finished.as_ref().unwrap().usage;
    assert_eq!(usage.completion_tokens, expected.tokens.len(), "{what}");
}

#[test]
fn another_token_is_taken_where_a_banned_string_begins() {
    // After a null byte, the first of equal logits, the model begins again.
    let model = ScriptedModel::echo("the cat sat");
    let request = Request::text("x").sampling(SamplingParams::greedy()).max_tokens(12);
    let reader = alone(&model, request.clone().banned_string("Cat"));
    assert_eq!((reader.text.as_str(), reader.reason()), ("the \0the \0th", Some(&FinishReason::MaxTokens)));
    let exact = request.clone().banned_string("Cat").banned_strings_ignore_case(false);
    assert_eq!(alone(&model, exact).text, "the cat sat");
    // The beginning of a character is taken back, not its end.
    let model = ScriptedModel::echo("für");
    let reader = alone(&model, request.clone().max_tokens(3).banned_string("Ü"));
    assert_eq!(reader.text, "f\0f");
    // A prompt is not part of the answer.
    let model = ScriptedModel::echo("abcd");
    let mut request = request.banned_string("bc");
    request.prompt = Prompt::Text("ab".into());
    assert_eq!(alone(&model, request).text, "cd");
}

#[test]
fn answers_are_those_of_the_reference() {
    let mut rewound = 0;
    for (i, case) in cases().iter().enumerate() {
        let expected = case.expected();
        let mut engine = engine(&case.model, EngineOptions::default());
        let reader = run(&mut engine, vec![case.request()]).remove(0);
        assert_is(&reader, &expected, &format!("case {i}"));
        assert!(case.banned.iter().all(|banned| !reader.text.contains(banned)), "case {i}: {}", reader.text);
        assert_eq!(engine.stats().scheduler.rewound_tokens, expected.rewound as u64);
        rewound += expected.rewound;
    }
    assert!(rewound > 100, "{rewound} tokens were taken back");
}

#[test]
fn answers_are_the_same_beside_others_with_drafts_and_after_preemption() {
    let cases = cases();
    // KV for two of the seven; blocks of which parts are taken back.
    for (sequences, kv, capacity) in [(8, 4096, 64), (8, 160, 64), (3, 160, 2)] {
        for kind in [None, Some(Kind::Right), Some(Kind::Mixed)] {
            for fork in [true, false] {
                let what = format!("{sequences} sequences, {kv} tokens of KV, drafts {kind:?}, fork {fork}");
                let options = EngineOptions::default()
                    .session(SessionOptions::new().sequences(sequences).batch_tokens(24))
                    .mode(Mode::Throughput)
                    .stream_events_max(capacity);
                // One model for all, so that they share an engine.
                let mut model = ScriptedModel::ngram(9).order(usize::MAX).kv(kv, 16);
                if !fork {
                    model = model.without_fork();
                }
                let cases = cases.iter().map(|case| Case { model: model.clone(), ..case.clone() });
                let cases: Vec<Case> = cases.collect();
                let mut engine = engine(&model, options);
                if let Some(kind) = kind {
                    let answers = Answers::default();
                    for case in &cases {
                        answers.add([case.prompt.as_slice(), &case.expected().tokens].concat());
                    }
                    engine.speculate(Some(Speculation::new(Oracle::new(kind, 1, &answers)).drafts_max(4)));
                }
                let readers = run(&mut engine, cases.iter().map(Case::request).collect());
                for (i, (reader, case)) in readers.iter().zip(&cases).enumerate() {
                    assert_is(reader, &case.expected(), &format!("case {i}, {what}"));
                }
                assert_eq!(engine.stats().scheduler.preemptions > 0, kv == 160, "{what}");
            }
        }
    }
}

#[test]
fn an_answer_resumes_after_any_token() {
    for (i, case) in cases().iter().enumerate() {
        let expected = case.expected();
        for cut in 0..=expected.tokens.len() {
            let request = case.request().resume(Resume::new(&expected.tokens[..cut]));
            let rest = alone(&case.model, request);
            let what = format!("case {i}, cut after {cut} tokens");
            assert_eq!(text(&rest.tokens), text(&expected.tokens[cut..]), "{what}");
            assert_eq!(rest.reason(), expected.reason.as_ref(), "{what}");
            assert_eq!(rest.finished.unwrap().usage.completion_tokens, expected.tokens.len(), "{what}");
        }
    }
}

#[test]
fn the_first_complete_of_stop_and_banned_strings_counts() {
    let model = ScriptedModel::echo("one two three");
    let answer = |stop: &str, banned: &str| {
        let request = Request::text("x").sampling(SamplingParams::greedy()).max_tokens(8);
        let reader = alone(&model, request.stop(stop).banned_string(banned));
        (reader.text.clone(), reader.finished.unwrap().reason)
    };
    assert_eq!(answer("two", "two thr"), ("one ".into(), FinishReason::StopString(0)));
    assert_eq!(answer("two", "two"), ("one ".into(), FinishReason::StopString(0)), "both at once");
    assert_eq!(answer("two", "tw"), ("one \0one".into(), FinishReason::MaxTokens));
    assert_eq!(answer("ne t", "ne two"), ("o".into(), FinishReason::StopString(0)));
    assert_eq!(answer("\0", "two"), ("one ".into(), FinishReason::StopString(0)), "also after a rewind");
    // A token that ends the answer has no text.
    let request = Request::text("x").sampling(SamplingParams::greedy()).stop_token(b't'.into());
    let reader = alone(&model, request.banned_string(" t"));
    assert_eq!((reader.text.as_str(), reader.tokens.len()), ("one ", 4));
}

#[test]
fn tokens_wait_while_they_may_be_taken_back() {
    let model = ScriptedModel::echo("abcdefgh");
    let request =
        Request::text("x").sampling(SamplingParams::greedy()).banned_string("bcdx").banned_string("cdey");
    let mut engine = engine(&model, EngineOptions::default());
    let mut reader = Reader::new(&engine, request.max_tokens(8));
    let mut seen = Vec::new();
    while reader.finished.is_none() {
        engine.step();
        reader.read(usize::MAX);
        seen.push(reader.text.clone());
    }
    assert_eq!(seen, ["a", "a", "a", "a", "ab", "abcdef", "abcdefg", "abcdefgh"]);
}

#[test]
fn an_answer_that_is_cut_off_has_no_token_that_could_be_taken_back() {
    let model = ScriptedModel::echo("abcdefgh");
    let request = Request::text("x").sampling(SamplingParams::greedy()).banned_string("cdef!");
    let mut engine = engine(&model, EngineOptions::default());
    let mut reader = Reader::new(&engine, request.clone());
    (0..4).for_each(|_| assert!(engine.step()));
    reader.stream.cancel();
    engine.step();
    reader.read(usize::MAX);
    let usage = &reader.finished.as_ref().unwrap().usage;
    assert_eq!((reader.text.as_str(), usage.completion_tokens), ("ab", 2));
    // An answer that ends in its own way has them.
    assert_eq!(alone(&model, request.clone().max_tokens(5)).text, "abcde");
    assert_eq!(alone(&model.context(6), request).text, "abcde");
}

#[test]
fn an_answer_ends_where_nothing_else_is_left() {
    let model = ScriptedModel::ngram(1);
    let bias = |of: &[(u8, f32)]| {
        let all = (0..258).map(|token| {
            let found = of.iter().find(|(letter, _)| TokenId::from(*letter) == token);
            (token, found.map_or(f32::NEG_INFINITY, |(_, bias)| *bias))
        });
        SamplingParams::greedy().logit_bias(all.collect::<Vec<_>>())
    };
    let only = Request::text("x").sampling(bias(&[(b'a', 0.0)]));
    let reader = alone(&model, only.clone().banned_string("b").banned_string("aaa"));
    assert_eq!((reader.text.as_str(), reader.reason()), ("", Some(&FinishReason::BannedString(1))));
    assert_eq!(reader.finished.unwrap().usage.completion_tokens, 0);

    // More tokens are banned at one place than may be.
    let printable: Vec<_> = (b'!'..b'~').map(|letter| (letter, 0.0)).collect();
    let one = |letter: u8| char::from(letter).to_string();
    let request = Request::text("x").sampling(bias(&printable)).banned_strings_ignore_case(false);
    let most = |n: u8| (b'!'..b'!' + n).map(one).fold(request.clone(), Request::banned_string).max_tokens(1);
    let reader = alone(&model, (b'!'..b'~').map(one).fold(request.clone(), Request::banned_string));
    assert!(matches!(reader.reason(), Some(FinishReason::BannedString(_))), "{:?}", reader.reason());
    assert_eq!(reader.text, "");
    assert_eq!(alone(&model, most(64)).reason(), Some(&FinishReason::MaxTokens), "one more is allowed");

    // More tokens are taken back than may be.
    let long = |letter: &str| letter.to_owned() + &"a".repeat(399);
    let request = Request::text("x").sampling(bias(&[(b'a', 90.0), (b'b', 60.0), (b'c', 30.0), (b'd', 0.0)]));
    let request = ["a", "b", "c"].into_iter().map(long).fold(request, Request::banned_string);
    let mut engine = engine(&model, EngineOptions::default());
    let reader = run(&mut engine, vec![request.max_tokens(500)]).remove(0);
    assert_eq!((reader.text.as_str(), reader.reason()), ("", Some(&FinishReason::BannedString(2))));
    assert_eq!(engine.stats().scheduler.rewound_tokens, 1200);
}

#[test]
fn strings_that_cannot_be_banned_are_refused() {
    let model = ScriptedModel::echo("a");
    let refuse = |model: &ScriptedModel, request: Request| {
        engine(model, EngineOptions::default()).submit(request).err().unwrap().to_string()
    };
    let request = || Request::text("x");
    assert_eq!(refuse(&model, request().banned_string("")), "banned_strings: string 0 is empty");
    let many = (0..513).map(|i: i32| i.to_string()).fold(request(), Request::banned_string);
    assert_eq!(refuse(&model, many), "banned_strings: 513 strings, but at most 512 are allowed");
    let long = refuse(&model, request().banned_string("x").banned_string("ä".repeat(513)));
    assert_eq!(long, "banned_strings: string 1 has more than 512 characters");
    let fixed = model.without_truncate();
    let error = engine(&fixed, EngineOptions::default()).submit(request().banned_string("x")).err().unwrap();
    assert!(matches!(error, SubmitError::Unsupported { operation: "banned_strings", .. }), "{error}");
    assert!(engine(&fixed, EngineOptions::default()).submit(request()).is_ok());
}

#[test]
fn a_full_stream_pauses_and_time_limits_hold() {
    let case = Case::new(3, 60, &["aa", "bb", "cc", "dd"]);
    let expected = case.expected();
    let clock = ManualClock::new();
    let model = case.model.clone().cost(clock.clone(), Duration::from_millis(5), Duration::ZERO);
    let options = EngineOptions::default().stream_events_max(2);
    let mut engine =
        EngineLoop::new(model.shared(), options, Box::new(Fcfs::new()), Arc::new(clock.clone())).unwrap();
    let mut reader = Reader::new(&engine, case.request().first_token_timeout(Duration::from_millis(50)));
    while reader.finished.is_none() {
        while engine.step() {}
        reader.read(1);
    }
    assert_is(&reader, &expected, "a slow reader");
    // The time limit of the first token is met by a token that was taken back.
    let mut reader = Reader::new(&engine, case.request().timeout(Duration::from_millis(100)));
    while reader.finished.is_none() {
        engine.step();
        reader.read(usize::MAX);
    }
    assert_eq!(reader.reason(), Some(&FinishReason::Deadline));
    assert!(expected.tokens.starts_with(&reader.tokens));
}

#[test]
fn a_context_shift_is_not_undone() {
    for seed in 0..20 {
        let mut case = Case::new(seed, 150, &["ab", "bcd", "dda", "ccc"]);
        case.model = case.model.context(40);
        let reference = Reference::new(&case.model, &case.prompt, &case.params);
        let reference =
            Reference { tokens_max: Some(150), window: 40, keep: Some(5), banned: &case.banned, ..reference };
        let expected = reference.answer();
        let request = case.request().overflow(Overflow::Shift { keep: 5 });
        let reader = alone(&case.model, request.clone());
        assert_is(&reader, &expected, &format!("seed {seed}"));
        assert_eq!(reader.finished.unwrap().usage.shifted_tokens, expected.shifted);
        assert!(expected.shifted > 100);
        for cut in [1, 20, 29, 30, 60, 100, 149] {
            let request = request.clone().resume(Resume::new(&expected.tokens[..cut]));
            let rest = alone(&case.model, request);
            assert_eq!(text(&rest.tokens), text(&expected.tokens[cut..]), "seed {seed}, cut after {cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_answer_has_a_banned_string_and_others_stay_as_they_are(
        seed in any::<u64>(),
        banned in proptest::collection::vec("[a-d]{1,4}", 0..8),
        max in 1usize..60,
        kv in 2usize..12,
    ) {
        let banned: Vec<&str> = banned.iter().map(String::as_str).collect();
        let mut case = Case::new(seed, max, &banned);
        case.model = case.model.kv(64 + kv * 16, 16);
        let reader = alone(&case.model, case.request());
        assert_is(&reader, &case.expected(), "reference");
        prop_assert!(!banned.iter().any(|banned| reader.text.contains(banned)), "{}", reader.text);
        case.banned.clear();
        let plain = alone(&case.model, case.request());
        if !banned.iter().any(|banned| plain.text.contains(banned)) {
            prop_assert_eq!(&reader.tokens, &plain.tokens);
            prop_assert_eq!(reader.reason(), plain.reason());
        }
    }
}
