//! The contract of generators, on remote engines: Exsa's own server over a socket, by two dialects.
#![allow(clippy::unwrap_used)]

use exsa_backend_remote::{Dialect, RemoteEngine, RemoteOptions, TokenizerSource};
use exsa_conformance::generators::GeneratorFixture;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::{Engine, EngineOptions};
use exsa_server::{ServerOptions, router};
use std::sync::Arc;

/// An engine behind a server, which serves until the process ends.
fn remote(dialect: Dialect, events: usize) -> GeneratorFixture {
    let model = ScriptedModel::ngram(1).order(usize::MAX).context(512).shared();
    let engine = Arc::new(Engine::start(model, EngineOptions::default()).unwrap());
    let (sender, url) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(format!("http://{}", listener.local_addr().unwrap())).unwrap();
            axum::serve(listener, router(engine, ServerOptions::default())).await.unwrap();
        });
    });
    let options = RemoteOptions::new(url.recv().unwrap())
        .dialect(dialect)
        .positional_seeds(true)
        .stream_events_max(events)
        .tokenizer(TokenizerSource::Tokenizer(Arc::new(ByteTokenizer::new())));
    let fixture = GeneratorFixture::new(RemoteEngine::connect(options).unwrap()).identical();
    if dialect == Dialect::Exsa { fixture } else { fixture.without_ids() }
}

exsa_conformance::mount_generator! {
    exsa: remote(Dialect::Exsa, 1024),
    narrow_streams: remote(Dialect::Exsa, 4),
    llama_server: remote(Dialect::LlamaServer, 64),
}
