//! The contract of generators on the in-process engine and the registry.
#![allow(clippy::unwrap_used)]

use exsa_conformance::generators::GeneratorFixture;
use exsa_core::backend::ModelSource;
use exsa_core::registry::{ModelConfig, Registry, RegistryOptions};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::{Engine, EngineOptions};
use std::sync::Arc;

fn model() -> ScriptedModel {
    ScriptedModel::ngram(1).order(usize::MAX).context(512)
}

fn engine(events: usize) -> GeneratorFixture {
    let options = EngineOptions::default().stream_events_max(events);
    GeneratorFixture::new(Engine::start(model().shared(), options).unwrap()).identical()
}

fn registry() -> GeneratorFixture {
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    let backend = Arc::new(ScriptedBackend::new(model()));
    registry.add(ModelConfig::new("scripted", backend, ModelSource::Embedded(b""))).unwrap();
    registry.load("scripted").wait().unwrap();
    registry.set_active("scripted").unwrap();
    GeneratorFixture::new(registry).identical()
}

exsa_conformance::mount_generator! {
    engine: engine(1024),
    narrow_streams: engine(4),
    registry: registry(),
}
