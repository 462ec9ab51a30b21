//! Metadata of a model, read from the header alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::backend::ModelSource;
use exsa_core::gguf::{Array, GgmlType, Gguf, GgufError, GgufWriter, Value};
use exsa_core::model_info::{ModelInfo, check_source, check_type};
use std::io::Cursor;
use std::path::PathBuf;

fn info(writer: &GgufWriter) -> Result<ModelInfo, GgufError> {
    ModelInfo::from_gguf(&Gguf::read(&mut Cursor::new(writer.to_bytes()))?)
}

fn llama() -> GgufWriter {
    GgufWriter::new().key("general.architecture", Value::Str("llama".into()))
}

/// 4 layers, width 256, 8 heads of 32.
fn attention() -> GgufWriter {
    llama()
        .key("llama.block_count", Value::U32(4))
        .key("llama.embedding_length", Value::U64(256))
        .key("llama.attention.head_count", Value::U16(8))
}

fn heads(per_layer: &[u32]) -> Value {
    Value::Array(Array::U32(per_layer.to_vec()))
}

#[test]
fn kv_bytes_follow_the_heads() {
    let kv_heads = "llama.attention.head_count_kv";
    let kv = |writer: &GgufWriter| info(writer).unwrap().kv_bytes_per_token;
    assert_eq!(kv(&attention()), 4 * 8 * (32 + 32) * 2, "as many key-value heads as heads");
    let grouped = attention().key(kv_heads, Value::U32(2));
    assert_eq!(kv(&grouped), 4 * 2 * (32 + 32) * 2);
    let wide = grouped.clone().key("llama.attention.key_length", Value::U32(48));
    assert_eq!(kv(&wide), 4 * 2 * (48 + 32) * 2);
    let both = wide.key("llama.attention.value_length", Value::U32(16));
    assert_eq!(kv(&both), 4 * 2 * (48 + 16) * 2);
    let by_layer = attention().key(kv_heads, heads(&[1, 0, 2, 4]));
    assert_eq!(kv(&by_layer), 7 * (32 + 32) * 2, "layers without attention hold none");
}

#[test]
fn heads_that_differ_by_layer() {
    let writer = llama()
        .key("llama.block_count", Value::U32(2))
        .key("llama.embedding_length", Value::U32(64))
        .key("llama.attention.head_count", heads(&[4, 2]));
    assert_eq!(info(&writer).unwrap().kv_bytes_per_token, 6 * (16 + 16) * 2);
}

#[test]
fn as_many_head_counts_as_layers() {
    for counts in [&[1][..], &[1, 1, 1, 1, 1], &[]] {
        let error =
            info(&attention().key("llama.attention.head_count_kv", heads(counts))).unwrap_err().to_string();
        assert!(error.contains("head_count_kv") && error.contains("block_count"), "{error}");
    }
}

#[test]
fn absurd_numbers_neither_overflow_nor_take_time() {
    let writer = llama()
        .key("llama.block_count", Value::U64(u64::MAX))
        .key("llama.embedding_length", Value::U64(u64::MAX))
        .key("llama.attention.head_count", Value::U64(0))
        .key("llama.attention.head_count_kv", Value::U64(u64::MAX));
    assert_eq!(info(&writer).unwrap().kv_bytes_per_token, u64::MAX);
}

#[test]
fn wrong_types_name_the_key() {
    for (key, value) in [
        ("general.name", Value::U32(1)),
        ("general.file_type", Value::Str("Q8_0".into())),
        ("llama.context_length", Value::F32(512.0)),
        ("llama.block_count", Value::I32(-1)),
        ("llama.attention.head_count", Value::Array(Array::F32(vec![1.0]))),
        ("llama.attention.key_length", Value::Bool(true)),
        ("tokenizer.ggml.tokens", Value::Array(Array::U8(vec![0]))),
        ("tokenizer.chat_template", Value::Array(Array::Str(vec![]))),
    ] {
        let error = info(&llama().key(key, value).tensor_f32("t", &[1], &[0.0])).unwrap_err();
        assert!(matches!(&error, GgufError::Type { key: named, .. } if named == key), "{error}");
    }
    assert!(
        matches!(info(&GgufWriter::new()), Err(GgufError::Missing(key)) if key == "general.architecture")
    );
}

