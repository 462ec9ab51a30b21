//! WordPiece (BERT): words are cut at spaces and punctuation, and each is covered by the longest tokens from
//! left to right, or is unknown as a whole (Devlin et al., 2018).

use super::spm::SPACE;
use super::tokens::Tokens;
use super::trie::Trie;
use super::unicode::{Class, base, lowercase};
use crate::token::TokenId;

/// Normalization of text before it is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normalizer {
    pub(super) lowercase: bool,
    /// Letters lose their accents. Of a decomposed character only the first one is kept.
    pub(super) strip_accents: bool,
}

/// The algorithm's tables.
pub(super) struct Wpm {
    /// All tokens of text; those that start a word start with [`SPACE`].
    trie: Trie,
    unk: TokenId,
    normalizer: Normalizer,
}

impl Wpm {
    pub(super) fn new(tokens: &Tokens, unk: TokenId, normalizer: Normalizer) -> Self {
        let texts = tokens.iter().filter(|(_, _, kind)| kind.is_text()).map(|(id, text, _)| (id, text));
        Self { trie: Trie::new(texts), unk, normalizer }
    }

    /// Appends the ids of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<TokenId>) {
        // A word always starts with a space.
        let mut word = String::from(SPACE);
        for c in text.chars() {
            let c = if self.normalizer.strip_accents { base(c) } else { c };
            let class = Class::of(c);
            if class.any(Class::SPACE) {
                self.end_word(&mut word, out);
                continue;
            }
            let is_accent = self.normalizer.strip_accents && class.any(Class::MARK);
            if is_accent || class.any(Class::CONTROL) || c == char::REPLACEMENT_CHARACTER {
                continue;
            }
            let alone = is_alone(c, class);
            if alone {
                self.end_word(&mut word, out);
            }
            word.push(if self.normalizer.lowercase { lowercase(c) } else { c });
            if alone {
                self.end_word(&mut word, out);
            }
        }
        self.end_word(&mut word, out);
    }

    /// Appends the ids of `word`, unless it is empty but for the space before it, and empties it.
    fn end_word(&self, word: &mut String, out: &mut Vec<TokenId>) {
        if word.len() == SPACE.len_utf8() {
            return;
        }
        let start = out.len();
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            let Some((len, id)) = self.trie.prefixes(rest).last() else {
                out.truncate(start);
                out.push(self.unk);
                break;
            };
            out.push(id);
            rest = rest.get(len..).unwrap_or_default();
        }
        word.truncate(SPACE.len_utf8());
    }
}

/// Whether a character is a word of its own: punctuation, ASCII signs, and Chinese characters.
fn is_alone(c: char, class: Class) -> bool {
    class.any(Class::PUNCTUATION) || c.is_ascii() && class.any(Class::SYMBOL) || is_chinese(c)
}

/// Chinese characters by BERT's list, with the hole that Hugging Face's implementation has in it and models
/// were trained with: U+2B820 to U+2B91F.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}'
        | '\u{2b920}'..='\u{2ceaf}'
        | '\u{2f800}'..='\u{2fa1f}')
}
