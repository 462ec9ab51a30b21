//! Inference for a caller: the one way from a handler to the generator.
//!
//! [`AppState::submit`] authorises, sets what the server decides, and submits. [`Work`] is the accepted request; its
//! [`Meter`] sees every event and closes the books once, at the end or when the client is gone.

use crate::access::{self, Caller, RevocationWatch};
use crate::context::Client;
use crate::error::ApiError;
use crate::in_flight::Slot;
use crate::request_limits;
use crate::state::AppState;
use axum::http::StatusCode;
use exsa_core::embed::{EmbedOutput, RerankOutput};
use exsa_core::stream::{CancelHandle, Completion};
use exsa_core::{EmbedRequest, Event, FinishReason, Priority, Request, RerankRequest, TokenStream, Usage};
use std::sync::Arc;
use std::task::{Context, Poll};
use tracing::debug;

/// An accepted request. Dropping it cancels the request.
pub(crate) struct Work {
    stream: TokenStream,
    meter: Meter,
    slot: Slot,
    revocation: RevocationWatch,
}

impl Work {
    fn new(stream: TokenStream, client: &Client, slot: Slot) -> Self {
        let revocation = client.caller.revocation.watch();
        Self { stream, meter: Meter::new(client.clone()), slot, revocation }
    }

    /// Whether the caller's key was revoked; wakes the task of `context` when it is.
    pub(crate) fn poll_revoked(&mut self, context: &mut Context<'_>) -> bool {
        self.revocation.poll(context)
    }

    /// The next event; `Ready(None)` after the last.
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let polled = self.stream.poll_event(context);
        if let Poll::Ready(Some(event)) = &polled {
            self.meter.observe(event);
            self.slot.observe(event);
        }
        polled
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    ///
    /// The caller's key was revoked.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        std::future::poll_fn(|context| match self.poll_revoked(context) {
            true => Poll::Ready(Err(access::revoked())),
            false => self.poll_event(context).map(Ok),
        })
        .await
    }

    /// A handle that cancels the request from elsewhere.
    pub(crate) fn cancel_handle(&self) -> CancelHandle {
        self.stream.cancel_handle()
    }

    /// All answers, once they are complete.
    ///
    /// # Errors
    ///
    /// The error that the request failed with.
    pub(crate) async fn complete_all(self) -> Result<Vec<Completion>, ApiError> {
        let Self { stream, mut meter, slot, .. } = self;
        let caller = meter.client.caller.clone();
        let answers = stream.complete_all_async_with(|event| {
            meter.observe(event);
            slot.observe(event);
        });
        let answers = until_revoked(&caller, answers).await??;
        match answers.iter().find_map(|answer| ApiError::of_reason(&answer.reason)) {
            Some(error) => Err(error),
            None => Ok(answers),
        }
    }

    /// The first answer, once it is complete.
    ///
    /// # Errors
    ///
    /// The error that the request failed with.
    pub(crate) async fn complete(self) -> Result<Completion, ApiError> {
        let first = self.complete_all().await?.into_iter().next();
        first.ok_or_else(|| ApiError::internal("the request ended without an answer"))
    }
}

/// The books of a request: observes its events, and closes when it is dropped.
struct Meter {
    client: Client,
    /// Tokens generated so far.
    tokens: u64,
    /// Usage and outcome, once the request has ended.
    ended: Option<(Usage, FinishReason)>,
}

impl Meter {
    fn new(client: Client) -> Self {
        Self { client, tokens: 0, ended: None }
    }

    fn observe(&mut self, event: &Event) {
        match event {
            Event::Token(token) | Event::Reasoning(token) => self.tokens += u64::from(token.id.is_some()),
            Event::Finished(end) => self.ended = Some((end.usage.clone(), end.reason.clone())),
            _ => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let Client { caller, context } = &self.client;
        let (id, caller) = (&*context.id, &*caller.id);
        match &self.ended {
            Some((usage, reason)) => {
                let (prompt, generated) = (usage.prompt_tokens, usage.completion_tokens);
                context.log.tokens(usage);
                debug!(id, caller, prompt, generated, outcome = reason.openai(), "request ended");
            }
            None => {
                context.log.generated(self.tokens);
                debug!(id, caller, generated = self.tokens, "request cancelled: the client is gone");
            }
        }
    }
}

impl AppState {
    /// Submits requests of a client. If one is refused, those accepted before it are cancelled.
    ///
    /// # Errors
    ///
    /// The reason for which a request is refused.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        client: &Client,
        mut requests: Vec<Request>,
    ) -> Result<Vec<Work>, ApiError> {
        let options = self.options.get();
        let mut slots = Vec::with_capacity(requests.len());
        for request in &mut requests {
            self.authorise(&client.caller, request.model.as_deref())?;
            request_limits::check(request, &options)?;
            let Request { priority, user, weight, cache_salt, .. } = request;
            own(&client.caller, priority, user, weight, cache_salt);
            let model = self.model(request.model.as_deref())?.name.clone();
            client.context.log.model(&model);
            slots.push(self.in_flight.add(client.context.id.clone(), model, request));
        }
        let submit = move |state: &Self| {
            if let Some(limit) = options.prompt_tokens_max {
                for request in &requests {
                    request_limits::check_prompt(state.generator.count_tokens(request)?, limit)?;
                }
            }
            requests.into_iter().map(|r| Ok(state.generator.submit(r)?)).collect()
        };
        let streams: Vec<TokenStream> = self.off_thread(submit).await?;
        Ok(streams.into_iter().zip(slots).map(|(stream, slot)| Work::new(stream, client, slot)).collect())
    }

