//! A backend with only the mandatory methods, as a first version: no fork, no truncation, no saving.

use exsa_conformance::{Fixture, run_all};
use exsa_core::SeqId;
use exsa_core::backend::{
    Capabilities, DeviceInfo, InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Output,
    Session, SessionOptions,
};
use exsa_core::batch::Batch;
use exsa_core::error::{LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::tokenizer::Tokenizer;
use std::sync::Arc;

struct Bare(ScriptedBackend);
struct BareModel(Arc<dyn Model>);
struct BareSession(Box<dyn Session>, Capabilities);

impl InferenceBackend for Bare {
    fn name(&self) -> &str {
        "bare"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.0.devices()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        self.0.inspect(source)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        Ok(Arc::new(BareModel(self.0.load(source, options, progress)?)))
    }
}

impl Model for BareModel {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.0.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let inner = self.0.session(options)?;
        let can = inner.capabilities().clone().fork(false).truncate(false).save(false).embed(None);
        Ok(Box::new(BareSession(inner, can)))
    }
}

impl Session for BareSession {
    fn capabilities(&self) -> &Capabilities {
        &self.1
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.0.forward(batch)
    }

    fn release(&mut self, seq: SeqId) {
        self.0.release(seq);
    }
}

fn bare() -> Fixture {
    let backend = ScriptedBackend::new(ScriptedModel::ngram(1).order(usize::MAX).context(96).kv(1024, 8));
    Fixture::new(Bare(backend), ModelSource::Embedded(b"")).reads_no_files().bitwise()
}

exsa_conformance::mount!(bare());

/// Only cases of missing abilities are skipped.
#[test]
fn what_is_skipped() {
    let report = run_all(&bare());
    let skipped: Vec<_> = report.skipped.iter().map(|(name, _)| *name).collect();
    let expected = [
        "adapters_of_spans",
        "shared_blocks_count_once",
        "files_cut_short",
        "impossible_headers",
        "metadata_that_cannot_be",
        "tensors_that_cannot_be",
        "vocabularies_without_weights",
        "embeddings_of_texts",
        "embeds_that_are_refused",
        "estimates_of_memory",
        "fork_outlives_its_source",
        "fork_then_diverge",
        "forks_that_are_refused",
        "missing_files",
        "sources_give_the_same_model",
        "damaged_saved_kv_is_refused",
        "restored_sequences_stand_alone",
        "restores_that_are_refused",
        "save_and_restore",
        "streams_that_fail",
        "truncate_again_and_again",
        "truncate_then_go_on",
        "truncations_that_are_refused",
    ];
    assert_eq!(skipped, expected);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
}
