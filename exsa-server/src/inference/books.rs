//! Books of a request: its quota, its audit log line, and its span.

use crate::access::{Access, AccessEvent, Caller, KeyRecord};
use crate::audit::{Act, AuditLog, Place, Record, Ticket};
use crate::http::context::{Client, RequestContext};
use crate::http::error::ApiError;
use crate::quota::{Amounts, Limits, Refusal, Reservation};
use crate::state::AppState;
use crate::telemetry::InferenceSpan;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use exsa_core::{FinishReason, Usage};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Writes after which an answer continues although its charge is not yet on disk; by then, writing has
/// failed.
const WRITES_MAX: u32 = 3;

/// The usage that a request reserves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    /// Prompt tokens, an upper bound.
    pub(crate) prompt: u64,
    /// Maximum output tokens; `None` if limited only by the context.
    pub(crate) output: Option<u64>,
}

/// The next write of the quotas.
type NextWrite = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Books of an admitted request. They are closed once: by [`end`](Self::end), by [`refuse`](Self::refuse), or
/// by being dropped when the client disconnects.
pub(crate) struct Books {
    client: Client,
    model: Option<String>,
    user: Option<String>,
    place: Option<Place>,
    reservation: Option<Reservation>,
    estimate: Estimate,
    contents: Option<Contents>,
    /// Tokens generated so far.
    output: u64,
    /// Whether the end waits for its log line.
    awaits_line: bool,
    line: Option<Ticket>,
    write: Option<(u32, NextWrite)>,
    span: InferenceSpan,
    closed: bool,
}

/// Prompt and answers of a request whose content is logged.
struct Contents {
    max: usize,
    prompt: String,
    answers: BTreeMap<usize, String>,
}

impl Contents {
    /// The answer, or a JSON list of several.
    fn answer(&mut self) -> Option<String> {
        let answers: Vec<_> = std::mem::take(&mut self.answers).into_values().collect();
        match <[String; 1]>::try_from(answers) {
            Ok([answer]) => Some(answer),
            Err(answers) => serde_json::to_string(&answers).ok().filter(|_| !answers.is_empty()),
        }
    }
}

/// Returns the beginning of a text, of at most `max` bytes, up to a character boundary.
fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

impl AppState {
    /// Admits a request: takes its slot in the audit log and reserves its quota. May block.
    ///
    /// # Errors
    ///
    /// 503 if the log cannot be written, 429 and 413 from quotas.
    pub(crate) fn admit(
        &self,
        client: &Client,
        model: Option<&str>,
        user: Option<&str>,
        estimate: impl FnOnce() -> Estimate,
        prompt: impl FnOnce() -> String,
    ) -> Result<Books, ApiError> {
        let place = self.audit.as_ref().map(|log| log.admit()).transpose().map_err(|failure| {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", failure.to_string())
                .code("audit_log")
        })?;
        let max = self.audit.as_ref().and_then(|log| log.contents());
        // In the fair queue, an end user is the id of the key and the user's name.
        let end_user = user.and_then(|user| user.strip_prefix(&*client.caller.id)?.strip_prefix('/'));
        let mut books = Books {
            client: client.clone(),
            model: self.model_name(model).ok().or(model.map(str::to_owned)),
            user: end_user.or(client.caller.end_user.as_deref()).map(str::to_owned),
            place,
            reservation: None,
            estimate: Estimate::default(),
            contents: max.map(|max| Contents {
                max,
                prompt: beginning(&prompt(), max).to_owned(),
                answers: BTreeMap::new(),
            }),
            output: 0,
            awaits_line: self.audit.as_ref().is_some_and(|log| log.syncs_every_line()),
            line: None,
            write: None,
            span: InferenceSpan::default(),
            closed: false,
        };
        match self.reserve(&client.caller, &mut books, estimate) {
            Ok(reservation) => books.reservation = reservation,
            Err(error) => {
                books.close(Act::QuotaRefused, error.code_text(), None);
                return Err(error);
            }
        }
        Ok(books)
    }

    /// Takes a slot in the audit log.
    ///
    /// # Errors
    ///
    /// 503 if the log cannot be written and the configuration refuses work in that case.
    fn place(&self) -> Result<Option<Place>, ApiError> {
        let place = self.audit.as_ref().map(|log| log.admit()).transpose();
        place.map_err(|failure| {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", failure.to_string())
                .code("audit_log")
        })
    }

