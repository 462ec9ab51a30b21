//! Canonical tokens of forced text, as produced by the model's tokenizer.

use super::environment::Environment;
use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, Tokenizer};
use llguidance::earley::Parser;
use toktrie::TokTrie;

/// Maximum bytes of forced text that are tokenized. Only the first token is used.
const WINDOW: usize = 192;

/// Number of tokens at the end of a truncated text that may change when the text continues.
const UNCERTAIN: usize = 3;

/// The first token of the forced text, which is pending in `parser`; `last` is the token before. `None` if
/// the token depends on text that is not forced.
///
/// The result depends only on the forced text and on `last`, so that interruptions and drafts do not change
/// it.
pub(super) fn first_token(env: &Environment, parser: &mut Parser, last: Option<TokenId>) -> Option<TokenId> {
    let pending = parser.currently_forced_bytes();
    let control = pending.iter().position(|byte| *byte == TokTrie::SPECIAL_TOKEN_MARKER);
    if control == Some(0) {
        let id = pending.get(2..)?.split(|byte| *byte == b']').next()?;
        return std::str::from_utf8(id).ok()?.parse().ok();
    }
    let window = pending.get(..control.unwrap_or(pending.len()).min(WINDOW))?;
    let followed_by_control = control == Some(window.len());
    let all_forced = window.len() == pending.len();
    let text = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(window.get(..error.valid_up_to())?).ok()?,
    };
    let uncut = text.len() == window.len();
    let mut tokens = env.tokenize(last, text)?;
    let kept = if uncut && followed_by_control {
        tokens.len()
    } else if uncut && all_forced {
        // Excludes the tokens that could change with the text after the forced text.
        let trie = env.trie();
        tokens.len() - parser.with_recognizer(|recognizer| trie.chop_tokens(recognizer, &tokens)).0
    } else {
        tokens.len().saturating_sub(UNCERTAIN)
    };
    tokens.truncate(kept);
    tokens.first().copied()
}

/// The tokens of `text` in the middle of a text, after the token `last`; `None` if the tokens do not
/// reproduce the bytes of the text.
pub(super) fn tokenize(tokenizer: &dyn Tokenizer, last: Option<TokenId>, text: &str) -> Option<Vec<TokenId>> {
    let mut piece = Vec::new();
    if let Some(last) = last {
        tokenizer.piece(last, &mut piece);
    }
    if let (Some(last), Ok(before)) = (last, std::str::from_utf8(&piece))
        && !before.is_empty()
        && let Some(mut tokens) = tokenize_inside(tokenizer, &format!("{before}{text}"))
        && tokens.first() == Some(&last)
    {
        tokens.remove(0);
        return Some(tokens);
    }
    tokenize_inside(tokenizer, text)
}

/// The tokens of `text`, without the space that some vocabularies prepend to a text.
fn tokenize_inside(tokenizer: &dyn Tokenizer, text: &str) -> Option<Vec<TokenId>> {
    // A line feed, which does not merge with other text in these vocabularies, absorbs that space.
    let before = if tokenizer.leading_space() { "\n" } else { "" };
    let mut tokens = Vec::new();
    tokenizer.encode(&format!("{before}{text}"), &EncodeOptions::default(), &mut tokens);
    let mut bytes = Vec::new();
    let mut first = tokens.len();
    for (i, token) in tokens.iter().enumerate().rev() {
        let mut piece = Vec::new();
        tokenizer.piece(*token, &mut piece);
        bytes.splice(0..0, piece);
        first = i;
        if bytes.len() >= text.len() {
            break;
        }
    }
    if bytes != text.as_bytes() {
        return None;
    }
    Some(tokens.split_off(first))
}
