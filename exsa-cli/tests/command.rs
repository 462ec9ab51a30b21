//! The program, run as a user runs it.

#![allow(clippy::unwrap_used, reason = "failures of helpers are failures of tests")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn exsa(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_exsa"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that fails early reads no input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr.clone()).unwrap()
}

const STORY: [&str; 8] =
    ["run", "builtin", "Tell me a story about a cat.", "--seed", "1", "-n", "16", "--threads=1"];

#[test]
fn a_prompt_is_answered() {
    let answer = text(&exsa(&STORY, ""));
    assert!(answer.trim().len() > 10, "{answer}");
    assert_eq!(text(&exsa(&STORY, "")), answer, "the seed decides");
    // The same prompt through a pipe.
    let piped = exsa(&["run", "--seed", "1", "-n", "16"], "Tell me a story about a cat.\n");
    assert_eq!(text(&piped), answer);
}

#[test]
fn answers_as_json() {
    let arguments: Vec<&str> = STORY.into_iter().chain(["--json"]).collect();
    let value: serde_json::Value = serde_json::from_str(&text(&exsa(&arguments, ""))).unwrap();
    assert_eq!(value["usage"]["completion_tokens"], 16);
    assert_eq!(value["finish_reason"], "length");
    assert_eq!(value["seed"], 1);
    assert_eq!(value["text"].as_str().unwrap().trim(), text(&exsa(&STORY, "")).trim());
}

#[test]
fn schemas_are_kept() {
    let schema = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":1,"maximum":9}},"required":["n"],"additionalProperties":false}"#;
    let answer = text(&exsa(&["run", "builtin", "A number:", "--json-schema", schema, "--seed", "3"], ""));
    let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!((1..=9).contains(&value["n"].as_i64().unwrap()), "{answer}");
}

#[test]
fn presets_set_model_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let preset = folder.path().join("short.toml");
    std::fs::write(&preset, "model = \"builtin\"\n[settings]\nmax_tokens = 5\nseed = 1\n").unwrap();
    let answer = exsa(&["run", preset.to_str().unwrap(), "Once upon a time", "--json"], "");
    let value: serde_json::Value = serde_json::from_str(&text(&answer)).unwrap();
    assert_eq!(value["usage"]["completion_tokens"], 5);
}

#[test]
fn models_are_shown() {
    let shown = text(&exsa(&["show", "builtin", "--context", "256"], ""));
    for fact in ["architecture   llama", "Q8_0", "memory", "chat template"] {
        assert!(shown.contains(fact), "{fact}: {shown}");
    }
    let value: serde_json::Value =
        serde_json::from_str(&text(&exsa(&["show", "builtin", "--json", "--tensors"], ""))).unwrap();
    assert_eq!(value["info"]["architecture"], "llama");
    let tensors = value["tensors"].as_array().unwrap().len() as u64;
    let counted: u64 =
        value["types"].as_object().unwrap().values().map(|kind| kind["tensors"].as_u64().unwrap()).sum();
    assert_eq!(tensors, counted);
}

#[test]
fn texts_become_tokens() {
    let ids = text(&exsa(&["tokenize", "builtin", "The cat sat.", "--json"], ""));
    let ids: Vec<u32> = serde_json::from_str(&ids).unwrap();
    let count = text(&exsa(&["tokenize", "builtin", "--count"], "The cat sat."));
    assert_eq!(count.trim(), ids.len().to_string());
    assert_eq!(text(&exsa(&["tokenize", "builtin", "The cat sat."], "")).lines().count(), ids.len());
}

#[test]
fn speed_is_measured() {
    let arguments =
        ["bench", "builtin", "-p", "32", "-n", "8", "--parallel", "1,2", "--rounds", "1", "--json"];
    let rows: serde_json::Value = serde_json::from_str(&text(&exsa(&arguments, ""))).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["prompt_per_second"].as_f64().unwrap() > 0.0));
    assert_eq!(rows[1]["streams"], 2);
}

#[test]
fn models_are_quantized() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("in.gguf"), exsa::tiny::GGUF).unwrap();
    let arguments = |output: &str| ["quantize".to_owned(), path("in.gguf"), path(output), "Q4_0".to_owned()];
    let run = |output: &str, more: &[&str]| {
        let arguments = arguments(output);
        let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        exsa(&all, "")
    };
    // Quantized weights are not quantized again by accident.
    assert!(!failed(&run("a.gguf", &[]), 1).is_empty());
    assert!(!Path::new(&path("a.gguf")).exists() && !Path::new(&path("a.gguf.part")).exists());
    text(&run("b.gguf", &["--allow-requantize"]));
    assert!(text(&exsa(&["show", &path("b.gguf")], "")).contains("Q4_0"));
    assert!(text(&exsa(&["run", &path("b.gguf"), "Once", "-n", "4"], "")).len() > 1);
    let exists = failed(&run("b.gguf", &["--allow-requantize"]), 2);
    assert!(exists.contains("exists"), "{exists}");
}

#[test]
fn the_machine_is_examined() {
    let report: serde_json::Value = serde_json::from_str(&text(&exsa(&["doctor", "--json"], ""))).unwrap();
    assert_eq!(report["healthy"], true);
    let sets = report["instruction_sets"].as_array().unwrap().len();
    assert_eq!(report["self_test"].as_array().unwrap().len(), sets);
}

#[test]
fn wrong_usage_is_told_in_words() {
    let missing = failed(&exsa(&["run", "no-such-model.gguf", "x"], ""), 1);
    assert!(missing.contains("no-such-model.gguf") && missing.contains("builtin"), "{missing}");
    let setting = failed(&exsa(&["run", "builtin", "x", "--set", "temprature=1"], ""), 2);
    assert!(setting.contains("temprature") && setting.contains("temperature"), "{setting}");
    failed(&exsa(&["run", "builtin", "x", "--backend", "abacus"], ""), 2);
    failed(&exsa(&["bench", "builtin", "--prompt", "0"], ""), 2);
    let damaged = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(damaged.path(), "GGUF, or so it says").unwrap();
    let name = damaged.path().to_str().unwrap();
    assert!(failed(&exsa(&["show", name], ""), 1).contains(name));
    let vectors = failed(&exsa(&["embed", "no.gguf", "x"], ""), 1);
    assert!(vectors.contains("no.gguf"), "{vectors}");
}