    fn reserve(
        &self,
        caller: &Caller,
        books: &mut Books,
        estimate: impl FnOnce() -> Estimate,
    ) -> Result<Option<Reservation>, ApiError> {
        let Some(quotas) = &self.quotas else { return Ok(None) };
        let payers = quotas.payers(&caller.id, own_limits(caller)?.as_ref(), caller.group.as_ref());
        if payers.is_empty() {
            return Ok(None);
        }
        books.estimate = estimate();
        let Estimate { prompt, output } = books.estimate;
        let reserve_max = quotas.config().output_reserve_max;
        // A request without an explicit limit reserves the capacity of the smallest quota.
        let output = match output {
            Some(output) => output.min(reserve_max),
            None => quotas.output_max(&payers).map_or(reserve_max, |max| max.min(reserve_max)),
        };
        let reserved = quotas.reserve(&payers, Amounts::request(prompt, output));
        Ok(Some(reserved.inspect_err(|refusal| {
            let (limit, reason) = refusal.names();
            self.metrics.refusals().quota(limit, reason);
        })?))
    }

    /// Records an act. The ticket can be awaited.
    pub(crate) fn record(&self, record: Record) -> Option<Ticket> {
        self.audit.as_ref().map(|log| log.append(record))
    }
}

/// Records acts on keys and authentication failures. Acts on keys wait until their line is stable.
pub(crate) fn observe(access: &Access, log: AuditLog) {
    access.observe(move |event| {
        let of_key = |act, key: &KeyRecord, by: &Caller| {
            let ticket =
                log.append(Record::new(act).caller(&*by.id).detail(format!("key {}", key.id)).outcome("ok"));
            if let Err(failure) = ticket.wait() {
                tracing::error!(key = key.id, %failure, "an act on a key is not in the audit log");
            }
        };
        match event {
            AccessEvent::KeyCreated { key, by } => of_key(Act::KeyCreated, key, by),
            AccessEvent::KeyRevoked { key, by } => of_key(Act::KeyRevoked, key, by),
            AccessEvent::KeyRotated { key, by } => of_key(Act::KeyRotated, key, by),
            AccessEvent::AuthenticationFailed { reason, context } => {
                let record = record_of(Act::AuthenticationFailed, &Caller::anonymous(), context);
                drop(log.append(record.outcome("unauthenticated").detail(*reason)));
            }
            AccessEvent::PermissionDenied { scope, by, context } => {
                let record = record_of(Act::PermissionDenied, by, context).outcome("missing_scope");
                drop(log.append(record.detail(format!("scope {}", scope.name()))));
            }
        }
    });
}

/// Records administrative acts, and refuses them while the audit log cannot record them and the configuration
/// refuses work in that case. An act is acknowledged once its line is stable.
pub(crate) async fn record_act(
    State(state): State<Arc<AppState>>,
    client: Client,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if request.method().is_safe() {
        return Ok(next.run(request).await);
    }
    let (Some(place), Some(act)) = (state.place()?, act_of(request.uri().path())) else {
        // Key changes are recorded separately; they are rare enough to always find a slot.
        return Ok(next.run(request).await);
    };
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, ACT_BYTES_MAX).await;
    let body = body.map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))?;
    let named: Option<Named> = serde_json::from_slice(&body).ok();
    let response = next.run(Request::from_parts(parts, body.into())).await;
    let status = response.status();
    let outcome = if status.is_success() { "ok" } else { status.as_str() };
    let record = record_of(act, &client.caller, &client.context);
    let line = place.append(record.model(named.and_then(|named| named.model)).outcome(outcome));
    // A failure is logged; the act has been carried out.
    drop(line.await);
    Ok(response)
}

/// Maximum bytes of the body of an administrative request.
const ACT_BYTES_MAX: usize = 1 << 20;

/// Returns the model named in the body.
#[derive(serde::Deserialize)]
struct Named {
    model: Option<String>,
}

/// Returns the act requested by an administrator.
fn act_of(path: &str) -> Option<Act> {
    match path {
        "/v1/models/load" => Some(Act::ModelLoaded),
        "/v1/models/unload" => Some(Act::ModelUnloaded),
        "/v1/models/reload" => Some(Act::ModelReloaded),
        "/v1/models/active" => Some(Act::ModelActivated),
        "/v1/config/reload" => Some(Act::ConfigurationReloaded),
        "/api/pull" => Some(Act::ModelPulled),
        "/api/delete" => Some(Act::ModelDeleted),
        _ if path.starts_with("/v1/models/") => Some(Act::ModelConfigured),
        _ => None,
    }
}

/// Returns the limits in the record of a key.
///
/// # Errors
///
/// The record is malformed: nothing is served without the intended limits.
pub(crate) fn own_limits(caller: &Caller) -> Result<Option<Limits>, ApiError> {
    let Some(quota) = &caller.quota else { return Ok(None) };
    let limits = Limits::from_json(quota);
    limits
        .map(Some)
        .map_err(|error| ApiError::internal(format!("the quota of {} is invalid: {error}", caller.id)))
}

/// Creates a record about a request and its caller.
pub(crate) fn record_of(act: Act, caller: &Caller, context: &RequestContext) -> Record {
    Record::new(act)
        .request(&*context.id)
        .caller(&*caller.id)
        .group(caller.group.as_deref().map(str::to_owned))
        .address(context.peer.map(|peer| peer.ip()))
        .path(format!("{} {}", context.method, context.path))
        .duration(context.begun.elapsed())
}

