//! Modules of the kernel source: what a device compiles at once.

use super::{KernelSpec, KvElement, WeightType};
use std::fmt::Write;

/// Language of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// CUDA C++ for NVRTC, C++14 or later, without headers.
    Cuda,
    /// Metal Shading Language 2.4 or later.
    Metal,
}

/// Part of the kernels that is compiled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Module {
    /// Norms, gates, gathers, logits, arg-max.
    Rows,
    /// Heads of new tokens and attention, over a cache of this element type.
    Attention(KvElement),
    /// Merging of the splits of attention.
    Combine,
    /// Embeddings and products, for weights of this type.
    Weights(WeightType),
}

/// Dimensions of heads up to which a kernel of attention goes.
pub(super) const ATTEND_WIDTHS: [u32; 4] = [32, 64, 128, 256];

/// Rows and heads that a kernel of attention takes at once.
pub(super) const ATTEND_SHAPES: [(u32, u32); 4] = [(1, 1), (1, 4), (8, 1), (2, 4)];

const COMMON: (&str, &str) = ("common.inl", include_str!("../../kernels/common.inl"));
const ROWS: (&str, &str) = ("rows.inl", include_str!("../../kernels/rows.inl"));
const ATTENTION: (&str, &str) = ("attention.inl", include_str!("../../kernels/attention.inl"));
const COMBINE: (&str, &str) = ("combine.inl", include_str!("../../kernels/combine.inl"));
const FORMATS: (&str, &str) = ("formats.inl", include_str!("../../kernels/formats.inl"));
const WEIGHTS: (&str, &str) = ("weights.inl", include_str!("../../kernels/weights.inl"));

impl Module {
    /// All modules.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let attention = KvElement::ALL.into_iter().map(Self::Attention);
        let weights = WeightType::ALL.into_iter().map(Self::Weights);
        [Self::Rows, Self::Combine].into_iter().chain(attention).chain(weights).collect()
    }

    /// Name for messages and caches: `rows`, `attention-f16`, `weights-q4_k`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Rows => "rows".to_owned(),
            Self::Attention(element) => format!("attention-{}", element.name()),
            Self::Combine => "combine".to_owned(),
            Self::Weights(weight) => format!("weights-{}", weight.name()),
        }
    }

    /// The source in `language`, prelude included, to be compiled without headers or further files. Messages
    /// of the compiler name the files of `exsa-gpu/kernels`.
    #[must_use]
    pub fn source(self, language: Language) -> String {
        let prelude = match language {
            Language::Cuda => ("prelude.cu", include_str!("../../kernels/prelude.cu")),
            Language::Metal => ("prelude.metal", include_str!("../../kernels/prelude.metal")),
        };
        let files: &[(&str, &str)] = match self {
            Self::Rows => &[ROWS],
            Self::Attention(_) => &[ATTENTION],
            Self::Combine => &[COMBINE],
            Self::Weights(_) => &[FORMATS, WEIGHTS],
        };
        let mut source = String::new();
        for (name, text) in [prelude, COMMON].iter().chain(files) {
            // Writing to a string does not fail.
            let _ = writeln!(source, "#line 1 \"{name}\"\n{text}");
        }
        for line in self.instances() {
            source.push_str(&line);
            source.push('\n');
        }
        source
    }

    /// The kernels.
    #[must_use]
    pub fn kernels(self) -> Vec<KernelSpec> {
        match self {
            Self::Rows => KernelSpec::rows(),
            Self::Attention(element) => {
                let attend = ATTEND_WIDTHS
                    .into_iter()
                    .flat_map(|width| ATTEND_SHAPES.map(|shape| KernelSpec::attend(element, width, shape)));
                [KernelSpec::heads(element)].into_iter().chain(attend.flatten()).collect()
            }
            Self::Combine => vec![KernelSpec::combine()],
            Self::Weights(weight) => {
                let few = [1, 4, 8].map(|m| KernelSpec::product_few(weight, m));
                let others = [KernelSpec::embed(weight), KernelSpec::product_many(weight)];
                few.into_iter().chain(others).collect()
            }
        }
    }

    /// Lines that make the kernels out of macros.
    fn instances(self) -> Vec<String> {
        match self {
            Self::Rows | Self::Combine => Vec::new(),
            Self::Attention(element) => {
                let (structure, name) = (element.structure(), element.name());
                let widths = ATTEND_WIDTHS.map(|width| format!("ATTENTION({structure}, {name}, {width})"));
                [format!("HEADS({structure}, {name})")].into_iter().chain(widths).collect()
            }
            Self::Weights(weight) => vec![format!("WEIGHTS({}, {})", weight.structure(), weight.name())],
        }
    }
}
