//! Estimates as a host asks for them, before it loads anything.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_core::backend::{
    InferenceBackend, KvType, LoadOptions, MemoryEstimate, ModelSource, SessionOptions,
};
use exsa_core::error::LoadError;
use support::{data, load_with};

fn estimate(name: &str, session: &SessionOptions) -> Result<MemoryEstimate, LoadError> {
    let backend: &dyn InferenceBackend = &LlamaCppBackend::new();
    backend.estimate(&ModelSource::file(data(name)), &LoadOptions::new().device("cpu"), session)
}

#[test]
fn kv_is_that_of_the_session() {
    let model = load_with(&LlamaCppBackend::new(), &ModelSource::file(data("llama-f32.gguf")));
    for kv_type in [KvType::F32, KvType::F16, KvType::Bf16] {
        let options = support::options().sequences(3).context_tokens(256).kv_type(kv_type);
        let estimate = estimate("llama-f32.gguf", &options).unwrap();
        let session = model.session(&options).unwrap();
        let tokens = session.capabilities().kv_tokens_max as u64;
        assert_eq!(estimate.kv, tokens * session.kv_bytes_per_token().unwrap(), "{kv_type}");
        assert!(estimate.weights >= model.info().weights_bytes * 9 / 10, "{estimate:?}");
        assert!(estimate.scratch > 0, "{estimate:?}");
    }
}

#[test]
fn errors_are_those_of_loading() {
    let too_small = support::options().kv_tokens(4096).kv_bytes(1000);
    assert!(matches!(estimate("llama-f32.gguf", &too_small), Err(LoadError::Memory { .. })));
    let missing = estimate("nowhere.gguf", &support::options());
    assert!(matches!(missing, Err(LoadError::Io { .. })), "{missing:?}");
    let none = support::options().sequences(0);
    assert!(matches!(estimate("llama-f32.gguf", &none), Err(LoadError::Option { .. })));
}
