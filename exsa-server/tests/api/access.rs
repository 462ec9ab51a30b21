//! Keys, scopes, models and revocation, through the routes.

use crate::harness::{Reply, engine, send};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::Server;
use exsa_server::access::{Access, AccessConfig, AccessEvent, Caller, KeyOptions, Keys, Scope, Store};
use http_body_util::BodyExt;
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// A server with keys.
struct Guarded {
    app: Router,
    keys: Arc<Keys>,
}

impl Guarded {
    fn new() -> Self {
        Self::over(engine("hello"), &AccessConfig::default())
    }

    fn over(engine: Engine, config: &AccessConfig) -> Self {
        let store = Store::with_backend(InMemoryBackend::new()).unwrap();
        let keys = Arc::new(Keys::open(Arc::new(store)).unwrap());
        let access = Access::with_keys(keys.clone(), config).unwrap();
        Self { app: Server::new(Arc::new(engine)).access(access).router(), keys }
    }

    /// A key. Returns its id and text.
    fn key(&self, options: KeyOptions) -> (String, String) {
        let (record, text) = self.keys.create(&options, &Caller::operator()).unwrap();
        (record.id, text.expose().to_owned())
    }

    async fn get(&self, path: &str, key: &str) -> Reply {
        self.send("GET", path, key, None).await
    }

    async fn post(&self, path: &str, key: &str, body: Value) -> Reply {
        self.send("POST", path, key, Some(body)).await
    }

    async fn send(&self, method: &str, path: &str, key: &str, body: Option<Value>) -> Reply {
        send(&self.app, request(method, path, key, body)).await
    }
}

fn request(method: &str, path: &str, key: &str, body: Option<Value>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if !key.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    request.body(body.map_or(Body::empty(), |body| body.to_string().into())).unwrap()
}

fn completion() -> Value {
    json!({"prompt": "a", "max_tokens": 3})
}

