//! The contract of generators, on simulated engines.

use crate::simulated::{Kind, start};
use exsa_backend_remote::{RemoteEngine, RemoteOptions, TokenizerSource};
use exsa_conformance::generators::GeneratorFixture;
use exsa_core::scripted::ByteTokenizer;
use std::sync::Arc;

fn remote(kind: Kind, events: usize) -> GeneratorFixture {
    let options = RemoteOptions::new(start(kind).url)
        .context_tokens(Some(512))
        .positional_seeds(true)
        .stream_events_max(events)
        .tokenizer(TokenizerSource::Tokenizer(Arc::new(ByteTokenizer::new())));
    GeneratorFixture::new(RemoteEngine::connect(options).unwrap()).identical()
}

exsa_conformance::mount_generator! {
    vllm_generate: remote(Kind::VllmGenerate, 1024),
    vllm: remote(Kind::Vllm, 4),
    trtllm: remote(Kind::TensorRtLlm, 64),
    sglang: remote(Kind::Sglang, 64),
}
