//! PLaMo 2's tokenizer: the sequence of tokens whose scores sum up highest; a character that no token covers
//! is spelt in bytes, at a high price. Scores count in ten-thousandths.

use super::error::TokenizerError;
use super::keys;
use super::spm::byte_of;
use super::tokens::{TokenType, Tokens, check_length};
use super::trie::Trie;
use crate::token::TokenId;

/// Units in a score of 1.
const UNITS: f64 = 1e4;
/// Score of a character that is spelt in bytes.
const BYTES_SCORE: i64 = -10_000_000;
/// Tokens of this score or a lower one are never used.
const UNUSED_SCORE: i64 = -20_000_000;

/// The algorithm's tables.
pub(super) struct Plamo2 {
    trie: Trie,
    /// By id.
    scores: Vec<i64>,
    /// The token of each byte.
    bytes: Vec<TokenId>,
}

/// The best way from a place to the end.
#[derive(Clone, Copy)]
struct Best {
    cost: i64,
    /// Bytes of the first token.
    len: usize,
    /// `None` for bytes.
    id: Option<TokenId>,
}

impl Plamo2 {
    pub(super) fn new(tokens: &Tokens, scores: &[f32]) -> Result<Self, TokenizerError> {
        check_length(keys::SCORES, scores.len(), tokens.len())?;
        let mut bytes = vec![None; 256];
        for (id, text, _) in tokens.iter().filter(|(_, _, kind)| *kind == TokenType::Byte) {
            if let Some(byte) = byte_of(text) {
                bytes[usize::from(byte)] = Some(id);
            }
        }
        let why = "every byte needs a token of type byte, written <0x0A>";
        let bytes: Option<Vec<TokenId>> = bytes.into_iter().collect();
        let bytes = bytes.ok_or(TokenizerError::Missing { key: keys::TOKENS, why })?;
        let score = |score: &f32| {
            if score.is_finite() { (f64::from(*score) * UNITS).round() as i64 } else { UNUSED_SCORE }
        };
        let scores: Vec<i64> = scores.iter().map(score).collect();
        let is_used = |id: TokenId| scores.get(id as usize).is_none_or(|score| *score > UNUSED_SCORE);
        let used = tokens.iter().filter(|(id, _, kind)| kind.is_text() && is_used(*id));
        let trie = Trie::new(used.map(|(id, text, _)| (id, text)));
        Ok(Self { trie, scores, bytes })
    }

    /// Appends the ids of `text`. A byte order mark at its start is dropped.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let end = Best { cost: 0, len: 0, id: None };
        let mut best = vec![end; text.len() + 1];
        for (at, c) in text.char_indices().rev() {
            let spelt = Best { cost: i64::MAX, len: c.len_utf8(), id: None };
            let cost = |best: &[Best], len: usize| best.get(at + len).map_or(i64::MAX, |best| best.cost);
            let mut chosen = spelt;
            // Of equal ways the one with the longest token, and bytes last.
            for (len, id) in self.trie.prefixes(text.as_bytes().get(at..).unwrap_or_default()) {
                let score = self.scores.get(id as usize).copied().unwrap_or(0);
                let cost = cost(&best, len).saturating_sub(score);
                if cost <= chosen.cost {
                    chosen = Best { cost, len, id: Some(id) };
                }
            }
            let cost = cost(&best, spelt.len).saturating_sub(BYTES_SCORE);
            if cost < chosen.cost {
                chosen = Best { cost, ..spelt };
            }
            if let Some(best) = best.get_mut(at) {
                *best = chosen;
            }
        }
        let mut at = 0;
        while let Some(Best { len, id, .. }) = best.get(at).filter(|best| best.len > 0) {
            match id {
                Some(id) => out.push(*id),
                None => {
                    let bytes = text.as_bytes().get(at..at + len).unwrap_or_default();
                    out.extend(bytes.iter().filter_map(|b| self.bytes.get(usize::from(*b))));
                }
            }
            at += len;
        }
    }
}
