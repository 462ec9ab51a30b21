//! LoRA adapters: what they add is what a merged weight has, for all sessions or for single spans, and what
//! is no adapter is refused before llama.cpp sees it.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../exsa-backend-candle/tests/support/adapter.rs"]
mod random;
mod support;

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_conformance::edit::{Edit, Tensor};
use exsa_conformance::harness::{self, feed, greedy, tokens, worst};
use exsa_conformance::test_data;
use exsa_core::backend::{
    AdapterLimits, InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session,
};
use exsa_core::batch::{Batch, Span, SpanAdapter};
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::gguf::{Array, GgmlType, GgufWriter, Value};
use exsa_core::{AdapterId, SeqId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{data, edit_of, exact, layouts, load_with, session};

const RANK: usize = 3;
const ALPHA: f32 = 6.0;

/// Weights that the adapters are for.
const TARGETS: [&str; 5] = [
    "blk.0.attn_q.weight",
    "blk.0.attn_v.weight",
    "blk.1.attn_output.weight",
    "blk.1.ffn_down.weight",
    "blk.1.ffn_gate.weight",
];

/// `n` values around 0 that depend on `seed`.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| i.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 8 & 0xffff;
    (0..n as u32).map(|i| (value(i) as f32 / 65_536.0 - 0.5) * 0.2).collect()
}

/// The two matrices of a target of shape `[n_in, n_out]`.
fn pair(target: usize, seed: u32, n_in: usize, n_out: usize) -> (Vec<f32>, Vec<f32>) {
    let seed = seed * 100 + 2 * target as u32;
    (values(n_in * RANK, seed), values(RANK * n_out, seed + 1))
}

/// An adapter's metadata.
fn header() -> GgufWriter {
    GgufWriter::new()
        .key("general.type", Value::Str("adapter".into()))
        .key("general.architecture", Value::Str("llama".into()))
        .key("adapter.type", Value::Str("lora".into()))
        .key("adapter.lora.alpha", Value::F32(ALPHA))
}

fn sides(base: &Edit, name: &str) -> (usize, usize) {
    let shape = &base.tensors.iter().find(|tensor| tensor.name == name).unwrap().shape;
    (shape[0] as usize, shape[1] as usize)
}

/// An adapter of [`TARGETS`].
fn adapter(base: &Edit, seed: u32) -> GgufWriter {
    TARGETS.iter().enumerate().fold(header(), |writer, (target, name)| {
        let (n_in, n_out) = sides(base, name);
        let (a, b) = pair(target, seed, n_in, n_out);
        writer.tensor_f32(&format!("{name}.lora_a"), &[n_in as u64, RANK as u64], &a).tensor_f32(
            &format!("{name}.lora_b"),
            &[RANK as u64, n_out as u64],
            &b,
        )
    })
}

/// The model with [`adapter`] added to its weights, `scale` times.
fn merged(base: &Edit, seed: u32, scale: f32) -> Edit {
    let mut merged = base.clone();
    for (target, name) in TARGETS.iter().enumerate() {
        let (n_in, n_out) = sides(base, name);
        let (a, b) = pair(target, seed, n_in, n_out);
        let data = &mut merged.tensor(name).unwrap().data;
        for row in 0..n_out {
            for column in 0..n_in {
                let product: f32 = (0..RANK).map(|r| b[row * RANK + r] * a[r * n_in + column]).sum();
                let at = (row * n_in + column) * 4;
                let old = f32::from_le_bytes(data[at..at + 4].try_into().unwrap());
                let new = old + scale * ALPHA / RANK as f32 * product;
                data[at..at + 4].copy_from_slice(&new.to_le_bytes());
            }
        }
    }
    merged
}

/// A file that goes away with this.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("exsa-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn rows(model: &Arc<dyn Model>) -> Vec<f32> {
    feed(&mut *session(model), 0, 0, &tokens(40, 1), 40).concat()
}

