//! Masks in two parts: tokens of plain text, whose part is cached by lexer state, and all other tokens.
//!
//! Inside a string or a regular expression a token of plain text rarely ends a lexeme. Then only the state of
//! the lexer determines whether the grammar allows it, and a grammar has few such states, which recur: the
//! remaining characters of a string of limited length, the positions in a date. The part is computed once for
//! each state. Tokens that depend on the parser, such as one with the closing quote, are computed for each
//! mask.

use super::environment::Environment;
use super::limits;
use hashbrown::HashMap;
use llguidance::derivre::StateID;
use llguidance::earley::{BiasComputer, ParserRecognizer};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use toktrie::{SimpleVob, TokTrie};

/// A part is cached if computing it visited more trie nodes than the vocabulary size divided by this number.
/// Cheaper parts are faster to recompute than to cache.
const NODES_SHARE: usize = 64;

/// Whether a token is plain text: only characters that need no escape in a JSON string.
pub(super) fn is_text(token: &[u8]) -> bool {
    let plain = |c: char| !c.is_ascii_control() && c != '"' && c != '\\';
    !token.is_empty() && std::str::from_utf8(token).is_ok_and(|text| text.chars().all(plain))
}

/// Parts of a grammar's masks, by state of the lexer, which all answers share.
#[derive(Default)]
pub(super) struct TextMasks {
    masks: HashMap<StateID, Arc<SimpleVob>>,
    /// States in order of insertion.
    order: VecDeque<StateID>,
    bytes: usize,
}

impl TextMasks {
    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, state: StateID, mask: SimpleVob) {
        let bytes = size_of_val(mask.as_slice());
        while self.bytes + bytes > limits::MASK_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.masks.remove(&oldest);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        if self.masks.insert(state, Arc::new(mask)).is_none() {
            self.order.push_back(state);
            self.bytes += bytes;
        }
    }
}

/// The computation of one mask.
pub(super) struct Computation<'a> {
    env: &'a Environment,
    masks: &'a Mutex<TextMasks>,
    fresh: Mutex<Option<(StateID, SimpleVob)>>,
}

impl<'a> Computation<'a> {
    pub(super) fn new(env: &'a Environment, masks: &'a Mutex<TextMasks>) -> Self {
        Self { env, masks, fresh: Mutex::default() }
    }

    /// Caches the computed part for later masks. Must not be called after an error, which leaves masks
    /// incomplete.
    pub(super) fn keep(self) {
        if let Some((state, mask)) = self.fresh.into_inner() {
            self.masks.lock().insert(state, mask);
        }
    }

    fn text(&self, recognizer: &mut ParserRecognizer<'_>) -> SimpleVob {
        let state = recognizer.lexer_state();
        if let Some(mask) = self.masks.lock().masks.get(&state).cloned() {
            return (*mask).clone();
        }
        let work = |recognizer: &mut ParserRecognizer<'_>| {
            let stats = recognizer.stats_mut();
            // Each end of a lexeme creates a row or uses a cached one.
            (stats.rows + stats.cached_rows, stats.trie_nodes_walked)
        };
        let (rows_before, nodes_before) = work(recognizer);
        let mask = self.env.text_slicer.compute_bias(recognizer, &[]);
        let (rows, nodes) = work(recognizer);
        if rows == rows_before && nodes - nodes_before > self.env.trie().vocab_size() / NODES_SHARE {
            *self.fresh.lock() = Some((state, mask.clone()));
        }
        mask
    }
}

impl BiasComputer for Computation<'_> {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        if !start.is_empty() {
            let mut mask = self.trie().alloc_token_set();
            self.trie().add_bias(recognizer, &mut mask, start);
            return mask;
        }
        let mut mask = self.text(recognizer);
        self.env.other_tokens.add_bias(recognizer, &mut mask, &[]);
        mask
    }

    fn trie(&self) -> &TokTrie {
        self.env.trie()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_needs_no_escape() {
        assert!(["a", " b", "süß", "'", "/", "\u{80}"].iter().all(|text| is_text(text.as_bytes())));
        assert!(["", "a\"", "\\", "\n", "\t", "\u{7f}"].iter().all(|text| !is_text(text.as_bytes())));
        assert!(!is_text(&"ß".as_bytes()[..1]) && !is_text(b"\xFF<eos>"));
    }

    #[test]
    fn the_oldest_masks_go() {
        let mut masks = TextMasks::default();
        let mask = SimpleVob::alloc(8 * limits::MASK_BYTES_MAX / 3);
        let states = [StateID::DEAD, StateID::MISSING, StateID::new(2), StateID::new(3)];
        states.iter().for_each(|state| masks.insert(*state, mask.clone()));
        assert_eq!(states.map(|state| masks.masks.contains_key(&state)), [false, false, true, true]);
        assert!(masks.bytes() <= limits::MASK_BYTES_MAX && masks.order.len() == 2);
    }
}
