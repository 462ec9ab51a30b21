//! Inference for a caller: the only path from a handler to the generator.
//!
//! [`AppState::submit`] authorises, applies server settings, and submits. [`Work`] is the accepted request;
//! its [`Meter`] sees every event and closes the [`Books`] once, at the end or when the client disconnects.

use crate::access::{self, Caller, RevocationWatch};
use crate::audit::Act;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::http::request_limits;
use crate::inference::books::{Books, record_of};
use crate::inference::estimate;
use crate::inference::in_flight::Slot;
use crate::state::AppState;
use axum::http::StatusCode;
use exsa_core::embed::{EmbedOutput, Pending, RerankOutput};
use exsa_core::stream::{CancelHandle, Completion};
use exsa_core::{
    EmbedRequest, Event, FinishReason, Priority, Request, RerankRequest, SubmitError, TokenStream, Usage,
};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tracing::debug;

/// An accepted request. Dropping it cancels the request.
pub(crate) struct Work {
    stream: TokenStream,
    meter: Meter,
    slot: Slot,
    revocation: RevocationWatch,
    /// An event whose charge is not durable yet.
    event: Option<Event>,
}

impl Work {
    fn new(stream: TokenStream, client: &Client, books: Books, slot: Slot) -> Self {
        let revocation = client.caller.revocation.watch();
        Self { stream, meter: Meter::new(client.clone(), books), slot, revocation, event: None }
    }

    /// Returns whether the caller's key was revoked; wakes the task of `context` when it is.
    pub(crate) fn poll_revoked(&mut self, context: &mut Context<'_>) -> bool {
        self.revocation.poll(context)
    }

    /// Returns the next event; `Ready(None)` after the last. An event is returned once its charge is durable.
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.event.is_none() {
            self.event = ready!(self.stream.poll_event(context));
            if let Some(event) = &self.event {
                self.meter.observe(event);
                self.slot.observe(event);
            }
        }
        ready!(self.meter.books.poll_durable(context));
        Poll::Ready(self.event.take())
    }

    /// Cancels the request because another request of the same call was refused; it is not charged.
    fn withdraw(mut self, error: &ApiError) {
        self.meter.books.refuse(error);
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    ///
    /// The caller's key was revoked.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        poll_fn(|context| match self.poll_revoked(context) {
            true => Poll::Ready(Err(access::revoked())),
            false => self.poll_event(context).map(Ok),
        })
        .await
    }

    /// Returns a handle that can cancel the request from elsewhere.
    pub(crate) fn cancel_handle(&self) -> CancelHandle {
        self.stream.cancel_handle()
    }

    /// Returns all answers, once they are complete.
    ///
    /// # Errors
    ///
    /// The error of the failed request.
    pub(crate) async fn complete_all(self) -> Result<Vec<Completion>, ApiError> {
        let Self { stream, mut meter, slot, .. } = self;
        let caller = meter.client.caller.clone();
        let answers = stream.complete_all_async_with(|event| {
            meter.observe(event);
            slot.observe(event);
        });
        let answers = until_revoked(&caller, answers).await??;
        poll_fn(|context| meter.books.poll_durable(context)).await;
        match answers.iter().find_map(|answer| ApiError::of_reason(&answer.reason)) {
            Some(error) => Err(error),
            None => Ok(answers),
        }
    }

    /// The first answer, once it is complete.
    ///
    /// # Errors
    ///
    /// The error of the failed request.
    pub(crate) async fn complete(self) -> Result<Completion, ApiError> {
        let first = self.complete_all().await?.into_iter().next();
        first.ok_or_else(|| ApiError::internal("the request ended without an answer"))
    }
}

/// Observes a request's events for its books, which close when this is dropped.
struct Meter {
    client: Client,
    books: Books,
    /// Tokens generated so far.
    tokens: u64,
    ended: bool,
}

