//! Changes of `[access]` while requests run.

use crate::harness::send;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::Server;
use exsa_server::access::{Access, Keys, Store};
use exsa_server::config::ConfigSource;
use exsa_server::reload::{Callers, Reloader};
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use redb::backends::InMemoryBackend;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tower::ServiceExt;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const TOKENS: usize = 4_000_000;

struct Fixture {
    app: Router,
    reloader: Reloader,
    folder: PathBuf,
}

impl Fixture {
    /// A server with tokens, whose answers take longer than a test.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("exsa-access-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = json!({"kty": "oct", "kid": "a", "alg": "HS256", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"});
        std::fs::write(folder.join("keys.json"), json!({"keys": [key]}).to_string()).unwrap();
        let source = ConfigSource::new(Some(folder.join("exsa.toml")));
        write(&folder, "https://a.example", "user", "");
        let config = source.load().unwrap();
        let store = Store::with_backend(InMemoryBackend::new()).unwrap();
        let keys = Arc::new(Keys::open(Arc::new(store)).unwrap());
        let access = Access::with_keys(keys, &config.access).unwrap();
        let model = ScriptedModel::ngram(1).context(TOKENS + 100).kv(4 * TOKENS, 1024);
        let engine = Engine::start(model.shared(), EngineOptions::default()).unwrap();
        let part = Callers { access: Some(access.clone()), started: config.access.clone() };
        let app = Server::new(Arc::new(engine)).access(access).router();
        Self { app, reloader: Reloader::new(source, config).part(part), folder }
    }

    fn request(&self, token: &str, stream: bool) -> Request<Body> {
        let max = if stream { TOKENS } else { 2 };
        let body = json!({"prompt": "x", "max_tokens": max, "ignore_eos": true, "stream": stream});
        let request = Request::post("/v1/completions").header(header::HOST, "localhost");
        request
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(body.to_string().into())
            .unwrap()
    }

    async fn status(&self, token: &str) -> StatusCode {
        send(&self.app, self.request(token, false)).await.status
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn write(folder: &std::path::Path, issuer: &str, role: &str, more: &str) {
    let (data, keys) = (folder.display(), folder.join("keys.json").display().to_string());
    let text = format!(
        "[access]\nenabled = true\ndata = '{data}'\n{more}\n[access.jwt]\nissuer = '{issuer}'\n\
         audience = ['exsa']\nalgorithms = ['HS256']\njwks_file = '{keys}'\n\
         [[access.jwt.roles]]\nname = 'user'\n[[access.jwt.roles]]\nname = '{role}2'\n"
    );
    std::fs::write(folder.join("exsa.toml"), text).unwrap();
}

fn token(issuer: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"sub": "ann", "iss": issuer, "aud": "exsa", "exp": now + 600, "roles": ["user"]});
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("a".into());
    encode(&header, &claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

#[tokio::test]
async fn running_streams_outlive_a_reload_but_not_their_issuer() {
    let server = Fixture::new();
    let (first, second) = (token("https://a.example"), token("https://b.example"));
    let response = server.app.clone().oneshot(server.request(&first, true)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut stream = response.into_body();
    assert!(stream.frame().await.is_some());
    assert_eq!(server.status(&second).await, StatusCode::UNAUTHORIZED);
    write(&server.folder, "https://a.example", "admin", "failures_burst = 7");
    let report = server.reloader.reload().unwrap();
    assert_eq!((report.changed.len(), report.needs_restart.len()), (2, 0), "{report:?}");
    for _ in 0..3 {
        assert!(stream.frame().await.unwrap().is_ok(), "the stream goes on");
    }
    assert_eq!(server.status(&first).await, StatusCode::OK);
    write(&server.folder, "https://b.example", "admin", "failures_burst = 7");
    server.reloader.reload().unwrap();
    let rest = tokio::time::timeout(Duration::from_secs(5), stream.collect()).await.unwrap().unwrap();
    let rest = String::from_utf8(rest.to_bytes().to_vec()).unwrap();
    assert!(rest.contains("key_revoked") && rest.contains("[DONE]"), "the issuer is gone");
    assert_eq!(server.status(&first).await, StatusCode::UNAUTHORIZED);
    assert_eq!(server.status(&second).await, StatusCode::OK);
}

#[tokio::test]
async fn all_settings_change_or_none() {
    let server = Fixture::new();
    let first = token("https://a.example");
    assert_eq!(server.status(&first).await, StatusCode::OK);
    let file = server.folder.join("exsa.toml");
    let sound = std::fs::read_to_string(&file).unwrap();
    for (bad, word) in [
        (sound.replace("enabled = true", "enabled = false"), "access.enabled: restart needed"),
        (sound.replace("data = '", "data = '/elsewhere"), "access.data: restart needed"),
        (
            sound.replace("data = '", "import = 'keys'\ndata = '"),
            "access.import: restart needed: the server runs with none",
        ),
        (sound.replace("data = '", "export = 'keys'\ndata = '"), "access.export: restart needed"),
        (sound.replace("keys.json", "none.json"), "access.jwt.jwks_file"),
        (sound.replace("HS256", "none"), "access.jwt.algorithms"),
    ] {
        // The issuer would change too.
        std::fs::write(&file, bad.replace("a.example", "b.example")).unwrap();
        let error = server.reloader.reload().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!(server.status(&first).await, StatusCode::OK, "nothing has changed");
        assert_eq!(server.status(&token("https://b.example")).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.reloader.counts().refused, 6);
}
