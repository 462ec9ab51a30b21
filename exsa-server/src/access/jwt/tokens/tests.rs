use super::*;
use crate::access::{RoleConfig, Scope};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// The private key of RFC 8037, appendix A.1, in PKCS #8 form without its public half.
const ED_PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v_VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
const ED_PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn file(keys: &Value) -> PathBuf {
    let name = crate::access::secret::new_id().unwrap();
    let path = std::env::temp_dir().join(format!("exsa-jwks-{name}.json"));
    std::fs::write(&path, json!({"keys": keys}).to_string()).unwrap();
    path
}

fn secret_key(id: &str) -> Value {
    json!({"kty": "oct", "kid": id, "alg": "HS256", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"})
}

fn ed_key(id: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": ED_PUBLIC, "use": "sig"})
}

fn config() -> JwtConfig {
    JwtConfig::new("https://a.example", ["exsa"]).role(RoleConfig::new("user"))
}

fn tokens(keys: &Value, algorithms: &[&str]) -> Arc<Tokens> {
    let path = file(keys);
    let config = config().algorithms(algorithms.iter().copied()).jwks_file(&path);
    let tokens = Arc::new(Tokens::new(&config).unwrap());
    std::fs::remove_file(path).unwrap();
    tokens
}

fn claims() -> Value {
    json!({"sub": "ann", "iss": "https://a.example", "aud": ["exsa", "x"], "exp": unix_seconds() + 600, "roles": ["user"]})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn sign(claims: &Value) -> String {
    sign_as(claims, Some("a"))
}

fn sign_as(claims: &Value, id: Option<&str>) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = id.map(str::to_owned);
    encode(&header, claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn sign_ed(claims: &Value, id: &str) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(id.into());
    encode(&header, claims, &EncodingKey::from_ed_der(&base64(ED_PRIVATE))).unwrap()
}

fn invalid(result: Result<Caller, TokenError>) -> String {
    match result {
        Err(TokenError::Invalid(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_sound_token_is_a_caller() {
    let tokens = tokens(&json!([secret_key("a"), ed_key("e")]), &["HS256", "EdDSA"]);
    for token in [sign(&claims()), sign_as(&claims(), None), sign_ed(&claims(), "e")] {
        assert!(tokens.remembered(&token).is_none());
        let caller = tokens.verify(&token).await.unwrap();
        assert_eq!((&*caller.id, caller.scopes.contains(Scope::Infer)), ("jwt:ann", true));
        assert_eq!(tokens.remembered(&token).unwrap().id, caller.id);
    }
}

#[tokio::test]
async fn claims_are_checked() {
    let tokens = tokens(&json!([secret_key("a")]), &["HS256"]);
    let now = unix_seconds();
    for (claims, word) in [
        (with("iss", json!("https://b.example")), "issuer"),
        (with("aud", json!("other")), "audience"),
        (with("nbf", json!(now + 3600)), "yet"),
        (with("sub", json!("")), "sub"),
        (with("sub", Value::Null), "sub"),
        (with("aud", Value::Null), "aud"),
        (with("iss", Value::Null), "iss"),
        (with("exp", Value::Null), "exp"),
        (with("exp", json!("soon")), "exp"),
    ] {
        let problem = invalid(tokens.verify(&sign(&claims)).await);
        assert!(problem.contains(word), "{problem} for {claims}");
    }
    assert_eq!(tokens.verify(&sign(&with("exp", json!(now - 61)))).await.unwrap_err(), TokenError::Expired);
    assert!(
        tokens.verify(&sign(&with("exp", json!(now - 30)))).await.is_ok(),
        "clocks differ by up to a minute"
    );
}

#[tokio::test]
async fn tokens_without_a_right_signature_are_refused() {
    let tokens = tokens(&json!([secret_key("a"), ed_key("e")]), &["HS256", "EdDSA"]);
    let token = sign(&claims());
    let (head, signature) = token.rsplit_once('.').unwrap();
    let other = sign(&with("sub", json!("bob")));
    let none = "eyJhbGciOiJub25lIn0.e30.";
    for bad in [
        format!("{head}."),
        format!("{head}.{}", "A".repeat(signature.len())),
        format!("{}.{signature}", other.rsplit_once('.').unwrap().0),
        none.to_owned(),
        "a.b.c".to_owned(),
        String::new(),
        ".".repeat(3),
        "x".repeat(TOKEN_MAX + 1),
    ] {
        let problem = invalid(tokens.verify(&bad).await);
        assert!(!bad.is_empty() || !problem.is_empty());
        assert!(tokens.remembered(&bad).is_none());
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_of_an_hmac() {
    // The attacker signs with the public key as the secret and claims the algorithm of secrets.
    let tokens = tokens(&json!([secret_key("a"), ed_key("e")]), &["HS256", "EdDSA"]);
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("e".into());
    let forged = encode(&header, &claims(), &EncodingKey::from_secret(&base64(ED_PUBLIC))).unwrap();
    assert!(invalid(tokens.verify(&forged).await).contains("key"));
    // An algorithm that is not configured is refused whatever the key.
    let pinned = self::tokens(&json!([secret_key("a"), ed_key("e")]), &["EdDSA"]);
    assert!(invalid(pinned.verify(&sign(&claims())).await).contains("algorithm"));
    assert!(pinned.verify(&sign_ed(&claims(), "e")).await.is_ok());
}

#[tokio::test]
async fn extensions_that_are_not_known_are_refused() {
    let tokens = tokens(&json!([secret_key("a")]), &["HS256"]);
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".into()]);
    let token = encode(&header, &claims(), &EncodingKey::from_secret(SECRET)).unwrap();
    assert!(invalid(tokens.verify(&token).await).contains("extensions"));
}

#[test]
fn key_sets_without_a_fitting_key_are_refused() {
    for keys in [
        json!([]),
        json!([ed_key("e")]),
        json!([{"kty": "AKP"}]),
        json!([{"kty": "oct", "k": "AA", "use": "enc"}]),
    ] {
        let path = file(&keys);
        let error = Tokens::new(&config().algorithms(["HS256"]).jwks_file(&path)).err().unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(error.setting, "jwks_file");
    }
    assert!(Tokens::new(&config().jwks_file("/nowhere/keys.json")).is_err());
}

/// A provider on loopback, which serves its metadata and the keys of `keys`, and counts requests for keys.
struct Provider {
    issuer: String,
    keys: Arc<Mutex<Value>>,
    reads: Arc<std::sync::atomic::AtomicUsize>,
}

impl Provider {
    fn start(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let provider =
            Self { issuer: issuer.clone(), keys: Arc::new(Mutex::new(keys)), reads: Arc::default() };
        let (keys, reads) = (provider.keys.clone(), provider.reads.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                let body = if head.starts_with(b"GET /.well-known/openid-configuration ") {
                    json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})
                } else {
                    reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    json!({"keys": *keys.lock().unwrap()})
                };
                let body = body.to_string();
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                connection.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        provider
    }

    fn reads(&self) -> usize {
        self.reads.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn claims(&self) -> Value {
        with("iss", json!(self.issuer))
    }

    fn tokens(&self, pause: Duration) -> Arc<Tokens> {
        let config =
            JwtConfig::new(&self.issuer, ["exsa"]).algorithms(["EdDSA"]).role(RoleConfig::new("user"));
        let mut tokens = Tokens::new(&config).unwrap();
        tokens.read_pause = pause;
        Arc::new(tokens)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_discovered_once_and_again_for_a_new_key() {
    let provider = Provider::start(json!([ed_key("one")]));
    let tokens = provider.tokens(Duration::ZERO);
    for _ in 0..3 {
        assert!(tokens.verify(&sign_ed(&provider.claims(), "one")).await.is_ok());
    }
    assert_eq!(provider.reads(), 1);
    *provider.keys.lock().unwrap() = json!([ed_key("two")]);
    let old = sign_ed(&provider.claims(), "one");
    assert!(tokens.remembered(&old).is_some());
    assert!(tokens.verify(&sign_ed(&provider.claims(), "two")).await.is_ok());
    assert_eq!(provider.reads(), 2);
    assert!(tokens.remembered(&old).is_none() && tokens.verify(&old).await.is_err(), "the first key is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_keys_do_not_make_requests_without_end() {
    let provider = Provider::start(json!([ed_key("one")]));
    let tokens = provider.tokens(Duration::from_secs(60));
    for id in ["x", "y", "z"] {
        assert!(tokens.verify(&sign_ed(&provider.claims(), id)).await.is_err());
    }
    assert_eq!(provider.reads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_not_there_is_no_fault_of_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let config = JwtConfig::new(&issuer, ["exsa"]).algorithms(["EdDSA"]);
    let tokens = Arc::new(Tokens::new(&config).unwrap());
    let token = sign_ed(&with("iss", json!(issuer)), "one");
    assert_eq!(tokens.verify(&token).await.unwrap_err(), TokenError::NoKeys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metadata_must_name_the_issuer() {
    let provider = Provider::start(json!([ed_key("one")]));
    let config = JwtConfig::new(format!("{}/", provider.issuer), ["exsa"]).algorithms(["EdDSA"]);
    let tokens = Arc::new(Tokens::new(&config).unwrap());
    let token = sign_ed(&provider.claims(), "one");
    assert_eq!(tokens.verify(&token).await.unwrap_err(), TokenError::NoKeys);
    assert_eq!(provider.reads(), 0);
}

/// Settings with keys in a file, which the caller deletes.
fn settings(keys: &Value) -> (JwtConfig, PathBuf) {
    let path = file(keys);
    (config().algorithms(["HS256", "EdDSA"]).jwks_file(&path), path)
}

#[tokio::test]
async fn other_settings_keep_the_tokens_that_they_accept() {
    let both = json!([secret_key("a"), ed_key("e")]);
    let (before, path) = settings(&both);
    let fewer = file(&json!([secret_key("a")]));
    let more = RoleConfig::new("admin").scopes([Scope::Models]);
    let own_models =
        |role: RoleConfig| role.models(crate::access::AllowedModels::only(["a".parse().unwrap()]));
    let with_roles = |roles: &[RoleConfig]| JwtConfig { roles: roles.to_vec(), ..before.clone() };
    let reduced = own_models(RoleConfig::new("user"));
    for (after, secret_kept, ed_kept) in [
        (Some(before.clone()), true, true),
        (Some(before.clone().role(more)), true, true),
        (Some(JwtConfig { audience: vec!["x".into()], ..before.clone() }), true, true),
        (Some(JwtConfig { audience: vec!["y".into()], ..before.clone() }), false, false),
        (Some(JwtConfig { issuer: "https://b.example".into(), ..before.clone() }), false, false),
        (Some(before.clone().algorithms(["EdDSA"])), false, true),
        (Some(before.clone().jwks_file(&fewer)), true, false),
        (Some(with_roles(&[])), false, false),
        (Some(with_roles(&[reduced])), false, false),
        (None, false, false),
    ] {
        let tokens = Arc::new(Tokens::new(&before).unwrap());
        let secret = tokens.verify(&sign(&claims())).await.unwrap();
        let ed = tokens.verify(&sign_ed(&claims(), "e")).await.unwrap();
        let next = after.as_ref().map(|after| Arc::new(tokens.successor(after).unwrap()));
        assert!(!secret.revocation.is_revoked() && !ed.revocation.is_revoked(), "nothing has changed yet");
        tokens.retire(next.as_deref());
        let kept = [!secret.revocation.is_revoked(), !ed.revocation.is_revoked()];
        assert_eq!(kept, [secret_kept, ed_kept], "{after:?}");
        let remembered = next.as_ref().is_some_and(|next| next.remembered(&sign(&claims())).is_some());
        assert_eq!(remembered, secret_kept);
        // A token that is verified under the old settings now gets no caller that a reload could not revoke.
        let late = tokens.verify(&sign(&with("sub", json!("late")))).await;
        assert_eq!(late.unwrap_err(), TokenError::Replaced);
        // A token that was handed over can still be revoked.
        if let Some(next) = next {
            next.retire(None);
            assert!(secret.revocation.is_revoked() && ed.revocation.is_revoked());
        }
    }
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(fewer).unwrap();
}

#[tokio::test]
async fn running_requests_stay_revocable_however_many_tokens_come() {
    let tokens = tokens(&json!([secret_key("a")]), &["HS256"]);
    let running = tokens.verify(&sign(&claims())).await.unwrap();
    for i in 0..1100 {
        drop(tokens.verify(&sign(&with("sub", json!(format!("u{i}"))))).await.unwrap());
    }
    tokens.retire(None);
    assert!(running.revocation.is_revoked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_provider_drops_ends_its_tokens() {
    let provider = Provider::start(json!([ed_key("one")]));
    let tokens = provider.tokens(Duration::ZERO);
    let caller = tokens.verify(&sign_ed(&provider.claims(), "one")).await.unwrap();
    *provider.keys.lock().unwrap() = json!([ed_key("one"), ed_key("two")]);
    let second = tokens.verify(&sign_ed(&provider.claims(), "two")).await.unwrap();
    assert!(!caller.revocation.is_revoked(), "both keys are there");
    *provider.keys.lock().unwrap() = json!([ed_key("two"), ed_key("three")]);
    tokens.verify(&sign_ed(&provider.claims(), "three")).await.unwrap();
    assert!(caller.revocation.is_revoked() && !second.revocation.is_revoked());
}
