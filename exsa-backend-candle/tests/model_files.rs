//! Models of several files, folders of Hugging Face's form, and options that change what a file says.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::Edit;
use exsa_conformance::harness::{feed, worst};
use exsa_conformance::real_model;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, PackedCache, SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Value};
use exsa_core::tokenizer::EncodeOptions;
use exsa_core::{Engine, EngineOptions, Message, Request};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use support::folder::{self, Folder};
use support::{ARCHITECTURES, data, edit_of, load, session};

fn load_with(source: impl Into<ModelSource>, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
    CandleBackend::new().load(&source.into(), options, &mut LoadProgress::none())
}

fn logits(model: &Arc<dyn Model>) -> Vec<f32> {
    feed(&mut *session(model), 0, 0, &[1, 50, 300, 7, 7, 8], 6).concat()
}

fn refusal(source: impl Into<ModelSource>, options: &LoadOptions) -> String {
    match load_with(source, options) {
        Ok(_) => panic!("it loads"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_split_model_is_the_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let backend = CandleBackend::new();
    for (at, name) in ["llama-f32", "gemma3-f32", "llama-q4_k_m"].into_iter().enumerate() {
        let whole = load(data(&format!("{name}.gguf")));
        let expected = logits(&whole);
        let parts = [2, 3, 60][at];
        let paths = edit_of(name).write_split(folder.path(), name, parts).unwrap();
        for path in [&paths[0], &paths[1], paths.last().unwrap()] {
            let split = load_with(path, &LoadOptions::new()).unwrap();
            assert_eq!(logits(&split), expected, "{name} by {}", path.display());
            assert_eq!(split.info(), whole.info());
            assert_eq!(split.fingerprint(), whole.fingerprint());
            assert_eq!(backend.inspect(&path.into()).unwrap(), *whole.info());
        }
        // Parts under any name.
        let renamed: Vec<_> = (0..parts).map(|i| folder.path().join(format!("{name}.part{i}"))).collect();
        paths.iter().zip(&renamed).for_each(|(from, to)| std::fs::rename(from, to).unwrap());
        let split = load_with(ModelSource::Files(renamed), &LoadOptions::new()).unwrap();
        assert_eq!(logits(&split), expected, "{name}");
        let (load, options) = (LoadOptions::new(), SessionOptions::new().sequences(1));
        let whole = ModelSource::file(data(&format!("{name}.gguf")));
        let paths = edit_of(name).write_split(folder.path(), name, parts).unwrap();
        let estimate = |source: &ModelSource| backend.estimate(source, &load, &options).unwrap();
        assert_eq!(estimate(&whole), estimate(&ModelSource::file(&paths[0])));
    }
}

#[test]
fn a_packed_cache_of_a_split_model() {
    let folder = tempfile::tempdir().unwrap();
    let paths = edit_of("llama-q4_k_m").write_split(folder.path(), "m", 3).unwrap();
    let expected = logits(&load_with(&paths[0], &LoadOptions::new()).unwrap());
    let options = LoadOptions::new().packed_cache(PackedCache::beside_model());
    let packed = PackedCache::beside_model().file(&paths[0]);
    let read = || std::fs::read(&packed).unwrap();
    assert_eq!(logits(&load_with(&paths[0], &options).unwrap()), expected);
    let first = read();
    assert_eq!(logits(&load_with(&paths[0], &options).unwrap()), expected);
    assert_eq!(read(), first, "it was used");
    // Another last part is another model.
    let mut bytes = std::fs::read(&paths[2]).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    std::fs::write(&paths[2], bytes).unwrap();
    load_with(&paths[0], &options).unwrap();
    assert_ne!(read(), first);
    // So is the same in another type.
    let floats = edit_of("llama-f32").write_split(folder.path(), "f", 2).unwrap();
    let packed = PackedCache::beside_model().file(&floats[0]);
    load_with(&floats[0], &options).unwrap();
    let first = std::fs::read(&packed).unwrap();
    let quantized = options.clone().quantize(GgmlType::Q8_0);
    let (cold, warm) =
        (load_with(&floats[0], &quantized).unwrap(), load_with(&floats[0], &quantized).unwrap());
    assert_eq!(logits(&cold), logits(&warm));
    assert_ne!(std::fs::read(&packed).unwrap(), first);
}

/// Writes the parts of a model, changes one, and gives the error of loading the first.
fn damaged(change: impl FnOnce(&[std::path::PathBuf], &Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let paths = edit_of("llama-f32").write_split(folder.path(), "big", 3).unwrap();
    change(&paths, folder.path());
    refusal(&paths[0], &LoadOptions::new())
}

#[test]
fn parts_that_do_not_belong_together() {
    let says = |text: String, words: &[&str]| {
        words.iter().for_each(|word| assert!(text.contains(word), "'{text}' does not say '{word}'"));
    };
    let second = "big-00002-of-00003.gguf";
    let edit = |path: &Path, change: fn(Edit) -> Edit| {
        let edit = Edit::of(&std::fs::read(path).unwrap()).unwrap();
        std::fs::write(path, change(edit).bytes()).unwrap();
    };
    says(damaged(|paths, _| std::fs::remove_file(&paths[1]).unwrap()), &[second, "part 2 of 3", "missing"]);
    says(
        damaged(|paths, _| std::fs::copy(&paths[2], &paths[1]).map(drop).unwrap()),
        &[second, "part 3", "part 2 is expected"],
    );
    says(
        damaged(|paths, _| edit(&paths[1], |edit| edit.set("split.count", Value::U16(4)))),
        &[second, "4 parts", "big-00001-of-00003.gguf says 3"],
    );
    says(
        damaged(|paths, _| edit(&paths[1], |edit| edit.set("split.tensors.count", Value::I32(5)))),
        &[second, "5 tensors", "another model"],
    );
    says(
        damaged(|paths, _| edit(&paths[1], |edit| edit.set("general.architecture", Value::Str("x".into())))),
        &[second, "general.architecture", "another model"],
    );
    says(
        damaged(|paths, _| edit(&paths[1], |edit| edit.set("split.no", Value::U16(3)))),
        &[second, "split.no", "below split.count"],
    );
    says(
        damaged(|paths, _| edit(&paths[1], |edit| edit.without("split.count"))),
        &[second, "a whole model", "part 2 of 3"],
    );
    says(
        damaged(|paths, _| edit(&paths[1], |edit| edit.add_f32("token_embd.weight", &[2], &[0.0; 2]))),
        &[second, "token_embd.weight", "part 1 too"],
    );
    says(
        damaged(|paths, _| {
            edit(&paths[1], |mut edit| {
                edit.tensors.pop();
                edit
            });
        }),
        &["big-00001-of-00003.gguf", "its parts have"],
    );
    says(
        damaged(|paths, _| {
            let bytes = std::fs::read(&paths[1]).unwrap();
            std::fs::write(&paths[1], &bytes[..bytes.len() - 40]).unwrap();
        }),
        &[second, "end beyond the file"],
    );
    says(
        damaged(|paths, folder| {
            std::fs::rename(&paths[0], folder.join("x")).unwrap();
            std::fs::copy(&paths[1], &paths[0]).unwrap();
        }),
        &["big-00001-of-00003.gguf", "part 2 of the model, not the one of its name"],
    );
    // Names and places that tell nothing of the other parts.
    let folder = tempfile::tempdir().unwrap();
    let parts = edit_of("llama-f32").split(2);
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, &parts[0]).unwrap();
    says(refusal(&path, &LoadOptions::new()), &["model.gguf", "NAME-00001-of-00002.gguf", "is expected"]);
    says(refusal(parts[0].clone(), &LoadOptions::new()), &["part 1 of 2", "split models in files"]);
    says(
        refusal(ModelSource::Files(vec![path]), &LoadOptions::new()),
        &["model.gguf", "2 parts", "1 files are given"],
    );
    says(refusal(ModelSource::Files(Vec::new()), &LoadOptions::new()), &["no files"]);
}

#[test]
fn metadata_are_overridden() {
    let name = "llama-f32";
    let by_file = edit_of(name).set("llama.rope.freq_base", Value::F32(500.0)).load(&CandleBackend::new());
    let options = LoadOptions::new().metadata_override("llama.rope.freq_base", 500.0);
    let source = ModelSource::file(data("llama-f32.gguf"));
    let changed = load_with(source.clone(), &options).unwrap();
    let plain = load_with(source.clone(), &LoadOptions::new()).unwrap();
    assert_eq!(logits(&changed), logits(&by_file.unwrap()));
    assert_ne!(logits(&changed), logits(&plain));
    assert_ne!(changed.fingerprint(), plain.fingerprint(), "its answers differ");
    // A key that no one knows changes nothing.
    let unknown = LoadOptions::new().metadata_override("llama.no_such_key", true);
    assert_eq!(logits(&load_with(source.clone(), &unknown).unwrap()), logits(&plain));
    let backend = CandleBackend::new();
    let context = LoadOptions::new().metadata_override("llama.context_length", 64);
    assert_eq!(load_with(source.clone(), &context).unwrap().info().n_ctx, 64);
    let session = SessionOptions::new().sequences(1);
    let kv = |load: &LoadOptions| backend.estimate(&source, load, &session).unwrap().kv;
    assert!(kv(&context) < kv(&LoadOptions::new()), "estimates know them");

    let refused = |options: LoadOptions| refusal(source.clone(), &options);
    let text = refused(LoadOptions::new().metadata_override("llama.block_count", "5"));
    assert!(text.contains("llama.block_count=str:5") && text.contains("u32"), "{text}");
    let text = refused(LoadOptions::new().metadata_override("llama.block_count", -1));
    assert!(text.contains("0 to 4294967295"), "{text}");
    let text = refused(LoadOptions::new().metadata_override("llama.rope.freq_base", f64::NAN));
    assert!(text.contains("not finite"), "{text}");
    let text = refused(LoadOptions::new().metadata_override("tokenizer.ggml.tokens", "a"));
    assert!(text.contains("single values alone"), "{text}");
    let text = refused(LoadOptions::new().metadata_override("x".repeat(128), 1));
    assert!(text.contains("128 bytes"), "{text}");
}

/// The file that the converter makes of `edit`.
fn converted(edit: &Edit, dtype: GgmlType) -> Edit {
    let options = exsa_quant::QuantizeOptions::new(exsa_quant::Mixture::from_name(dtype.name()).unwrap());
    let (mut input, mut output) = (std::io::Cursor::new(edit.bytes()), Vec::new());
    let go_on = |_: exsa_quant::Progress<'_>| std::ops::ControlFlow::Continue(());
    exsa_quant::quantize_gguf(&mut input, &mut output, &options, go_on).unwrap();
    Edit::of(&output).unwrap()
}

#[test]
fn floats_are_quantized_while_they_are_loaded() {
    let source = |name: &str| ModelSource::file(data(&format!("{name}.gguf")));
    for name in ARCHITECTURES {
        let whole = load_with(source(name), &LoadOptions::new()).unwrap();
        for dtype in [GgmlType::Q8_0, GgmlType::Q4_0] {
            // The same as the file that the converter makes of it, but for rows that are no whole blocks.
            let edit = edit_of(name);
            let mut converted = converted(&edit, dtype);
            for (tensor, original) in converted.tensors.iter_mut().zip(&edit.tensors) {
                assert_eq!(tensor.name, original.name);
                if tensor.dtype == GgmlType::F16 {
                    tensor.clone_from(original);
                }
            }
            let expected = logits(&converted.load(&CandleBackend::new()).unwrap());
            let options = LoadOptions::new().quantize(dtype);
            let quantized = load_with(source(name), &options).unwrap();
            assert_eq!(logits(&quantized), expected, "{name} {dtype}");
            assert_ne!(logits(&quantized), logits(&whole), "{name} {dtype}");
            let estimate = |load| {
                let session = SessionOptions::new().sequences(1);
                CandleBackend::new().estimate(&source(name), load, &session).unwrap().weights
            };
            assert!(estimate(&options) < estimate(&LoadOptions::new()), "{name} {dtype}");
        }
    }
    // Quantized files keep their types.
    let (source, options) = (source("llama-q4_k_m"), LoadOptions::new().quantize(GgmlType::Q8_0));
    let expected = logits(&load_with(source.clone(), &LoadOptions::new()).unwrap());
    assert!(worst(&logits(&load_with(source.clone(), &options).unwrap()), &expected) < 0.5);
    let text = refusal(source, &LoadOptions::new().quantize(GgmlType::Iq1S));
    assert!(text.contains("IQ1_S") && text.contains("Q4_K"), "{text}");
}

#[test]
fn scales_of_tensors_are_refused_in_words() {
    let edit = edit_of("llama-f32").add_f32("blk.0.attn_q.scale", &[1], &[2.0]);
    let Err(error) = edit.load(&CandleBackend::new()) else { panic!("it loads") };
    let text = error.to_string();
    assert!(text.contains("blk.0.attn_q.scale") && text.contains("NVFP4"), "{text}");
}

/// Micro models of the families that folders may have.
const IN_FOLDERS: [&str; 6] =
    ["llama-f32", "llama-bias-f32", "qwen2-f32", "qwen3-f32", "gemma2-f32", "gemma3-f32"];

#[test]
fn a_folder_is_the_model_of_its_gguf() {
    for (at, name) in IN_FOLDERS.into_iter().enumerate() {
        let place = tempfile::tempdir().unwrap();
        let edit = edit_of(name);
        let mut folder = Folder::of(&edit);
        folder.shards = at % 3 + 1;
        folder.write(place.path());
        let (model, gguf) =
            (load_with(place.path(), &LoadOptions::new()).unwrap(), load(data(&format!("{name}.gguf"))));
        // 1 is taken from norms of Gemma and added again, which rounds.
        let (found, expected) = (logits(&model), logits(&gguf));
        let limit = if name.starts_with("gemma") { 1e-4 } else { 0.0 };
        assert!(worst(&found, &expected) <= limit, "{name}: {}", worst(&found, &expected));
        let (info, expected) = (model.info(), gguf.info());
        assert_eq!(
            (info.n_ctx, info.n_layer, info.n_embd, info.n_vocab, info.parameters, info.kv_bytes_per_token),
            (
                expected.n_ctx,
                expected.n_layer,
                expected.n_embd,
                expected.n_vocab,
                expected.parameters,
                expected.kv_bytes_per_token
            ),
            "{name}"
        );
        let (found, expected) = (model.tokenizer(), gguf.tokenizer());
        for text in
            ["Once upon a time, there was a little girl named Lily.", "  two\n\nlines é 漢字 12345", ""]
        {
            let ids = |tokenizer: &dyn exsa_core::tokenizer::Tokenizer| {
                let mut ids = Vec::new();
                tokenizer.encode(text, &EncodeOptions::default(), &mut ids);
                ids
            };
            assert_eq!(ids(&*found), ids(&*expected), "{name}: {text}");
        }
        assert_eq!(found.special().bos, expected.special().bos, "{name}");
        assert_eq!(found.special().eos, expected.special().eos, "{name}");
        assert_eq!(found.special().add_bos, expected.special().add_bos, "{name}");
    }
}

/// The same model with matrices in `dtype`, and all values rounded to it.
fn rounded(mut edit: Edit, dtype: GgmlType) -> Edit {
    for tensor in &mut edit.tensors {
        let values = folder::values(tensor);
        let mut data = Vec::new();
        exsa_quant::quantize(dtype, &values, values.len(), None, &mut data).unwrap();
        if tensor.shape.len() == 1 {
            let mut values = values;
            exsa_quant::dequantize(dtype, &data, &mut values).unwrap();
            (tensor.dtype, tensor.data) =
                (GgmlType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        } else {
            (tensor.dtype, tensor.data) = (dtype, data);
        }
    }
    edit
}

#[test]
fn folders_keep_their_types_or_are_quantized() {
    for name in ["llama-bias-f32", "qwen3-f32"] {
        for dtype in [GgmlType::F16, GgmlType::BF16] {
            let place = tempfile::tempdir().unwrap();
            let edit = rounded(edit_of(name), dtype);
            let mut folder = Folder::of(&edit);
            folder.dtype = dtype;
            folder.write(place.path());
            let gguf = edit.load(&CandleBackend::new()).unwrap();
            let model = load_with(place.path(), &LoadOptions::new()).unwrap();
            assert_eq!(logits(&model), logits(&gguf), "{name} {dtype}");
            assert_eq!(model.info().quantization, dtype.name());
            let options = LoadOptions::new().quantize(GgmlType::Q8_0);
            let (model, gguf) =
                (load_with(place.path(), &options).unwrap(), load_with(edit.bytes(), &options).unwrap());
            assert_eq!(logits(&model), logits(&gguf), "{name} {dtype} as Q8_0");
            // The same by a packed cache, written and read.
            let options = options.packed_cache(PackedCache::in_folder(place.path().join("cache")));
            for _ in 0..2 {
                assert_eq!(logits(&load_with(place.path(), &options).unwrap()), logits(&model));
            }
        }
    }
}

#[test]
fn llama_3_has_frequency_factors() {
    let place = tempfile::tempdir().unwrap();
    let mut folder = Folder::of(&edit_of("llama-f32"));
    folder.config["rope_scaling"] = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32 });
    folder.write(place.path());
    let model = load_with(place.path(), &LoadOptions::new()).unwrap();
    // By the formula of llama.cpp's converter.
    let (base, dims) = (10_000f64, folder.config["head_dim"].as_u64().unwrap());
    let factors: Vec<f32> = (0..dims / 2)
        .map(|pair| {
            let length = std::f64::consts::TAU * base.powf(2.0 * pair as f64 / dims as f64);
            let smooth = (32.0 / length - 1.0) / 3.0;
            (1.0 / ((1.0 - smooth.clamp(0.0, 1.0)) / 8.0 + smooth.clamp(0.0, 1.0))) as f32
        })
        .collect();
    assert!(factors[0] == 1.0 && *factors.last().unwrap() == 8.0, "{factors:?}");
    let edit = edit_of("llama-f32").add_f32("rope_freqs.weight", &[dims / 2], &factors);
    let gguf = edit.load(&CandleBackend::new()).unwrap();
    assert!(worst(&logits(&model), &logits(&gguf)) < 1e-5);
    assert!(worst(&logits(&model), &logits(&load(data("llama-f32.gguf")))) > 1e-3);
}

#[test]
fn folders_that_are_refused_say_why() {
    type Change = fn(&mut Folder);
    let cases: [(Change, &[&str]); 22] = [
        (|f| f.config["model_type"] = json!("mixtral"), &["model_type", "mixtral", "llama, mistral, qwen2"]),
        (|f| f.config["hidden_size"] = json!(1e300), &["hidden_size", "1e+300"]),
        (|f| f.config["hidden_size"] = json!(4_000_000_000u32), &["embedding_length", "4000000000"]),
        (|f| f.config["num_hidden_layers"] = json!(-1), &["num_hidden_layers is -1"]),
        (|f| f.config["num_hidden_layers"] = json!(4_000_000_000u32), &["block_count", "4000000000"]),
        (|f| f.config["num_hidden_layers"] = json!(6), &["blk.2.attn_q.weight", "missing"]),
        (|f| f.config["num_attention_heads"] = json!(3), &["q_proj", "rows", "3 heads"]),
        (|f| f.config["rope_theta"] = json!("NaN"), &["rope_theta", "finite number"]),
        (|f| f.config["rope_scaling"] = json!({ "type": "dynamic" }), &["type", "dynamic", "linear"]),
        (|f| f.config["quantization_config"] = json!({ "bits": 4 }), &["quantization_config", "BF16"]),
        (|f| f.config["hidden_act"] = json!("relu"), &["hidden_act", "relu", "silu"]),
        (|f| f.tokenizer["model"]["type"] = json!("Unigram"), &["tokenizer.json", "Unigram", "BPE"]),
        (|f| f.tokenizer["normalizer"] = json!({ "type": "NFKC" }), &["normalizer", "NFKC", "Qwen 2"]),
        (
            |f| {
                f.tokenizer["normalizer"] = json!(null);
                f.tokenizer["pre_tokenizer"] = json!({ "type": "ByteLevel", "add_prefix_space": true });
            },
            &["pre_tokenizer", "Llama 3"],
        ),
        (|f| f.tokenizer["model"]["vocab"]["x y z"] = json!(1), &["tokenizer.json", "have the id 1"]),
        (
            |f| f.tokenizer["model"]["vocab"]["x y z"] = json!(4_000_000_000u32),
            &["tokenizer.json", "ids up to"],
        ),
        (|f| f.tokenizer["model"]["merges"] = json!([["a", 5]]), &["merges", "two tokens"]),
        (
            |f| f.tokenizer["added_tokens"][0]["lstrip"] = json!(true),
            &["lstrip", "added token", "false is supported"],
        ),
        (|f| f.tensors[0].0 = "model.extra.weight".into(), &["model.extra.weight", "no such tensor"]),
        (|f| f.tensors.retain(|tensor| tensor.0 != "model.norm.weight"), &["output_norm.weight", "missing"]),
        (|f| f.tensors[0].1.reverse(), &["token_embd.weight", "rows"]),
        (|f| f.tensors[1].0 = f.tensors[0].0.clone(), &["model.safetensors"]),
    ];
    for (number, (change, words)) in cases.into_iter().enumerate() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::of(&edit_of("llama-f32"));
        change(&mut folder);
        folder.write(place.path());
        let text = refusal(place.path(), &LoadOptions::new());
        words
            .iter()
            .for_each(|word| assert!(text.contains(word), "{number}: '{text}' does not say '{word}'"));
    }
    let damaged = |change: fn(&Path)| {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::of(&edit_of("llama-f32"));
        folder.shards = 3;
        folder.write(place.path());
        change(place.path());
        refusal(place.path(), &LoadOptions::new())
    };
    let says = |text: String, words: &[&str]| {
        words.iter().for_each(|word| assert!(text.contains(word), "'{text}' does not say '{word}'"));
    };
    const SECOND: &str = "model-00002-of-00003.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    says(damaged(|place| std::fs::remove_file(place.join(SECOND)).unwrap()), &[INDEX, SECOND, "missing"]);
    says(damaged(|place| std::fs::remove_file(place.join("tokenizer.json")).unwrap()), &["tokenizer.json"]);
    says(
        damaged(|place| std::fs::write(place.join("config.json"), "{\"hidden_size\": NaN}").unwrap()),
        &["config.json", "no JSON"],
    );
    says(
        damaged(|place| {
            let map = json!({ "weight_map": { "model.norm.weight": "../secret.safetensors" } });
            std::fs::write(place.join(INDEX), map.to_string()).unwrap();
        }),
        &[INDEX, "../secret.safetensors", "in the folder"],
    );
    says(
        damaged(|place| {
            let bytes = std::fs::read(place.join(SECOND)).unwrap();
            std::fs::write(place.join(SECOND), &bytes[..bytes.len() - 8]).unwrap();
        }),
        &[SECOND, "bytes"],
    );
    says(
        damaged(|place| {
            std::fs::copy(place.join(SECOND), place.join("model-00003-of-00003.safetensors"))
                .map(drop)
                .unwrap()
        }),
        &["model-00003-of-00003.safetensors", "in another file too"],
    );
}

