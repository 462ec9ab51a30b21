//! Capabilities of a remote engine.

use crate::dialect::Dialect;

/// Capabilities of a remote engine ([`RemoteEngine::capabilities`](crate::RemoteEngine::capabilities)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The protocol in use.
    pub dialect: Dialect,
    /// Route that generates answers.
    pub route: &'static str,
    /// Whether prompts can be token ids.
    pub ids_in: bool,
    /// Whether answers have token ids.
    pub ids_out: bool,
    /// Whether every token of an answer has its id, so that text is produced locally. llama-server omits the
    /// ids of tokens that end inside a character.
    pub ids_complete: bool,
    /// Whether the engine can render conversations, so that no local tokenizer is needed.
    pub chat: bool,
    /// Whether answers have log-probabilities.
    pub logprobs: bool,
    /// Names of the supported grammars.
    pub constraints: &'static [&'static str],
    /// Whether grammars apply to text prompts too, not only to conversations.
    pub text_constraints: bool,
    /// Whether tool calls can be forced.
    pub forced_tools: bool,
    /// Largest seed; `None` if seeds are not sent.
    pub seed_max: Option<u64>,
    /// Whether priorities can be sent.
    pub priority: bool,
    /// Whether requests can have a cache salt.
    pub cache_salt: bool,
    /// Whether there is an abort request besides closing the connection.
    pub abort: bool,
    /// Whether embeddings are supported.
    pub embeddings: bool,
    /// Whether reranking is supported.
    pub rerank: bool,
    /// Whether the engine's draws depend only on seed and position.
    pub positional_seeds: bool,
    /// Whether frequency and presence penalties count the tokens of a continued answer that were generated
    /// before the interruption.
    pub penalties_continue: bool,
    /// Whether the repetition penalty counts them.
    pub repetition_continues: bool,
}