impl Meter {
    fn new(client: Client, books: Books) -> Self {
        Self { client, books, tokens: 0, ended: false }
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Token(token) | Event::Reasoning(token) => {
                let counts = token.id.is_some();
                self.tokens += u64::from(counts);
                self.books.token(token.index, &token.text, counts);
            }
            Event::ToolCall(call) => {
                self.books.text(call.index, call.name.as_deref().unwrap_or_default());
                self.books.text(call.index, &call.arguments);
            }
            Event::MalformedToolCall(call) => self.books.text(call.index, &call.text),
            Event::AnswerFinished(end) => self.books.answer(end.index, &end.text, &end.reason),
            Event::Finished(end) => {
                self.ended = true;
                self.books.answer(end.index, &end.text, &end.reason);
                self.books.end(&end.usage, &end.reason);
                let (id, caller) = (&*self.client.context.id, &*self.client.caller.id);
                self.client.context.log.tokens(&end.usage);
                let (prompt, generated) = (end.usage.prompt_tokens, end.usage.completion_tokens);
                let ((trace_id, span_id), outcome) = (self.client.context.span.ids(), end.reason.openai());
                debug!(id, trace_id, span_id, caller, prompt, generated, outcome, "request ended");
            }
            _ => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.ended {
            let Client { caller, context } = &self.client;
            let (id, caller) = (&*context.id, &*caller.id);
            context.log.generated(self.tokens);
            let ((trace_id, span_id), generated) = (context.span.ids(), self.tokens);
            debug!(id, trace_id, span_id, caller, generated, "request cancelled: the client is gone");
        }
    }
}

impl AppState {
    /// Submits requests of a client. If one is refused, those accepted before it are cancelled.
    ///
    /// # Errors
    ///
    /// The reason why a request is refused.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        client: &Client,
        mut requests: Vec<Request>,
    ) -> Result<Vec<Work>, ApiError> {
        let options = self.options.get();
        let mut slots = Vec::with_capacity(requests.len());
        for request in &mut requests {
            self.authorise_recorded(client, &mut request.model)?;
            request_limits::check(request, &options)?;
            let Request { priority, user, weight, cache_salt, .. } = request;
            own(&client.caller, priority, user, weight, cache_salt);
            let model = self.model_name(request.model.as_deref())?;
            client.context.log.model(&model);
            slots.push(self.in_flight.add(client.context.id.clone(), model, request));
        }
        let asked = client.clone();
        let submit = move |state: &Self| {
            if let Some(limit) = options.prompt_tokens_max {
                for request in &requests {
                    request_limits::check_prompt(state.generator.count_tokens(request)?, limit)?;
                }
            }
            let mut accepted = Vec::new();
            for (request, slot) in requests.into_iter().zip(slots) {
                match state.begin(&asked, request, slot) {
                    Ok(work) => accepted.push(work),
                    Err(error) => {
                        accepted.into_iter().for_each(|work: Work| work.withdraw(&error));
                        return Err(error);
                    }
                }
            }
            Ok(accepted)
        };
        self.off_thread(submit).await
    }

    /// Admits and submits a request. May block.
    fn begin(&self, client: &Client, request: Request, slot: Slot) -> Result<Work, ApiError> {
        let Request { model, user, .. } = &request;
        let estimate = || estimate::of_request(self, &request);
        let prompt = || estimate::prompt_text(&request.prompt);
        let books = self.admit(client, model.as_deref(), user.as_deref(), estimate, prompt);
        let books = books.map_err(|error| match error.status() {
            StatusCode::TOO_MANY_REQUESTS => {
                error.queue_position(self.requests_ahead(model.as_deref(), request.priority) + 1)
            }
            _ => error,
        })?;
        let books = books.traced(|client, model| client.context.span.generation(model, &request));
        let (stream, books) = accepted(self.generator.submit(request), books)?;
        Ok(Work::new(stream, client, books, slot))
    }

    /// Returns the waiting requests of a model that are at least as urgent.
    fn requests_ahead(&self, model: Option<&str>, priority: Priority) -> usize {
        let Ok(name) = self.model_name(model) else { return 0 };
        let stats = self.generator.stats_by_model();
        let of_model = stats.iter().find(|(model, _)| **model == *name);
        of_model.map_or(0, |(_, stats)| stats.scheduler.waiting_by_class[..=priority.index()].iter().sum())
    }

    /// Submits one request.
    ///
    /// # Errors
    ///
    /// The reason why it is refused.
    pub(crate) async fn submit_one(
        self: &Arc<Self>,
        client: &Client,
        request: Request,
    ) -> Result<Work, ApiError> {
        let first = self.submit(client, vec![request]).await?.pop();
        first.ok_or_else(|| ApiError::internal("a request was lost"))
    }

    /// Embeds texts for a client.
    ///
    /// # Errors
    ///
    /// The reason why the request is refused, or the error with which it fails.
    pub(crate) async fn embed(
        self: &Arc<Self>,
        client: &Client,
        mut request: EmbedRequest,
    ) -> Result<EmbedOutput, ApiError> {
        self.authorise_recorded(client, &mut request.model)?;
        let EmbedRequest { priority, .. } = &mut request;
        *priority = capped(*priority, &client.caller);
        let asked = client.clone();
        let submit = move |state: &Self| {
            let estimate = || estimate::of_texts(&request.inputs);
            let prompt = || estimate::inputs_text(&request.inputs);
            let books = state.admit(&asked, request.model.as_deref(), None, estimate, prompt)?;
            let books = books.traced(|client, model| client.context.span.computation("embeddings", model));
            accepted(state.generator.embed(request), books)
        };
        let (pending, books) = self.off_thread(submit).await?;
        whole(client, pending, books, |output| &output.usage).await
    }

    /// Reranks documents for a client.
    ///
    /// # Errors
    ///
    /// The reason why the request is refused, or the error with which it fails.
    pub(crate) async fn rerank(
        self: &Arc<Self>,
        client: &Client,
        mut request: RerankRequest,
    ) -> Result<RerankOutput, ApiError> {
        self.authorise_recorded(client, &mut request.model)?;
        let RerankRequest { priority, .. } = &mut request;
        *priority = capped(*priority, &client.caller);
        let asked = client.clone();
        let submit = move |state: &Self| {
            let estimate = || estimate::of_documents(&request);
            let prompt = || estimate::documents_text(&request);
            let books = state.admit(&asked, request.model.as_deref(), None, estimate, prompt)?;
            let books = books.traced(|client, model| client.context.span.computation("rerank", model));
            accepted(state.generator.rerank(request), books)
        };
        let (pending, books) = self.off_thread(submit).await?;
        whole(client, pending, books, |output| &output.usage).await
    }

    /// Like [`authorise`](Self::authorise), and records a refusal in the audit log. If the caller may not use
    /// all models, the request then names its model, since another one may become active before it is
    /// submitted.
    fn authorise_recorded(&self, client: &Client, model: &mut Option<String>) -> Result<(), ApiError> {
        if client.caller.models.is_all() {
            return Ok(());
        }
        let name = self.model_name(model.as_deref())?;
        let permitted = permit(&client.caller, &name);
        if let Err(error) = &permitted {
            self.metrics.refusals().permission(error.code_text());
            let record = record_of(Act::PermissionDenied, &client.caller, &client.context);
            drop(self.record(record.model(Some(name.clone())).outcome(error.code_text())));
        }
        *model = Some(name);
        permitted
    }

    /// Refuses a model that the caller may not use.
    ///
    /// # Errors
    ///
    /// 403, or 404 for an unknown model.
    pub(crate) fn authorise(&self, caller: &Caller, model: Option<&str>) -> Result<(), ApiError> {
        if caller.models.is_all() {
            return Ok(());
        }
        permit(caller, &self.model_name(model)?)
    }
}