#[tokio::test]
async fn imported_keys_are_used_but_not_changed() {
    let folder = std::env::temp_dir().join(format!("exsa-imported-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("keys");
    let open = || Keys::open(Arc::new(Store::with_backend(InMemoryBackend::new()).unwrap())).unwrap();
    let exporting = open().exporting(&file).unwrap();
    let options = KeyOptions::new("a").scopes([Scope::Infer, Scope::Keys]);
    let (record, text) = exporting.create(&options, &Caller::operator()).unwrap();
    let keys = Arc::new(open().importing(&file).unwrap());
    let access = Access::with_keys(keys.clone(), &AccessConfig::default()).unwrap();
    let server = Guarded { app: Server::new(Arc::new(engine("hello"))).access(access).router(), keys };
    assert_eq!(server.post("/v1/completions", text.expose(), completion()).await.status, StatusCode::OK);
    let listed = server.get("/v1/keys", text.expose()).await.json();
    assert_eq!(listed["data"][0]["id"], record.id.as_str());
    for (path, body) in [
        (String::new(), json!({"name": "b"})),
        (format!("/{}/revoke", record.id), json!({})),
        (format!("/{}/rotate", record.id), json!({})),
    ] {
        let reply = server.post(&format!("/v1/keys{path}"), text.expose(), body).await;
        let error = reply.json()["error"].clone();
        assert_eq!(
            (reply.status, &error["code"]),
            (StatusCode::CONFLICT, &json!("keys_imported")),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains("the server that exports them"));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Name of the scripted model.
const MODEL: &str = "scripted";

#[tokio::test]
async fn requests_need_a_valid_key() {
    let server = Guarded::new();
    let (id, key) = server.key(KeyOptions::new("a"));
    assert_eq!(server.post("/v1/completions", &key, completion()).await.status, StatusCode::OK);
    // Both characters stand for four bits and two that must be zero.
    let last = if key.ends_with('A') { 'E' } else { 'A' };
    let wrong = format!("{}{last}", &key[..key.len() - 1]);
    for (key, code) in
        [("", "missing_api_key"), (&*wrong, "invalid_api_key"), ("nonsense", "invalid_api_key")]
    {
        let reply = server.post("/v1/completions", key, completion()).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (StatusCode::UNAUTHORIZED, &json!(code)));
        assert_eq!(reply.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"exsa\"");
        assert!(key.is_empty() || !reply.text.contains(key));
    }
    server.keys.revoke(&id, &Caller::operator()).unwrap();
    let reply = server.post("/v1/completions", &key, completion()).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (StatusCode::UNAUTHORIZED, &json!("key_revoked"))
    );
}

#[tokio::test]
async fn refusals_have_the_form_of_each_api() {
    let server = Guarded::new();
    let reply = server.post("/v1/messages", "", json!({})).await;
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["type"]), (StatusCode::UNAUTHORIZED, &json!("authentication_error")));
    let reply = server.post("/api/chat", "", json!({})).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(reply.json()["error"].as_str().unwrap().contains("API key"));
    // Anthropic's clients send the key in a header of their own.
    let (_, key) = server.key(KeyOptions::new("a"));
    let mut own = request("POST", "/v1/messages/count_tokens", "", Some(json!({"messages": []})));
    own.headers_mut().insert("x-api-key", key.parse().unwrap());
    assert_ne!(send(&server.app, own).await.status, StatusCode::UNAUTHORIZED);
    let mut two = request("POST", "/v1/completions", &key, Some(completion()));
    two.headers_mut().insert("x-api-key", "other".parse().unwrap());
    assert_eq!(send(&server.app, two).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn health_is_open_and_metrics_need_their_scope() {
    let server = Guarded::new();
    for path in ["/health", "/health/live", "/health/ready", "/api/version"] {
        assert_eq!(server.get(path, "").await.status, StatusCode::OK, "{path}");
    }
    let (_, infer) = server.key(KeyOptions::new("a"));
    let (_, metrics) = server.key(KeyOptions::new("b").scopes([Scope::Metrics]));
    assert_eq!(server.get("/metrics", "").await.status, StatusCode::UNAUTHORIZED);
    let reply = server.get("/metrics", &infer).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (StatusCode::FORBIDDEN, &json!("missing_scope"))
    );
    assert!(reply.text.contains("'metrics'"));
    assert_eq!(server.get("/metrics", &metrics).await.status, StatusCode::OK);
    assert_eq!(server.post("/v1/completions", &metrics, completion()).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_key_reaches_its_models_alone() {
    let server = Guarded::new();
    let name = MODEL;
    let (_, all) = server.key(KeyOptions::new("a"));
    let (_, own) = server.key(KeyOptions::new("b").models([format!("{}*", &name[..1]).parse().unwrap()]));
    let (_, other) = server.key(KeyOptions::new("c").models(["none-such".parse().unwrap()]));
    for (key, visible) in [(&all, 1), (&own, 1), (&other, 0)] {
        let list = server.get("/v1/models", key).await.json();
        assert_eq!(list["data"].as_array().unwrap().len(), visible);
        let tags = server.get("/api/tags", key).await.json();
        assert_eq!(tags["models"].as_array().unwrap().len(), visible);
        let status = if visible == 1 { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(server.post("/v1/completions", key, completion()).await.status, status);
        assert_eq!(server.get(&format!("/v1/models/{name}"), key).await.status, status);
        assert_eq!(server.post("/api/show", key, json!({"model": name})).await.status, status);
        assert_eq!(
            server.post("/v1/tokenize", key, json!({"content": "a", "model": name})).await.status,
            status
        );
    }
    let reply =
        server.post("/v1/messages", &other, json!({"model": name, "max_tokens": 1, "messages": []})).await;
    let expected = [StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST];
    assert!(expected.contains(&reply.status), "{}", reply.text);
}

#[tokio::test]
async fn wrong_keys_are_limited_by_address_and_valid_ones_pass() {
    let server = Guarded::over(engine("x"), &AccessConfig::default().failures(3, 1));
    let (_, key) = server.key(KeyOptions::new("a"));
    let from = |address: &str, key: &str| {
        let mut request = request("GET", "/v1/models", key, None);
        let address: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(address));
        request
    };
    for _ in 0..3 {
        let reply = send(&server.app, from("192.0.2.1:1", "wrong")).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
    let reply = send(&server.app, from("192.0.2.1:2", "wrong")).await;
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(reply.headers[header::RETRY_AFTER].to_str().unwrap().parse::<u32>().unwrap() > 1);
    assert_eq!(send(&server.app, from("192.0.2.1:3", &key)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn keys_are_made_listed_rotated_and_revoked_over_http() {
    let server = Guarded::new();
    let (_, admin) = server.key(KeyOptions::new("admin").scopes(Scope::ALL));
    let (_, user) = server.key(KeyOptions::new("user"));
    assert_eq!(server.get("/v1/keys", &user).await.status, StatusCode::FORBIDDEN);
    let made = server.post("/v1/keys", &admin, json!({"name": "new", "expires_in": "30d"})).await;
    assert_eq!(
        (made.status, &made.headers[header::CACHE_CONTROL]),
        (StatusCode::CREATED, &"no-store".parse().unwrap())
    );
    let made = made.json();
    let (id, first) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(server.get("/v1/models", first).await.status, StatusCode::OK);
    let list = server.get("/v1/keys", &admin).await;
    assert!(!list.text.contains(first) && !list.text.contains("hash") && list.text.contains(id));
    assert_eq!(list.json()["data"].as_array().unwrap().len(), 3);
    let rotated =
        server.post(&format!("/v1/keys/{id}/rotate"), &admin, json!({"overlap": "1h"})).await.json();
    let second = rotated["key"].as_str().unwrap();
    for key in [first, second] {
        assert_eq!(server.get("/v1/models", key).await.status, StatusCode::OK);
    }
    let revoked = server.send("POST", &format!("/v1/keys/{id}/revoke"), &admin, None).await;
    assert!(revoked.status == StatusCode::OK && revoked.json()["revoked"].is_u64());
    for key in [first, second] {
        assert_eq!(server.get("/v1/models", key).await.status, StatusCode::UNAUTHORIZED);
    }
    for (path, body, status, word) in [
        ("/v1/keys", json!({}), 400, "name"),
        ("/v1/keys", json!({"name": "a", "scopes": ["all"]}), 400, "scopes"),
        ("/v1/keys", json!({"name": "a", "weight": 1e9}), 400, "weight"),
        ("/v1/keys", json!({"name": "a", "admin": true}), 400, "admin"),
        ("/v1/keys", json!(["a"]), 400, "object"),
        ("/v1/keys/0000000000000000/revoke", json!({}), 404, "0000000000000000"),
        ("/v1/keys/0000000000000000/rotate", json!({"overlap": 5}), 400, "overlap"),
        (&format!("/v1/keys/{id}/rotate"), json!({}), 409, "revoked"),
    ] {
        let reply = server.post(path, &admin, body).await;
        assert!(
            reply.status.as_u16() == status && reply.text.contains(word),
            "{path} {status}: {}",
            reply.text
        );
    }
}

#[tokio::test]
async fn a_manager_of_keys_grants_no_more_than_it_has() {
    let server = Guarded::new();
    let options = KeyOptions::new("m").scopes([Scope::Infer, Scope::Keys]).models(["s*".parse().unwrap()]);
    let (_, manager) = server.key(options);
    let (admin, _) = server.key(KeyOptions::new("admin").scopes(Scope::ALL));
    for (body, param) in [
        (json!({"name": "x", "scopes": ["infer", "audit"], "models": ["s"]}), "scopes"),
        (json!({"name": "x"}), "models"),
        (json!({"name": "x", "models": ["s", "t"]}), "models"),
        (json!({"name": "x", "models": ["s"], "priority_max": "interactive"}), "priority_max"),
        (json!({"name": "x", "models": ["s"], "weight": 5}), "weight"),
        (json!({"name": "x", "models": ["s"], "trusted_proxy": true}), "trusted_proxy"),
    ] {
        let reply = server.post("/v1/keys", &manager, body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (StatusCode::FORBIDDEN, &json!(param)));
    }
    let made = server.post("/v1/keys", &manager, json!({"name": "x", "models": ["s-1"]})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let reply = server.post(&format!("/v1/keys/{admin}/rotate"), &manager, json!({})).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND, "the secret of a stronger key must not be renewed");
}

#[tokio::test]
async fn a_revoked_key_ends_its_streams() {
    // Streams that no one reads stand still; the whole answer takes longer than this test.
    let tokens = 4_000_000;
    let model = ScriptedModel::ngram(1).context(tokens + 100).kv(4 * tokens, 1024);
    let engine = Engine::start(model.shared(), EngineOptions::default()).unwrap();
    let server = Guarded::over(engine, &AccessConfig::default());
    let (id, key) = server.key(KeyOptions::new("a"));
    let (_, other) = server.key(KeyOptions::new("b"));
    let body = json!({"prompt": "x", "max_tokens": tokens, "ignore_eos": true, "stream": true});
    let streamed =
        |key: &str| server.app.clone().oneshot(request("POST", "/v1/completions", key, Some(body.clone())));
    let (mut stream, mut lasting) =
        (streamed(&key).await.unwrap().into_body(), streamed(&other).await.unwrap().into_body());
    let whole = tokio::spawn({
        let app = server.app.clone();
        let body = json!({"prompt": "x", "max_tokens": tokens, "ignore_eos": true});
        let request = request("POST", "/v1/completions", &key, Some(body));
        async move { send(&app, request).await }
    });
    assert!(stream.frame().await.is_some() && lasting.frame().await.is_some());
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.keys.revoke(&id, &Caller::operator()).unwrap();
    let limit = Duration::from_secs(5);
    let rest = tokio::time::timeout(limit, stream.collect()).await.unwrap().unwrap().to_bytes();
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    assert!(rest.contains("key_revoked") && rest.contains("[DONE]"), "{rest}");
    let whole = tokio::time::timeout(limit, whole).await.unwrap().unwrap();
    assert_eq!(
        (whole.status, &whole.json()["error"]["code"]),
        (StatusCode::UNAUTHORIZED, &json!("key_revoked"))
    );
    assert!(lasting.frame().await.is_some(), "streams of other keys go on");
}

#[tokio::test]
async fn a_trusted_proxy_may_name_its_user_by_a_header() {
    let server = Guarded::new();
    let (_, proxy) = server.key(KeyOptions::new("p").trusted_proxy(true));
    let (_, plain) = server.key(KeyOptions::new("a"));
    for (key, user, status) in
        [(&proxy, "bob", StatusCode::OK), (&proxy, "", StatusCode::BAD_REQUEST), (&plain, "", StatusCode::OK)]
    {
        let mut request = request("POST", "/v1/completions", key, Some(completion()));
        request.headers_mut().insert("x-exsa-user", user.parse().unwrap());
        assert_eq!(send(&server.app, request).await.status, status, "{user}");
    }
}

#[tokio::test]
async fn stored_responses_belong_to_their_key() {
    let model =
        ScriptedModel::echo("Hi.").chat_template("{% for m in messages %}{{ m.content }}{% endfor %}");
    let engine = Engine::start(model.shared(), EngineOptions::default()).unwrap();
    let server = Guarded::over(engine, &AccessConfig::default());
    let ((_, key), (_, other)) = (server.key(KeyOptions::new("a")), server.key(KeyOptions::new("b")));
    let response = server.post("/v1/responses", &key, json!({"input": "One."})).await;
    assert_eq!(response.status, StatusCode::OK, "{}", response.text);
    let id = response.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/responses/{id}");
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/input_items")),
        ("POST", format!("{path}/cancel")),
        ("DELETE", path.clone()),
    ] {
        assert_eq!(
            server.send(method, &path, &other, None).await.status,
            StatusCode::NOT_FOUND,
            "{method} {path}"
        );
    }
    let follow = json!({"input": "Two.", "previous_response_id": id});
    let refused = server.post("/v1/responses", &other, follow.clone()).await;
    assert_eq!(refused.json()["error"]["code"], "previous_response_not_found");
    assert_eq!(server.get(&path, &key).await.json(), response.json());
    assert_eq!(server.post("/v1/responses", &key, follow).await.status, StatusCode::OK);
}

#[tokio::test]
async fn acts_on_keys_and_refusals_are_told() {
    let server = Guarded::new();
    let (told, acts) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    server.keys.observe(move |event| {
        let text = match event {
            AccessEvent::KeyCreated { key, by } => format!("created {} by {}", key.name, by.id),
            AccessEvent::KeyRevoked { key, by } => format!("revoked {} by {}", key.name, by.id),
            AccessEvent::KeyRotated { key, .. } => format!("rotated {}", key.name),
            AccessEvent::AuthenticationFailed { reason, context } => format!("{}: {reason}", context.path),
            AccessEvent::PermissionDenied { scope, context, .. } => {
                format!("{}: needs {scope}", context.path)
            }
            other => format!("{other:?}"),
        };
        told.lock().unwrap().send(text).unwrap();
    });
    let (id, key) = server.key(KeyOptions::new("a"));
    server.get("/metrics", &key).await;
    server.get("/v1/models", "wrong").await;
    server.get("/v1/models", "").await;
    server.keys.rotate(&id, None, &Caller::operator()).unwrap();
    server.keys.revoke(&id, &Caller::operator()).unwrap();
    let expected = [
        "created a by operator",
        "/metrics: needs metrics",
        "/v1/models: the API key is not valid",
        "rotated a",
        "revoked a by operator",
    ];
    assert_eq!(acts.try_iter().collect::<Vec<_>>(), expected);
}
