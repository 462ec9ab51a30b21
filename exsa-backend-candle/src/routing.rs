//! Choice of the experts of a token.

/// Experts that a layer has, and how those of a token are chosen and weighted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Routing {
    /// Number of experts.
    pub experts: usize,
    /// Experts of a token, at most as many as there are.
    pub used: usize,
    /// Scores by which they are chosen.
    pub scores: ExpertScores,
    /// Groups of as many experts each.
    pub groups: usize,
    /// Groups that the experts of a token come from, which are those of the two best scores together.
    pub groups_used: usize,
    /// The weights of a token's experts are divided by their sum.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// Scores of experts, and the weights of those that are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpertScores {
    /// Softmax over all experts.
    Softmax,
    /// Each by itself.
    Sigmoid,
    /// The router's output; the weights are its softmax over the experts that are chosen.
    SoftmaxOfChosen,
}