/// Refuses a model, by its name, that the caller may not use.
fn permit(caller: &Caller, model: &str) -> Result<(), ApiError> {
    if caller.may_use(model) {
        return Ok(());
    }
    let message = format!("the key may not use the model '{model}'");
    Err(ApiError::new(StatusCode::FORBIDDEN, "permission_error", message)
        .param("model")
        .code("model_not_allowed"))
}

/// Awaits `work`, which is dropped if the key of `caller` is revoked.
async fn until_revoked<T>(caller: &Caller, work: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::select! {
        biased;
        () = caller.revocation.clone().revoked() => Err(access::revoked()),
        output = work => Ok(output),
    }
}

/// Wraps accepted work with its books; a refusal is booked.
fn accepted<T>(result: Result<T, SubmitError>, mut books: Books) -> Result<(T, Books), ApiError> {
    match result {
        Ok(value) => Ok((value, books)),
        Err(error) => {
            let error = ApiError::from(error);
            books.refuse(&error);
            Err(error)
        }
    }
}

/// Waits for an output and closes its books.
async fn whole<T>(
    client: &Client,
    pending: Pending<T>,
    mut books: Books,
    usage: impl Fn(&T) -> &Usage,
) -> Result<T, ApiError> {
    match until_revoked(&client.caller, pending).await? {
        Ok(output) => {
            client.context.log.tokens(usage(&output));
            books.end(usage(&output), &FinishReason::EndOfGeneration);
            poll_fn(|context| books.poll_durable(context)).await;
            Ok(output)
        }
        Err(error) => {
            let error = ApiError::from(error);
            books.refuse(&error);
            Err(error)
        }
    }
}

