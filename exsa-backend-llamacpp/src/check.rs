//! What llama.cpp takes for granted in a GGUF, and would end the process over.

use exsa_core::error::LoadError;
use exsa_core::gguf::{Gguf, Metadata};

/// An error for a sound GGUF that llama.cpp must not see.
pub(crate) fn header(gguf: &Gguf) -> Result<(), LoadError> {
    vocabulary(gguf.metadata())
}

/// Lists beside the vocabulary have one entry for each token, of the type that llama.cpp reads unasked.
fn vocabulary(metadata: &Metadata) -> Result<(), LoadError> {
    let Some(tokens) = metadata.get::<&[String]>("tokenizer.ggml.tokens")? else { return Ok(()) };
    let check = |key: &str, len: Option<usize>| match len {
        Some(len) if len != tokens.len() => Err(LoadError::Gguf(metadata.refuse(
            key,
            format!("{len} elements"),
            "as many as there are tokens",
        ))),
        _ => Ok(()),
    };
    check(
        "tokenizer.ggml.scores",
        metadata.get::<Vec<f32>>("tokenizer.ggml.scores")?.map(|list| list.len()),
    )?;
    check(
        "tokenizer.ggml.token_type",
        metadata.get::<Vec<i32>>("tokenizer.ggml.token_type")?.map(|list| list.len()),
    )
}
