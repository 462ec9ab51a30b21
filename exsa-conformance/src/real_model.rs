//! A real instruct model, since only trained weights show whether generated text is meaningful.
//!
//! The model is SmolLM2-135M-Instruct, if it was fetched with the project's `scripts/get-smollm2`. Its path
//! is taken from the environment variable `EXSA_SMOLLM2`, else from `exsa/models` in the user's cache folder.

use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, SessionOptions};
use exsa_core::error::LoadError;
use exsa_core::{Engine, EngineOptions, Message, Request};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Path of the model; `None`, with the reason on standard error, if it was not fetched.
pub fn path() -> Option<PathBuf> {
    let set = std::env::var_os("EXSA_SMOLLM2").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let path = set.or_else(|| cache.map(|cache| cache.join("exsa/models").join(FILE)));
    match path {
        Some(path) if path.is_file() => Some(path),
        path => {
            eprintln!("skipped: {FILE} is not at {path:?}; scripts/get-smollm2 fetches it");
            None
        }
    }
}

/// Loads the model; `None` if it was not fetched.
pub fn load(backend: &dyn InferenceBackend) -> Option<Result<Arc<dyn Model>, LoadError>> {
    let source = ModelSource::file(path()?);
    Some(backend.load(&source, &LoadOptions::default(), &mut LoadProgress::none()))
}

/// Answer to `question` by greedy decoding, of at most
/// `max_tokens` tokens; `None` if the model was not fetched.
///
/// # Errors
///
/// If the model cannot be loaded, or the request is refused or fails.
pub fn answer(
    backend: &dyn InferenceBackend,
    question: &str,
    max_tokens: usize,
) -> Result<Option<String>, Box<dyn Error + Send + Sync>> {
    let Some(model) = load(backend) else { return Ok(None) };
    let session = SessionOptions::new().sequences(1).context_tokens(1024);
    let engine = Engine::start(model?, EngineOptions::default().session(session))?;
    let request = Request::chat([Message::system("Answer in one sentence."), Message::user(question)])
        .temperature(0.0)
        .max_tokens(max_tokens);
    Ok(Some(engine.submit(request)?.complete()?.text))
}
