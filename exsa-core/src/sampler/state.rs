//! State of a sampler whose transforms adapt to the tokens drawn so far.

/// Values that a sampler observed for the tokens it drew, for
/// [`Resume::sampler_state`](crate::Resume::sampler_state). Opaque.
///
/// Mirostat and adaptive-p depend on the probabilities of earlier tokens, which a resumed request cannot
/// reconstruct, since their logits are not recomputed. The state takes 4 bytes per generated token and is
/// valid only for the sampling parameters of its request. The state of an answer is also valid for every
/// prefix of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct SamplerState {
    /// Bits of the observed values: one list per transform with observations, one value per token.
    observations: Vec<Vec<u32>>,
}

impl SamplerState {
    pub(super) fn new<'a>(observations: impl Iterator<Item = &'a [f32]>) -> Self {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        Self { observations: observations.map(bits).collect() }
    }

    /// Appends the values observed for the answer's next token:
    /// [`Token::observed`](crate::stream::Token::observed).
    pub fn push(&mut self, observed: &[f32]) {
        self.observations.resize_with(self.observations.len().max(observed.len()), Vec::new);
        for (values, value) in self.observations.iter_mut().zip(observed) {
            values.push(value.to_bits());
        }
    }

    /// Whether no values were observed.
    pub fn is_empty(&self) -> bool {
        self.observations.is_empty()
    }

    /// Number of transforms with observations.
    pub(super) fn len(&self) -> usize {
        self.observations.len()
    }

    /// The values of each transform for the first `generated` tokens.
    pub(super) fn observations(&self, generated: usize) -> impl Iterator<Item = Vec<f32>> + '_ {
        let values =
            move |bits: &Vec<u32>| bits.iter().take(generated).map(|&bits| f32::from_bits(bits)).collect();
        self.observations.iter().map(values)
    }
}