    /// Submits one request.
    ///
    /// # Errors
    ///
    /// The reason for which it is refused.
    pub(crate) async fn submit_one(
        self: &Arc<Self>,
        client: &Client,
        request: Request,
    ) -> Result<Work, ApiError> {
        let first = self.submit(client, vec![request]).await?.pop();
        first.ok_or_else(|| ApiError::internal("a request was lost"))
    }

    /// Embeds texts of a client.
    ///
    /// # Errors
    ///
    /// The reason for which the request is refused, or the error that it fails with.
    pub(crate) async fn embed(
        self: &Arc<Self>,
        client: &Client,
        mut request: EmbedRequest,
    ) -> Result<EmbedOutput, ApiError> {
        self.authorise(&client.caller, request.model.as_deref())?;
        let EmbedRequest { priority, .. } = &mut request;
        *priority = capped(*priority, &client.caller);
        let output = self.blocking(|state| state.generator.embed(request)).await?;
        let output = until_revoked(&client.caller, output).await??;
        client.context.log.tokens(&output.usage);
        Ok(output)
    }

    /// Scores documents of a client.
    ///
    /// # Errors
    ///
    /// The reason for which the request is refused, or the error that it fails with.
    pub(crate) async fn rerank(
        self: &Arc<Self>,
        client: &Client,
        mut request: RerankRequest,
    ) -> Result<RerankOutput, ApiError> {
        self.authorise(&client.caller, request.model.as_deref())?;
        let RerankRequest { priority, .. } = &mut request;
        *priority = capped(*priority, &client.caller);
        let output = self.blocking(|state| state.generator.rerank(request)).await?;
        let output = until_revoked(&client.caller, output).await??;
        client.context.log.tokens(&output.usage);
        Ok(output)
    }

    /// Refuses a model that the caller may not use.
    ///
    /// # Errors
    ///
    /// 403, and 404 for a model that is not there.
    pub(crate) fn authorise(&self, caller: &Caller, model: Option<&str>) -> Result<(), ApiError> {
        if caller.models.is_all() {
            return Ok(());
        }
        let model = self.model_name(model)?;
        if caller.may_use(&model) {
            return Ok(());
        }
        let message = format!("the key may not use the model '{model}'");
        Err(ApiError::new(StatusCode::FORBIDDEN, "permission_error", message)
            .param("model")
            .code("model_not_allowed"))
    }
}

/// The output of `work`, which is dropped once the key of `caller` is revoked.
async fn until_revoked<T>(caller: &Caller, work: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::select! {
        biased;
        () = caller.revocation.clone().revoked() => Err(access::revoked()),
        output = work => Ok(output),
    }
}

/// The class of a request, no more urgent than the caller's ceiling.
fn capped(priority: Priority, caller: &Caller) -> Priority {
    priority.max(caller.priority_max)
}

/// Sets what the server decides about a request: class, share of the machine, namespace of the prefix cache.
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
    // Users of a proxy are apart from each other and from the users of others.
    let named = caller.end_user.as_deref().map(str::to_owned).or_else(|| user.take());
    *user = Some(match named.filter(|_| caller.trusted_proxy) {
        Some(user) => format!("{}/{user}", caller.id),
        None => caller.id.to_string(),
    });
    // How long a prompt takes tells whether its prefix was cached: callers of different groups share nothing.
    // Lengths keep a salt that a client sent from spelling the name of another tenant.
    let (kind, tenant) = match &caller.group {
        Some(group) => ("group", group),
        None => ("caller", &caller.id),
    };
    let salt = cache_salt.take().unwrap_or_default();
    *cache_salt = Some(format!("{kind} {}:{tenant}/{salt}", tenant.len()));
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
        let request = || Request::text("x").user("bob");
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
    }
}
