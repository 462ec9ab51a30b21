//! The vocabulary in the form that grammars need, built once per model.

use super::canonical;
use super::error::ConstraintError;
use super::guard::guard;
use super::text_masks::is_text;
use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, Tokenizer};
use llguidance::earley::SlicedBiasComputer;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

/// First unit of control tokens; lower units are bytes.
const CONTROL: u32 = 256;

/// Maximum bytes of a token that toktrie supports.
const TOKEN_BYTES_MAX: usize = 1000;

/// A byte of text or a control token; triggers are sequences of units.
pub(super) type Unit = u32;

/// A model's vocabulary in the forms that grammars need.
pub(crate) struct Environment {
    pub(super) tokenizer: Arc<dyn Tokenizer>,
    pub(super) token_env: TokEnv,
    /// The tokens of plain text, with classes whose masks are computed in advance.
    pub(super) text_slicer: SlicedBiasComputer,
    /// The other tokens.
    pub(super) other_tokens: TokTrie,
    /// Control tokens by text.
    controls: HashMap<Box<str>, TokenId>,
    control_bytes_max: usize,
}

/// The vocabulary as llguidance reads it.
struct Words {
    trie: TokTrie,
    tokenizer: Arc<dyn Tokenizer>,
}

impl TokenizerEnv for Words {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        self.tokenizer.encode(&String::from_utf8_lossy(bytes), &EncodeOptions::default(), &mut tokens);
        tokens
    }

    fn tokenize_is_canonical(&self) -> bool {
        // Forced text is tokenized in `canonical.rs`; llguidance leaves it as bytes.
        false
    }
}

/// A part of a literal.
pub(super) enum Part<'a> {
    Text(&'a str),
    Control(TokenId),
}

impl Environment {
    pub(super) fn new(tokenizer: Arc<dyn Tokenizer>) -> Result<Self, ConstraintError> {
        let n_vocab = tokenizer.n_vocab();
        let mut words = Vec::with_capacity(n_vocab);
        let mut controls: HashMap<Box<str>, TokenId> = HashMap::new();
        for id in 0..n_vocab as TokenId {
            let mut word = Vec::new();
            if tokenizer.is_control(id) {
                let text = tokenizer.token_text(id).unwrap_or_default();
                if !text.is_empty() {
                    controls.entry(text.into()).or_insert(id);
                    word.push(TokTrie::SPECIAL_TOKEN_MARKER);
                    word.extend(text.bytes());
                }
            } else {
                tokenizer.piece(id, &mut word);
                // The marker is not a byte of UTF-8 text, so a token that contains it cannot be part of valid
                // text.
                if word.contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
                    word.clear();
                }
            }
            if word.len() > TOKEN_BYTES_MAX {
                word.clear();
            }
            words.push(word);
        }
        let control_bytes_max = controls.keys().map(|text| text.len()).max().unwrap_or(0);
        let eos = tokenizer.special().eos.unwrap_or(toktrie::INVALID_TOKEN);
        let info = TokRxInfo::new(n_vocab as u32, eos);
        let words_of = tokenizer.clone();
        let (token_env, text_slicer, other_tokens) = guard(move || {
            let trie = TokTrie::from(&info, &words);
            let (mut text, mut others) = (trie.alloc_token_set(), trie.alloc_token_set());
            for (id, word) in (0..).zip(&words) {
                if is_text(word) { text.allow_token(id) } else { others.allow_token(id) }
            }
            let (text, others) = (trie.filter(&text), trie.filter(&others));
            let text: TokEnv = Arc::new(Words { trie: text, tokenizer: words_of.clone() });
            let slicer = SlicedBiasComputer::new(&text, &slices());
            let token_env: TokEnv = Arc::new(Words { trie, tokenizer: words_of });
            slicer.map(|slicer| (token_env, slicer, others))
        })?
        .map_err(|error| ConstraintError::Internal(format!("the vocabulary: {error}")))?;
        Ok(Self { tokenizer, token_env, text_slicer, other_tokens, controls, control_bytes_max })
    }

    /// The control token of this text.
    pub(super) fn control(&self, text: &str) -> Option<TokenId> {
        self.controls.get(text).copied()
    }

    pub(super) fn trie(&self) -> &TokTrie {
        self.token_env.tok_trie()
    }

    /// Splits a literal at the control tokens that it contains, longest match first.
    pub(super) fn parts<'a>(&self, literal: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < literal.len() {
            let rest = &literal[at..];
            let longest = rest.len().min(self.control_bytes_max);
            let control = (1..=longest).rev().find_map(|len| {
                let text = rest.get(..len)?;
                self.controls.get(text).map(|id| (len, *id))
            });
            match control {
                Some((len, id)) => {
                    if start < at {
                        parts.push(Part::Text(&literal[start..at]));
                    }
                    parts.push(Part::Control(id));
                    at += len;
                    start = at;
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        if start < literal.len() {
            parts.push(Part::Text(&literal[start..]));
        }
        parts
    }

    /// The units of a literal that may contain control tokens.
    pub(super) fn units_of_text(&self, literal: &str) -> Vec<Unit> {
        let mut units = Vec::new();
        for part in self.parts(literal) {
            match part {
                Part::Text(text) => units.extend(text.bytes().map(Unit::from)),
                Part::Control(id) => units.push(CONTROL + id),
            }
        }
        units
    }

    /// Appends the units of a token.
    pub(super) fn units_of_token(&self, id: TokenId, units: &mut Vec<Unit>) {
        let word = self.trie().token(id);
        match word.first() {
            None => {}
            Some(&TokTrie::SPECIAL_TOKEN_MARKER) => units.push(CONTROL + id),
            Some(_) => units.extend(word.iter().map(|byte| Unit::from(*byte))),
        }
    }

    /// The canonical tokens of `text` after the token `last`; `None` if the tokenizer does not preserve its
    /// bytes.
    pub(super) fn tokenize(&self, last: Option<TokenId>, text: &str) -> Option<Vec<TokenId>> {
        canonical::tokenize(&*self.tokenizer, last, text)
    }
}

/// Classes of plain text that a mask includes as a whole if the grammar allows all of it: letters and digits
/// (as in an email address), and text up to a number of characters. The masks of the classes are computed
/// once, when the environment is created.
fn slices() -> Vec<String> {
    let text = |most: &str| format!(r#"[^"\\\x00-\x1F\x7F]{most}"#);
    vec!["[a-zA-Z0-9]{1,30}".to_owned(), text("{1,10}"), text("{1,30}"), text("+")]
}

/// The byte, or the control token, of a unit.
pub(super) fn unit(unit: Unit) -> Result<u8, TokenId> {
    u8::try_from(unit).map_err(|_| unit - CONTROL)
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("n_vocab", &self.tokenizer.n_vocab()).finish_non_exhaustive()
    }
}
