//! The transforms that ship with Exsa, one per file.

pub(super) mod adaptive_p;
pub(super) mod breakers;
pub(super) mod dry;
pub(super) mod dynamic_temperature;
pub(super) mod logit_bias;
pub(super) mod min_p;
pub(super) mod min_tokens;
pub(super) mod mirostat;
pub(super) mod mirostat_v2;
pub(super) mod observations;
pub(super) mod penalties;
pub(super) mod surprise;
pub(super) mod temperature;
pub(super) mod top_k;
pub(super) mod top_n_sigma;
pub(super) mod top_p;
pub(super) mod typical_p;
pub(super) mod window;
pub(super) mod xtc;
