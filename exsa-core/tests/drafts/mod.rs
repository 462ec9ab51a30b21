//! Proposers for tests, which know the answers and draft them or other tokens. They check the proposer's
//! contract.
#![allow(dead_code)]

use exsa_core::scripted::ByteTokenizer;
use exsa_core::speculate::Proposer;
use exsa_core::{RequestId, TokenId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// Kinds of drafts of an [`Oracle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer.
    Right,
    /// Never a token of the answer.
    Wrong,
    /// Some tokens of the answer, then others.
    Mixed,
    /// Any tokens.
    Random,
    /// Some tokens of the answer, then ids outside the vocabulary.
    OutOfVocabulary,
    /// Some tokens of the answer, then the end of generation.
    EndOfGeneration,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Right, Self::Wrong, Self::Mixed, Self::Random, Self::OutOfVocabulary, Self::EndOfGeneration];
}

/// Answers that tests and an oracle share.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    /// Prompt and answer of each request, the token that ends it included.
    known: Vec<Vec<TokenId>>,
    finished: HashSet<RequestId>,
    drafted: u64,
    accepted: u64,
}

impl Answers {
    /// Adds a prompt with its answer.
    pub fn add(&self, sequence: Vec<TokenId>) {
        self.0.lock().unwrap().known.push(sequence);
    }

    /// Requests that the oracle was told have ended.
    pub fn finished(&self) -> u64 {
        self.0.lock().unwrap().finished.len() as u64
    }

    /// Drafts that the oracle was told were verified, and accepted.
    pub fn verified(&self) -> (u64, u64) {
        let shared = self.0.lock().unwrap();
        (shared.drafted, shared.accepted)
    }
}

/// Drafts from the answers that it knows.
#[derive(Debug)]
pub struct Oracle {
    kind: Kind,
    random: u64,
    answers: Answers,
    seen: HashMap<RequestId, Vec<TokenId>>,
}

impl Oracle {
    pub fn new(kind: Kind, seed: u64, answers: &Answers) -> Self {
        Self { kind, random: seed, answers: answers.clone(), seen: HashMap::new() }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }
}

impl Proposer for Oracle {
    fn propose(&mut self, id: RequestId, tokens: &[TokenId], max: usize, drafts: &mut Vec<TokenId>) {
        assert!(max > 0 && drafts.is_empty());
        let before = self.seen.entry(id).or_default();
        assert!(tokens.len() > before.len() || tokens == before, "{id:?}: fewer tokens than before");
        assert!(tokens.starts_with(before), "{id:?}: tokens changed");
        before.clear();
        before.extend(tokens);
        let shared = self.answers.0.lock().unwrap();
        assert!(!shared.finished.contains(&id), "{id:?} has ended");
        let known = shared.known.iter().rev();
        let mut known = known.filter(|known| known.len() > tokens.len() && known.starts_with(tokens));
        let answer: Vec<TokenId> =
            known.next().map(|known| known[tokens.len()..].to_vec()).unwrap_or_default();
        drop(shared);
        let right = self.below(max as u64 + 1) as usize;
        for i in 0..max {
            let next = answer.get(i).copied();
            let draft = match (self.kind, next) {
                (Kind::Random, _) => Some(self.below(ByteTokenizer::N_VOCAB as u64) as TokenId),
                (Kind::Right, next) => next,
                (Kind::Mixed | Kind::OutOfVocabulary | Kind::EndOfGeneration, Some(next)) if i < right => {
                    Some(next)
                }
                (Kind::Wrong | Kind::Mixed, next) => next.map(|next| (next + 1) % 256),
                (Kind::OutOfVocabulary, _) => {
                    Some([ByteTokenizer::N_VOCAB as TokenId, TokenId::MAX][self.below(2) as usize])
                }
                (Kind::EndOfGeneration, _) => Some(ByteTokenizer::EOS),
            };
            drafts.extend(draft);
        }
        if drafts.len() == max && self.below(8) == 0 {
            // More than requested.
            drafts.extend([1, 2, 3]);
        }
    }

    fn verified(&mut self, id: RequestId, drafted: usize, accepted: usize) {
        assert!(accepted <= drafted && self.seen.contains_key(&id));
        let mut shared = self.answers.0.lock().unwrap();
        shared.drafted += drafted as u64;
        shared.accepted += accepted as u64;
    }

    fn changed(&mut self, id: RequestId, kept: usize) {
        if let Some(seen) = self.seen.get_mut(&id) {
            seen.truncate(kept);
        }
    }

    fn finished(&mut self, id: RequestId) {
        self.seen.remove(&id);
        assert!(self.answers.0.lock().unwrap().finished.insert(id), "{id:?} ended twice");
    }
}
