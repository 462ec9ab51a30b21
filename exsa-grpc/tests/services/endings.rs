//! Requests that clients end.

use crate::{Served, asked, eventually};
use exsa_core::scripted::ScriptedModel;
use exsa_grpc::proto::finish_info::FinishReason;
use exsa_grpc::proto::{AbortRequest, GenerateRequest};
use std::time::Duration;

/// Tokens that a test does not wait for.
const MANY: u32 = 2_000_000;

fn endless(id: &str) -> GenerateRequest {
    let mut request = asked("x", MANY);
    request.stopping.as_mut().unwrap().ignore_eos = true;
    GenerateRequest { request_id: id.into(), ..request }
}

async fn served() -> Served {
    Served::new(ScriptedModel::ngram(1).order(2).context(MANY as usize + 10).kv(MANY as usize + 1024, 16))
        .await
}

fn is_idle(served: &Served) -> bool {
    let stats = served.engine.stats();
    stats.scheduler.running + stats.scheduler.waiting == 0 && stats.submitted == stats.finished
}

#[tokio::test]
async fn a_dropped_stream_cancels_its_request() {
    let served = served().await;
    let mut stream = served.inference().generate_stream(endless("a")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert!(!is_idle(&served));
    drop(stream);
    eventually("the engine is idle", || is_idle(&served)).await;
    assert!(served.engine.stats().tokens_generated < u64::from(MANY));
}

#[tokio::test]
async fn a_dropped_call_cancels_its_request() {
    let served = served().await;
    let call = tokio::spawn({
        let mut client = served.inference();
        async move { client.generate(endless("a")).await }
    });
    eventually("a token is generated", || served.engine.stats().tokens_generated > 0).await;
    call.abort();
    eventually("the engine is idle", || is_idle(&served)).await;
}

#[tokio::test]
async fn an_abort_ends_the_requests_of_its_ids() {
    let served = served().await;
    let mut first = served.inference().generate_stream(endless("a")).await.unwrap().into_inner();
    let mut second = served.inference().generate_stream(endless("b")).await.unwrap().into_inner();
    assert!(first.message().await.unwrap().is_some() && second.message().await.unwrap().is_some());
    served
        .control()
        .abort(AbortRequest { request_ids: vec!["none".into(), "a".into(), String::new()] })
        .await
        .unwrap();
    let mut last = None;
    while let Some(part) = first.message().await.unwrap() {
        last = part.outputs.unwrap().finish_info;
    }
    let info = last.unwrap();
    assert_eq!(info.finish_reason(), FinishReason::Aborted);
    assert!(info.num_output_tokens > 0);
    assert!(second.message().await.unwrap().is_some(), "the other goes on");
    let many = AbortRequest { request_ids: vec!["x".into(); 5000] };
    assert!(served.control().abort(many).await.unwrap_err().message().contains("5000 ids"));
}

#[tokio::test]
async fn the_time_limit_of_a_call_ends_its_request() {
    let served = served().await;
    let mut call = exsa_grpc::tonic::Request::new(endless("a"));
    call.set_timeout(Duration::from_millis(300));
    assert!(served.inference().generate(call).await.is_err());
    eventually("the engine is idle", || is_idle(&served)).await;
}
