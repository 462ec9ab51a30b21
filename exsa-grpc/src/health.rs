//! The standard health service, for each service and for the server as a whole.

use crate::host::Host;
use crate::proto::control_server::SERVICE_NAME as CONTROL;
use crate::proto::inference_server::SERVICE_NAME as INFERENCE;
use crate::services::Shared;
use futures_core::Stream;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus as Sent;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

/// Poll interval of a watched status.
const INTERVAL: Duration = Duration::from_millis(500);

/// The standard health service over a [`Host`].
pub struct Health<H> {
    shared: Arc<Shared<H>>,
}

impl<H: Host> Health<H> {
    pub(crate) fn new(shared: Arc<Shared<H>>) -> Self {
        Self { shared }
    }
}

/// Returns whether the service is known; the empty name is the server.
fn is_known(service: &str) -> bool {
    ["", INFERENCE, CONTROL].contains(&service)
}

fn status<H: Host>(shared: &Shared<H>, is_known: bool) -> Sent {
    match (is_known, shared.host.is_ready()) {
        (false, _) => Sent::ServiceUnknown,
        (true, true) => Sent::Serving,
        (true, false) => Sent::NotServing,
    }
}

#[tonic::async_trait]
impl<H: Host> health_server::Health for Health<H> {
    type WatchStream = Watch<H>;

    async fn check(
        &self,
        call: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = call.into_inner().service;
        if !is_known(&service) {
            let message =
                format!("unknown service '{service}'; allowed are '{INFERENCE}', '{CONTROL}' and ''");
            return Err(Status::not_found(message));
        }
        let status = status(&self.shared, true).into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn watch(&self, call: Request<HealthCheckRequest>) -> Result<Response<Watch<H>>, Status> {
        let mut interval = interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_known = is_known(&call.into_inner().service);
        Ok(Response::new(Watch { shared: self.shared.clone(), is_known, interval, last: None }))
    }
}

/// A status stream: the current status, then each change.
pub struct Watch<H> {
    shared: Arc<Shared<H>>,
    is_known: bool,
    interval: Interval,
    last: Option<Sent>,
}

impl<H: Host> Stream for Watch<H> {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watch = self.get_mut();
        loop {
            ready!(watch.interval.poll_tick(context));
            let status = status(&watch.shared, watch.is_known);
            if watch.last.replace(status) != Some(status) {
                return Poll::Ready(Some(Ok(HealthCheckResponse { status: status.into() })));
            }
        }
    }
}

impl<H> fmt::Debug for Health<H> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Health").finish_non_exhaustive()
    }
}

impl<H> fmt::Debug for Watch<H> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Watch").field("last", &self.last).finish_non_exhaustive()
    }
}
