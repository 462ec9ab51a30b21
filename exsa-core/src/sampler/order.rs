//! The steps of the sampler's chain, and their order.

/// A step of the sampler's chain, for [`SamplingParams::order`](super::SamplingParams::order). In JSON, names
/// are those of llama.cpp's `samplers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TransformKind {
    /// Repetition, frequency and presence penalties.
    Penalties,
    /// DRY.
    Dry,
    /// The host's transforms, [`Request::transforms`](crate::Request::transforms).
    Host,
    /// Top-nσ.
    #[cfg_attr(feature = "serde", serde(alias = "top-n-sigma", alias = "topnsigma"))]
    TopNSigma,
    /// Top-k.
    #[cfg_attr(feature = "serde", serde(alias = "top-k", alias = "topk"))]
    TopK,
    /// Locally typical sampling.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "typ_p", alias = "typical_p", alias = "typ-p", alias = "typp", alias = "typ")
    )]
    TypicalP,
    /// Top-p.
    #[cfg_attr(feature = "serde", serde(alias = "top-p", alias = "topp", alias = "nucleus"))]
    TopP,
    /// Min-p.
    #[cfg_attr(feature = "serde", serde(alias = "min-p", alias = "minp"))]
    MinP,
    /// XTC.
    Xtc,
    /// Temperature, fixed or dynamic.
    #[cfg_attr(feature = "serde", serde(alias = "temp"))]
    Temperature,
    /// Adaptive-p.
    #[cfg_attr(feature = "serde", serde(alias = "adaptive-p", alias = "adaptivep"))]
    AdaptiveP,
}

impl TransformKind {
    /// The default order of the chain.
    pub const DEFAULT_ORDER: [Self; 11] = [
        Self::Penalties,
        Self::Dry,
        Self::Host,
        Self::TopNSigma,
        Self::TopK,
        Self::TypicalP,
        Self::TopP,
        Self::MinP,
        Self::Xtc,
        Self::Temperature,
        Self::AdaptiveP,
    ];

    /// Whether the step changes individual logits rather than the shape of the distribution. Only these steps
    /// apply to greedy decoding.
    pub(super) fn changes_logits(self) -> bool {
        matches!(self, Self::Penalties | Self::Dry | Self::Host)
    }

    /// Whether the step removes candidates by their rank or probability.
    pub(super) fn truncates(self) -> bool {
        matches!(self, Self::TopNSigma | Self::TopK | Self::TypicalP | Self::TopP | Self::MinP | Self::Xtc)
    }
}

/// Version of mirostat, which controls the perplexity of the text. In JSON the numbers 0, 1 and 2, as in
/// llama.cpp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u8", into = "u8")
)]
#[non_exhaustive]
pub enum Mirostat {
    /// No mirostat.
    #[default]
    Off,
    /// Version 1: top-k with a `k` estimated from Zipf's law.
    V1,
    /// Version 2: an upper bound on the surprise of a token.
    V2,
}

impl From<Mirostat> for u8 {
    fn from(mirostat: Mirostat) -> Self {
        match mirostat {
            Mirostat::Off => 0,
            Mirostat::V1 => 1,
            Mirostat::V2 => 2,
        }
    }
}

impl TryFrom<u8> for Mirostat {
    type Error = String;

    fn try_from(version: u8) -> Result<Self, String> {
        match version {
            0 => Ok(Self::Off),
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(format!("mirostat is {version}, but must be 0, 1 or 2")),
        }
    }
}