/// Caps the class of a request at the caller's ceiling.
fn capped(priority: Priority, caller: &Caller) -> Priority {
    priority.max(caller.priority_max)
}

/// Applies server settings to a request: class, share of the engine, prefix cache namespace.
fn own(
    caller: &Caller,
    priority: &mut Priority,
    user: &mut Option<String>,
    weight: &mut f32,
    cache_salt: &mut Option<String>,
) {
    *priority = capped(*priority, caller);
    *weight = caller.weight;
    if caller.is_anonymous() {
        return;
    }
    // End users of a proxy are separate from each other and from users of other callers.
    let named = caller.end_user.as_deref().map(str::to_owned).or_else(|| user.take());
    *user = Some(match named.filter(|_| caller.trusted_proxy) {
        Some(user) => format!("{}/{user}", caller.id),
        None => caller.id.to_string(),
    });
    // Prompt times reveal cached prefixes, so callers of different groups share nothing. Length prefixes
    // prevent a client's salt from spelling another tenant's name.
    let (kind, tenant) = match &caller.group {
        Some(group) => ("group", group),
        None => ("caller", &caller.id),
    };
    let salt = cache_salt.take().unwrap_or_default();
    *cache_salt = Some(format!("{kind} {}:{tenant}/{salt}", tenant.len()));
}

/// Returns the part of a request's salt that its client sent; empty if none.
#[cfg(feature = "kv-events")]
pub(crate) fn client_salt(salt: &str) -> &str {
    let tenant = salt.strip_prefix("group ").or_else(|| salt.strip_prefix("caller "));
    let own = tenant.and_then(|tenant| {
        let (len, rest) = tenant.split_once(':')?;
        rest.get(len.parse().ok()?..)?.strip_prefix('/')
    });
    own.unwrap_or(salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(caller: &Caller, request: Request) -> Request {
        let mut request = request;
        let Request { priority, user, weight, cache_salt, .. } = &mut request;
        own(caller, priority, user, weight, cache_salt);
        request
    }

    fn caller(id: &str) -> Caller {
        Caller { id: id.into(), ..Caller::anonymous() }
    }

    #[test]
    fn a_class_is_capped_by_the_ceiling_of_the_caller() {
        let ceilings = [Priority::Interactive, Priority::Normal, Priority::Batch];
        for (asked, ceiling) in ceilings.iter().flat_map(|a| ceilings.iter().map(move |b| (*a, *b))) {
            let caller = Caller { priority_max: ceiling, ..caller("a") };
            let request = owned(&caller, Request::text("x").priority(asked));
            let more_urgent = if asked.index() > ceiling.index() { asked } else { ceiling };
            assert_eq!(request.priority, more_urgent, "{asked:?} under {ceiling:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_names_its_users() {
        let request = || Request::text("x").user_id("bob");
        assert_eq!(owned(&caller("a"), request()).user.as_deref(), Some("a"));
        let proxy = Caller { trusted_proxy: true, ..caller("a") };
        assert_eq!(owned(&proxy, request()).user.as_deref(), Some("a/bob"));
        assert_eq!(owned(&Caller::anonymous(), request()).user.as_deref(), Some("bob"));
    }

    #[test]
    fn tenants_share_no_prefix_cache() {
        let grouped = Caller { group: Some("team".into()), ..caller("a") };
        let salt = |caller: &Caller, request| owned(caller, request).cache_salt;
        assert_eq!(salt(&caller("a"), Request::text("x")).as_deref(), Some("caller 1:a/"));
        assert_eq!(salt(&grouped, Request::text("x")).as_deref(), Some("group 4:team/"));
        assert_eq!(salt(&grouped, Request::text("x").cache_salt("s")).as_deref(), Some("group 4:team/s"));
        let other = Caller { group: Some("team/s".into()), ..caller("b") };
        assert_ne!(salt(&grouped, Request::text("x").cache_salt("s/")), salt(&other, Request::text("x")));
        assert_eq!(salt(&Caller::anonymous(), Request::text("x")), None);
        #[cfg(feature = "kv-events")]
        for sent in ["", "s", "a/b", "group 1:a/b"] {
            let request = || Request::text("x").cache_salt(sent);
            assert_eq!(client_salt(&salt(&grouped, request()).unwrap()), sent);
        }
        #[cfg(feature = "kv-events")]
        for other in ["plain", "group", "group 9:x/y", "caller :/", "group 18446744073709551616:/"] {
            assert_eq!(client_salt(other), other);
        }
    }
}
