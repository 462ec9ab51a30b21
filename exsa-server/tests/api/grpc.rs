//! The gRPC services behind a socket: keys, limits, records and health are those of the HTTP routes.

use crate::gated::eventually;
use crate::harness::get;
use axum::Router;
use axum::http::StatusCode;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_grpc::proto::control_client::ControlClient;
use exsa_grpc::proto::generate_request::Prompt;
use exsa_grpc::proto::inference_client::InferenceClient;
use exsa_grpc::proto::{GenerateRequest, GetModelInfoRequest, StoppingCriteria, TokenIds};
use exsa_grpc::tonic::transport::Channel;
use exsa_grpc::tonic::{Code, Request, Status};
use exsa_server::access::{Access, AccessConfig, Caller, KeyOptions, Keys, Scope, Store};
use exsa_server::audit::{AuditConfig, AuditLog};
use exsa_server::config::GrpcConfig;
use exsa_server::listener::{ConnectionLimits, Listeners};
use exsa_server::quota::{Limits, QuotaConfig, Quotas};
use exsa_server::{Readiness, Server, ServerOptions};
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Tokens that a test does not wait for.
const MANY: u32 = 1_000_000;

/// A server with both kinds of routes.
struct Served {
    app: Router,
    url: String,
    address: String,
}

