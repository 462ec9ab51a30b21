//! The scripted backend fulfils the contract: with blocks of one token, with larger blocks, and without
//! truncation.

use exsa_conformance::Fixture;
use exsa_core::backend::ModelSource;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};

fn scripted(model: ScriptedModel) -> Fixture {
    let backend = ScriptedBackend::new(model.order(usize::MAX).context(96));
    Fixture::new(backend, ModelSource::Embedded(b"")).reads_no_files().bitwise().checksummed()
}

/// With adapters, and at most this many sets per batch.
fn adapted(sets: usize) -> Fixture {
    let adapter = |bytes: &'static [u8]| ModelSource::Embedded(bytes);
    scripted(ScriptedModel::ngram(5).kv(1024, 16).adapters(2, sets))
        .adapters(adapter(b"one"), adapter(b"two"))
}

exsa_conformance::mount! {
    adapters: adapted(16),
    one_set_of_adapters: adapted(1),
    cells: scripted(ScriptedModel::ngram(1).kv(1024, 1)),
    blocks: scripted(ScriptedModel::ngram(2).kv(1024, 16)),
    odd_blocks: scripted(ScriptedModel::ngram(3).kv(1025, 5)),
    without_truncate: scripted(ScriptedModel::ngram(4).kv(1024, 8).without_truncate()),
}
