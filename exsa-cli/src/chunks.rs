//! Texts in chunks of equal token counts, as in llama.cpp's tools.

use crate::error::CliError;
use exsa::ModelInfo;
use exsa::core::TokenId;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;

/// Reads a file, or standard input if there is none.
pub(crate) fn read(file: Option<&Path>) -> Result<String, CliError> {
    match file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| CliError::file(path, error)),
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            Ok(text)
        }
    }
}

/// Returns the tokens per chunk for `--context`.
pub(crate) fn size(context: NonZeroUsize, info: &ModelInfo) -> Result<usize, CliError> {
    let (size, max) = (context.get(), info.n_ctx);
    if size < 4 || size > max {
        return Err(CliError::Usage(format!(
            "--context: allowed are 4 to {max} tokens, the model's context"
        )));
    }
    Ok(size)
}

/// A text split into independent chunks. An incomplete last chunk is left out.
pub(crate) struct Chunks<'a> {
    /// All tokens.
    pub tokens: &'a [TokenId],
    /// Tokens of each chunk.
    pub size: usize,
    /// The token that replaces the first token of each chunk.
    pub bos: Option<TokenId>,
    /// Maximum chunks.
    pub max: usize,
}

impl Chunks<'_> {
    /// Returns the number of whole chunks.
    pub(crate) fn count(&self) -> usize {
        (self.tokens.len() / self.size).min(self.max)
    }

    fn original(&self, chunk: usize) -> &[TokenId] {
        &self.tokens[chunk * self.size..(chunk + 1) * self.size]
    }

    /// Returns the input tokens of a chunk.
    pub(crate) fn tokens(&self, chunk: usize) -> Vec<TokenId> {
        let mut tokens = self.original(chunk).to_vec();
        if let Some(bos) = self.bos {
            tokens[0] = bos;
        }
        tokens
    }

    /// Returns the scored tokens of a chunk: those after the middle token.
    pub(crate) fn targets(&self, chunk: usize) -> &[TokenId] {
        &self.original(chunk)[self.size / 2 + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_half_of_each_chunk_is_scored() {
        let tokens: Vec<TokenId> = (0..21).collect();
        let chunks = Chunks { tokens: &tokens, size: 8, bos: Some(99), max: 9 };
        assert_eq!(chunks.count(), 2);
        assert_eq!(chunks.tokens(1), [99, 9, 10, 11, 12, 13, 14, 15]);
        // Tokens 4 to 6 of the chunk predict tokens 5 to 7.
        assert_eq!(chunks.targets(1), [13, 14, 15]);
    }
}
