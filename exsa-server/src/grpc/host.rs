//! The server as the [`Host`] of the gRPC services.

use super::status;
use crate::access::{self, Caller, Scope};
#[cfg(feature = "kv-events")]
use crate::fleet::KvEvents;
use crate::http::context::{Client, RequestContext};
use crate::http::error::ApiError;
use crate::inference::work::Work;
use crate::observe::health;
use crate::state::AppState;
use exsa_core::stream::CancelHandle;
use exsa_core::{Event, Request};
use exsa_grpc::proto::KvEventSource;
use exsa_grpc::tonic::{Extensions, Status};
use exsa_grpc::{Answer, Host, Served};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Runs the requests of the services like those of the HTTP routes.
pub(crate) struct ServerHost {
    pub(crate) state: Arc<AppState>,
    #[cfg(feature = "kv-events")]
    pub(crate) events: Option<KvEvents>,
}

/// Returns the caller of a call, as identified by earlier layers.
fn client(from: &Extensions) -> Result<Client, Status> {
    match (from.get::<Caller>(), from.get::<RequestContext>()) {
        (Some(caller), Some(context)) => Ok(Client { caller: caller.clone(), context: context.clone() }),
        _ => Err(status::of_error(&ApiError::internal(
            "the call has no sender: its route is not authenticated",
        ))),
    }
}

impl Host for ServerHost {
    type Answer = Work;

    async fn model(&self, from: &Extensions, name: Option<&str>) -> Result<Served, Status> {
        let client = client(from)?;
        let info = self.state.ready(&client.caller, name).await;
        let info = info.map_err(|error| status::refused(&client, &error))?;
        Ok(Served::of(&*self.state.generator, info))
    }

    async fn submit(&self, from: &Extensions, request: Request) -> Result<Work, Status> {
        let client = client(from)?;
        let work = self.state.submit_one(&client, request).await;
        work.map_err(|error| status::refused(&client, &error))
    }

    fn is_ready(&self) -> bool {
        health::problem(&self.state).is_none()
    }

    fn sender(&self, from: &Extensions) -> Arc<str> {
        from.get::<Caller>().map_or_else(|| "".into(), |caller| caller.id.clone())
    }

    fn kv_event_sources(&self, from: &Extensions) -> Result<Vec<KvEventSource>, Status> {
        let sources = self.sources();
        let caller = client(from)?.caller;
        // Requires the same scope as the HTTP route.
        if sources.is_empty() || caller.scopes.contains(Scope::Metrics) {
            return Ok(sources);
        }
        Err(status::of_error(&access::missing_scope(Scope::Metrics)))
    }
}

impl ServerHost {
    #[cfg(feature = "kv-events")]
    fn sources(&self) -> Vec<KvEventSource> {
        /// Maximum unread messages of a subscriber.
        const UNREAD_MAX: u32 = 1024;
        let sources = self.events.iter().flat_map(KvEvents::list);
        let source = |source: crate::fleet::Source| KvEventSource {
            transport: source.transport.into(),
            endpoint: source.endpoint,
            topic: source.topic,
            replay_endpoint: source.replay_endpoint.unwrap_or_default(),
            data_parallel_rank: Some(source.data_parallel_rank),
            encoding: source.encoding.into(),
            schema_version: 1,
            buffer_steps: u32::try_from(source.buffer_steps).unwrap_or(u32::MAX),
            hwm: UNREAD_MAX,
            max_queue_size: UNREAD_MAX,
        };
        sources.map(source).collect()
    }

    #[cfg(not(feature = "kv-events"))]
    fn sources(&self) -> Vec<KvEventSource> {
        Vec::new()
    }
}

impl Answer for Work {
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Event>, Status>> {
        if self.poll_revoked(context) {
            return Poll::Ready(Err(status::of_error(&access::revoked())));
        }
        Work::poll_event(self, context).map(Ok)
    }

    fn cancel_handle(&self) -> CancelHandle {
        Work::cancel_handle(self)
    }
}