impl Books {
    /// Sets the span that ends when the books are closed.
    pub(crate) fn traced(mut self, span: impl FnOnce(&Client, Option<&str>) -> InferenceSpan) -> Self {
        self.span = span(&self.client, self.model.as_deref());
        self
    }

    /// Records the end of an answer.
    pub(crate) fn answer(&mut self, index: usize, text: &str, reason: &FinishReason) {
        self.text(index, text);
        self.span.answer(index, reason);
    }

    /// Records a generated token.
    pub(crate) fn token(&mut self, index: usize, text: &str, counts: bool) {
        self.text(index, text);
        if !counts {
            return;
        }
        self.output += 1;
        self.span.token();
        if let Some(reservation) = &mut self.reservation {
            let writes = reservation.writes();
            // The prompt is charged at the end, when its length is known.
            if !reservation.charge(Amounts { prompt_tokens: 0, ..Amounts::request(0, self.output) }) {
                self.write = Some((0, Box::pin(next_write(writes))));
            }
        }
    }

    /// Records a part of an answer.
    pub(crate) fn text(&mut self, index: usize, text: &str) {
        if let Some(Contents { max, answers, .. }) = &mut self.contents {
            let answer = answers.entry(index).or_default();
            let rest = max.saturating_sub(answer.len());
            answer.push_str(beginning(text, rest));
        }
    }

    /// Closes the books of a request that ended.
    pub(crate) fn end(&mut self, usage: &Usage, reason: &FinishReason) {
        let error = ApiError::of_reason(reason);
        let admitted = usage.queue_time.is_some() || usage.completion_tokens > 0;
        let total = Amounts::request(usage.prompt_tokens as u64, usage.completion_tokens as u64);
        match self.reservation.take() {
            Some(reservation)
                if matches!(reason, FinishReason::Failed(_)) || (error.is_some() && !admitted) =>
            {
                reservation.refund();
            }
            Some(reservation) => reservation.settle(total),
            None => {}
        }
        self.output = total.output_tokens;
        let error = error.map(|error| error.code_text());
        self.span.end(usage, error.as_deref());
        let outcome = error.unwrap_or_else(|| reason.openai().to_owned());
        let tokens = (total.prompt_tokens, usage.cached_tokens as u64);
        self.close(Act::Request, outcome, Some(tokens));
    }

    /// Closes the books of a request that the generator refused.
    pub(crate) fn refuse(&mut self, error: &ApiError) {
        if let Some(reservation) = self.reservation.take() {
            reservation.refund();
        }
        self.span.refuse(&error.code_text());
        self.close(Act::Request, error.code_text(), None);
    }

    /// Waits until the charge for the generated tokens is on disk and, if every line is synced, until the
    /// last line is stable.
    pub(crate) fn poll_durable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while let Some((writes, write)) = &mut self.write {
            let writes = *writes + 1;
            std::task::ready!(write.as_mut().poll(context));
            self.write = match &self.reservation {
                Some(reservation) if writes < WRITES_MAX && !reservation.is_durable() => {
                    Some((writes, Box::pin(next_write(reservation.writes()))))
                }
                _ => None,
            };
        }
        if let Some(line) = &mut self.line {
            // A failure is logged; the work has been done.
            drop(std::task::ready!(Pin::new(line).poll(context)));
            self.line = None;
        }
        Poll::Ready(())
    }

    fn close(&mut self, act: Act, outcome: String, tokens: Option<(u64, u64)>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let Some(place) = self.place.take() else { return };
        let (prompt, cached) = tokens.unzip();
        let mut record = record_of(act, &self.client.caller, &self.client.context)
            .outcome(outcome)
            .user(self.user.take())
            .model(self.model.take())
            .tokens(prompt, cached, self.output);
        if let Some(contents) = &mut self.contents {
            let answer = contents.answer();
            record = record.contents(Some(std::mem::take(&mut contents.prompt)), answer);
        }
        let line = place.append(record);
        self.line = self.awaits_line.then_some(line);
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        // Whether the prompt was computed is unknown: it is charged, or clients could compute prompts for
        // free.
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(Amounts::request(self.estimate.prompt, self.output));
        }
        self.span.abandon(self.output);
        self.close(Act::Request, "client_gone".into(), None);
    }
}

async fn next_write(mut writes: tokio::sync::watch::Receiver<u64>) {
    // An error means that the quotas were dropped.
    drop(writes.changed().await);
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (message, (_, code)) = (refusal.to_string(), refusal.names());
        let limited = |message| Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        let error = match refusal {
            Refusal::Limit { wait, .. } => limited(message).retry_after(wait),
            // The end of a stream cannot be predicted; a second is the minimum for the header.
            Refusal::Streams { .. } => limited(message).retry_after(std::time::Duration::from_secs(1)),
            Refusal::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
            }
            Refusal::Store(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message),
        };
        error.code(code)
    }
}
