//! Filters: transforms that remove candidates by rank or probability.

pub(in crate::sampler) mod min_p;
pub(in crate::sampler) mod top_k;
pub(in crate::sampler) mod top_n_sigma;
pub(in crate::sampler) mod top_p;
pub(in crate::sampler) mod typical_p;
pub(in crate::sampler) mod xtc;
