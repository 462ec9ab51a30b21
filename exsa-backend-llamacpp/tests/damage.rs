//! Files that are sound GGUFs and senseless models: whatever one of their values says, the process lives on.
//!
//! llama.cpp checks much of what it reads by assertions that end the process, so each case runs in a child
//! process, and one that ends it is a case that this crate has to refuse first.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_conformance::edit::{Edit, Tensor};
use exsa_core::SeqId;
use exsa_core::batch::{Batch, Span};
use exsa_core::gguf::{Array, GgmlType, Value};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::edit_of;

/// Number of the case at which a child starts.
const START: &str = "EXSA_DAMAGE_START";

const MODELS: [&str; 4] = ["llama-f32", "gemma3-f32", "qwen2-f32", "phi3-f32"];

struct Case {
    name: String,
    edit: Box<dyn Fn() -> Edit>,
}

fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("text", Value::Str("x".into())),
        ("empty text", Value::Str(String::new())),
        ("0", Value::U32(0)),
        ("1", Value::U32(1)),
        ("3", Value::U32(3)),
        ("5000", Value::U32(5000)),
        ("u32 max", Value::U32(u32::MAX)),
        ("-1", Value::I32(-1)),
        ("u64 max", Value::U64(u64::MAX)),
        ("0.0", Value::F32(0.0)),
        ("-1.0", Value::F32(-1.0)),
        ("NaN", Value::F32(f32::NAN)),
        ("infinity", Value::F32(f32::INFINITY)),
        ("true", Value::Bool(true)),
        ("empty list", Value::Array(Array::U32(vec![]))),
        ("list", Value::Array(Array::U32(vec![1, 2]))),
        ("list of floats", Value::Array(Array::F32(vec![1.0, f32::NAN]))),
        ("list of texts", Value::Array(Array::Str(vec!["a".into(), "a".into()]))),
    ]
}

/// Keys that llama.cpp knows and the models do not have.
const MORE_KEYS: [&str; 24] = [
    "pooling_type",
    "expert_count",
    "expert_used_count",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.dimension_sections",
    "attention.key_length",
    "attention.value_length",
    "attention.causal",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.layer_norm_epsilon",
    "attn_logit_softcapping",
    "vocab_size",
    "leading_dense_block_count",
    "nextn_predict_layers",
    "residual_scale",
    "logit_scale",
    "use_parallel_residual",
    "tensor_data_layout",
];

const TOKENIZER_KEYS: [&str; 14] = [
    "scores",
    "token_type",
    "merges",
    "pre",
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "unknown_token_id",
    "padding_token_id",
    "add_bos_token",
    "add_space_prefix",
    "precompiled_charsmap",
    "token_type_count",
    "remove_extra_whitespaces",
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for model in MODELS {
        let whole = Rc::new(edit_of(model));
        let architecture = model.split('-').next().unwrap();
        let mut keys: Vec<String> = whole.metadata.iter().map(|(key, _)| key.clone()).collect();
        keys.extend(MORE_KEYS.map(|key| format!("{architecture}.{key}")));
        keys.extend(TOKENIZER_KEYS.map(|key| format!("tokenizer.ggml.{key}")));
        keys.extend(["split.count", "split.no", "split.tensors.count", "general.type"].map(str::to_owned));
        keys.sort();
        keys.dedup();
        let mut add = |name: String, change: Box<dyn Fn(Edit) -> Edit>| {
            let whole = whole.clone();
            cases.push(Case { name, edit: Box::new(move || change((*whole).clone())) });
        };
        for key in keys {
            let removed = key.clone();
            add(format!("{model}: {key} removed"), Box::new(move |edit| edit.without(&removed)));
            for (what, value) in values() {
                let name = format!("{model}: {key} = {what}");
                let key = key.clone();
                add(name, Box::new(move |edit| edit.set(&key, value.clone())));
            }
        }
        for (at, tensor) in whole.tensors.iter().enumerate() {
            for (what, change) in CHANGES {
                let change = move |mut edit: Edit| {
                    change(&mut edit.tensors[at]);
                    edit
                };
                add(format!("{model}: {} {what}", tensor.name), Box::new(change));
            }
        }
    }
    cases
}

type Change = fn(&mut Tensor);

const CHANGES: [(&str, Change); 8] = [
    ("as I32", |tensor| retype(tensor, GgmlType::I32)),
    ("as F16", |tensor| retype(tensor, GgmlType::F16)),
    ("as Q4_0", |tensor| retype(tensor, GgmlType::Q4_0)),
    ("as Q8_1", |tensor| retype(tensor, GgmlType::Q8_1)),
    ("as Q8_K", |tensor| retype(tensor, GgmlType::Q8K)),
    ("flat", |tensor| tensor.shape = vec![tensor.shape.iter().product(), 1, 1]),
    ("NaN", |tensor| tensor.data.iter_mut().for_each(|byte| *byte = 0xff)),
    ("renamed", |tensor| tensor.name = "blk.0.nobody.weight".into()),
];

fn retype(tensor: &mut Tensor, dtype: GgmlType) {
    tensor.dtype = dtype;
    tensor.shape = tensor.shape.iter().map(|side| side.next_multiple_of(dtype.block_len())).collect();
    let n = tensor.shape.iter().product::<u64>();
    tensor.data = vec![0; (n / dtype.block_len() * dtype.block_bytes()) as usize];
}

/// Loads, and uses what loads.
fn run(edit: &Edit) -> String {
    let model = match edit.load(&LlamaCppBackend::new()) {
        Ok(model) => model,
        Err(error) => return format!("refused: {error}"),
    };
    let options = support::options().context_tokens(64).sequences(2);
    let mut session = match model.session(&options) {
        Ok(session) => session,
        Err(error) => return format!("no session: {error}"),
    };
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[1, 2, 3]).rows(1));
    let result = match session.forward(&batch) {
        Ok(logits) => format!("{} rows", logits.rows()),
        Err(error) => format!("no logits: {error}"),
    };
    let _ = session.embed(&batch);
    result
}

/// The cases from `START` on, in this process.
#[test]
#[ignore = "a child of the other"]
fn child() {
    let start = std::env::var(START).unwrap().parse().unwrap();
    // A case that hangs ends the process as well.
    static DONE: AtomicUsize = AtomicUsize::new(0);
    std::thread::spawn(|| {
        loop {
            let before = DONE.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(60));
            if DONE.load(Ordering::Relaxed) == before {
                std::process::abort();
            }
        }
    });
    for (i, case) in cases().iter().enumerate().skip(start) {
        println!("\ncase {i}");
        println!("{i}: {}: {}", case.name, run(&(case.edit)()).lines().next().unwrap_or_default());
        DONE.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs the cases in children; gives the names of those that end one.
fn cases_that_end_the_process() -> Vec<String> {
    let cases = cases();
    let mut ended = Vec::new();
    let mut start = 0;
    while start < cases.len() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(START, start.to_string())
            .env("GGML_NO_BACKTRACE", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut last = start;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(i) = line.strip_prefix("case ").and_then(|i| i.parse().ok()) {
                last = i;
            }
            if std::env::var_os("EXSA_DAMAGE_SHOW").is_some() {
                println!("{line}");
            }
        }
        if child.wait().unwrap().success() {
            break;
        }
        ended.push(cases[last].name.clone());
        start = last + 1;
    }
    ended
}

#[test]
fn all_senseless_models() {
    let ended = cases_that_end_the_process();
    assert!(
        ended.is_empty(),
        "{} cases of {} end the process:\n{}",
        ended.len(),
        cases().len(),
        ended.join("\n")
    );
}