impl Served {
    async fn new(server: Server, config: &GrpcConfig) -> Self {
        let (app, grpc) = server.routers(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let listeners = Listeners::new().http2(listener, grpc);
        let limits = ConnectionLimits::default();
        tokio::spawn(listeners.serve(Router::new(), limits.into(), std::future::pending()));
        Self { app, url: format!("http://{address}"), address }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    async fn generate(&self, request: GenerateRequest, key: &str) -> Result<String, Status> {
        let mut client = InferenceClient::new(self.channel().await);
        let answer = client.generate(with_key(request, key)).await?.into_inner();
        Ok(answer.outputs.unwrap().text)
    }
}

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut call = Request::new(message);
    if !key.is_empty() {
        call.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    call
}

fn engine(text: &str) -> Arc<Engine> {
    Arc::new(Engine::start(ScriptedModel::echo(text).shared(), EngineOptions::default()).unwrap())
}

/// An engine whose answers have no end.
fn endless_engine() -> Arc<Engine> {
    let model = ScriptedModel::ngram(1).order(2).context(MANY as usize + 10).kv(MANY as usize + 1024, 16);
    Arc::new(Engine::start(model.shared(), EngineOptions::default()).unwrap())
}

fn asked(prompt: &str, max: u32) -> GenerateRequest {
    let stopping = StoppingCriteria { max_new_tokens: max, ignore_eos: max == MANY, ..Default::default() };
    let ids = prompt.bytes().map(u32::from).collect();
    GenerateRequest {
        prompt: Some(Prompt::TokenIds(TokenIds { ids })),
        stopping: Some(stopping),
        ..GenerateRequest::default()
    }
}

fn cause(status: &Status) -> &str {
    status.metadata().get("exsa-error").map_or("", |cause| cause.to_str().unwrap())
}

fn keys() -> (Arc<Keys>, Access) {
    let store = Store::with_backend(InMemoryBackend::new()).unwrap();
    let keys = Arc::new(Keys::open(Arc::new(store)).unwrap());
    (keys.clone(), Access::with_keys(keys, &AccessConfig::default()).unwrap())
}

fn key(keys: &Keys, options: KeyOptions) -> (String, String) {
    let (record, text) = keys.create(&options, &Caller::operator()).unwrap();
    (record.id, text.expose().to_owned())
}

#[tokio::test]
async fn calls_need_a_valid_key_with_the_scope_and_the_model() {
    let (keys, access) = keys();
    let served = Served::new(Server::new(engine("hello")).access(access), &GrpcConfig::default()).await;
    let (_, valid) = key(&keys, KeyOptions::new("a"));
    assert_eq!(served.generate(asked("x", 9), &valid).await.unwrap(), "hello");
    for (wrong, expected) in [("", "missing_api_key"), ("nonsense", "invalid_api_key")] {
        let status = served.generate(asked("x", 9), wrong).await.unwrap_err();
        assert_eq!((status.code(), cause(&status)), (Code::Unauthenticated, expected), "{status:?}");
        let status = ControlClient::new(served.channel().await)
            .get_model_info(with_key(GetModelInfoRequest {}, wrong))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    let (_, metrics) = key(&keys, KeyOptions::new("b").scopes([Scope::Metrics]));
    let status = served.generate(asked("x", 9), &metrics).await.unwrap_err();
    assert_eq!((status.code(), cause(&status)), (Code::PermissionDenied, "missing_scope"), "{status:?}");
    let (_, other) = key(&keys, KeyOptions::new("c").models(["other".parse().unwrap()]));
    let status = served.generate(asked("x", 9), &other).await.unwrap_err();
    assert_eq!((status.code(), cause(&status)), (Code::PermissionDenied, "model_not_allowed"), "{status:?}");
    // Probes have no key.
    let mut health = exsa_grpc::health_proto::health_client::HealthClient::new(served.channel().await);
    assert!(health.check(exsa_grpc::health_proto::HealthCheckRequest::default()).await.is_ok());
}

#[tokio::test]
async fn a_revoked_key_ends_its_streams() {
    let (keys, access) = keys();
    let engine = endless_engine();
    let server = Server::new(engine.clone()).access(access);
    let served = Served::new(server, &GrpcConfig::default()).await;
    let (id, text) = key(&keys, KeyOptions::new("a"));
    let mut client = InferenceClient::new(served.channel().await);
    let mut stream = client.generate_stream(with_key(asked("x", MANY), &text)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    keys.revoke(&id, &Caller::operator()).unwrap();
    let status = loop {
        match stream.message().await {
            Ok(part) => assert!(part.is_some(), "the stream has no end of its own"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), cause(&status)), (Code::Unauthenticated, "key_revoked"));
    eventually("the engine is idle", async || engine.stats().scheduler.running == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let engine = endless_engine();
    let served = Served::new(Server::new(engine.clone()), &GrpcConfig::default()).await;
    let mut client = InferenceClient::new(served.channel().await);
    let mut stream = client.generate_stream(asked("x", MANY)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    drop(stream);
    eventually("the engine is idle", async || engine.stats().scheduler.running == 0).await;
    assert!(engine.stats().tokens_generated < u64::from(MANY));
}

#[tokio::test]
async fn quotas_and_the_audit_log_count_calls() {
    let folder = std::env::temp_dir().join(format!("exsa-grpc-books-{}", std::process::id()));
    let log = AuditLog::open(&AuditConfig::default().folder(&folder)).unwrap().unwrap();
    let mut quota = QuotaConfig::default();
    quota.default = serde_json::from_value::<Limits>(json!({"requests_per_minute": 1})).unwrap();
    let server = Server::new(engine("hello")).audit(log.clone()).quotas(Quotas::open(quota, None).unwrap());
    let served = Served::new(server, &GrpcConfig::default()).await;
    assert_eq!(served.generate(asked("abc", 9), "").await.unwrap(), "hello");
    let status = served.generate(asked("abc", 9), "").await.unwrap_err();
    assert_eq!(
        (status.code(), cause(&status)),
        (Code::ResourceExhausted, "rate_limit_exceeded"),
        "{status:?}"
    );
    let wait: u64 =
        status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&wait), "{wait}");
    log.close();
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    std::fs::remove_dir_all(&folder).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<_> = lines.filter(|line| line["path"] == "POST /vllm.Inference/Generate").collect();
    let acts: Vec<_> = lines.iter().map(|line| line["act"].as_str().unwrap()).collect();
    assert_eq!(acts, ["request", "quota_refused"]);
    assert_eq!(lines[0]["prompt_tokens"], 3, "{}", lines[0]);
}

#[tokio::test]
async fn a_message_beyond_the_limits_is_refused() {
    let options = ServerOptions::default().body_bytes_max(1000).prompt_tokens_max(200);
    let server = Server::new(engine("hello")).options(options);
    let served = Served::new(server, &GrpcConfig::default()).await;
    assert_eq!(served.generate(asked(&"x".repeat(200), 9), "").await.unwrap(), "hello");
    let status = served.generate(asked(&"x".repeat(2000), 9), "").await.unwrap_err();
    assert_eq!((status.code(), cause(&status)), (Code::ResourceExhausted, "over_limit"), "{status:?}");
    let status = served.generate(asked(&"x".repeat(300), 9), "").await.unwrap_err();
    assert_eq!(
        (status.code(), cause(&status)),
        (Code::InvalidArgument, "context_length_exceeded"),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_message_that_does_not_come_is_not_waited_for() {
    let options = ServerOptions::default().body_timeout(Duration::from_millis(100));
    let served = Served::new(Server::new(engine("hello")).options(options), &GrpcConfig::default()).await;
    let mut stream = TcpStream::connect(&served.address).await.unwrap();
    // A POST without an end of its stream, by fields of the static table and literals without indexing.
    let mut fields = vec![0x83, 0x86];
    for (name, value) in [
        (":path", "/vllm.Inference/Generate"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        fields.extend([0, u8::try_from(name.len()).unwrap()]);
        fields.extend(name.bytes());
        fields.push(u8::try_from(value.len()).unwrap());
        fields.extend(value.bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, u8::try_from(fields.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    bytes.extend(fields);
    stream.write_all(&bytes).await.unwrap();
    // The status of a slow message comes in a frame of headers.
    let has_answer = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            if (head[3], head[8]) == (1, 1) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), has_answer).await.unwrap();
}

#[tokio::test]
async fn a_drain_turns_the_health_of_both_kinds_of_routes() {
    let readiness = Readiness::default();
    let server = Server::new(engine("hello")).readiness(readiness.clone());
    let served = Served::new(server, &GrpcConfig::default().model_id("/models/a")).await;
    let mut health = exsa_grpc::health_proto::health_client::HealthClient::new(served.channel().await);
    let request = || exsa_grpc::health_proto::HealthCheckRequest { service: "vllm.Inference".into() };
    let mut watched = health.watch(request()).await.unwrap().into_inner();
    let serving = exsa_grpc::health_proto::health_check_response::ServingStatus::Serving;
    assert_eq!(watched.message().await.unwrap().unwrap().status(), serving);
    assert_eq!(get(&served.app, "/health/ready").await.status, StatusCode::OK);
    readiness.begin_drain();
    assert_ne!(watched.message().await.unwrap().unwrap().status(), serving);
    assert_ne!(health.check(request()).await.unwrap().into_inner().status(), serving);
    assert_eq!(get(&served.app, "/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    // Requests are served on.
    assert_eq!(
        served.generate(GenerateRequest { model: "/models/a".into(), ..asked("x", 9) }, "").await.unwrap(),
        "hello"
    );
}

#[tokio::test]
async fn other_methods_have_an_answer_of_grpc() {
    let served = Served::new(Server::new(engine("hello")), &GrpcConfig::default()).await;
    // A service below a path that there is not.
    let url = format!("{}/other", served.url);
    let origin = url.parse().unwrap();
    let mut client = InferenceClient::with_origin(served.channel().await, origin);
    let status = client.generate(asked("x", 1)).await.unwrap_err();
    assert_eq!((status.code(), cause(&status)), (Code::Unimplemented, "unknown_method"), "{status:?}");
}
