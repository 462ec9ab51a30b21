//! Shared by the examples: model and backend options, and a progress bar for loading.

use clap::Args;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, SessionOptions, ThreadOptions,
};
use exsa_core::{Engine, EngineOptions};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Exsa's own story and chat model, so that the examples run without a download.
pub const TINY: &[u8] = exsa_tiny::GGUF;

/// Result of an example's `main`: an error is printed with its cause.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Any error. Rust prints the error of `main` with `Debug`, which here is readable text.
pub struct Failure(String);

impl Failure {
    /// Creates a failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let said = error.to_string();
            // Many errors include their cause in their own text.
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        Self(text)
    }
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Command-line flags that select the model.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// Backend: candle, or llamacpp if built with that feature
    #[arg(long, default_value = "candle")]
    pub backend: String,
    /// A GGUF file; by default the built-in story model
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Compute threads; by default the number of physical cores
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
}

impl ModelArgs {
    /// Loads the model and starts an engine on it.
    pub fn start(&self) -> Result<Engine> {
        Ok(Engine::start(self.load()?, self.engine_options())?)
    }

    /// Engine options with these threads.
    pub fn engine_options(&self) -> EngineOptions {
        let session = SessionOptions::new().threads(ThreadOptions::new(self.threads));
        EngineOptions::default().session(session)
    }

    /// Loads the model.
    pub fn load(&self) -> Result<Arc<dyn Model>> {
        let backend = backend(&self.backend)?;
        let source = self.model.as_ref().map_or(ModelSource::Embedded(TINY), ModelSource::file);
        let threads = ThreadOptions::new(self.threads);

        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("loading {bar:30} {bytes}/{total_bytes}")?);
        let start = std::time::Instant::now();
        let mut show = |done, total| {
            // A small model loads before a progress bar would be visible.
            if start.elapsed() > Duration::from_millis(300) {
                bar.set_length(total);
                bar.set_position(done);
            }
            true
        };
        let options = LoadOptions::new().threads(threads);
        let model = backend.load(&source, &options, &mut LoadProgress::new(&mut show))?;
        bar.finish_and_clear();
        Ok(model)
    }
}

/// Returns a backend by name.
pub fn backend(name: &str) -> Result<Box<dyn InferenceBackend>> {
    match name {
        "candle" => Ok(Box::new(exsa_backend_candle::CandleBackend::new())),
        #[cfg(feature = "llamacpp")]
        "llamacpp" => Ok(Box::new(exsa_backend_llamacpp::LlamaCppBackend::new())),
        other => {
            let known = if cfg!(feature = "llamacpp") { "candle, llamacpp" } else { "candle" };
            let hint = if other == "llamacpp" { "; build with --features llamacpp" } else { "" };
            Err(Failure::new(format!("unknown backend '{other}'; this build has: {known}{hint}")))
        }
    }
}
