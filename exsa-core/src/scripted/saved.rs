//! The format that a scripted sequence is saved in.
//!
//! Little-endian: `SCRIPTED`, u64 hash of the model, u64 tokens, each token as u32, u64 hash of all before.

use super::{Behaviour, ScriptedModel, mix};
use crate::error::KvError;
use crate::token::TokenId;
use std::io::{ErrorKind, Read, Write};

const MAGIC: [u8; 8] = *b"SCRIPTED";

fn hash(seed: u64, numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(seed, |hash, number| mix(hash ^ number))
}

fn model_hash(model: &ScriptedModel) -> u64 {
    match &model.behaviour {
        Behaviour::Echo(script) => hash(1, script.iter().copied().map(u64::from)),
        Behaviour::NGram { seed, order } => hash(2, [*seed, *order as u64]),
    }
}

fn checksum(model: u64, tokens: &[TokenId]) -> u64 {
    hash(model, std::iter::once(tokens.len() as u64).chain(tokens.iter().copied().map(u64::from)))
}

/// Writes the `tokens` of a sequence of `model`.
pub(super) fn write(model: &ScriptedModel, tokens: &[TokenId], to: &mut dyn Write) -> Result<(), KvError> {
    let model = model_hash(model);
    to.write_all(&MAGIC)?;
    to.write_all(&model.to_le_bytes())?;
    to.write_all(&(tokens.len() as u64).to_le_bytes())?;
    for token in tokens {
        to.write_all(&token.to_le_bytes())?;
    }
    Ok(to.write_all(&checksum(model, tokens).to_le_bytes())?)
}

fn take<const N: usize>(from: &mut dyn Read) -> Result<[u8; N], KvError> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => KvError::Format("it ends too early".into()),
        _ => KvError::Io(error),
    })?;
    Ok(bytes)
}

/// Reads how many tokens follow, at most `limit`.
pub(super) fn read_len(model: &ScriptedModel, limit: usize, from: &mut dyn Read) -> Result<usize, KvError> {
    if take(from)? != MAGIC {
        return Err(KvError::Format("it does not start with SCRIPTED".into()));
    }
    if u64::from_le_bytes(take(from)?) != model_hash(model) {
        return Err(KvError::Format("it belongs to another model".into()));
    }
    let len = u64::from_le_bytes(take(from)?);
    let fits = usize::try_from(len).ok().filter(|len| *len <= limit);
    fits.ok_or_else(|| KvError::Format(format!("holds {len} tokens, the context has {limit}")))
}

/// Reads `len` tokens and what follows them.
pub(super) fn read_tokens(
    model: &ScriptedModel,
    len: usize,
    from: &mut dyn Read,
) -> Result<Vec<TokenId>, KvError> {
    let mut tokens = Vec::with_capacity(len);
    for _ in 0..len {
        tokens.push(TokenId::from_le_bytes(take(from)?));
    }
    if u64::from_le_bytes(take(from)?) != checksum(model_hash(model), &tokens) {
        return Err(KvError::Format("its checksum is wrong".into()));
    }
    Ok(tokens)
}
