//! Transforms that adapt to the tokens drawn so far.

mod observations;
mod surprise;

pub(in crate::sampler) mod adaptive_p;
pub(in crate::sampler) mod mirostat;
pub(in crate::sampler) mod mirostat_v2;

pub(in crate::sampler) use surprise::Surprise;
