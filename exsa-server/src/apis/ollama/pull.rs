//! `/api/pull` and `/api/delete`: lets administrators fetch and delete models.

use super::error::{self, OllamaError};
use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::models::{Models, Pulls, name_of};
use crate::state::AppState;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use exsa_hub::{Cancel, HubError, Phase, Progress, Source};
use futures_core::Stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Minimum interval between two lines about the same file.
const LINES_EVERY: Duration = Duration::from_millis(100);
/// Lines buffered for a client; it misses further progress lines.
const LINES_MAX: usize = 64;

/// Fetches a model. Responds with progress lines, or at the end.
pub(crate) async fn pull(
    State(state): State<Arc<AppState>>,
    uri: Uri,
    fields: Result<Fields, ApiError>,
) -> Result<Response, OllamaError> {
    let mut fields = fields?;
    let streamed = fields.take::<bool>("stream")?.unwrap_or(true);
    let (models, pulls) = pulls(&state, &uri)?;
    let source = source(&mut fields)?;
    let place = pulls.place().ok_or_else(|| {
        let message = "other models are being fetched; try again when they are there";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", message).code("busy")
    })?;
    let (cancel, (lines, receiver)) = (Cancel::new(), channel(LINES_MAX));
    let (work, stop) = (Lines::new(receiver, cancel.clone()), cancel);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut progress = Reporter { lines: lines.clone(), last: None, file: None };
        let last = match models.pull(&pulls, &source, &stop, &mut |at| progress.report(at)) {
            Ok(()) => json!({"status": "success"}),
            Err(error) => error::json(&api_error(&error)),
        };
        // A disconnected client reads no line.
        let _ = lines.blocking_send(last);
    });
    if streamed {
        return Ok(
            ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(work)).into_response()
        );
    }
    let last = work.last().await;
    let status = if last.get("error").is_some() { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
    Ok((status, Json(last)).into_response())
}

/// Unloads a fetched model and deletes its files.
pub(crate) async fn delete(
    State(state): State<Arc<AppState>>,
    uri: Uri,
    fields: Result<Fields, ApiError>,
) -> Result<Response, OllamaError> {
    let mut fields = fields?;
    let (models, pulls) = pulls(&state, &uri)?;
    let (named, of, at) = (source(&mut fields)?, models.clone(), pulls.clone());
    let source = off_runtime(move || of.pulled_source(&at, named)).await?;
    if let Some(name) = name_of(&source)
        && models.registry().status(&name).is_ok()
    {
        models.registry().unload(&name, Some(Duration::ZERO)).await.map_err(ApiError::from)?;
        models.registry().remove(&name).map_err(ApiError::from)?;
    }
    let deleted = off_runtime(move || models.delete_pulled(&pulls, &source)).await?;
    deleted.map_err(|error| api_error(&error))?;
    Ok(Json(json!({"status": "success"})).into_response())
}

/// Runs potentially slow file work.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(format!("a worker thread ended: {error}")))
}

/// Returns the folder of fetched models, if it is configured and callers are authenticated.
fn pulls(state: &AppState, uri: &Uri) -> Result<(Arc<Models>, Arc<Pulls>), ApiError> {
    let models = state.models.as_ref();
    let found = models.and_then(|models| Some((models.clone(), models.pulls()?.clone())));
    let found = found.ok_or_else(|| {
        let message = format!("{} is off: [pull] in the server's configuration names no folder", uri.path());
        ApiError::new(StatusCode::FORBIDDEN, "invalid_request_error", message).code("not_supported")
    })?;
    if state.access.is_none() {
        let message = "only administrators may fetch and delete models, and this server has no keys by which to tell them";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).code("missing_scope"));
    }
    Ok(found)
}

/// Returns the source named by a request: only models of the hub, since the server could reach other
/// addresses.
fn source(fields: &mut Fields) -> Result<Source, ApiError> {
    let name: Option<String> = match fields.take("model")? {
        Some(name) => Some(name),
        None => fields.take("name")?,
    };
    let refused = |problem: String| ApiError::invalid(format!("model: {problem}")).param("model");
    let name = name.ok_or_else(|| refused("a name is needed".into()))?;
    match name.parse() {
        Ok(source @ Source::Hub { .. }) => Ok(source),
        Ok(_) => Err(refused("only models of Hugging Face can be fetched: hf.co/OWNER/REPO:QUANT".into())),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Converts an error for the client; paths of the server's folders only go to its log.
fn api_error(error: &HubError) -> ApiError {
    let (status, kind) = match error {
        HubError::NoMatch { .. }
        | HubError::Ambiguous { .. }
        | HubError::NoModel(_)
        | HubError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found_error"),
        HubError::NotCached { source_name, .. } => {
            let message = format!("{source_name} is not among the fetched models");
            return ApiError::new(StatusCode::NOT_FOUND, "not_found_error", message);
        }
        HubError::Io { .. } | HubError::Space { .. } => {
            tracing::error!(%error, "fetched models");
            let message = "the folder of fetched models cannot be written; the server's log says why";
            return ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "server_error", message);
        }
        _ => (StatusCode::BAD_GATEWAY, "server_error"),
    };
    ApiError::new(status, kind, error.to_string())
}

/// Converts progress to lines.
struct Reporter {
    lines: Sender<Value>,
    last: Option<Instant>,
    /// File and phase of the last line.
    file: Option<(usize, Phase)>,
}

impl Reporter {
    fn report(&mut self, progress: &Progress<'_>) {
        let at = (progress.index, progress.phase);
        let (new, now) = (self.file != Some(at), Instant::now());
        if !new && self.last.is_some_and(|last| now.duration_since(last) < LINES_EVERY) {
            return;
        }
        (self.file, self.last) = (Some(at), Some(now));
        let line = match progress.phase {
            Phase::Waiting => json!({"status": "waiting for another download of the same file"}),
            Phase::Verifying => json!({"status": "verifying sha256 digest"}),
            _ => {
                let digest = progress.sha256.unwrap_or_default();
                let short = digest.get(..12).unwrap_or(progress.file);
                json!({
                    "status": format!("pulling {short}"),
                    "digest": format!("sha256:{digest}"),
                    "total": progress.total.unwrap_or(progress.bytes),
                    "completed": progress.bytes,
                })
            }
        };
        // A slow client must not slow the download.
        let _ = self.lines.try_send(line);
    }
}

/// The lines of a download. Dropping them, as when the client disconnects, cancels it.
struct Lines {
    receiver: Receiver<Value>,
    cancel: Cancel,
}

impl Lines {
    fn new(receiver: Receiver<Value>, cancel: Cancel) -> Self {
        Self { receiver, cancel }
    }

    /// Waits for the last line.
    async fn last(mut self) -> Value {
        let mut last = json!({"error": "the download ended without a result"});
        while let Some(line) = self.receiver.recv().await {
            last = line;
        }
        last
    }
}

impl Stream for Lines {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|line| line.map(|line| Ok(format!("{line}\n").into())))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