#[test]
fn an_adapter_adds_what_a_merged_weight_has() {
    let base = edit_of("llama-f32");
    let source = base.source();
    let (one, two) =
        (File::new("one", &adapter(&base, 1).to_bytes()), File::new("two", &adapter(&base, 2).to_bytes()));
    for backend in layouts() {
        let rows_of = |adapters: &[(&File, f32)]| {
            let with = adapters.iter().fold(backend.clone(), |b, (file, scale)| b.lora(&file.0, *scale));
            rows(&load_with(&with, &source))
        };
        let rows_of_merged = |edit: &Edit| rows(&load_with(&backend, &edit.source()));
        let plain = rows_of(&[]);
        assert_eq!(rows_of(&[(&one, 0.0)]), plain, "scale 0 is none");

        let whole = rows_of(&[(&one, 0.8)]);
        let changed = worst(&whole, &plain);
        assert!(changed > 0.1, "{changed}");
        let difference = worst(&whole, &rows_of(&[(&one, 0.4), (&one, 0.4)]));
        assert!(difference < 2e-4, "two halves: {difference}");
        let difference = worst(&whole, &rows_of_merged(&merged(&base, 1, 0.8)));
        println!("merged: {difference}, of a change of {changed}");
        assert!(difference < 2e-4, "merged: {difference}");

        let both = rows_of(&[(&one, 0.8), (&two, -0.5)]);
        let difference = worst(&both, &rows_of_merged(&merged(&merged(&base, 1, 0.8), 2, -0.5)));
        assert!(difference < 2e-4, "two merged: {difference}");
        assert!(worst(&both, &whole) > 0.1);
    }
}

