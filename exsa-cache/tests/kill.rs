//! A process that is killed while it writes: the next process starts, and its answers are correct.
//!
//! `EXSA_KILLS` sets how often; 20 by default, 200 for a release.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exsa_cache::{CacheKey, CacheOptions, PromptCache};
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions, PromptCacheOptions, Request, SamplingParams, TokenId};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::{Folder, tokens};

const FOLDER: &str = "EXSA_CACHE_KILL_FOLDER";
const FIRST: &str = "EXSA_CACHE_KILL_FIRST";

fn model() -> ScriptedModel {
    ScriptedModel::ngram(4).order(usize::MAX).kv(1 << 14, 16)
}

/// Small enough that entries are evicted continually.
fn options(folder: &Path) -> CacheOptions {
    CacheOptions::new(folder).bytes_max(200_000).key(CacheKey::new([1; 32]))
}

fn engine(folder: &Path) -> (Arc<PromptCache>, Engine) {
    let cache = Arc::new(PromptCache::open(options(folder)).expect("a start is never refused"));
    let store = PromptCacheOptions::new(cache.clone()).cold_after(Duration::ZERO);
    let engine = Engine::start(model().shared(), EngineOptions::default().prompt_cache(store)).unwrap();
    (cache, engine)
}

fn request(seed: u64) -> (Vec<TokenId>, Request) {
    let prompt = [tokens(seed % 5, 200 + seed as usize % 1000), tokens(seed, 80)].concat();
    let sampling = SamplingParams::default().seed(seed);
    let request = Request::tokens(prompt.clone()).max_tokens(10).ignore_eos(true).sampling(sampling);
    (prompt, request)
}

fn ask(engine: &Engine, seed: u64) -> (Vec<TokenId>, usize) {
    let answer = engine.submit(request(seed).1).unwrap().complete().unwrap();
    (answer.tokens.iter().filter_map(|token| token.id).collect(), answer.usage.cached_tokens)
}

/// The process to be killed: it answers requests, whose KV is written concurrently.
#[test]
#[ignore = "the child of answers_are_right_after_every_kill"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (cache, engine) = engine(Path::new(&folder));
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nready").and_then(|()| out.flush()).unwrap();
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    for seed in first.. {
        ask(&engine, seed);
        let written = cache.stats().writes;
        writeln!(out, "\nwritten {written}").and_then(|()| out.flush()).unwrap();
    }
}

#[test]
fn answers_are_right_after_every_kill() {
    let kills: u64 = std::env::var("EXSA_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let folder = Folder::new("kill");
    let alone = Engine::start(model().shared(), EngineOptions::default()).unwrap();
    let mut random = u64::from(std::process::id()) | 1;
    let (mut written, mut cached, mut torn) = (0, 0, 0);
    for kill in 0..kills {
        // Prompts that share prefixes with those of earlier children, and are not stored yet.
        let first = kill * 100;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "the child starts");
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 150_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = reader.join().unwrap();
        let last = lines.iter().rev().find_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
        written += last.unwrap_or(0);
        torn += u64::from(folder.files().iter().any(|name| name.ends_with(".tmp")));

        let (cache, engine) = engine(folder.path());
        assert_eq!(cache.stats().damaged, 0, "files appear whole or not at all");
        assert!(
            folder.files().iter().all(|name| !name.ends_with(".tmp")),
            "temporary files of killed processes are removed"
        );
        for seed in first..first + 4 {
            let (tokens, from_cache) = ask(&engine, seed);
            assert_eq!(tokens, ask(&alone, seed).0, "request {seed}");
            cached += from_cache;
        }
    }
    println!(
        "{kills} kills, {torn} during a write: {written} entries written before, {cached} tokens read after"
    );
    assert!(written > kills && cached > 0, "{written} written, {cached} tokens read");
}
