//! What a model is, read from its header.

/// Facts about a model, known without its weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInfo {
    /// `general.name`, or an empty text.
    pub name: String,
    /// `general.architecture`: `llama`, `qwen2`.
    pub architecture: String,
    /// The weights' type as files are named: `Q4_K_M`, `Q8_0`, `F16`.
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// Bytes of KV per token at f16, over all layers.
    pub kv_bytes_per_token: u64,
    /// Tokens of context that the model was trained for.
    pub n_ctx: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Layers.
    pub n_layer: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// The chat template (Jinja), where the file has one.
    pub chat_template: Option<String>,
}