#[test]
fn types_of_an_adapter_and_embeddings_of_tokens() {
    let mut base = edit_of("llama-f32");
    let output = Tensor { name: "output.weight".into(), ..base.tensor("token_embd.weight").unwrap().clone() };
    base.tensors.push(output);
    let (n_embd, n_vocab) = sides(&base, "token_embd.weight");
    let rank = 32;
    let a = File::new(
        "embedding",
        &header()
            .tensor_f32(
                "token_embd.weight.lora_a",
                &[rank, n_vocab as u64],
                &values(rank as usize * n_vocab, 5),
            )
            .tensor(
                "token_embd.weight.lora_b",
                &[rank, n_embd as u64],
                GgmlType::Q8_0,
                q8_0_ones(rank as usize * n_embd),
            )
            .to_bytes(),
    );
    let tied = refused(&a.0, 1.0).to_string();
    assert!(tied.contains("same weights"), "{tied}");
    let source = base.source();
    let with = rows(&load_with(&exact().lora(&a.0, 1.0), &source));
    let changed = worst(&with, &rows(&load_with(&exact(), &source)));
    let sums: Vec<f32> =
        values(rank as usize * n_vocab, 5).chunks(rank as usize).map(|row| row.iter().sum()).collect();
    let tensor = base.tensor("token_embd.weight").unwrap();
    for (token, sum) in sums.iter().enumerate() {
        for at in (token * n_embd..(token + 1) * n_embd).map(|i| i * 4) {
            let old = f32::from_le_bytes(tensor.data[at..at + 4].try_into().unwrap());
            let new = old + ALPHA / rank as f32 * sum;
            tensor.data[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
    }
    let merged = rows(&load_with(&exact(), &base.source()));
    let difference = worst(&with, &merged);
    // llama.cpp rounds what it multiplies with Q8_0 to 8 bits.
    assert!(difference < 0.05 * changed && changed > 0.5, "{difference} of a change of {changed}");
}

/// `n` times 1 in Q8_0: blocks of 32 with an f16 of 1/127, each 127 times.
fn q8_0_ones(n: usize) -> Vec<u8> {
    let mut block = 0x2008u16.to_le_bytes().to_vec();
    block.extend([127; 32]);
    block.repeat(n / 32)
}

#[test]
fn saved_kv_belongs_to_its_adapters() {
    let base = edit_of("llama-f32");
    let source = base.source();
    let (one, two) = (
        File::new("saved-one", &adapter(&base, 1).to_bytes()),
        File::new("saved-two", &adapter(&base, 2).to_bytes()),
    );
    let load = |adapters: &[(&File, f32)]| {
        let with = adapters.iter().fold(exact(), |b, (file, scale)| b.lora(&file.0, *scale));
        load_with(&with, &source)
    };
    let mut of_one = session(&load(&[(&one, 1.0)]));
    let prompt = tokens(20, 3);
    feed(&mut *of_one, 0, 0, &prompt, 0);
    let mut saved = Vec::new();
    of_one.save(SeqId(0), &mut saved).unwrap();
    for (adapters, fits) in [
        (vec![(&one, 1.0)], true),
        (vec![(&one, 1.0), (&two, 0.0)], true),
        (vec![], false),
        (vec![(&one, 0.9)], false),
        (vec![(&two, 1.0)], false),
        (vec![(&one, 1.0), (&two, 1.0)], false),
    ] {
        let mut other = session(&load(&adapters));
        let restored = other.restore(SeqId(2), &mut saved.as_slice());
        if fits {
            assert_eq!(restored.unwrap(), 20);
            let row = feed(&mut *other, 2, 20, &[7], 1);
            let expected = feed(&mut *of_one, 0, 20, &[7], 1);
            assert!(worst(&row[0], &expected[0]) < 1e-4);
            of_one.truncate(SeqId(0), 20).unwrap();
        } else {
            assert!(matches!(restored, Err(KvError::Format(_))), "{restored:?}");
        }
    }
}

/// The problem with an adapter of this content.
fn problem(name: &str, bytes: &[u8], scale: f32) -> String {
    let file = File::new(name, bytes);
    let error = refused(&file.0, scale);
    match error {
        LoadError::Option { option: "lora", problem } if !scale.is_finite() => {
            assert!(problem.contains(&*file.0.to_string_lossy()), "{name}: {problem}");
            problem
        }
        LoadError::Adapter { name: path, problem } => {
            assert_eq!(path, file.0.to_string_lossy(), "{name}: {problem}");
            // The same file for single requests.
            let refused = plain_model().load_adapter(&ModelSource::file(&file.0), &AdapterLimits::new());
            let Err(LoadError::Adapter { problem: other, .. }) = refused else {
                panic!("{name}: {refused:?}")
            };
            assert_eq!(other, problem, "{name}");
            problem
        }
        error => panic!("{name}: {error:?}"),
    }
}

fn plain_model() -> Arc<dyn Model> {
    load_with(&exact(), &ModelSource::file(data("llama-f32.gguf")))
}

fn refused(path: &Path, scale: f32) -> LoadError {
    let backend = LlamaCppBackend::new().lora(path, scale);
    let model = ModelSource::file(data("llama-f32.gguf"));
    let loaded = backend.load(&model, &LoadOptions::default(), &mut LoadProgress::none());
    loaded.map(|_| ()).unwrap_err()
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    assert!(matches!(refused(Path::new("/nowhere/adapter.gguf"), 1.0), LoadError::Io { .. }));
    let base = edit_of("llama-f32");
    let sound = adapter(&base, 1).to_bytes();
    for scale in [f32::NAN, f32::INFINITY] {
        assert!(problem("scale", &sound, scale).contains("scale"));
    }
    assert!(problem("text", b"no GGUF at all", 1.0).contains("GGUF"));
    for len in (0..sound.len()).step_by(997) {
        problem("cut", &sound[..len], 1.0);
    }
    let model = std::fs::read(data("llama-f32.gguf")).unwrap();
    assert!(problem("model", &model, 1.0).contains("general.type"));

    let key = |key: &str, value: Option<Value>| {
        let mut edit = Edit::default();
        for (known, of_header) in
            [("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")]
        {
            edit = edit.set(known, Value::Str(of_header.into()));
        }
        let edit = match value {
            Some(value) => edit.set(key, value),
            None => edit.without(key),
        };
        let writer =
            edit.metadata.iter().fold(GgufWriter::new(), |w, (key, value)| w.key(key, value.clone()));
        let (n_in, n_out) = sides(&base, TARGETS[0]);
        let name = TARGETS[0];
        let bytes = writer
            .tensor_f32(&format!("{name}.lora_a"), &[n_in as u64, 1], &values(n_in, 1))
            .tensor_f32(&format!("{name}.lora_b"), &[1, n_out as u64], &values(n_out, 2))
            .to_bytes();
        problem("key", &bytes, 1.0)
    };
    let other = key("general.architecture", Some(Value::Str("qwen2".into())));
    assert!(other.contains("'qwen2'") && other.contains("'llama'"), "{other}");
    for (name, value) in [
        ("general.type", None),
        ("general.type", Some(Value::Str("model".into()))),
        ("general.type", Some(Value::U32(3))),
        ("general.architecture", None),
        ("general.architecture", Some(Value::Array(Array::U32(vec![1])))),
        ("adapter.type", Some(Value::Str("control_vector".into()))),
        ("adapter.type", Some(Value::F32(1.0))),
        ("adapter.lora.alpha", Some(Value::U32(16))),
        ("adapter.lora.alpha", Some(Value::F32(f32::NAN))),
        ("adapter.lora.alpha", Some(Value::Str("16".into()))),
        ("adapter.alora.invocation_tokens", Some(Value::Array(Array::U32(vec![1, 2])))),
    ] {
        let problem = key(name, value);
        assert!(problem.contains(name) || problem.contains("aLoRA"), "{name}: {problem}");
    }

    let name = TARGETS[0];
    let (n_in, n_out) = sides(&base, name);
    let (n_in, n_out) = (n_in as u64, n_out as u64);
    type Pair<'a> = [(&'a str, [u64; 2], GgmlType); 2];
    let f32 = GgmlType::F32;
    let pairs: [Pair<'_>; 9] = [
        [("attn_q.weight.lora_a", [n_in + 32, 2], f32), ("attn_q.weight.lora_b", [2, n_out], f32)],
        [("attn_q.weight.lora_a", [n_in, 2], f32), ("attn_q.weight.lora_b", [2, n_out + 1], f32)],
        [("attn_q.weight.lora_a", [n_in, 2], f32), ("attn_q.weight.lora_b", [3, n_out], f32)],
        [("attn_q.weight.lora_a", [2, n_in], f32), ("attn_q.weight.lora_b", [n_out, 2], f32)],
        [("attn_q.weight.lora_a", [n_in, 2], f32), ("attn_q.weight.lora_c", [2, n_out], f32)],
        [("attn_q.weight.lora_a", [n_in, 2], f32), ("attn_k.weight.lora_b", [2, n_out], f32)],
        [("attn_r.weight.lora_a", [n_in, 2], f32), ("attn_r.weight.lora_b", [2, n_out], f32)],
        [("attn_norm.weight.lora_a", [n_in, 2], f32), ("attn_norm.weight.lora_b", [2, 1], f32)],
        [("attn_q.weight.lora_a", [n_in, 2], GgmlType::I32), ("attn_q.weight.lora_b", [2, n_out], f32)],
    ];
    for pair in pairs {
        let bytes = pair
            .iter()
            .fold(header(), |writer, (part, shape, dtype)| {
                let data = vec![0; (shape[0] * shape[1] * 4) as usize];
                writer.tensor(&format!("blk.0.{part}"), shape, *dtype, data)
            })
            .to_bytes();
        let problem = problem("tensor", &bytes, 1.0);
        assert!(problem.contains("tensor 'blk.0.attn_"), "{pair:?}: {problem}");
    }
    assert!(problem("empty", &header().to_bytes(), 1.0).contains("no tensor"));
}

