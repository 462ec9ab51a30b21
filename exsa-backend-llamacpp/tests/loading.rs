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
