//! Validation of requests for an engine in another process.

use crate::chat::Rendered;
use crate::clock::SystemClock;
use crate::engine::in_flight::InFlight;
use crate::engine::info::EngineInfo;
use crate::engine::input_processor::InputProcessor;
use crate::generator::SubmitError;
use crate::options::EngineOptions;
use crate::request::Request;
use crate::tokenizer::Tokenizer;
use std::fmt;
use std::sync::Arc;

/// For an engine in another process, does the work of [`Engine`](crate::Engine) on the caller's thread:
/// validates requests, and renders and tokenizes prompts.
///
/// It accepts and refuses the same requests as an engine with the same model, capabilities and options.
pub struct RequestValidator {
    input: InputProcessor,
}

impl RequestValidator {
    /// A validator for an engine with these properties and options.
    pub fn new(info: EngineInfo, tokenizer: Arc<dyn Tokenizer>, options: EngineOptions) -> Self {
        let clock = Arc::new(SystemClock::new());
        let in_flight = Arc::new(InFlight::new(clock.clone()));
        Self { input: InputProcessor::new(info, tokenizer, options, None, in_flight, clock) }
    }

    /// Refuses a request that an engine would refuse at any load.
    ///
    /// # Errors
    ///
    /// The reason why the request is refused.
    pub fn check(&self, request: &Request) -> Result<(), SubmitError> {
        self.input.check(request)
    }

    /// Number of prompt tokens; see [`Generator::count_tokens`](crate::Generator::count_tokens).
    ///
    /// # Errors
    ///
    /// [`SubmitError::Chat`] if the conversation cannot be rendered.
    pub fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        Ok(self.input.encode(request)?.tokens.len())
    }

    /// The text of the prompt; see [`Generator::render`](crate::Generator::render).
    ///
    /// # Errors
    ///
    /// [`SubmitError::Chat`] if the conversation cannot be rendered, [`SubmitError::Unsupported`] for a
    /// prompt of token ids.
    pub fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        self.input.render(request)
    }

    /// Properties of the engine, against which requests are checked.
    pub fn info(&self) -> &EngineInfo {
        &self.input.info
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.input.tokenizer.clone()
    }
}

impl fmt::Debug for RequestValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestValidator").field("model", &self.input.info.model.name).finish_non_exhaustive()
    }
}
