//! Encoders: transformers whose tokens see a whole text, and which give vectors or scores, but no text.

mod architecture;
mod config;
mod tensors;

pub use architecture::{ENCODERS, EncoderActivation, EncoderArchitecture, Order, Positions, TokenTypes};
pub use config::EncoderConfig;
pub use tensors::{
    EncoderAttentionTensors, EncoderDescription, EncoderLayerTensors, EncoderMlpTensors, HeadTensors,
};
