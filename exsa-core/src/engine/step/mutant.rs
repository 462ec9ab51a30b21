//! A mutant of the verification that accepts one draft too many, and the proof that answers show it.

use super::EngineLoop;
use crate::clock::ManualClock;
use crate::options::EngineOptions;
use crate::request::Request;
use crate::sampler::SamplingParams;
use crate::schedule::queue::Fcfs;
use crate::scripted::ScriptedModel;
use crate::speculate::{Proposer, Speculation, SpeculationMode};
use crate::stream::{Event, TokenStream};
use crate::token::{RequestId, TokenId};
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    /// Whether verification continues after the first draft that differs.
    static MUTATED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a draft that differs from the token drawn at its position is accepted.
pub(super) fn accepts_one_more() -> bool {
    MUTATED.get()
}

const PROMPT: [TokenId; 5] = [3, 1, 4, 1, 5];
const ANSWER: usize = 60;

/// Drafts the tokens of the answer, every fourth of them wrong.
#[derive(Debug)]
struct Nearly(Vec<TokenId>);

impl Proposer for Nearly {
    fn propose(&mut self, _: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        let rest = self.0.iter().enumerate().skip(tokens.len() - PROMPT.len()).take(max);
        drafts.extend(rest.map(|(i, token)| if i % 4 == 3 { (token + 1) % 256 } else { *token }));
    }
}

/// The answer, and the number of passes for it.
fn answer(params: &SamplingParams, speculation: Option<Speculation>) -> (Vec<TokenId>, u64) {
    let options = EngineOptions::default().speculation(SpeculationMode::Off);
    let model = ScriptedModel::ngram(9).order(usize::MAX).shared();
    let mut engine =
        EngineLoop::new(model, options, Box::new(Fcfs::new()), Arc::new(ManualClock::new())).unwrap();
    engine.speculate(speculation);
    let request = Request::tokens(PROMPT).sampling(params.clone()).max_tokens(ANSWER).ignore_eos(true);
    let mut stream: TokenStream = engine.submit(request).unwrap();
    while engine.step() {}
    let mut tokens = Vec::new();
    while let Some(event) = stream.try_next() {
        if let Event::Token(token) = event {
            tokens.extend(token.id);
        }
    }
    (tokens, engine.stats().steps)
}

#[test]
fn accepting_one_draft_too_many_changes_answers() {
    for params in [SamplingParams::greedy(), SamplingParams::default().temperature(1.0).seed(3)] {
        let (expected, steps) = answer(&params, None);
        assert_eq!(expected.len(), ANSWER);
        for adaptive in [false, true] {
            let speculation = || Some(Speculation::new(Nearly(expected.clone())).adaptive(adaptive));
            let (tokens, fewer) = answer(&params, speculation());
            assert_eq!(tokens, expected, "{params:?}");
            assert!(fewer * 2 < steps, "{fewer} passes, {steps} without drafts");
            MUTATED.set(true);
            let (mutated, _) = answer(&params, speculation());
            MUTATED.set(false);
            assert_ne!(mutated, expected, "{params:?}: the row behind a rejected draft follows another text");
        }
    }
}
