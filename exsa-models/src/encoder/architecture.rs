//! Architectures of encoders as data.

use crate::architecture::{MlpKind, NormKind};

/// All encoders that are described here.
pub static ENCODERS: &[&EncoderArchitecture] =
    &[&BERT, &NOMIC_BERT, &JINA_BERT_V2, &MODERN_BERT, &GEMMA_EMBEDDING];

/// Characteristics of a family of encoders.
#[derive(Debug)]
#[non_exhaustive]
pub struct EncoderArchitecture {
    /// `general.architecture`, and the prefix of the metadata keys.
    pub name: &'static str,
    /// Norms of the hidden state.
    pub norm: NormKind,
    /// Norm of the embeddings (`token_embd_norm`).
    pub embedding_norm: bool,
    /// Norm of the last hidden state (`output_norm`).
    pub output_norm: bool,
    /// Place of the norms in a layer.
    pub order: Order,
    /// How positions enter.
    pub positions: Positions,
    /// Embeddings of token types (`token_types`), of which the first is added to every token.
    pub token_types: TokenTypes,
    /// Projections of the MLP to its hidden values; `None` if the tensors tell.
    pub mlp: Option<MlpKind>,
    /// The MLP's activation.
    pub activation: EncoderActivation,
    /// Whether the metadata may name another activation (`hidden_activation`).
    pub activation_key: bool,
    /// RMSNorm of each head of queries and keys (`attn_q_norm`, `attn_k_norm`).
    pub head_norms: bool,
    /// Layer normalization of queries and keys over all heads, where the file has it, and a second norm of
    /// the attention's output with the layer's input added (`attn_norm_2`).
    pub optional_norms: bool,
    /// The embeddings are multiplied by the square root of their width.
    pub scaled_embeddings: bool,
    /// Period of the layers with a window, and whether the first of a period, and not the last, has none;
    /// `None` without windows.
    pub windows: Option<(usize, bool)>,
    /// The window must be given.
    pub window_required: bool,
    /// Projections of the pooled vector (`dense_2`, `dense_3`).
    pub dense: bool,
    /// The head that ranks takes the mean of all tokens where the file does not say, and not the first.
    pub head_of_mean: bool,
    /// The head's activation is GELU, and not the hyperbolic tangent.
    pub head_gelu: bool,
    /// Values that the head's first projection gives; `None` for the width of the hidden state.
    pub head_width: Option<usize>,
}

/// Place of the norms in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// After the addition of attention (`attn_output_norm`) and MLP (`layer_output_norm`) to their input.
    After,
    /// Before attention (`attn_norm`, which the first layer may lack) and MLP (`ffn_norm`).
    Before,
    /// Before attention and MLP, and of their outputs before these are added (`post_attention_norm`,
    /// `post_ffw_norm`).
    Around,
}

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Learned embeddings (`position_embd`), one for each token of context.
    Learned,
    /// RoPE with pairs as in GPT-NeoX.
    Rope,
    /// Distances, times a slope for each head, are subtracted from scores (Press et al., arXiv:2108.12409);
    /// the value is the exponent of the steepest slope.
    Alibi(f32),
}

/// Embeddings of token types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenTypes {
    /// None.
    Absent,
    /// The metadata must count them (`tokenizer.ggml.token_type_count`), and the file may have them.
    Optional,
    /// The file must have them.
    Required,
}

/// Activation of an encoder's MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderActivation {
    /// GELU by the error function (Hendrycks and Gimpel, arXiv:1606.08415).
    Gelu,
    /// GELU in the approximation by tanh.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
}

/// BERT (Devlin et al., arXiv:1810.04805) and models of its shape: BGE, E5, MiniLM, RoBERTa and XLM-RoBERTa.
static BERT: EncoderArchitecture = EncoderArchitecture {
    name: "bert",
    norm: NormKind::Layer { bias: true },
    embedding_norm: true,
    output_norm: false,
    order: Order::After,
    positions: Positions::Learned,
    token_types: TokenTypes::Optional,
    mlp: Some(MlpKind::Ungated),
    activation: EncoderActivation::Gelu,
    activation_key: false,
    head_norms: false,
    optional_norms: false,
    scaled_embeddings: false,
    windows: None,
    window_required: false,
    dense: false,
    head_of_mean: false,
    head_gelu: false,
    head_width: None,
};

/// Nomic Embed (Nussbaum et al., arXiv:2402.01613).
static NOMIC_BERT: EncoderArchitecture = EncoderArchitecture {
    name: "nomic-bert",
    positions: Positions::Rope,
    mlp: Some(MlpKind::Gated),
    activation: EncoderActivation::Silu,
    ..BERT
};

/// Jina Embeddings 2 (Günther et al., arXiv:2310.19923).
static JINA_BERT_V2: EncoderArchitecture = EncoderArchitecture {
    name: "jina-bert-v2",
    positions: Positions::Alibi(8.0),
    token_types: TokenTypes::Required,
    mlp: None,
    optional_norms: true,
    head_width: Some(1),
    ..BERT
};

/// ModernBERT (Warner et al., arXiv:2412.13663).
static MODERN_BERT: EncoderArchitecture = EncoderArchitecture {
    name: "modern-bert",
    norm: NormKind::Layer { bias: false },
    output_norm: true,
    order: Order::Before,
    positions: Positions::Rope,
    token_types: TokenTypes::Absent,
    mlp: Some(MlpKind::FusedGate),
    activation_key: true,
    windows: Some((3, true)),
    head_of_mean: true,
    head_gelu: true,
    ..BERT
};

/// EmbeddingGemma (arXiv:2509.20354).
static GEMMA_EMBEDDING: EncoderArchitecture = EncoderArchitecture {
    name: "gemma-embedding",
    norm: NormKind::Rms,
    embedding_norm: false,
    output_norm: true,
    order: Order::Around,
    positions: Positions::Rope,
    token_types: TokenTypes::Absent,
    mlp: Some(MlpKind::Gated),
    activation: EncoderActivation::GeluTanh,
    head_norms: true,
    scaled_embeddings: true,
    windows: Some((6, false)),
    window_required: true,
    dense: true,
    ..BERT
};

impl EncoderArchitecture {
    /// The encoder called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        ENCODERS.iter().find(|architecture| architecture.name == name).copied()
    }
}
