//! Answers of a scripted model by the simplest possible code: a full search after every token, no cache, no
//! scheduler.
#![allow(dead_code)]

use exsa_core::sampler::{SampleError, SampleScratch, SamplerContext, SamplingParams};
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::{FinishReason, TokenId};

/// The request of an answer.
pub struct Reference<'a> {
    pub model: &'a ScriptedModel,
    pub prompt: &'a [TokenId],
    pub params: &'a SamplingParams,
    pub tokens_max: Option<usize>,
    /// Tokens at which the context, or the whole KV cache, is full.
    pub window: usize,
    /// Tokens to keep when the context is full; `None` ends the answer then.
    pub keep: Option<usize>,
    /// Banned ASCII strings, case-sensitive.
    pub banned: &'a [String],
}

/// An answer, and the numbers of its usage.
#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    /// The tokens, including the one that ended the answer.
    pub tokens: Vec<TokenId>,
    pub reason: Option<FinishReason>,
    /// Tokens dropped by context shifts.
    pub shifted: usize,
    /// Rewound tokens.
    pub rewound: usize,
}

impl<'a> Reference<'a> {
    pub fn new(model: &'a ScriptedModel, prompt: &'a [TokenId], params: &'a SamplingParams) -> Self {
        Self { model, prompt, params, tokens_max: None, window: usize::MAX, keep: None, banned: &[] }
    }

    pub fn answer(&self) -> Expected {
        let mut sampler = self.params.build(&SamplerContext::new(ByteTokenizer::N_VOCAB)).unwrap();
        let (mut scratch, mut row) = (SampleScratch::default(), vec![0.0; ByteTokenizer::N_VOCAB]);
        // The tokens that the model sees, and the whole answer.
        let (mut seen, mut answer) = (self.prompt.to_vec(), Vec::new());
        let mut bans: Vec<(usize, TokenId, usize)> = Vec::new();
        let (mut shifted, mut rewound, mut certain) = (0, 0, 0);
        let reason = loop {
            self.model.logits(&seen, &mut row);
            let at = answer.len();
            for (_, token, _) in bans.iter().filter(|(position, ..)| *position == at) {
                row[*token as usize] = f32::NEG_INFINITY;
            }
            let position = (self.prompt.len() + at) as u64;
            let token = match sampler.sample(&row, &seen, position, &mut scratch) {
                Ok(sampled) => sampled.token,
                Err(SampleError::NoCandidate { .. }) => {
                    break FinishReason::BannedString(bans.last().expect("all tokens are banned").2);
                }
                Err(error) => panic!("{error}"),
            };
            seen.push(token);
            answer.push(token);
            if token == ByteTokenizer::EOS {
                break FinishReason::EndOfGeneration;
            }
            // The text, and the token of each byte. Other control tokens have no text.
            let text: Vec<(u8, usize)> = (answer.iter().enumerate())
                .filter_map(|(i, token)| Some((u8::try_from(*token).ok()?, i)))
                .collect();
            let follows = |string: &str, start: usize| {
                text[start..].iter().zip(string.bytes()).all(|((byte, _), expected)| *byte == expected)
            };
            let ends = |(_, string): &(usize, &String)| {
                token < 256
                    && text.len().checked_sub(string.len()).is_some_and(|start| follows(string, start))
            };
            let banned = self.banned.iter().enumerate();
            if let Some((index, string)) = banned.filter(ends).min_by_key(|(_, string)| string.len()) {
                let begin = text[text.len() - string.len()].1.max(certain);
                bans.retain(|(position, ..)| *position <= begin);
                bans.push((begin, answer[begin], index));
                let n = answer.len() - begin;
                rewound += n;
                answer.truncate(begin);
                seen.truncate(seen.len() - n);
                let banned_here = bans.iter().filter(|(position, ..)| *position == begin).count();
                if banned_here > 64 || rewound > 1024 + 8 * begin {
                    break FinishReason::BannedString(index);
                }
                continue;
            }
            // The longest end of the answer that may be the beginning of a banned string can still be taken
            // back.
            let open = (0..text.len()).find(|at| {
                let may = |string: &String| text.len() - at < string.len() && follows(string, *at);
                self.banned.iter().any(may)
            });
            certain = certain.max(open.map_or(answer.len(), |at| text[at].1));
            if Some(answer.len()) == self.tokens_max {
                break FinishReason::MaxTokens;
            }
            if seen.len() >= self.window {
                let Some(keep) = self.keep else { break FinishReason::ContextFull };
                let dropped = (seen.len() - keep).div_ceil(2);
                seen.drain(keep..keep + dropped);
                shifted += dropped;
                certain = answer.len();
            }
        };
        Expected { tokens: answer, reason: Some(reason), shifted, rewound }
    }
}

/// The tokens of a text.
pub fn ids(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

/// The text of tokens.
pub fn text(tokens: &[TokenId]) -> String {
    let bytes: Vec<u8> = tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