#[test]
fn the_vocabulary_has_as_many_tokens_as_rows_names_or_the_key_says() {
    let tokens = Value::Array(Array::Str(vec!["a".into(), "b".into(), "c".into()]));
    let by_key = llama().key("llama.vocab_size", Value::U32(9));
    assert_eq!(info(&by_key).unwrap().n_vocab, 9);
    let by_tokens = by_key.key("tokenizer.ggml.tokens", tokens);
    assert_eq!(info(&by_tokens).unwrap().n_vocab, 3);
    let by_rows = by_tokens.tensor_f32("token_embd.weight", &[2, 4], &[0.0; 8]);
    assert_eq!(info(&by_rows).unwrap().n_vocab, 4, "logits have a column for each row");
}

#[test]
fn quantizations_are_named_as_files_are() {
    let weights = |file_type: Option<u32>| {
        let writer =
            llama().tensor_f32("norm", &[8], &[1.0; 8]).tensor("w", &[256], GgmlType::Q6K, vec![0; 210]);
        let writer = match file_type {
            Some(n) => writer.key("general.file_type", Value::U32(n)),
            None => writer,
        };
        info(&writer).unwrap().quantization
    };
    for (file_type, name) in [
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (7, "Q8_0"),
        (8, "Q5_0"),
        (9, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K_S"),
        (12, "Q3_K_M"),
        (13, "Q3_K_L"),
        (14, "Q4_K_S"),
        (15, "Q4_K_M"),
        (16, "Q5_K_S"),
        (17, "Q5_K_M"),
        (18, "Q6_K"),
        (30, "IQ4_XS"),
        (32, "BF16"),
        (1024 + 15, "Q4_K_M"),
    ] {
        assert_eq!(weights(Some(file_type)), name);
    }
    for unknown in [None, Some(4), Some(33), Some(1000), Some(u32::MAX)] {
        assert_eq!(weights(unknown), "Q6_K", "the type with most bytes");
    }
}

#[test]
fn a_vocabulary_alone_can_be_inspected() {
    let writer = llama()
        .key("general.name", Value::Str("words".into()))
        .key("general.file_type", Value::U32(1))
        .key("tokenizer.ggml.tokens", Value::Array(Array::Str(vec!["a".into(), "b".into()])));
    let info = info(&writer).unwrap();
    let mut expected = ModelInfo::new(2, 0);
    expected.name = "words".into();
    expected.architecture = "llama".into();
    assert_eq!(info, expected);
    assert_eq!(info.summary(), "words (llama, no weights, vocabulary of 2 tokens)");
}

/// The file with the byte E8, as "è" is in Latin-1, in place of each "@".
fn latin1(writer: &GgufWriter) -> Gguf {
    let bytes: Vec<u8> = writer.to_bytes().iter().map(|b| if *b == b'@' { 0xe8 } else { *b }).collect();
    Gguf::read(&mut Cursor::new(bytes)).unwrap()
}

#[test]
fn texts_that_inference_does_not_need_may_be_in_any_encoding() {
    let text = |text: &str| Value::Str(text.into());
    let texts =
        |texts: &[&str]| Value::Array(Array::Str(texts.iter().map(|text| (*text).to_owned()).collect()));
    let vocabulary = |writer: GgufWriter| {
        writer
            .key("tokenizer.ggml.model", text("llama"))
            .key("tokenizer.ggml.tokens", texts(&["<unk>", "<s>", "</s>", "a"]))
    };
    for (key, value) in [
        ("general.description", text("un mod@le")),
        ("general.name", text("mod@le")),
        ("general.tags", texts(&["a", "@"])),
        ("general.@", text("x")),
        ("tokenizer.chat_template", text("{# @ #}")),
    ] {
        let gguf = latin1(&vocabulary(llama().key(key, value)));
        let info = ModelInfo::from_gguf(&gguf).unwrap();
        assert_eq!(info.n_vocab, 4);
        assert!(exsa_core::tokenizer::load(gguf.metadata()).is_ok(), "{key}");
        if key == "general.name" {
            assert_eq!(info.name, "mod\u{FFFD}le");
        }
    }
    let architecture = GgufWriter::new().key("general.architecture", text("ll@ma"));
    let error = ModelInfo::from_gguf(&latin1(&architecture)).unwrap_err().to_string();
    assert!(error.contains("'general.architecture'") && error.contains("UTF-8"), "{error}");
    let tokens =
        llama().key("tokenizer.ggml.model", text("llama")).key("tokenizer.ggml.tokens", texts(&["a", "@"]));
    let error = exsa_core::tokenizer::load(latin1(&tokens).metadata()).err().unwrap().to_string();
    assert!(error.contains("'tokenizer.ggml.tokens'") && error.contains("UTF-8"), "{error}");
}

#[test]
fn files_that_hold_no_model_say_what_they_hold() {
    let check = |writer: &GgufWriter| {
        let gguf = Gguf::read(&mut Cursor::new(writer.to_bytes())).unwrap();
        check_type(&gguf).err().map(|error| error.to_string())
    };
    let text = |text: &str| Value::Str(text.into());
    let of_type = |name: &str| check(&llama().key("general.type", text(name)));
    for (name, words) in [
        ("adapter", ["an adapter", "beside it"]),
        ("mmproj", ["a multimodal projector", "language model"]),
        ("imatrix", ["an importance matrix", "quantize"]),
    ] {
        let error = of_type(name).unwrap();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    assert_eq!(of_type("model"), None);
    assert_eq!(of_type("a type of its own"), None, "nothing depends on it");
    assert_eq!(check(&llama()), None);
    assert_eq!(check(&llama().key("general.type", Value::U32(1))), None);
    // Files from before there was a type.
    assert!(check(&llama().key("adapter.type", text("lora"))).unwrap().contains("adapter"));
    for (architecture, word) in [("clip", "projector"), ("controlvector", "control vector")] {
        let error = check(&GgufWriter::new().key("general.architecture", text(architecture))).unwrap();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_folder_is_no_model() {
    let folder = std::env::temp_dir().join(format!("exsa-folder-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let check = || check_source(&ModelSource::file(&folder)).unwrap_err().to_string();
    let without = check();
    for name in ["b.gguf", "a.gguf", "c.txt"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    let with = check();
    let file = check_source(&ModelSource::file(folder.join("a.gguf")));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(without.contains("is a folder") && without.ends_with("a .gguf file"), "{without}");
    assert!(with.ends_with("a .gguf file in it, such as a.gguf, b.gguf"), "{with}");
    assert!(file.is_ok());
    // A missing file is for the backend to tell of.
    assert!(check_source(&ModelSource::file("/nowhere/at-all.gguf")).is_ok());
    assert!(check_source(&ModelSource::Embedded(&[])).is_ok());
}

#[test]
fn summaries_suit_the_size() {
    let summary = |parameters, name: &str| {
        let mut info = ModelInfo::new(0, 512);
        info.name = name.into();
        info.architecture = "llama".into();
        info.quantization = "Q8_0".into();
        info.parameters = parameters;
        info.weights_bytes = 3 << 19;
        info.summary()
    };
    assert_eq!(summary(1_240_000_000, "big"), "big (llama, 1.2 B parameters, Q8_0, 1.5 MiB, context 512)");
    assert_eq!(summary(2_900_000, "tiny"), "tiny (llama, 2.9 M parameters, Q8_0, 1.5 MiB, context 512)");
    assert_eq!(summary(260_032, ""), "unnamed model (llama, 260 K parameters, Q8_0, 1.5 MiB, context 512)");
    assert_eq!(summary(999, "x"), "x (llama, 999 parameters, Q8_0, 1.5 MiB, context 512)");
}

#[test]
fn the_tiny_model_is_what_its_card_says() {
    let folder = std::env::var_os("EXSA_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    for (file, quantization) in [("f32", "F32"), ("f16", "F16"), ("q8_0", "Q8_0"), ("q4_k_m", "Q4_K_M")] {
        let path = folder.join(format!("models/exsa-tiny-{file}.gguf"));
        let Ok(mut reader) = std::fs::File::open(&path) else {
            eprintln!("skipped: no {}", path.display());
            return;
        };
        let info = ModelInfo::from_gguf(&Gguf::read(&mut reader).unwrap()).unwrap();
        assert_eq!(info.quantization, quantization);
        assert_eq!((info.n_layer, info.n_embd, info.n_vocab, info.n_ctx), (4, 256, 2048, 512));
        assert_eq!(info.kv_bytes_per_token, 4 * 4 * (32 + 32) * 2);
        assert!((2_800_000..3_000_000).contains(&info.parameters), "{}", info.parameters);
        assert!(info.weights_bytes < reader.metadata().unwrap().len());
        assert!(info.chat_template.is_some_and(|template| template.contains("im_start")));
    }
}