fn on(id: AdapterId, scale: f32) -> SpanAdapter {
    SpanAdapter { id, scale }
}

/// Logits of all of `tokens` in the empty sequence 0, computed in one pass.
fn try_rows_with(
    session: &mut dyn Session,
    tokens: &[u32],
    adapters: &[SpanAdapter],
) -> Result<Vec<f32>, StepError> {
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, tokens).rows(tokens.len()).adapters(adapters));
    let rows = harness::rows(session.forward(&batch)?.logits()).concat();
    session.release(SeqId(0));
    Ok(rows)
}

fn rows_with(session: &mut dyn Session, tokens: &[u32], adapters: &[SpanAdapter]) -> Vec<f32> {
    try_rows_with(session, tokens, adapters).unwrap()
}

fn insert(model: &Arc<dyn Model>, adapter: &GgufWriter) -> AdapterId {
    let source = ModelSource::Memory(adapter.to_bytes().into());
    model.load_adapter(&source, &AdapterLimits::new()).unwrap().id
}

#[test]
fn spans_have_what_merged_weights_have() {
    let base = edit_of("llama-f32");
    let tokens = tokens(30, 1);
    for backend in layouts() {
        let model = load_with(&backend, &base.source());
        let mut session = session(&model);
        let merged_rows = |edit: &Edit| {
            rows_with(&mut *support::session(&load_with(&backend, &edit.source())), &tokens, &[])
        };
        let plain = rows_with(&mut *session, &tokens, &[]);
        // Loaded while the session has a plan of its passes.
        let (one, two) = (insert(&model, &adapter(&base, 1)), insert(&model, &adapter(&base, 2)));
        let with = |session: &mut dyn Session, set: &[SpanAdapter]| rows_with(session, &tokens, set);
        let expected = merged_rows(&merged(&base, 1, 0.8));
        assert!(worst(&expected, &plain) > 0.1);
        let both = merged_rows(&merged(&merged(&base, 1, 0.8), 2, -0.5));
        // In turn, each several times: what a pass adds is that of its own spans.
        for _ in 0..2 {
            for (set, expected) in [
                (vec![on(one, 0.8)], &expected),
                (vec![], &plain),
                (vec![on(one, 0.8), on(two, -0.5)], &both),
                (vec![on(two, -0.5), on(one, 0.8)], &both),
                (vec![on(one, 0.4), on(one, 0.4)], &expected),
                (vec![on(one, 0.0)], &plain),
            ] {
                let difference = worst(&with(&mut *session, &set), expected);
                assert!(difference < 2e-4, "{set:?}: {difference}");
            }
        }
        // Beside an adapter of all sessions.
        let file = File::new("beside", &adapter(&base, 1).to_bytes());
        let always = load_with(&backend.clone().lora(&file.0, 0.8), &base.source());
        let two = insert(&always, &adapter(&base, 2));
        let difference = worst(&with(&mut *support::session(&always), &[on(two, -0.5)]), &both);
        assert!(difference < 2e-4, "beside a fixed one: {difference}");
    }
}

