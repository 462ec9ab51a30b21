//! A draft model beside a model: loaded with it, counted in the budget, refused in words.

use exsa_backend_candle::CandleBackend;
use exsa_core::backend::InferenceBackend;
use exsa_core::gguf::{Array, GgufWriter, Value as Gguf};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::speculate::SpeculationMode;
use exsa_core::{EngineOptions, Generator, Request};
use exsa_server::models::{Models, ModelsConfig};
use serde_json::{Value, json};
use std::sync::Arc;

fn open_with(value: Value, options: EngineOptions) -> Result<Models, String> {
    let config: ModelsConfig = serde_json::from_value(value).unwrap();
    Models::open(&config, Arc::new(CandleBackend::new()), options).map_err(|error| error.to_string())
}

/// The built-in model drafts for itself.
#[test]
fn a_draft_model_changes_no_answer_and_counts_in_the_budget() {
    let answer = |draft: Option<Value>| {
        let mut entry = json!({"builtin": true, "threads": 1, "sequences": 2, "context": 256, "load": true});
        if let Some(draft) = draft {
            entry["draft"] = draft;
        }
        let models = open_with(json!({"memory": "1 GiB", "story": entry}), EngineOptions::default()).unwrap();
        models.wait_for_start().unwrap();
        let request = Request::text("Once upon a time").max_tokens(60).seed(5).temperature(0.7);
        let text = models.registry().submit(request).unwrap().complete().unwrap().text;
        let status = models.registry().status("story").unwrap();
        (text, status.memory.unwrap(), models.registry().memory().used)
    };
    let (plain, alone, _) = answer(None);
    let (text, both, used) = answer(Some(json!({"builtin": true, "drafts_max": 4, "kv_bytes": "16 MiB"})));
    assert_eq!(text, plain);
    assert_eq!((both.weights, used), (2 * alone.weights, both.total()));
    assert!(both.kv > alone.kv && both.scratch > alone.scratch, "{alone:?}, {both:?}");
}

#[test]
fn tables_that_are_refused() {
    let refusal = |draft: Value, options: EngineOptions| {
        let entry = json!({"builtin": true, "load": false, "draft": draft});
        open_with(json!({"story": entry}), options).err().unwrap()
    };
    let problem = |draft: Value| refusal(draft, EngineOptions::default());
    for (found, words) in [
        (problem(json!({})), "models.story.draft: the path of a GGUF file is needed"),
        (problem(json!({"path": "nowhere.gguf"})), "models.story.draft.path: nowhere.gguf: "),
        (problem(json!({"path": "x.gguf", "builtin": true})), "models.story.draft.path: builtin is set too"),
        (
            refusal(json!({"builtin": true}), EngineOptions::default().speculation(SpeculationMode::Off)),
            "models.story.draft: speculation is off",
        ),
    ] {
        assert!(found.starts_with(words), "{found}");
    }
    // The header of a file has another vocabulary.
    let file = std::env::temp_dir().join(format!("exsa-server-draft-{}.gguf", std::process::id()));
    let mut words = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    words.extend((0..29).map(|i| format!("word{i}")));
    let header = GgufWriter::new()
        .key("general.architecture", Gguf::Str("llama".into()))
        .key("tokenizer.ggml.model", Gguf::Str("llama".into()))
        .key("tokenizer.ggml.tokens", Gguf::Array(Array::Str(words)))
        .key("tokenizer.ggml.scores", Gguf::Array(Array::F32(vec![0.0; 32])))
        .key("tokenizer.ggml.token_type", Gguf::Array(Array::I32([vec![2, 3, 3], vec![1; 29]].concat())));
    std::fs::write(&file, header.to_bytes()).unwrap();
    let found = problem(json!({"path": file}));
    std::fs::remove_file(&file).unwrap();
    let words = "models.story.draft.path: its tokenizer has 32 tokens, but the target's has";
    assert!(found.starts_with(words), "{found}");
    let remote = json!({"far": {"remote": [{"url": "http://127.0.0.1:1"}], "draft": {"builtin": true}}});
    let found = open_with(remote, EngineOptions::default()).err().unwrap();
    assert!(found.starts_with("models.far.draft: only an engine in the server's process"), "{found}");
}

/// A vocabulary that differs is found when the model is loaded.
#[test]
fn another_vocabulary_fails_the_load() {
    let config = json!({"story": {"builtin": true, "load": true, "draft": {"path": "draft.gguf"}}});
    let folder = std::env::temp_dir().join(format!("exsa-server-draft-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("draft.gguf");
    std::fs::write(&file, "").unwrap();
    let mut config = config;
    config["story"]["draft"]["path"] = json!(file);
    let config: ModelsConfig = serde_json::from_value(config).unwrap();
    let backend = Vocabularies(ScriptedBackend::new(ScriptedModel::echo("a")));
    let models = Models::open(&config, Arc::new(backend), EngineOptions::default()).unwrap();
    let error = models.wait_for_start().unwrap_err().to_string();
    assert!(error.contains("same vocabulary"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Files are scripted models, and bytes inside the program the built-in model.
struct Vocabularies(ScriptedBackend);

impl InferenceBackend for Vocabularies {
    fn name(&self) -> &str {
        "vocabularies"
    }

    fn devices(&self) -> Vec<exsa_core::backend::DeviceInfo> {
        self.0.devices()
    }

    fn inspect(
        &self,
        source: &exsa_core::backend::ModelSource,
    ) -> Result<exsa_core::model_info::ModelInfo, exsa_core::error::LoadError> {
        self.0.inspect(source)
    }

    fn load(
        &self,
        source: &exsa_core::backend::ModelSource,
        options: &exsa_core::backend::LoadOptions,
        progress: &mut exsa_core::backend::LoadProgress<'_>,
    ) -> Result<Arc<dyn exsa_core::backend::Model>, exsa_core::error::LoadError> {
        match source {
            exsa_core::backend::ModelSource::File(_) => self.0.load(source, options, progress),
            _ => CandleBackend::new().load(source, options, progress),
        }
    }
}
