//! Transforms that change the logits of individual tokens. They also apply to greedy decoding.

mod window;

pub(in crate::sampler) mod breakers;
pub(in crate::sampler) mod dry;
pub(in crate::sampler) mod logit_bias;
pub(in crate::sampler) mod min_tokens;
pub(in crate::sampler) mod penalties;

pub(in crate::sampler) use window::Window;
