//! The services over a scripted engine, through a socket and the generated clients.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod answers;
mod control;
mod endings;
mod refusals;

use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_grpc::proto::control_client::ControlClient;
use exsa_grpc::proto::generate_request::Prompt;
use exsa_grpc::proto::inference_client::InferenceClient;
use exsa_grpc::proto::{GenerateRequest, GenerateResponse, ResponseOptions, StoppingCriteria, TokenIds};
use exsa_grpc::tonic::Status;
use exsa_grpc::tonic::transport::server::TcpIncoming;
use exsa_grpc::tonic::transport::{Channel, Server};
use exsa_grpc::{GrpcOptions, Services};
use std::sync::Arc;
use tokio::net::TcpListener;

/// An engine behind a socket.
pub struct Served {
    pub engine: Arc<Engine>,
    pub channel: Channel,
}

impl Served {
    pub async fn new(model: ScriptedModel) -> Self {
        Self::with(model, GrpcOptions::new()).await
    }

    pub async fn with(model: ScriptedModel, options: GrpcOptions) -> Self {
        let engine = Arc::new(Engine::start(model.shared(), EngineOptions::default()).unwrap());
        let routes = Services::new(engine.clone(), options).routes();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Self { engine, channel }
    }

    pub fn inference(&self) -> InferenceClient<Channel> {
        InferenceClient::new(self.channel.clone())
    }

    pub fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    /// The whole answer.
    pub async fn generate(&self, request: GenerateRequest) -> Result<GenerateResponse, Status> {
        self.inference().generate(request).await.map(|response| response.into_inner())
    }

    /// The parts of the answer.
    pub async fn stream(&self, request: GenerateRequest) -> Result<Vec<GenerateResponse>, Status> {
        let mut stream = self.inference().generate_stream(request).await?.into_inner();
        let mut parts = Vec::new();
        while let Some(part) = stream.message().await? {
            parts.push(part);
        }
        Ok(parts)
    }
}

/// A request of token ids, which are bytes here, for at most `max` tokens with their ids.
pub fn asked(prompt: &str, max: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Prompt::TokenIds(TokenIds { ids: prompt.bytes().map(u32::from).collect() })),
        stopping: Some(StoppingCriteria { max_new_tokens: max, ..StoppingCriteria::default() }),
        response: Some(ResponseOptions { output_token_ids: true, ..ResponseOptions::default() }),
        ..GenerateRequest::default()
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("not in time: {what}");
}
