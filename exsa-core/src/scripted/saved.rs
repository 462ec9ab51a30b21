//! Payload of saved scripted sequences: each token as u32, little-endian.

use super::{Behaviour, ScriptedModel};
use crate::backend::{Fingerprint, SavedKv, read_error};
use crate::error::KvError;
use crate::token::TokenId;
use std::io::{Read, Write};

const TOKEN_BYTES: usize = size_of::<TokenId>();

/// Identifies the behaviour of `model`.
pub(super) fn fingerprint(model: &ScriptedModel) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    match &model.behaviour {
        Behaviour::Echo(script) => script.iter().for_each(|token| fingerprint.update(&token.to_le_bytes())),
        Behaviour::NGram { seed, order } => {
            fingerprint.update(b"ngram");
            fingerprint.update(&seed.to_le_bytes());
            fingerprint.update(&(*order as u64).to_le_bytes());
        }
    }
    fingerprint
}

fn header(model: &ScriptedModel, tokens: usize) -> SavedKv {
    SavedKv::new("scripted", fingerprint(model), tokens, tokens * TOKEN_BYTES)
}

/// Writes the `tokens` of a sequence of `model`.
pub(super) fn write(model: &ScriptedModel, tokens: &[TokenId], to: &mut dyn Write) -> Result<(), KvError> {
    header(model, tokens.len())
        .write(to, |to| tokens.iter().try_for_each(|token| Ok(to.write_all(&token.to_le_bytes())?)))
}

/// Reads the tokens of a sequence of at most `limit` tokens;
/// `admit` checks their number before memory is allocated.
pub(super) fn read(
    model: &ScriptedModel,
    limit: usize,
    from: &mut dyn Read,
    admit: impl FnOnce(usize) -> Result<(), KvError>,
) -> Result<Vec<TokenId>, KvError> {
    SavedKv::read(from, &header(model, 0), limit, |saved, from| {
        // The header was checked against `limit`, which is a usize.
        let len = saved.tokens as usize;
        admit(len)?;
        let mut tokens = Vec::with_capacity(len);
        for _ in 0..len {
            let mut token = [0; TOKEN_BYTES];
            from.read_exact(&mut token).map_err(read_error)?;
            tokens.push(TokenId::from_le_bytes(token));
        }
        Ok(tokens)
    })
}
