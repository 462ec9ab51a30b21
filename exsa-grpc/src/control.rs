//! The service `vllm.Control`.

use crate::host::Host;
use crate::proto::control_server;
use crate::proto::{
    AbortRequest, AbortResponse, FinishWeightUpdateRequest, FinishWeightUpdateResponse,
    GetKvEventSourcesRequest, GetKvEventSourcesResponse, GetModelInfoRequest, GetServerInfoRequest,
    GetWeightVersionRequest, GetWeightVersionResponse, InitWeightTransferEngineRequest,
    InitWeightTransferEngineResponse, IsPausedRequest, IsPausedResponse, IsSleepingRequest,
    IsSleepingResponse, ListLorasRequest, ListLorasResponse, LoadLoraRequest, LoadLoraResponse, ModelInfo,
    ParallelismInfo, PauseGenerationRequest, PauseGenerationResponse, ResumeGenerationRequest,
    ResumeGenerationResponse, ServerInfo, ShutdownRequest, ShutdownResponse, SleepRequest, SleepResponse,
    StartDraftWeightUpdateRequest, StartDraftWeightUpdateResponse, StartWeightUpdateRequest,
    StartWeightUpdateResponse, UnloadLoraRequest, UnloadLoraResponse, UpdateWeightVersionRequest,
    UpdateWeightVersionResponse, UpdateWeightsRequest, UpdateWeightsResponse, WakeUpRequest, WakeUpResponse,
};
use crate::services::Shared;
use std::fmt;
use std::future::ready;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Extensions, Request, Response, Status};

/// Maximum ids in one `Abort`.
const ABORTS_MAX: usize = 4096;

/// Protocol version as clients such as Dynamo's sidecar know it.
const API_VERSION: &str = "vllm";

/// The service `vllm.Control` over a [`Host`].
pub struct Control<H> {
    shared: Arc<Shared<H>>,
    /// Distinguishes this process from others behind the same address.
    instance: String,
}

impl<H: Host> Control<H> {
    pub(crate) fn new(shared: Arc<Shared<H>>) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        Self { shared, instance: format!("exsa-{random:016x}") }
    }

    async fn served(&self, from: &Extensions) -> Result<crate::Served, Status> {
        self.shared.host.model(from, self.shared.options.model.as_deref()).await
    }
}

