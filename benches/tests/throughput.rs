//! The program as users start it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf");

fn throughput(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_throughput")).args(arguments).output().unwrap()
}

/// Stdout as lines of JSON; that there is nothing else on it is part of what is tested.
fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Standard error of a run that has to fail.
fn refusal(arguments: &[&str]) -> String {
    let output = throughput(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!error.contains("panicked"), "{error}");
    error
}

#[test]
fn one_line_for_each_case() {
    let output = throughput(&[
        "--backend",
        "scripted",
        "--prompt",
        "20,40",
        "--generate",
        "30",
        "--parallel",
        "1,3",
        "--threads",
        "1",
        "--batch",
        "16",
    ]);
    let lines = lines(&output);
    assert_eq!(lines.len(), 4);
    let expected = [(20, 1), (20, 3), (40, 1), (40, 3)];
    for (line, (prompt, parallel)) in lines.iter().zip(expected) {
        assert_eq!((&line["prompt"], &line["parallel"]), (&prompt.into(), &parallel.into()));
        assert_eq!((&line["backend"], &line["threads"]), (&"scripted".into(), &1.into()));
        assert_eq!(
            (&line["generate"], &line["rounds"], &line["preemptions"]),
            (&30.into(), &3.into(), &0.into())
        );
        for rate in [
            "prefill_tokens_per_second",
            "decode_tokens_per_second",
            "ttft_ms_p50",
            "ttft_ms_p95",
            "itl_ms_p50",
            "itl_ms_p95",
            "bandwidth_bytes_per_second",
        ] {
            assert!(line[rate].as_f64().unwrap() > 0.0, "{rate} of {line}");
        }
        // It has no weights to read.
        assert!(line["decode_bandwidth_share"].is_null());
        assert_eq!(line["peak_rss_bytes"].is_u64(), cfg!(target_os = "linux"));
    }
}

#[test]
fn the_built_in_model_on_candle() {
    assert!(Path::new(BUILT_IN).is_file());
    let output = throughput(&[
        "--backend",
        "candle",
        "--model",
        BUILT_IN,
        "--prompt",
        "16",
        "--generate",
        "8",
        "--parallel",
        "2",
        "--threads",
        "2",
        "--rounds",
        "1",
    ]);
    let lines = lines(&output);
    let line = &lines[0];
    assert_eq!((&line["architecture"], &line["quantization"]), (&"llama".into(), &"Q8_0".into()));
    assert!(line["parameters"].as_u64().unwrap() > 2_000_000);
    for share in ["decode_bandwidth_share", "decode_int8_share", "prefill_int8_share"] {
        let known = share == "decode_bandwidth_share" || line["int8_peak"].is_object();
        assert!(!known || line[share].as_f64().unwrap() > 0.0, "{share}");
    }
    assert!(line["weights_bytes_per_step"].as_u64().unwrap() <= std::fs::metadata(BUILT_IN).unwrap().len());
}

