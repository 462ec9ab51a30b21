//! Text with the special tokens that the model requires around it.

use super::{EncodeOptions, Tokenizer};
use crate::token::TokenId;

/// The ids of a text that an answer continues, preceded by BOS if the model requires it
/// ([`SpecialIds::add_bos`](super::SpecialIds::add_bos)).
///
/// A text that itself begins with BOS, with [`EncodeOptions::parse_special`], gets no second one, since
/// models were trained with one. Chat templates often write BOS.
#[must_use]
pub fn encode_prompt(tokenizer: &dyn Tokenizer, text: &str, options: &EncodeOptions<'_>) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(text, options, &mut ids);
    let special = tokenizer.special();
    if let Some(bos) = special.bos.filter(|bos| special.add_bos && ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
    ids
}

/// The ids of a complete text, such as a text to embed: those of [`encode_prompt`], followed by EOS if the
/// model requires it ([`SpecialIds::add_eos`](super::SpecialIds::add_eos)) and the text does not already end
/// with it.
#[must_use]
pub fn encode_whole(tokenizer: &dyn Tokenizer, text: &str, options: &EncodeOptions<'_>) -> Vec<TokenId> {
    let mut ids = encode_prompt(tokenizer, text, options);
    let special = tokenizer.special();
    ids.extend(special.eos.filter(|eos| special.add_eos && ids.last() != Some(eos)));
    ids
}