/// An adapter can be unloaded when a session used it last, and another can take its place in memory.
#[test]
fn unloaded_adapters_leave_no_trace() {
    let base = edit_of("llama-f32");
    let model = load_with(&exact(), &base.source());
    let (mut first, mut second) = (session(&model), session(&model));
    let tokens = tokens(12, 2);
    let plain = rows_with(&mut *first, &tokens, &[]);
    let expected: Vec<_> = (0..3)
        .map(|seed| {
            rows_with(&mut *session(&load_with(&exact(), &merged(&base, seed, 1.0).source())), &tokens, &[])
        })
        .collect();
    for round in 0..12 {
        let id = insert(&model, &adapter(&base, round % 3));
        let found = rows_with(&mut *first, &tokens, &[on(id, 1.0)]);
        let difference = worst(&found, &expected[round as usize % 3]);
        assert!(difference < 2e-4, "round {round}: {difference}");
        if round % 2 == 0 {
            assert_eq!(rows_with(&mut *second, &tokens, &[on(id, 1.0)]), found, "round {round}");
        }
        model.unload_adapter(id);
        model.unload_adapter(id);
        let refused = try_rows_with(&mut *first, &tokens, &[on(id, 1.0)]);
        assert!(matches!(refused, Err(StepError::Sequence { seq: SeqId(0), .. })), "{refused:?}");
        if round % 3 == 0 {
            assert_eq!(rows_with(&mut *first, &tokens, &[]), plain, "round {round}");
        }
    }
    drop(second);
    let id = insert(&model, &adapter(&base, 1));
    drop(model);
    // The session keeps the model.
    assert!(worst(&rows_with(&mut *first, &tokens, &[on(id, 1.0)]), &expected[1]) < 2e-4);
}

#[test]
fn a_batch_takes_one_set() {
    let base = edit_of("llama-f32");
    let model = load_with(&exact(), &base.source());
    let mut session = session(&model);
    let capabilities = session.capabilities();
    assert_eq!((capabilities.span_adapters_max, capabilities.batch_adapter_sets_max), (4, 1));
    let id = insert(&model, &adapter(&base, 1));
    let set = [on(id, 1.0)];
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[5, 6]).rows(1).adapters(&set));
    batch.push(Span::tokens(SeqId(1), 0, &[5, 6]).rows(1));
    let refused = session.forward(&batch).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StepError::Sequence { seq: SeqId(1), .. }), "{refused}");
    assert!(refused.to_string().contains("one set"), "{refused}");
    // Nothing was computed.
    rows_with(&mut *session, &[5, 6], &set);
    let none = support::exact_options().adapters(0, 16);
    let session = model.session(&none).unwrap();
    assert_eq!(session.capabilities().span_adapters_max, 0);
}

#[test]
fn limits_are_checked_before_weights_are_read() {
    let base = edit_of("llama-f32");
    let model = load_with(&exact(), &base.source());
    let source = ModelSource::Memory(adapter(&base, 1).to_bytes().into());
    let load = |limits: AdapterLimits| model.load_adapter(&source, &limits);
    let info = load(AdapterLimits::new()).unwrap();
    let parts = TARGETS.iter().map(|name| sides(&base, name)).map(|(n_in, n_out)| (n_in + n_out) * RANK * 4);
    assert_eq!((info.rank, info.bytes), (RANK, parts.sum::<usize>() as u64));
    let refused = load(AdapterLimits::new().rank(2)).unwrap_err();
    assert!(refused.to_string().contains("its rank is 3, but at most 2 is allowed"), "{refused}");
    let refused = load(AdapterLimits::new().bytes(100)).unwrap_err();
    let needed = info.bytes;
    assert!(
        matches!(refused, LoadError::Memory { needed: found, available: 100, .. } if found == needed),
        "{refused}"
    );
    let other =
        model.load_adapter(&ModelSource::Memory(adapter(&base, 2).to_bytes().into()), &AdapterLimits::new());
    assert!(other.unwrap().fingerprint != info.fingerprint);
    assert_eq!(load(AdapterLimits::new()).unwrap().fingerprint, info.fingerprint);
}

