//! Loading of models, and errors that help before llama.cpp opens a bad one.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_llamacpp::{FlashAttention, LlamaCppBackend, RopeOptions};
use exsa_conformance::edit::Edit;
use exsa_conformance::harness::feed;
use exsa_core::backend::{InferenceBackend, KvType, LoadOptions, LoadProgress, ModelSource, SessionOptions};
use exsa_core::error::LoadError;
use exsa_core::gguf::Value;
use support::{candle, data, edit_of, load, load_with, session};

fn refuse(edit: &Edit) -> LoadError {
    match edit.load(&LlamaCppBackend::new()) {
        Ok(_) => panic!("it loads"),
        Err(error) => error,
    }
}

/// Asserts that the error's text has all of `words`.
fn says(error: &LoadError, words: &[&str]) {
    let text = error.to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "'{text}' does not say '{word}'"));
}

fn try_load(source: &ModelSource) -> Result<(), LoadError> {
    LlamaCppBackend::new().load(source, &LoadOptions::default(), &mut LoadProgress::none()).map(|_| ())
}

#[test]
fn inspect_tells_what_candle_tells() {
    let path = data("gemma3-f32.gguf");
    let info = LlamaCppBackend::new().inspect(&ModelSource::file(&path)).unwrap();
    assert_eq!(&info, candle(path.clone()).info());
    assert_eq!(&info, load(path).info());
}

#[test]
fn a_panic_in_the_progress_callback_is_the_callers() {
    let source = ModelSource::file(data("llama-f32.gguf"));
    let result = std::panic::catch_unwind(|| {
        let mut calls = 0;
        let mut listen = |_, _| {
            calls += 1;
            assert!(calls < 3, "enough");
            true
        };
        LlamaCppBackend::new()
            .load(&source, &LoadOptions::default(), &mut LoadProgress::new(&mut listen))
            .is_ok()
    });
    assert!(result.is_err());
    try_load(&source).unwrap();
}

#[test]
fn unknown_architecture() {
    let edit = edit_of("llama-f32").set("general.architecture", Value::Str("abacus".into()));
    let error = refuse(&edit);
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
    says(&error, &["abacus", "llama.cpp"]);
}

#[test]
fn options_that_make_no_sense() {
    let source = ModelSource::file(data("llama-f32.gguf"));
    let refused = |backend: LlamaCppBackend, options: &SessionOptions| {
        load_with(&backend, &source).session(options).map(|_| ()).unwrap_err()
    };
    let backend = LlamaCppBackend::new;
    let rope = |options| backend().rope(options);
    let default = RopeOptions::new();
    for (backend, option) in [
        (rope(default.freq_base(0.0)), "rope.freq_base"),
        (rope(default.freq_base(f32::NAN)), "rope.freq_base"),
        (rope(default.freq_scale(-1.0)), "rope.freq_scale"),
        (rope(default.yarn_ext_factor(2.0)), "rope.yarn_ext_factor"),
        (rope(default.yarn_orig_ctx(0)), "rope.yarn_orig_ctx"),
        (backend().ubatch_tokens_max(0), "ubatch_tokens_max"),
        (backend().prefill_threads(std::num::NonZeroUsize::MAX), "prefill_threads"),
    ] {
        let error = refused(backend, &SessionOptions::default());
        assert!(matches!(error, LoadError::Option { .. }), "{error}");
        says(&error, &[option]);
    }
    // Heads of 16 values hold no whole block.
    for (keys, values, option) in
        [(KvType::Q8_0, KvType::F16, "key_type"), (KvType::F16, KvType::Q8_0, "value_type")]
    {
        let quantized = SessionOptions::new().kv_types(keys, values);
        let error = refused(backend().flash_attention(FlashAttention::Off), &quantized);
        assert!(matches!(error, LoadError::Option { .. }), "{error}");
        says(&error, &[option, "q8_0", "16 values"]);
    }
}

#[test]
fn rope_options_do_something() {
    let source = ModelSource::file(data("llama-f32.gguf"));
    let rows = |backend: &LlamaCppBackend| {
        feed(&mut *session(&load_with(backend, &source)), 0, 0, &[1, 50, 300, 7, 7, 8], 6)
    };
    let plain = rows(&support::exact());
    let scaled = support::exact().rope(RopeOptions::new().freq_base(1e6));
    assert_ne!(rows(&scaled), plain);
}

