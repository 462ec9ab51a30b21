//! The service `vllm.Inference`.

use crate::answer::{self, Responses};
use crate::deadline;
use crate::host::{Answer, Host};
use crate::proto::inference_server;
use crate::proto::{GenerateRequest, GenerateResponse};
use crate::request;
use crate::running::Ticket;
use crate::services::Shared;
use crate::status::invalid;
use futures_core::Stream;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::{Request, Response, Status};

/// Maximum bytes of a request id.
const ID_BYTES_MAX: usize = 256;

/// The service `vllm.Inference` over a [`Host`].
pub struct Inference<H> {
    shared: Arc<Shared<H>>,
}

impl<H: Host> Inference<H> {
    pub(crate) fn new(shared: Arc<Shared<H>>) -> Self {
        Self { shared }
    }

    /// Submits a request; `is_stream` says whether the response can carry several answers.
    async fn begin(&self, call: Request<GenerateRequest>, is_stream: bool) -> Result<Running<H>, Status> {
        let Shared { host, options, running } = &*self.shared;
        let limit = deadline::of(call.metadata())?;
        let (_, from, mut sent) = call.into_parts();
        let id = std::mem::take(&mut sent.request_id);
        if id.len() > ID_BYTES_MAX {
            let bytes = id.len();
            return Err(invalid(format!("request_id: {bytes} bytes; at most {ID_BYTES_MAX} are allowed")));
        }
        let served = host.model(&from, options.named(&sent.model)).await?;
        let asked = request::read(sent, &served).await?;
        if !is_stream && asked.form.answers > 1 {
            return Err(invalid(
                "sampling.num_sequences: allowed is 1; use GenerateStream for several answers",
            ));
        }
        let mut request = asked.request;
        request.timeout = limit;
        let answer = host.submit(&from, request).await?;
        let ticket = running.enter(host.sender(&from), id, answer.cancel_handle());
        Ok(Running { answer: Some(answer), responses: Responses::new(asked.form), ticket })
    }
}

#[tonic::async_trait]
impl<H: Host> inference_server::Inference for Inference<H> {
    type GenerateStreamStream = Running<H>;

    async fn generate(&self, call: Request<GenerateRequest>) -> Result<Response<GenerateResponse>, Status> {
        let mut running = self.begin(call, false).await?;
        let mut whole = GenerateResponse::default();
        while let Some(part) = poll_fn(|context| running.poll_response(context)).await.transpose()? {
            answer::append(&mut whole, part);
        }
        Ok(Response::new(whole))
    }

    async fn generate_stream(&self, call: Request<GenerateRequest>) -> Result<Response<Running<H>>, Status> {
        Ok(Response::new(self.begin(call, true).await?))
    }
}

/// Response stream of a running request. Dropping it, as when the client disconnects, cancels the request.
pub struct Running<H: Host> {
    /// `None` once read to the end.
    answer: Option<H::Answer>,
    responses: Responses,
    ticket: Ticket,
}

impl<H: Host> Running<H> {
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<GenerateResponse, Status>>> {
        while let Some(answer) = &mut self.answer {
            let response = match ready!(answer.poll_event(context)) {
                Ok(Some(event)) => self.responses.take(event, self.ticket.was_aborted()).transpose(),
                Ok(None) => {
                    self.answer = None;
                    None
                }
                Err(status) => Some(Err(status)),
            };
            if let Some(Err(_)) = &response {
                self.answer = None;
            }
            if response.is_some() {
                return Poll::Ready(response);
            }
        }
        Poll::Ready(None)
    }
}

impl<H: Host> Unpin for Running<H> {}

impl<H: Host> Stream for Running<H> {
    type Item = Result<GenerateResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_response(context)
    }
}

impl<H> fmt::Debug for Inference<H> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Inference").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl<H: Host> fmt::Debug for Running<H> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Running").field("responses", &self.responses).finish_non_exhaustive()
    }
}