/// Folders of PEFT: converted, with the rows of queries and keys in the model's order, and with a scale for
/// each matrix.
#[test]
fn folders_of_peft() {
    let base = edit_of("llama-f32");
    let pairs = random::pairs(&base, 4, 7, |name| !name.contains("ffn_gate"));
    let heads = |weight: &str| match weight.rsplit_once('.').unwrap().0.rsplit_once('.').unwrap().1 {
        "attn_q" => Some(number(&base, "llama.attention.head_count")),
        "attn_k" => Some(number(&base, "llama.attention.head_count_kv")),
        _ => None,
    };
    let folder = std::env::temp_dir().join(format!("exsa-llamacpp-peft-{}", std::process::id()));
    let tokens = tokens(20, 4);
    let model = load_with(&exact(), &base.source());
    let by_pattern = |weight: &str| match weight {
        weight if weight.ends_with("attn_v.weight") => 0.5,
        "blk.1.ffn_down.weight" => 4.0,
        _ => 2.0,
    };
    type Scale = fn(&str) -> f32;
    let scales: [(&str, Scale); 2] =
        [("", |_| 2.0), (r#", "alpha_pattern": {"v_proj": 2, "layers.1.mlp.down_proj": 16}"#, by_pattern)];
    for (settings, scale_of) in scales {
        let config = format!(r#"{{"peft_type": "LORA", "r": 4, "lora_alpha": 8{settings}}}"#);
        random::write_peft(&folder, &config, &pairs, heads);
        let id = model.load_adapter(&ModelSource::file(&folder), &AdapterLimits::new()).unwrap().id;
        let expected = pairs.iter().fold(base.clone(), |edit, pair| {
            random::merged(&edit, scale_of(&pair.weight), std::slice::from_ref(pair))
        });
        let expected = rows_with(&mut *session(&load_with(&exact(), &expected.source())), &tokens, &[]);
        let found = rows_with(&mut *session(&model), &tokens, &[on(id, 1.0)]);
        let difference = worst(&found, &expected);
        assert!(difference < 2e-3, "{settings}: {difference}");
        assert!(worst(&expected, &rows_with(&mut *session(&model), &tokens, &[])) > 0.1);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn number(edit: &Edit, key: &str) -> usize {
    match edit.get(key) {
        Some(Value::U32(number)) => *number as usize,
        other => panic!("{key}: {other:?}"),
    }
}

/// The model of the test data and its adapter, as another program that runs llama.cpp went on.
#[test]
fn a_real_adapter() {
    let (Some(model), Some(adapter)) =
        (test_data::model("exsa-tiny-f32.gguf"), test_data::model("exsa-lora-alice.gguf"))
    else {
        return;
    };
    let base = ModelSource::file(model);
    let model = load_with(&exact().lora(&adapter, 1.0), &base);
    let tokenizer = model.tokenizer();
    let mut prompt = vec![tokenizer.special().bos.unwrap()];
    tokenizer.encode("Once upon a time", &exsa_core::tokenizer::EncodeOptions::default(), &mut prompt);
    let answer = greedy(&mut *session(&model), 0, &prompt, 64);
    let mut text = Vec::new();
    answer.iter().for_each(|token| tokenizer.piece(*token, &mut text));
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.contains(
            "She loved to play outside in the park. One day, she found a big, scary pile of paper and paper."
        ),
        "{text}"
    );
    // The same for a single span.
    let plain = load_with(&exact(), &base);
    let id = plain.load_adapter(&ModelSource::file(adapter), &AdapterLimits::new()).unwrap().id;
    let all = rows_with(&mut *session(&model), &prompt, &[]);
    let single = rows_with(&mut *session(&plain), &prompt, &[on(id, 1.0)]);
    assert!(worst(&all, &single) < 1e-3, "{}", worst(&all, &single));
}
