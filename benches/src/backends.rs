//! The backends that can be measured, by name.
//!
//! To add one: a dependency in `Cargo.toml`, a name in [`NAMES`] and an arm in [`backend`]. One that needs
//! more than Rust to build is an optional dependency, and the name and the arm carry its feature, as with
//! `llamacpp`.

use crate::error::BenchError;
use clap::Args;
use exsa_backend_candle::CandleBackend;
use exsa_core::backend::{InferenceBackend, KvType, SessionOptions};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};

/// Names of the backends in this program.
pub const NAMES: &[&str] = &[
    "scripted",
    "candle",
    #[cfg(feature = "llamacpp")]
    "llamacpp",
];

/// Context of the scripted model in tokens: no case shall be too long for it.
const SCRIPTED_CONTEXT: usize = 1 << 24;

/// Options of the KV cache that are not left to a backend.
#[derive(Args, Clone, Debug, Default)]
pub struct KvOptions {
    /// Type of keys and values: f32, f16 or q8_0; the backend's default without.
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "f16", "q8_0"])]
    pub kv: Option<String>,

    /// How llamacpp lays out KV: unified or streams; its default without.
    #[arg(long, value_name = "LAYOUT", value_parser = ["unified", "streams"])]
    pub kv_layout: Option<String>,

    /// Instruction set of candle's kernels: scalar, avx2, avx-vnni, avx512-vnni, amx, neon or neon-dotprod;
    /// the best one of the processor without.
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,

    /// Whether llamacpp computes attention by its fused kernel: on or off; its default without.
    #[arg(long, value_name = "WHETHER", value_parser = ["on", "off"])]
    pub flash_attention: Option<String>,
}

impl KvOptions {
    /// `session` with the type of keys and values.
    pub fn session(&self, session: SessionOptions) -> SessionOptions {
        match self.kv.as_deref().and_then(KvType::from_name) {
            Some(kv_type) => session.kv_type(kv_type),
            None => session,
        }
    }
}

/// The backend of this name, with its own choices.
pub fn backend(name: &str) -> Result<Box<dyn InferenceBackend>, BenchError> {
    backend_with(name, &KvOptions::default())
}

/// The backend of this name, with what `options` do not leave to it.
pub fn backend_with(name: &str, options: &KvOptions) -> Result<Box<dyn InferenceBackend>, BenchError> {
    match name {
        "scripted" => Ok(Box::new(ScriptedBackend::new(ScriptedModel::ngram(1).context(SCRIPTED_CONTEXT)))),
        "candle" => {
            let backend = CandleBackend::new();
            Ok(Box::new(match &options.isa {
                Some(name) => backend.isa(name),
                None => backend,
            }))
        }
        #[cfg(feature = "llamacpp")]
        "llamacpp" => {
            use exsa_backend_llamacpp::{FlashAttention, KvLayout, LlamaCppBackend};
            let layouts = [("unified", KvLayout::Unified), ("streams", KvLayout::Streams)];
            let modes = [("on", FlashAttention::On), ("off", FlashAttention::Off)];
            let backend = LlamaCppBackend::new()
                .kv_layout(chosen(options.kv_layout.as_deref(), layouts))
                .flash_attention(chosen(options.flash_attention.as_deref(), modes));
            Ok(Box::new(backend))
        }
        _ => Err(BenchError::Backend { name: name.into(), known: NAMES.join(", ") }),
    }
}

/// The choice of that name, or the backend's own; clap knows the names.
#[cfg(feature = "llamacpp")]
fn chosen<T: Default, const N: usize>(name: Option<&str>, choices: [(&str, T); N]) -> T {
    choices.into_iter().find(|(known, _)| Some(*known) == name).map_or_else(T::default, |(_, choice)| choice)
}

/// Whether the backend of this name loads files.
pub fn needs_file(name: &str) -> bool {
    name != "scripted"
}

/// Environment variables by which the libraries under the backend of this name decide, once in the life of a
/// process, how many threads they have; empty for backends that go by
/// [`ThreadOptions`](exsa_core::backend::ThreadOptions).
pub fn thread_variables(name: &str) -> &'static [&'static str] {
    match name {
        "candle" => &["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_keys_and_values_reaches_the_session() {
        let of = |kv: Option<&str>| {
            let options = KvOptions { kv: kv.map(str::to_owned), ..KvOptions::default() };
            let session = options.session(SessionOptions::new());
            (session.key_type, session.value_type)
        };
        assert_eq!(of(None), (None, None));
        assert_eq!(of(Some("q8_0")), (Some(KvType::Q8_0), Some(KvType::Q8_0)));
    }

    #[test]
    fn every_name_has_its_backend_and_no_other() {
        for name in NAMES {
            assert_eq!(backend(name).unwrap().name(), *name);
        }
        let error = backend("vllm").err().unwrap().to_string();
        assert!(NAMES.iter().all(|name| error.contains(name)), "{error}");
    }
}
