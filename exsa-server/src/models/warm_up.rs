//! Warm-up: a first request before a model is ready, which allocates buffers and warms caches.

use exsa_core::error::LoadError;
use exsa_core::registry::Managed;
use exsa_core::{EmbedRequest, FinishReason, Request, RerankRequest, SubmitError};
use std::time::Duration;

/// Timeout of the request; a slower model becomes ready without having answered.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends a request and waits for its answer.
pub(super) fn warm_up(engine: &dyn Managed) -> Result<(), LoadError> {
    let failed = |error: String| LoadError::Backend(format!("the first request failed: {error}"));
    let request = Request::text("Hello").max_tokens(2).ignore_eos(true).timeout(TIMEOUT);
    match engine.submit(request) {
        Ok(stream) => match stream.complete() {
            Ok(answer) => match answer.reason {
                FinishReason::Failed(error) => Err(failed(error.to_string())),
                _ => Ok(()),
            },
            Err(error) => Err(failed(error.to_string())),
        },
        Err(SubmitError::Unsupported { .. }) => match engine.embed(EmbedRequest::texts(["Hello"])) {
            Ok(output) => output.wait().map(drop).map_err(|error| failed(error.to_string())),
            Err(SubmitError::Unsupported { .. }) => {
                match engine.rerank(RerankRequest::new("Hello", ["Hello"])) {
                    Ok(output) => output.wait().map(drop).map_err(|error| failed(error.to_string())),
                    Err(error) => Err(failed(error.to_string())),
                }
            }
            Err(error) => Err(failed(error.to_string())),
        },
        // A model may refuse this prompt and still be able to serve others.
        Err(error) => {
            tracing::warn!(%error, "the model is not warmed up");
            Ok(())
        }
    }
}