/// Answers a method that would change weights, adapters or the engine's state.
fn unimplemented<T>(method: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{method} is not supported by Exsa")))
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Defines unsupported methods: name of the method, of its function, of request and response.
macro_rules! unsupported {
    ($($method:literal $function:ident $request:ident $response:ident)*) => {
        $(
            // Written by hand as `async_trait` would expand it, since it does not see into macros.
            fn $function<'life0, 'async_trait>(
                &'life0 self,
                _: Request<$request>,
            ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(ready(unimplemented($method)))
            }
        )*
    };
}

#[tonic::async_trait]
impl<H: Host> control_server::Control for Control<H> {
    async fn get_server_info(
        &self,
        call: Request<GetServerInfoRequest>,
    ) -> Result<Response<ServerInfo>, Status> {
        let served = self.served(call.extensions()).await?;
        let scheduler = &served.stats.scheduler;
        let block = scheduler.kv_block_tokens;
        let one = 1;
        Ok(Response::new(ServerInfo {
            engine_version: format!("exsa-{}", env!("CARGO_PKG_VERSION")),
            api_version: API_VERSION.into(),
            instance_id: self.instance.clone(),
            parallelism: Some(ParallelismInfo {
                tensor_parallel_size: one,
                pipeline_parallel_size: one,
                data_parallel_size: one,
                data_parallel_rank: 0,
                decode_context_parallel_size: one,
                world_size: one.into(),
                data_parallel_size_local: one,
            }),
            max_model_len: number(served.info.n_ctx),
            kv_block_size: number(block),
            total_kv_blocks: scheduler.kv_tokens_max.checked_div(block).unwrap_or_default() as u64,
            proto_version: crate::proto::VERSION.into(),
            effective_attention_block_size: (block > 0).then_some(block as u64),
            ..ServerInfo::default()
        }))
    }

    async fn get_model_info(
        &self,
        call: Request<GetModelInfoRequest>,
    ) -> Result<Response<ModelInfo>, Status> {
        let served = self.served(call.extensions()).await?;
        let name = served.info.name.clone();
        Ok(Response::new(ModelInfo {
            model_id: self.shared.options.model_id.clone().unwrap_or_else(|| name.clone()),
            served_model_name: name,
            supports_text_input: true,
            supports_token_ids_input: true,
            ..ModelInfo::default()
        }))
    }

    async fn abort(&self, call: Request<AbortRequest>) -> Result<Response<AbortResponse>, Status> {
        let sender = self.shared.host.sender(call.extensions());
        let ids = &call.get_ref().request_ids;
        if ids.len() > ABORTS_MAX {
            let message = format!("request_ids: {} ids; at most {ABORTS_MAX} are allowed", ids.len());
            return Err(Status::invalid_argument(message));
        }
        // Requests without an id cannot be distinguished.
        ids.iter().filter(|id| !id.is_empty()).for_each(|id| self.shared.running.abort(&sender, id));
        Ok(Response::new(AbortResponse {}))
    }

    async fn get_kv_event_sources(
        &self,
        call: Request<GetKvEventSourcesRequest>,
    ) -> Result<Response<GetKvEventSourcesResponse>, Status> {
        let sources = self.shared.host.kv_event_sources(call.extensions())?;
        Ok(Response::new(GetKvEventSourcesResponse { sources }))
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Result<Response<ShutdownResponse>, Status> {
        Err(Status::failed_precondition(
            "the server does not manage an engine's process; end the server itself",
        ))
    }

    async fn list_loras(&self, _: Request<ListLorasRequest>) -> Result<Response<ListLorasResponse>, Status> {
        Ok(Response::new(ListLorasResponse::default()))
    }

    async fn is_paused(&self, _: Request<IsPausedRequest>) -> Result<Response<IsPausedResponse>, Status> {
        Ok(Response::new(IsPausedResponse { paused: false }))
    }

    async fn is_sleeping(
        &self,
        _: Request<IsSleepingRequest>,
    ) -> Result<Response<IsSleepingResponse>, Status> {
        Ok(Response::new(IsSleepingResponse { sleeping: false }))
    }

    unsupported! {
        "LoadLora" load_lora LoadLoraRequest LoadLoraResponse
        "UnloadLora" unload_lora UnloadLoraRequest UnloadLoraResponse
        "PauseGeneration" pause_generation PauseGenerationRequest PauseGenerationResponse
        "ResumeGeneration" resume_generation ResumeGenerationRequest ResumeGenerationResponse
        "Sleep" sleep SleepRequest SleepResponse
        "WakeUp" wake_up WakeUpRequest WakeUpResponse
        "InitWeightTransferEngine" init_weight_transfer_engine
            InitWeightTransferEngineRequest InitWeightTransferEngineResponse
        "StartWeightUpdate" start_weight_update StartWeightUpdateRequest StartWeightUpdateResponse
        "StartDraftWeightUpdate" start_draft_weight_update
            StartDraftWeightUpdateRequest StartDraftWeightUpdateResponse
        "UpdateWeights" update_weights UpdateWeightsRequest UpdateWeightsResponse
        "FinishWeightUpdate" finish_weight_update FinishWeightUpdateRequest FinishWeightUpdateResponse
        "UpdateWeightVersion" update_weight_version UpdateWeightVersionRequest UpdateWeightVersionResponse
        "GetWeightVersion" get_weight_version GetWeightVersionRequest GetWeightVersionResponse
    }
}

impl<H> fmt::Debug for Control<H> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Control").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
