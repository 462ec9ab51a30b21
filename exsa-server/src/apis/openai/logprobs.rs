//! Log-probabilities in the forms of OpenAI's API.

use exsa_core::TokenId;
use exsa_core::stream::{PromptToken, Token};
use exsa_core::tokenizer::Tokenizer;
use serde::Serialize;

/// The tokens of a chat completion with their log-probabilities.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: Candidate,
    top_logprobs: Vec<Candidate>,
}

#[derive(Debug, Serialize)]
struct Candidate {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// The smallest log-probability that is sent, since JSON has no infinity.
pub(crate) const LOWEST: f32 = -9999.0;

impl Candidate {
    fn new(id: TokenId, logprob: f32, tokenizer: &dyn Tokenizer) -> Self {
        let bytes = bytes_of(id, tokenizer);
        let token = String::from_utf8_lossy(&bytes).into_owned();
        Self { token, logprob: logprob.max(LOWEST), bytes }
    }
}

/// The bytes of a token as text, or the name of a control token.
fn bytes_of(id: TokenId, tokenizer: &dyn Tokenizer) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.piece(id, &mut bytes);
    if bytes.is_empty() && tokenizer.is_control(id) {
        bytes.extend_from_slice(tokenizer.token_text(id).unwrap_or_default().as_bytes());
    }
    bytes
}

/// Returns the text of a single token, or the name of a control token.
pub(crate) fn text_of(id: TokenId, tokenizer: &dyn Tokenizer) -> String {
    String::from_utf8_lossy(&bytes_of(id, tokenizer)).into_owned()
}

impl ChatLogprobs {
    /// Log-probabilities of those `tokens` that have them.
    pub(crate) fn of<'a>(tokens: impl IntoIterator<Item = &'a Token>, tokenizer: &dyn Tokenizer) -> Self {
        let candidate = |id, logprob| Candidate::new(id, logprob, tokenizer);
        let content = tokens.into_iter().filter_map(|token| {
            let top = token.top_logprobs.iter().filter_map(|top| Some(candidate(top.id?, top.logprob)));
            Some(ChatToken { token: candidate(token.id?, token.logprob?), top_logprobs: top.collect() })
        });
        Self { content: content.collect() }
    }

    /// The tokens as JSON.
    pub(crate) fn into_values(self) -> Vec<serde_json::Value> {
        let value = |token| serde_json::to_value(token).unwrap_or_default();
        self.content.into_iter().map(value).collect()
    }
}

/// Tokens with their log-probabilities as an object, best first.
#[derive(Debug, Default)]
struct Ranked(Vec<(String, f32)>);

impl Serialize for Ranked {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

/// Tokens of a completion with their log-probabilities, as columns.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    /// Null for the first token of a prompt.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Ranked>>,
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Log-probabilities of `tokens`, whose text begins at the character `offset` of the answer. Also returns
    /// the offset after them.
    pub(crate) fn of<'a>(
        tokens: impl IntoIterator<Item = &'a Token>,
        tokenizer: &dyn Tokenizer,
        mut offset: usize,
    ) -> (Self, usize) {
        let mut columns = Self::default();
        for token in tokens {
            let (Some(id), Some(logprob)) = (token.id, token.logprob) else { continue };
            let own = Candidate::new(id, logprob, tokenizer);
            columns.text_offset.push(offset);
            offset += token.text.chars().count();
            columns.token_logprobs.push(Some(own.logprob));
            columns.tokens.push(own.token);
            let top = token.top_logprobs.iter().filter_map(|top| {
                let candidate = Candidate::new(top.id?, top.logprob, tokenizer);
                Some((candidate.token, candidate.logprob))
            });
            columns.top_logprobs.push(Some(Ranked(top.collect())));
        }
        (columns, offset)
    }

    /// Log-probabilities of a prompt, whose text begins the answer. Also returns the number of characters of
    /// its text.
    pub(crate) fn of_prompt(tokens: &[PromptToken], tokenizer: &dyn Tokenizer) -> (Self, usize) {
        let (mut columns, mut bytes) = (Self::default(), Vec::new());
        for token in tokens {
            columns.text_offset.push(String::from_utf8_lossy(&bytes).chars().count());
            tokenizer.piece(token.id, &mut bytes);
            let own = Candidate::new(token.id, token.logprob.unwrap_or_default(), tokenizer);
            columns.tokens.push(own.token);
            columns.token_logprobs.push(token.logprob.map(|_| own.logprob));
            let top = token.top_logprobs.iter().filter_map(|top| {
                let candidate = Candidate::new(top.id?, top.logprob, tokenizer);
                Some((candidate.token, candidate.logprob))
            });
            columns.top_logprobs.push(token.logprob.map(|_| Ranked(top.collect())));
        }
        let characters = String::from_utf8_lossy(&bytes).chars().count();
        (columns, characters)
    }

    /// Appends the columns of later tokens.
    pub(crate) fn append(&mut self, mut rest: Self) {
        self.tokens.append(&mut rest.tokens);
        self.token_logprobs.append(&mut rest.token_logprobs);
        self.top_logprobs.append(&mut rest.top_logprobs);
        self.text_offset.append(&mut rest.text_offset);
    }
}
