//! Encoders on the CPU: a pass sees whole texts, keeps nothing of them, and gives vectors or scores.
//!
//! Projections, norms and RoPE are those of the host executor; attention looks both ways, and so needs no
//! cache.

mod activation;
mod attention;
mod head;
mod layer;
mod load;
mod session;
mod workspace;

pub(crate) use load::load;
pub(crate) use session::EncoderSession;

use crate::layers::embedding::Embedding;
use crate::layers::norm::Input;
use exsa_core::backend::Fingerprint;
use exsa_models::EncoderConfig;
use head::Head;
use layer::EncoderLayer;

/// An encoder in host memory, shared by its sessions.
pub(crate) struct EncoderModel {
    /// Hyperparameters.
    pub config: EncoderConfig,
    /// Rows of the token embeddings.
    pub n_vocab: usize,
    /// Tells models apart.
    pub fingerprint: Fingerprint,
    embedding: Embedding,
    token_types: Option<Embedding>,
    positions: Option<Embedding>,
    embedding_norm: Option<Input>,
    layers: Vec<EncoderLayer>,
    output_norm: Option<Input>,
    /// Slopes of ALiBi, one for each head; empty without.
    slopes: Vec<f32>,
    head: Head,
}

impl EncoderModel {
    /// Whether the model can rank.
    pub fn ranks(&self) -> bool {
        self.head.ranks()
    }
}