#[test]
fn prompts_alone_and_prompts_of_mixed_lengths() {
    let output =
        throughput(&["--backend", "scripted", "--generate", "0", "--ragged", "5,50", "--parallel", "40"]);
    let line = &lines(&output)[0];
    assert!(line["prefill_tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(line["ttft_ms_p50"].as_f64().unwrap() > 0.0);
    for absent in ["decode_tokens_per_second", "itl_ms_p50", "total_tokens_per_second"] {
        assert!(line[absent].is_null(), "{absent}");
    }
    let (shortest, longest) = (&line["prompt_range"][0], &line["prompt_range"][1]);
    assert!(shortest.as_u64().unwrap() < 15 && longest.as_u64().unwrap() > 40, "{line}");
}

#[test]
fn prompts_of_mixed_lengths_with_answers_are_whole_runs() {
    let output = throughput(&[
        "--backend",
        "scripted",
        "--generate",
        "9",
        "--ragged",
        "5,500",
        "--parallel",
        "6",
        "--rounds",
        "2",
    ]);
    let line = &lines(&output)[0];
    assert!(line["total_tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(line["itl_ms_p95"].as_f64() >= line["itl_ms_p50"].as_f64());
    assert!(line["decode_tokens_per_second"].is_null());
}

#[test]
fn two_backends_take_turns_and_are_compared() {
    let output = throughput(&[
        "--backend",
        "scripted,candle",
        "--model",
        BUILT_IN,
        "--prompt",
        "8",
        "--generate",
        "3",
        "--parallel",
        "1,2",
        "--threads",
        "1",
        "--rounds",
        "2",
        "--prefill-rounds",
        "1",
    ]);
    let lines = lines(&output);
    assert_eq!(lines.len(), 6, "two backends and their ratio, twice");
    for case in lines.chunks(3) {
        assert_eq!((&case[0]["backend"], &case[1]["backend"]), (&"scripted".into(), &"candle".into()));
        assert_eq!((&case[2]["ratio_of"], &case[2]["to"]), (&"scripted".into(), &"candle".into()));
        for kind in ["prefill", "decode"] {
            let ratio = case[2][kind]["median"].as_f64().unwrap();
            assert!(case[2][kind]["range"][0].as_f64().unwrap() <= ratio && ratio > 0.0);
        }
        assert!(case[2]["total"].is_null());
        assert!(case[0]["peak_rss_bytes"].is_null(), "the process is not one backend's alone");
    }
    let rate = |line: &Value| line["decode_tokens_per_second"].as_f64().unwrap();
    let (quotient, ratio) =
        (rate(&lines[0]) / rate(&lines[1]), lines[2]["decode"]["median"].as_f64().unwrap());
    assert!((quotient / ratio - 1.0).abs() < 0.5, "{quotient} {ratio}");
}

#[test]
fn memory_is_measured_in_a_process_for_each_backend() {
    let output = throughput(&[
        "--memory",
        "--backend",
        "scripted,candle",
        "--model",
        BUILT_IN,
        "--prompt",
        "8",
        "--generate",
        "2",
        "--threads",
        "1",
    ]);
    let lines = lines(&output);
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["backend"], &lines[1]["backend"]), (&"scripted".into(), &"candle".into()));
    assert!(lines.iter().all(|line| line["load_seconds"].as_f64().unwrap() >= 0.0));
    if cfg!(target_os = "linux") {
        let peak = |line: &Value| line["peak_rss_bytes"].as_u64().unwrap();
        assert!(peak(&lines[1]) > lines[1]["file_bytes"].as_u64().unwrap());
        assert!(lines.iter().all(|line| peak(line) >= line["anonymous_bytes"].as_u64().unwrap()));
    }
    let error = refusal(&["--memory", "--backend", "candle", "--model", "nowhere.gguf"]);
    assert!(error.contains("nowhere.gguf") && error.contains("candle"), "{error}");
}

#[test]
fn mistakes_are_words_and_exit_code_1() {
    for (arguments, words) in [
        (&["--backend", "scripted", "--parallel", "0"][..], "1..=4096"),
        (&["--backend", "vllm"], "scripted, candle"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--backend", "candle", "--threads", "1"], "--model FILE"),
        (&["--backend", "candle", "--model", "nowhere.gguf"], "nowhere.gguf"),
        (&["--backend", "candle", "--model", "Cargo.toml"], "GGUF"),
        (&["--backend", "scripted", "--context", "100"], "do not fit into 100 tokens (--context)"),
        (&["--backend", "scripted", "--kv-tokens", "700", "--parallel", "2"], "--kv-tokens is 700"),
        (&["--backend", "candle", "--model", BUILT_IN], "do not fit into 512 tokens (the model's context)"),
        (
            &[
                "--backend",
                "candle",
                "--model",
                BUILT_IN,
                "--prompt",
                "100",
                "--parallel",
                "4096",
                "--kv-mib",
                "1",
            ],
            "the KV cache needs",
        ),
        (&["--backend", "candle", "--model", BUILT_IN, "--prompt", "9", "--device", "cuda:7"], "cuda:7"),
    ] {
        let error = refusal(arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn help_defines_the_figures() {
    let output = throughput(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for word in
        ["--prefill-chunk", "prefill_tokens_per_second", "decode_bandwidth_share", "int8_peak", "ratio_of"]
    {
        assert!(help.contains(word), "{word}");
    }
    assert!(throughput(&["--version"]).status.success());
}
