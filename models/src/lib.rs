#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// The model: the bytes of a GGUF, for `ModelSource::Embedded`.
pub const GGUF: &[u8] = include_bytes!("../exsa-tiny-q8_0.gguf");

/// An adapter of the model (LoRA, rank 8), trained on Alice in Wonderland: the bytes of a GGUF.
pub const LORA_ALICE: &[u8] = include_bytes!("../exsa-lora-alice.gguf");
