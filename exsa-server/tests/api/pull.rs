//! Models that administrators fetch and delete, from a hub of this machine.

use crate::gated::Gated;
use crate::harness::{Reply, get, send};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use exsa_core::EngineOptions;
use exsa_server::Server;
use exsa_server::access::{Access, AccessConfig, Caller, KeyOptions, Keys, Scope, Store};
use exsa_server::config::PullConfig;
use exsa_server::models::{Models, ModelsConfig};
use redb::backends::InMemoryBackend;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const FILE: &[u8] = b"GGUF, as far as a scripted backend looks at it";

/// The address of a hub with the repository `org/tiny`.
fn hub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the process of the test.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let mut field = "-".to_owned();
            while !field.trim().is_empty() {
                field.clear();
                reader.read_line(&mut field).unwrap();
            }
            let digest: String = Sha256::digest(FILE).iter().map(|byte| format!("{byte:02x}")).collect();
            let (status, body) = if line.starts_with("GET /api/models/org/tiny/revision/main") {
                let lfs = json!({"sha256": digest, "size": FILE.len()});
                let file = json!({"rfilename": "tiny-Q8_0.gguf", "size": FILE.len(), "lfs": lfs});
                (200, json!({"sha": COMMIT, "siblings": [file]}).to_string().into_bytes())
            } else if line.contains(&format!("/org/tiny/resolve/{COMMIT}/tiny-Q8_0.gguf")) {
                (200, FILE.to_vec())
            } else {
                (404, Vec::new())
            };
            let head =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

struct Fixture {
    app: Router,
    admin: String,
    user: String,
    folder: PathBuf,
}

impl Fixture {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("exsa-server-pull-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let keys =
            Arc::new(Keys::open(Arc::new(Store::with_backend(InMemoryBackend::new()).unwrap())).unwrap());
        let key = |scopes: &[Scope]| {
            let options = KeyOptions::new("key").scopes(scopes.iter().copied());
            keys.create(&options, &Caller::operator()).unwrap().1.expose().to_owned()
        };
        let (admin, user) = (key(&[Scope::Infer, Scope::Models]), key(&[Scope::Infer]));
        let access = Access::with_keys(keys, &AccessConfig::default()).unwrap();
        let app = Server::of_models(Self::models(&folder)).access(access).router();
        Self { app, admin, user, folder }
    }

    /// The models of a server that starts with this folder.
    fn models(folder: &std::path::Path) -> Arc<Models> {
        let config = PullConfig::new(folder).endpoint(hub()).allow_http(true).reserve_bytes(0);
        let models =
            Models::open(&ModelsConfig::default(), Gated::new("Hello."), EngineOptions::default()).unwrap();
        Arc::new(models.with_pulls(&config).unwrap())
    }

    async fn send(&self, method: &str, path: &str, key: &str, body: Value) -> Reply {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        send(&self.app, request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn pull(&self, key: &str, body: Value) -> Reply {
        self.send("POST", "/api/pull", key, body).await
    }

    async fn names(&self) -> Vec<String> {
        let tags = self.send("GET", "/api/tags", &self.admin, Value::Null).await.json();
        tags["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn a_model_is_fetched_served_and_deleted() {
    let server = Fixture::new("whole");
    let reply = server.pull(&server.admin, json!({"model": "hf.co/org/tiny:Q8_0"})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/x-ndjson");
    let lines: Vec<Value> = reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap(), &json!({"status": "success"}));
    let total = json!(FILE.len());
    assert!(lines.iter().any(|line| line["total"] == total && line["completed"] == total), "{lines:?}");
    assert!(server.names().await.contains(&"hf.co/org/tiny/Q8_0:latest".to_owned()));
    // Another server with the folder has it too.
    let again = Fixture::models(&server.folder);
    assert!(again.registry().status("hf.co/org/tiny/Q8_0").is_ok());
    for name in ["hf.co/org/tiny:Q8_0", "hf.co/org/tiny", "hf.co/org/tiny:latest"] {
        let body = json!({"model": name, "prompt": "Hi", "stream": false});
        let load = server.send("POST", "/api/generate", &server.admin, json!({"model": name})).await;
        assert_eq!(load.status, StatusCode::OK, "{name}: {}", load.text);
        let reply = server.send("POST", "/api/generate", &server.user, body).await;
        assert_eq!(reply.json()["response"], "Hello.", "{name}: {}", reply.text);
    }
    let reply = server.send("DELETE", "/api/delete", &server.user, json!({"model": "hf.co/org/tiny"})).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let reply = server.send("DELETE", "/api/delete", &server.admin, json!({"model": "hf.co/org/tiny"})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert!(!server.names().await.iter().any(|name| name.starts_with("hf.co")));
    assert!(!server.folder.join("models--org--tiny").exists());
}

#[tokio::test]
async fn only_administrators_fetch_and_only_from_the_hub() {
    let server = Fixture::new("rights");
    let body = || json!({"model": "hf.co/org/tiny", "stream": false});
    assert_eq!(server.pull(&server.user, body()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(server.pull("", body()).await.status, StatusCode::UNAUTHORIZED);
    for name in
        ["http://127.0.0.1/x.gguf", "https://example.org/x.gguf", "/etc/passwd", "llama3", "hf.co/../x", ""]
    {
        let reply = server.pull(&server.admin, json!({"model": name})).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{name}: {}", reply.text);
    }
    let missing = server.pull(&server.admin, json!({"name": "hf.co/org/none", "stream": false})).await;
    assert_eq!(missing.status, StatusCode::BAD_GATEWAY);
    assert!(missing.json()["error"].as_str().unwrap().contains("404"), "{}", missing.text);
    let done = server.pull(&server.admin, body()).await;
    assert_eq!((done.status, done.json()), (StatusCode::OK, json!({"status": "success"})));
}

#[tokio::test]
async fn servers_without_a_folder_or_keys_fetch_nothing() {
    let post = async |app: &Router| {
        let request = Request::post("/api/pull").header(header::HOST, "localhost");
        send(app, request.body(Body::from(r#"{"model": "hf.co/org/tiny"}"#)).unwrap()).await
    };
    let models = Models::open(&ModelsConfig::default(), Gated::new("x"), EngineOptions::default()).unwrap();
    let app = Server::of_models(Arc::new(models)).router();
    let reply = post(&app).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(reply.text.contains("[pull]"), "{}", reply.text);
    let folder = std::env::temp_dir().join(format!("exsa-server-pull-open-{}", std::process::id()));
    let app = Server::of_models(Fixture::models(&folder)).router();
    let reply = post(&app).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN, "{}", reply.text);
    assert_eq!(get(&app, "/api/version").await.status, StatusCode::OK);
    let _ = std::fs::remove_dir_all(&folder);
}