/// Answer of `model` to `request` by greedy decoding.
fn answer(model: Arc<dyn Model>, request: Request) -> String {
    let session = SessionOptions::new().sequences(1).context_tokens(256);
    let engine = Engine::start(model, EngineOptions::default().session(session)).unwrap();
    engine.submit(request.temperature(0.0)).unwrap().complete().unwrap().text
}

#[test]
fn the_built_in_model_as_a_folder() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/exsa-tiny-q8_0.gguf");
    let edit = rounded(Edit::of(&std::fs::read(path).unwrap()).unwrap(), GgmlType::F16);
    let place = tempfile::tempdir().unwrap();
    let mut folder = Folder::of(&edit);
    (folder.dtype, folder.shards) = (GgmlType::F16, 2);
    folder.write(place.path());
    let request = || Request::text("Once upon a time").max_tokens(48);
    let text = answer(load_with(place.path(), &LoadOptions::new()).unwrap(), request());
    assert_eq!(text, answer(edit.load(&CandleBackend::new()).unwrap(), request()));
    assert!(text.len() > 60, "{text}");
}

#[test]
fn a_real_model_as_a_folder() {
    let Some(path) = real_model::path() else { return };
    let edit = rounded(Edit::of(&std::fs::read(path).unwrap()).unwrap(), GgmlType::F16);
    let place = tempfile::tempdir().unwrap();
    let mut folder = Folder::of(&edit);
    (folder.dtype, folder.shards) = (GgmlType::F16, 2);
    folder.write(place.path());
    drop(folder);
    let request = || Request::chat([Message::user("What is the capital of France?")]).max_tokens(12);
    let backend = CandleBackend::new();
    let expected = answer(edit.load(&backend).unwrap(), request());
    assert!(expected.contains("Paris"), "{expected}");
    assert_eq!(answer(load_with(place.path(), &LoadOptions::new()).unwrap(), request()), expected);
    let expected = answer(converted(&edit, GgmlType::Q8_0).load(&backend).unwrap(), request());
    drop(edit);
    let options = LoadOptions::new().quantize(GgmlType::Q8_0);
    assert_eq!(answer(load_with(place.path(), &options).unwrap(), request()), expected);
}
