//! Several answers to one prompt, the best of several, and log-probabilities of the prompt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod best_of;
mod harness;
mod prompt_logprobs;
mod several;
