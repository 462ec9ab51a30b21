//! Text with the tokens that a model wants around it.

use super::{EncodeOptions, Tokenizer};
use crate::token::TokenId;

/// The ids of a text that an answer continues: with BOS before them where the model wants it added
/// ([`SpecialIds::add_bos`](super::SpecialIds::add_bos)).
///
/// A text that begins with BOS itself, under [`EncodeOptions::parse_special`], gets no second one: models
/// were trained on one. Chat templates often write it.
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

/// The ids of a whole text, as for an embedding: those of [`encode_prompt`], with EOS after them where the
/// model wants it added ([`SpecialIds::add_eos`](super::SpecialIds::add_eos)) and the text does not end with
/// it itself.
#[must_use]
pub fn encode_whole(tokenizer: &dyn Tokenizer, text: &str, options: &EncodeOptions<'_>) -> Vec<TokenId> {
    let mut ids = encode_prompt(tokenizer, text, options);
    let special = tokenizer.special();
    ids.extend(special.eos.filter(|eos| special.add_eos && ids.last() != Some(eos)));
    ids
}
