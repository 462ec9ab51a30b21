//! Facts about server and model, health, and methods that are not supported.

use crate::{Served, asked};
use exsa_core::scripted::ScriptedModel;
use exsa_grpc::GrpcOptions;
use exsa_grpc::proto::{
    GenerateRequest, GetKvEventSourcesRequest, GetModelInfoRequest, GetServerInfoRequest, IsPausedRequest,
    IsSleepingRequest, ListLorasRequest, LoadLoraRequest, ShutdownRequest, SleepRequest,
};
use exsa_grpc::tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn the_model_is_told_and_found_by_its_id() {
    let options = GrpcOptions::new().model_id("/srv/models/a".to_owned());
    let served = Served::with(ScriptedModel::echo("hello").context(128).kv(1024, 8), options).await;
    let model = served.control().get_model_info(GetModelInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((&*model.model_id, &*model.served_model_name), ("/srv/models/a", "scripted"));
    assert!(model.supports_text_input && model.supports_token_ids_input);
    assert!(!model.supports_lora && !model.supports_multimodal);
    for name in ["", "/srv/models/a", "scripted"] {
        let answer = served.generate(GenerateRequest { model: name.into(), ..asked("a", 9) }).await.unwrap();
        assert_eq!(answer.outputs.unwrap().text, "hello", "{name}");
    }
    let server = served.control().get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((server.max_model_len, server.kv_block_size, server.total_kv_blocks), (128, 8, 128));
    assert!(server.engine_version.starts_with("exsa-") && server.instance_id.starts_with("exsa-"));
    let parallelism = server.parallelism.unwrap();
    assert_eq!((parallelism.world_size, parallelism.data_parallel_size), (1, 1));
}

#[tokio::test]
async fn a_model_that_is_not_there_is_said_to_be_missing() {
    let options = GrpcOptions::new().model("other".to_owned());
    let served = Served::with(ScriptedModel::echo("hello"), options).await;
    let status = served.control().get_model_info(GetModelInfoRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

#[tokio::test]
async fn states_that_the_engine_does_not_have_are_told_as_such() {
    let served = Served::new(ScriptedModel::echo("hello")).await;
    let mut control = served.control();
    assert!(!control.is_paused(IsPausedRequest {}).await.unwrap().into_inner().paused);
    assert!(!control.is_sleeping(IsSleepingRequest {}).await.unwrap().into_inner().sleeping);
    assert!(control.list_loras(ListLorasRequest {}).await.unwrap().into_inner().adapters.is_empty());
    let sources =
        control.get_kv_event_sources(GetKvEventSourcesRequest {}).await.unwrap().into_inner().sources;
    assert!(sources.is_empty());
    let sleep = control.sleep(SleepRequest::default()).await.unwrap_err();
    assert_eq!((sleep.code(), sleep.message()), (Code::Unimplemented, "Sleep is not supported by Exsa"));
    let lora = control.load_lora(LoadLoraRequest::default()).await.unwrap_err();
    assert_eq!(lora.code(), Code::Unimplemented);
    let shutdown = control.shutdown(ShutdownRequest {}).await.unwrap_err();
    assert_eq!(shutdown.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn health_is_told_for_each_service() {
    let served = Served::new(ScriptedModel::echo("hello")).await;
    let mut health = HealthClient::new(served.channel.clone());
    for service in ["", "vllm.Inference", "vllm.Control"] {
        let request = HealthCheckRequest { service: service.into() };
        let status = health.check(request.clone()).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
        let mut watched = health.watch(request).await.unwrap().into_inner();
        assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    }
    let unknown = HealthCheckRequest { service: "vllm.Other".into() };
    assert_eq!(health.check(unknown.clone()).await.unwrap_err().code(), Code::NotFound);
    let mut watched = health.watch(unknown).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}
