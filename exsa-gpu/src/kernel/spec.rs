//! Names, modules and threadgroups of kernels.

use super::module::ATTEND_WIDTHS;
use super::{KvElement, Module, WeightType};

/// A kernel of the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KernelSpec {
    /// The module that has it.
    pub module: Module,
    /// Its name in the source.
    pub name: String,
    /// Threads of a threadgroup, a multiple of 32.
    pub threads: u32,
}

impl KernelSpec {
    fn new(module: Module, name: impl Into<String>, threads: u32) -> Self {
        Self { module, name: name.into(), threads }
    }

    pub(super) fn rows() -> Vec<Self> {
        ["norm_rows", "add_rows", "add_bias", "gate", "logits", "gather_rows", "arg_max"]
            .into_iter()
            .map(|name| Self::row(name))
            .collect()
    }

    /// A kernel of [`Module::Rows`].
    pub(crate) fn row(name: &'static str) -> Self {
        Self::new(Module::Rows, name, 256)
    }

    pub(crate) fn combine() -> Self {
        Self::new(Module::Combine, "combine", 64)
    }

    pub(crate) fn heads(element: KvElement) -> Self {
        Self::new(Module::Attention(element), format!("heads_{}", element.name()), 128)
    }

    /// Attention of so many rows and heads at a time, of `dim` dimensions; `None` for more than there are
    /// kernels for.
    pub(crate) fn attend(element: KvElement, dim: u32, (rows, heads): (u32, u32)) -> Option<Self> {
        let width = ATTEND_WIDTHS.into_iter().find(|width| dim <= *width)?;
        let name = format!("attend_{}_{width}_{rows}x{heads}", element.name());
        Some(Self::new(Module::Attention(element), name, 128))
    }

    pub(crate) fn embed(weight: WeightType) -> Self {
        Self::new(Module::Weights(weight), format!("embed_{}", weight.name()), 64)
    }

    /// Products with up to `m` rows at a time: 1, 4 or 8.
    pub(crate) fn product_few(weight: WeightType, m: u32) -> Self {
        Self::new(Module::Weights(weight), format!("product_{m}_{}", weight.name()), 64)
    }

    pub(crate) fn product_many(weight: WeightType) -> Self {
        Self::new(Module::Weights(weight), format!("product_many_{}", weight.name()), 128)
    }
}
