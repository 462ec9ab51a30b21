#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// The model: the bytes of a GGUF, for `ModelSource::Embedded`.
pub const GGUF: &[u8] = include_bytes!("../exsa-tiny-q8_0.gguf");
