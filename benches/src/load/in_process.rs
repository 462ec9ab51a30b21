//! An engine in this process.

use crate::backends;
use crate::error::BenchError;
use crate::load::answer::Tokens;
use crate::load::options::LoadGenOptions;
use crate::load::target::Target;
use crate::load::workload::{Planned, Prompt};
use crate::progress::say;
use exsa_core::backend::{LoadOptions, LoadProgress, ModelSource, SessionOptions, ThreadOptions};
use exsa_core::error::LoadError;
use exsa_core::finish::FinishReason;
use exsa_core::{Engine, EngineOptions, Event, Request, SamplingParams};

/// An engine with its thread, as a program that embeds it has it.
pub struct InProcess {
    name: String,
    engine: Engine,
}

impl InProcess {
    /// Loads the model on `backend` and starts the engine.
    pub fn start(options: &LoadGenOptions, backend: &str) -> Result<Self, BenchError> {
        let source = match options.model.as_deref().filter(|_| backends::needs_file(backend)) {
            Some(path) => ModelSource::file(path),
            None if !backends::needs_file(backend) => ModelSource::Embedded(&[]),
            None => return Err(BenchError::ModelMissing { backend: backend.into() }),
        };
        let failed = |source: LoadError| BenchError::Load { what: backend.into(), source };
        let threads = ThreadOptions::new(Some(options.threads()));
        let load = LoadOptions::new().threads(threads);
        say(format_args!("{backend}: loading"));
        let model = backends::backend_with(backend, &options.kv)?
            .load(&source, &load, &mut LoadProgress::none())
            .map_err(failed)?;
        let context = options.context.min(model.info().n_ctx);
        let session = SessionOptions::new()
            .sequences(options.slots)
            .context_tokens(context)
            .kv_tokens(options.kv_tokens.unwrap_or_else(|| context.saturating_mul(options.slots)))
            .kv_bytes(options.kv_mib << 20)
            .batch_tokens(options.batch)
            .threads(threads);
        let engine_options = EngineOptions::default()
            .session(options.kv.session(session))
            .queue_max(1 << 20)
            .prefill_chunk_max(options.prefill_chunk)
            .mode(options.mode);
        let engine = Engine::start(model, engine_options).map_err(failed)?;
        Ok(Self { name: format!("exsa-{backend}"), engine })
    }
}

impl Target for InProcess {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&self, planned: &Planned, piece: &mut dyn FnMut()) -> Result<Tokens, BenchError> {
        let request = match &planned.prompt {
            Prompt::Tokens(tokens) => Request::tokens(tokens.clone()),
            Prompt::Text(text) => Request::text(text.clone()),
        };
        let request = request
            .max_tokens(planned.generate)
            .sampling(SamplingParams::greedy())
            .ignore_eos(true)
            .user_id(planned.user_name.clone());
        let answer = |reason: String| BenchError::Answer { target: self.name.clone(), reason };
        let stream = self.engine.submit(request).map_err(|error| answer(error.to_string()))?;
        for event in stream {
            match event {
                Event::Token(_) => piece(),
                Event::Finished(end) => {
                    let usage = end.usage;
                    return match end.reason {
                        FinishReason::MaxTokens => Ok(Tokens {
                            prompt: usage.prompt_tokens,
                            cached: usage.cached_tokens,
                            generated: usage.completion_tokens,
                        }),
                        FinishReason::Failed(error) => Err(answer(error.to_string())),
                        reason => Err(answer(format!("{reason:?} after {}", usage.completion_tokens))),
                    };
                }
                _ => {}
            }
        }
        Err(answer("the stream ended without an end".into()))
    }
}