#[test]
fn weights_read_or_mapped_or_checked_are_the_same() {
    let source = ModelSource::file(data("llama-q4_0.gguf"));
    let rows = |backend: &LlamaCppBackend| {
        feed(&mut *session(&load_with(backend, &source)), 0, 0, &[1, 50, 300, 7, 7, 8], 6)
    };
    let mapped = rows(&support::exact());
    assert_eq!(rows(&support::exact().mmap(false)), mapped);
    assert_eq!(rows(&support::exact().check_tensors(true)), mapped);
}

#[test]
fn many_at_once() {
    let source = ModelSource::file(data("llama-q8_0.gguf"));
    let expected = feed(&mut *session(&load(data("llama-q8_0.gguf"))), 0, 0, &[1, 50, 300], 3);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let model = load_with(&support::exact(), &source);
                std::thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| {
                            for _ in 0..3 {
                                let mut session = session(&model);
                                assert_eq!(feed(&mut *session, 0, 0, &[1, 50, 300], 3), expected);
                            }
                        });
                    }
                });
            });
        }
    });
}

#[test]
fn a_split_model_is_the_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let backend = LlamaCppBackend::new();
    let options = SessionOptions::new().sequences(1).context_tokens(64);
    for name in ["llama-f32", "gemma3-f32"] {
        let whole = data(&format!("{name}.gguf"));
        let expected = feed(&mut *session(&load(whole.clone())), 0, 0, &[1, 50, 300, 7], 4);
        let paths = edit_of(name).write_split(folder.path(), name, 3).unwrap();
        for path in &paths {
            let model = load(path.clone());
            assert_eq!(feed(&mut *session(&model), 0, 0, &[1, 50, 300, 7], 4), expected, "{name}");
            assert_eq!(model.info(), load(whole.clone()).info());
        }
        let estimate =
            |path| backend.estimate(&ModelSource::file(path), &LoadOptions::new(), &options).unwrap();
        let (split, whole) = (estimate(&paths[1]), estimate(&whole));
        assert_eq!((split.kv, split.scratch), (whole.kv, whole.scratch));
        let renamed: Vec<_> = (0..3).map(|part| folder.path().join(format!("{name}.{part}"))).collect();
        paths.iter().zip(&renamed).for_each(|(from, to)| std::fs::rename(from, to).unwrap());
        try_load(&ModelSource::Files(renamed)).unwrap();
    }
    let paths = edit_of("llama-f32").write_split(folder.path(), "big", 3).unwrap();
    std::fs::remove_file(&paths[2]).unwrap();
    let error = try_load(&ModelSource::file(&paths[0])).unwrap_err();
    says(&error, &["big-00003-of-00003.gguf", "part 3 of 3", "missing"]);
    std::fs::copy(&paths[1], &paths[2]).unwrap();
    says(&try_load(&ModelSource::file(&paths[0])).unwrap_err(), &["big-00003-of-00003.gguf", "part 2"]);
}

#[test]
fn metadata_are_overridden() {
    let backend = LlamaCppBackend::new();
    let source = ModelSource::file(data("llama-f32.gguf"));
    let with = |options: &LoadOptions| backend.load(&source, options, &mut LoadProgress::none());
    let logits = |model| feed(&mut *session(&model), 0, 0, &[1, 50, 300, 7], 4);
    let by_file = edit_of("llama-f32").set("llama.rope.freq_base", Value::F32(500.0)).load(&backend).unwrap();
    let options = LoadOptions::new()
        .metadata_override("llama.rope.freq_base", 500.0)
        .metadata_override("llama.context_length", 64)
        .metadata_override("general.name", "renamed")
        .metadata_override("tokenizer.ggml.add_bos_token", false);
    let changed = with(&options).unwrap();
    let info = changed.info();
    assert_eq!((info.name.as_str(), info.n_ctx), ("renamed", 64));
    assert!(!changed.tokenizer().special().add_bos);
    let plain = with(&LoadOptions::new()).unwrap();
    assert_ne!(changed.fingerprint(), plain.fingerprint());
    let (changed, plain) = (logits(changed), logits(plain));
    assert_ne!(changed, plain);
    assert_eq!(changed, logits(by_file));
    let refused = |options: &LoadOptions| with(options).err().unwrap();
    says(
        &refused(&LoadOptions::new().metadata_override("llama.block_count", 2.5)),
        &["llama.block_count=float:2.5", "u32"],
    );
    // Checks of the header see the host's values.
    says(
        &refused(&LoadOptions::new().metadata_override("llama.block_count", 100_000)),
        &["llama.block_count", "512"],
    );
    says(&refused(&LoadOptions::new().quantize(exsa_core::gguf::GgmlType::Q8_0)), &["quantize", "llama.cpp"]);
}
