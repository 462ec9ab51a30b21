//! Inference for a caller: the one way from a handler to the generator.
//!
//! [`AppState::submit`] authorises, sets what the server decides, and submits. [`Work`] is the accepted request; its
//! [`Meter`] sees every event and closes the books once, at the end or when the client is gone.

use crate::access::Caller;
use crate::context::Client;
use crate::error::ApiError;
use crate::state::AppState;
use axum::http::StatusCode;
use exsa_core::embed::{EmbedOutput, RerankOutput};
use exsa_core::stream::Completion;
use exsa_core::{EmbedRequest, Event, FinishReason, Priority, Request, RerankRequest, TokenStream, Usage};
use std::sync::Arc;
use std::task::{Context, Poll};
use tracing::debug;

/// An accepted request. Dropping it cancels the request.
pub(crate) struct Work {
    stream: TokenStream,
    meter: Meter,
}

impl Work {
    /// The next event; `Ready(None)` after the last.
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let polled = self.stream.poll_event(context);
        if let Poll::Ready(Some(event)) = &polled {
            self.meter.observe(event);
        }
        polled
    }

    /// All answers, once they are complete.
    ///
    /// # Errors
    ///
    /// The error that the request failed with.
    pub(crate) async fn complete_all(self) -> Result<Vec<Completion>, ApiError> {
        let Self { stream, mut meter } = self;
        let answers = stream.complete_all_async_with(|event| meter.observe(event)).await?;
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
                debug!(id, caller, prompt, generated, outcome = reason.openai(), "request ended");
            }
            None => debug!(id, caller, generated = self.tokens, "request cancelled: the client is gone"),
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
        for request in &mut requests {
            self.authorise(&client.caller, request.model.as_deref())?;
            let Request { priority, user, weight, cache_salt, .. } = request;
            own(&client.caller, priority, user, weight, cache_salt);
        }
        let submit = |state: &Self| requests.into_iter().map(|r| state.generator.submit(r)).collect();
        let streams: Vec<TokenStream> = self.blocking(submit).await?;
        let work = |stream| Work { stream, meter: Meter::new(client.clone()) };
        Ok(streams.into_iter().map(work).collect())
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
        Ok(self.blocking(|state| state.generator.embed(request)).await?.await?)
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
        Ok(self.blocking(|state| state.generator.rerank(request)).await?.await?)
    }

    /// Refuses a model that the caller may not use.
    ///
    /// # Errors
    ///
    /// 403, and 404 for a model that is not there.
    pub(crate) fn authorise(&self, caller: &Caller, model: Option<&str>) -> Result<(), ApiError> {
        if caller.models.is_none() {
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
    *user = Some(match user.take().filter(|_| caller.trusted_proxy) {
        Some(user) => format!("{}/{user}", caller.id),
        None => caller.id.to_string(),
    });
    // How long a prompt takes tells whether its prefix was cached: callers of different groups share nothing.
    let tenant = caller.group.as_ref().unwrap_or(&caller.id);
    *cache_salt = Some(match cache_salt.take() {
        Some(salt) => format!("{tenant}/{salt}"),
        None => tenant.to_string(),
    });
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
        assert_eq!(salt(&caller("a"), Request::text("x")).as_deref(), Some("a"));
        assert_eq!(salt(&grouped, Request::text("x")).as_deref(), Some("team"));
        assert_eq!(salt(&grouped, Request::text("x").cache_salt("s")).as_deref(), Some("team/s"));
        assert_eq!(salt(&Caller::anonymous(), Request::text("x")), None);
    }
}
