//! SentencePiece's unigram model: of all ways to cover a text with tokens, the likeliest (Kudo, 2018), found
//! by Viterbi's algorithm.

use super::charsmap::Charsmap;
use super::error::TokenizerError;
use super::keys;
use super::spm::SPACE;
use super::tokens::{TokenType, Tokens, check_length};
use super::trie::Trie;
use crate::token::TokenId;

/// By which the score of an unknown character is below the lowest score of a token.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Normalization of text before it is covered.
pub(super) struct Normalizer {
    pub(super) charsmap: Charsmap,
    /// Whether a text gets a space before it.
    pub(super) add_space_prefix: bool,
    /// Whether white space at the ends is dropped, and runs of it become one space.
    pub(super) remove_extra_spaces: bool,
}

/// The algorithm's tables.
pub(super) struct Ugm {
    trie: Trie,
    /// User-defined tokens, which normalization leaves as they are.
    user_defined: Trie,
    /// By id; 0 for user-defined tokens.
    scores: Vec<f64>,
    unknown_score: f64,
    unk: TokenId,
    normalizer: Normalizer,
}

/// The best way to a place.
#[derive(Clone, Copy)]
struct Best {
    /// The last token, and the place that it starts at.
    id: TokenId,
    start: usize,
    score: f64,
}

impl Ugm {
    pub(super) fn new(
        tokens: &Tokens,
        scores: &[f32],
        unk: TokenId,
        normalizer: Normalizer,
    ) -> Result<Self, TokenizerError> {
        check_length(keys::SCORES, scores.len(), tokens.len())?;
        if let Some(token) = scores.iter().position(|score| score.is_nan()) {
            return Err(TokenizerError::Score { key: keys::SCORES, token: token as TokenId });
        }
        let score = |id: TokenId| scores.get(id as usize).copied().unwrap_or(0.0);
        let normal = tokens.iter().filter(|(_, _, kind)| *kind == TokenType::Normal);
        let lowest = normal.map(|(id, ..)| score(id)).reduce(f32::min).unwrap_or(0.0);
        let of = |wanted: fn(TokenType) -> bool| {
            let texts = tokens.iter().filter(move |(_, _, kind)| wanted(*kind));
            Trie::new(texts.map(|(id, text, _)| (id, text)))
        };
        let score = |(id, _, kind)| if kind == TokenType::UserDefined { 0.0 } else { score(id).into() };
        Ok(Self {
            trie: of(TokenType::is_text),
            user_defined: of(|kind| kind == TokenType::UserDefined),
            scores: tokens.iter().map(score).collect(),
            unknown_score: (lowest - UNKNOWN_PENALTY).into(),
            unk,
            normalizer,
        })
    }

    /// Appends the ids of `text`. Neighbouring unknown characters are one token.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) {
        let text = self.normalize(text);
        if text.is_empty() {
            return;
        }
        let mut best = vec![Best { id: self.unk, start: 0, score: -f64::MAX }; text.len() + 1];
        best[0].score = 0.0;
        let mut at = 0;
        while at < text.len() {
            let character = character_len(text[at]).min(text.len() - at);
            let before = best[at].score;
            let mut reach = |len: usize, id: TokenId, score: f64| {
                if before + score > best[at + len].score {
                    best[at + len] = Best { id, start: at, score: before + score };
                }
            };
            let mut is_covered = false;
            for (len, id) in self.trie.prefixes(&text[at..]) {
                is_covered |= len == character;
                reach(len, id, self.scores.get(id as usize).copied().unwrap_or(0.0));
            }
            if !is_covered {
                reach(character, self.unk, self.unknown_score);
            }
            at += character;
        }
        let first = out.len();
        let (mut end, mut after_unknown) = (text.len(), false);
        while end > 0 {
            let Best { id, start, .. } = best[end];
            let is_unknown = id == self.unk;
            if !(is_unknown && after_unknown) {
                out.push(id);
            }
            after_unknown = is_unknown;
            end = start;
        }
        out[first..].reverse();
    }

    fn normalize(&self, text: &str) -> Vec<u8> {
        let Normalizer { charsmap, add_space_prefix, remove_extra_spaces } = &self.normalizer;
        let mut utf8 = [0; 4];
        let space = SPACE.encode_utf8(&mut utf8).as_bytes();
        let mut normalized = Vec::with_capacity(text.len() + text.len() / 2);
        let (mut has_prefix, mut in_word) = (!add_space_prefix, false);
        let mut rest = text.as_bytes();
        while let Some(byte) = rest.first() {
            let (piece, taken) = if let Some((len, _)) = self.user_defined.prefixes(rest).last() {
                (rest.get(..len).unwrap_or_default(), len)
            } else if let Some(replaced) = charsmap.replacement(rest) {
                replaced
            } else if byte & 0xc0 == 0x80 {
                // A replacement took a part of a character.
                ("\u{fffd}".as_bytes(), 1)
            } else {
                let len = character_len(*byte).min(rest.len());
                (rest.get(..len).unwrap_or_default(), len)
            };
            for byte in piece {
                if *byte != b' ' {
                    if !in_word {
                        in_word = true;
                        if !has_prefix || *remove_extra_spaces {
                            normalized.extend(space);
                            has_prefix = true;
                        }
                    }
                    normalized.push(*byte);
                } else {
                    in_word = false;
                    if !remove_extra_spaces {
                        normalized.extend(space);
                    }
                }
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        normalized
    }
}

/// Bytes in a character of UTF-8 that starts with `first`.
fn character_len(first: u8) -> usize {
    match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0.. => 4,
        _ => 1,
    }
}
