//! The prompt cache behind the routes: prompts after a restart count as cached, tenants apart, and metrics
//! tell.

use crate::harness::{get, post_json};
use axum::Router;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions};
use exsa_server::Server;
use exsa_server::config::{Config, PromptCacheConfig};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// A server as after a restart.
fn app(folder: &Path) -> Router {
    let mut config = PromptCacheConfig::default();
    config.folder = Some(folder.join("cache"));
    config.key_file = Some(folder.join("key"));
    let cache = config.open().unwrap().unwrap();
    let options = EngineOptions::default().prompt_cache(config.options(cache.clone()));
    let engine = Engine::start(ScriptedModel::echo("Hello.").shared(), options).unwrap();
    Server::new(Arc::new(engine)).prompt_cache(cache).router()
}

async fn cached(app: &Router, salt: &str) -> u64 {
    let prompt = "All happy families are alike. ".repeat(20);
    let body = json!({"prompt": prompt, "max_tokens": 3, "cache_salt": salt});
    let usage = post_json(app, "/v1/completions", body).await.json()["usage"].clone();
    usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or_else(|| panic!("{usage}"))
}

#[tokio::test]
async fn prompts_survive_a_restart_of_the_server() {
    let folder = std::env::temp_dir().join(format!("exsa-prompt-cache-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("key"), "0f".repeat(32)).unwrap();
    let before = app(&folder);
    assert_eq!(cached(&before, "ann").await, 0);
    // Ends the engine, which saves, and then the cache, which writes.
    drop(before);
    let after = app(&folder);
    // First of all: once the engine has measured how fast this model computes, it need not read any more.
    assert!(cached(&after, "ann").await > 500);
    assert_eq!(cached(&after, "bob").await, 0);
    let page = get(&after, "/metrics").await.text;
    for line in [
        "exsa_prompt_cache_entries 1.0",
        "exsa_prompt_cache_suspended 0.0",
        "exsa_prompt_cache_reads_total 1",
        "exsa_prompt_cache_restored_total{model=\"scripted\"} 1",
        "exsa_prompt_cache_late_total{model=\"scripted\"} 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    drop(after);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_key_and_a_folder_that_cannot_be_used_are_named() {
    let folder = std::env::temp_dir().join(format!("exsa-prompt-cache-words-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("key"), "0f".repeat(31)).unwrap();
    let mut config = PromptCacheConfig::default();
    assert!(config.open().unwrap().is_none(), "there is no cache without a folder");
    config.folder = Some(folder.join("key").join("cache"));
    let error = config.open().unwrap_err().to_string();
    assert!(error.contains("cannot be created"), "{error}");
    config.key_file = Some(folder.join("key"));
    let error = config.open().unwrap_err().to_string();
    assert!(error.contains("64 hexadecimal digits"), "{error}");
    let config =
        Config::parse("[prompt_cache]\nbytes = 0\nage = \"1000years\"\nkey_file = \"/nowhere\"").unwrap();
    let mut problems = exsa_server::config::Problems::default();
    config.validate(&mut problems);
    let text = format!("{problems:?}");
    for setting in ["prompt_cache.bytes", "prompt_cache.age", "prompt_cache.key_file"] {
        assert!(text.contains(setting), "{setting}: {text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
