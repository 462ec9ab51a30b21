//! Mixtures of experts, as data.

/// Mixtures of experts of a family of models.
#[derive(Debug)]
#[non_exhaustive]
pub struct Mixture {
    /// All models of the family have experts, and not only those with `expert_count`.
    pub required: bool,
    /// Scores by which experts are chosen.
    pub scores: ExpertScores,
    /// `expert_gating_func` can name others.
    pub scores_in_metadata: bool,
    /// Whether the weights of a token's experts are divided by their sum.
    pub normalize: Normalize,
    /// `expert_weights_scale` is a factor on the weights.
    pub scale: bool,
    /// Hidden values of an expert.
    pub width: ExpertWidth,
    /// Hidden values of the expert that all tokens share.
    pub shared: SharedWidth,
    /// The output of that expert is multiplied by the sigmoid of a projection (`ffn_gate_inp_shexp`).
    pub shared_gate: bool,
    /// Bias on the scores for the choice of experts (`exp_probs_b`).
    pub selection_bias: SelectionBias,
    /// The first layers, `leading_dense_block_count`, have no experts.
    pub leading_dense: bool,
}

/// Scores of experts, and the weights of those that are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertScores {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid, each by itself.
    Sigmoid,
    /// The router's output; the weights are its softmax over the experts that are chosen.
    SoftmaxOfChosen,
}

/// Whether the weights of a token's experts are divided by their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// They are.
    Always,
    /// They are not.
    Never,
    /// If `expert_weights_norm` says so.
    Metadata,
}

/// Hidden values of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertWidth {
    /// `feed_forward_length`.
    FeedForward,
    /// `expert_feed_forward_length`.
    Metadata,
    /// The same, or where it is missing a share of `feed_forward_length` for each expert of a token.
    MetadataOrShare,
}

/// Hidden values of the expert that all tokens share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedWidth {
    /// There is none.
    Never,
    /// `expert_shared_feed_forward_length`; none where it is missing.
    Metadata,
    /// The same, or where it is missing `feed_forward_length`.
    MetadataOrFeedForward,
    /// `expert_shared_count` times those of another expert.
    Count,
}

/// Bias on the scores for the choice of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectionBias {
    /// None.
    Never,
    /// Optional: used if the file has it.
    IfPresent,
    /// The file must have it.
    Required,
}

/// Defaults that hold for most families: softmax over all experts, whose weights sum up to 1.
pub(super) const MIXTURE: Mixture = Mixture {
    required: true,
    scores: ExpertScores::Softmax,
    scores_in_metadata: false,
    normalize: Normalize::Always,
    scale: false,
    width: ExpertWidth::Metadata,
    shared: SharedWidth::Never,
    shared_gate: false,
    selection_bias: SelectionBias::Never,
    leading_dense: false,
};
