//! Token ids to text, as they come.

use crate::token::TokenId;
use crate::tokenizer::Tokenizer;

/// Turns ids into text one by one and never splits a character.
///
/// Bytes that may yet become a character are held back until they do, or cannot any more. The texts of all
/// [`push`](Self::push)es and of [`finish`](Self::finish), put together, are what [`String::from_utf8_lossy`] makes of
/// the pieces put together: bytes that are no UTF-8 become U+FFFD.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// Bytes not given out yet; between calls at most 3, the beginning of one character.
    held: Vec<u8>,
    /// Whether a space that comes next is the one that `encode` puts before a text.
    strip_space: bool,
}

impl Detokenizer {
    /// A detokenizer for one text. `text_precedes` says whether the ids go on with a text, as an answer does with its
    /// prompt, or begin one: only at its very beginning a text loses the space that
    /// [`Tokenizer::leading_space`] tells of.
    pub fn new(tokenizer: &dyn Tokenizer, text_precedes: bool) -> Self {
        Self { held: Vec::new(), strip_space: tokenizer.leading_space() && !text_precedes }
    }

    /// Appends to `out` the text that `id` completes. `tokenizer` is the one that the detokenizer was made with.
    pub fn push(&mut self, tokenizer: &dyn Tokenizer, id: TokenId, out: &mut String) {
        let start = self.held.len();
        tokenizer.piece(id, &mut self.held);
        if self.strip_space && self.held.len() > start {
            self.strip_space = false;
            if self.held.get(start) == Some(&b' ') {
                self.held.remove(start);
            }
        }
        self.release(out);
    }

    /// Appends what is still held back to `out`: the beginning of a character that never became whole is one U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(&self.held));
        self.held.clear();
    }

    /// Moves all but an unfinished character at the end to `out`.
    fn release(&mut self, out: &mut String) {
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            out.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let unfinished = done + invalid.len() == self.held.len()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if invalid.is_empty() || unfinished {
                break;
            }
            out.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
        self.held.drain(..done);
    }
}
