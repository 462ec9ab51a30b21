//! The scripted backend keeps to the contract: with cells of one token, with blocks, and without truncation.

use exsa_conformance::Fixture;
use exsa_core::backend::ModelSource;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};

fn scripted(model: ScriptedModel) -> Fixture {
    let backend = ScriptedBackend::new(model.order(usize::MAX).context(96));
    Fixture::new(backend, ModelSource::Embedded(b"")).reads_no_files().bitwise().checksummed()
}

exsa_conformance::mount! {
    cells: scripted(ScriptedModel::ngram(1).kv(1024, 1)),
    blocks: scripted(ScriptedModel::ngram(2).kv(1024, 16)),
    odd_blocks: scripted(ScriptedModel::ngram(3).kv(1025, 5)),
    without_truncate: scripted(ScriptedModel::ngram(4).kv(1024, 8).without_truncate()),
}
