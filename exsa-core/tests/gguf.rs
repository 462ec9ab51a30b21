//! The GGUF reader: real files, round trips, and every kind of damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::gguf::{Array, GgmlType, Gguf, GgufError, GgufWriter, Value};
use exsa_core::model_info::ModelInfo;
use proptest::prelude::*;
use std::io::Cursor;
use std::path::PathBuf;

fn read(bytes: &[u8]) -> Result<Gguf, GgufError> {
    Gguf::read(&mut Cursor::new(bytes))
}

fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("EXSA_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    if folder.join("models").is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no test data at {}", folder.display());
    None
}

fn sample() -> GgufWriter {
    GgufWriter::new()
        .key("general.architecture", Value::Str("llama".into()))
        .key("llama.block_count", Value::U32(2))
        .key("llama.embedding_length", Value::U32(64))
        .key("llama.attention.head_count", Value::U32(4))
        .key("llama.attention.head_count_kv", Value::U32(2))
        .key("tokenizer.ggml.tokens", Value::Array(Array::Str(vec!["a".into(), "b".into()])))
        .key("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.5, -1.0])))
        .key("nested", Value::Array(Array::Array(vec![Array::U8(vec![1, 2]), Array::Bool(vec![true])])))
        .tensor_f32("token_embd.weight", &[64, 2], &[0.25; 128])
        .tensor("blk.0.ffn_up.weight", &[64, 3], GgmlType::Q8_0, vec![7; 34 * 6])
}

#[test]
fn a_file_reads_back() {
    for version in [2, 3] {
        let gguf = read(&sample().version(version).alignment(64).to_bytes()).unwrap();
        assert_eq!((gguf.version(), gguf.alignment()), (version, 64));
        let metadata = gguf.metadata();
        assert_eq!(metadata.require::<usize>("llama.block_count").unwrap(), 2);
        assert_eq!(metadata.require::<&[f32]>("tokenizer.ggml.scores").unwrap(), [0.5, -1.0]);
        assert_eq!(metadata.get::<u32>("no.such.key").unwrap(), None);
        let tensor = gguf.tensor("blk.0.ffn_up.weight").unwrap();
        assert_eq!(
            (tensor.shape.as_slice(), tensor.dtype, tensor.bytes),
            ([64, 3].as_slice(), GgmlType::Q8_0, 204)
        );
        assert!(tensor.offset.is_multiple_of(64));
        let info = ModelInfo::from_gguf(&gguf).unwrap();
        assert_eq!((info.n_vocab, info.n_layer, info.parameters), (2, 2, 128 + 192));
        assert_eq!(info.kv_bytes_per_token, 2 * 2 * (16 + 16) * 2);
    }
}

#[test]
fn real_files_are_read() {
    let Some(folder) = test_data() else { return };
    let files = ["models", "models/vocab"].map(|part| std::fs::read_dir(folder.join(part)).unwrap());
    let mut n = 0;
    for entry in files.into_iter().flatten().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|extension| extension == "gguf") {
            let gguf = Gguf::read(&mut std::fs::File::open(entry.path()).unwrap()).unwrap();
            println!("{}: {}", entry.path().display(), ModelInfo::from_gguf(&gguf).unwrap().summary());
            n += 1;
        }
    }
    assert!(n > 10);
}

/// `cargo test --release -p exsa-core --test gguf -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn how_long_reading_takes() {
    let texts: Vec<String> = (0..1 << 18).map(|n| format!("token {n}")).collect();
    let large = GgufWriter::new()
        .key("tokens", Value::Array(Array::Str(texts.clone())))
        .key("merges", Value::Array(Array::Str(texts)))
        .key("scores", Value::Array(Array::F32(vec![0.5; 1 << 18])))
        .key("types", Value::Array(Array::I32(vec![1; 1 << 18])));
    let mut files = vec![("256 Ki tokens, as many merges".to_owned(), large.to_bytes())];
    if let Some(folder) = test_data() {
        for name in ["ggml-vocab-llama-bpe.gguf", "ggml-vocab-qwen2.gguf"] {
            files.push((name.to_owned(), std::fs::read(folder.join("models/vocab").join(name)).unwrap()));
        }
    }
    for (name, bytes) in files {
        let mut times: Vec<_> = (0..21)
            .map(|_| {
                let start = std::time::Instant::now();
                let gguf = read(&bytes).unwrap();
                let time = start.elapsed();
                assert!(!gguf.metadata().is_empty());
                time
            })
            .collect();
        times.sort();
        println!("{name}: {} bytes, median {:?}, fastest {:?}", bytes.len(), times[10], times[0]);
    }
}

#[test]
fn wrong_types_and_ranges_name_the_key() {
    let gguf =
        read(&sample().key("big", Value::U64(u64::MAX)).key("minus", Value::I8(-1)).to_bytes()).unwrap();
    let metadata = gguf.metadata();
    let text = |error: GgufError| error.to_string();
    let error = text(metadata.require::<u32>("big").unwrap_err());
    assert!(error.contains("'big'") && error.contains("32 bits"), "{error}");
    assert!(text(metadata.require::<usize>("minus").unwrap_err()).contains("'minus'"));
    assert!(text(metadata.require::<u32>("general.architecture").unwrap_err()).contains("string"));
    assert!(
        text(metadata.require::<&[String]>("tokenizer.ggml.scores").unwrap_err()).contains("array of 2 f32")
    );
    assert!(text(metadata.require::<f32>("gone").unwrap_err()).contains("'gone' is missing"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = sample().to_bytes();
    for len in 0..whole.len() {
        let error = read(&whole[..len]).expect_err("cut");
        assert!(!error.to_string().is_empty());
    }
    assert!(read(&whole).is_ok());
}

#[test]
fn damage_is_named() {
    let whole = sample().to_bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        read(&damaged).expect_err("damaged")
    };
    assert!(matches!(with(0, b"GGML"), GgufError::Magic { .. }));
    assert!(matches!(with(4, &1u32.to_le_bytes()), GgufError::Version { version: 1, .. }));
    assert!(with(4, &3u32.to_be_bytes()).to_string().contains("big-endian"));
    assert!(matches!(with(4, &9u32.to_le_bytes()), GgufError::Version { version: 9, .. }));
    for at in [8, 16] {
        assert!(matches!(with(at, &u64::MAX.to_le_bytes()), GgufError::Limit { .. }));
    }
    // The length of the first key.
    assert!(matches!(with(24, &u64::MAX.to_le_bytes()), GgufError::Truncated { .. }));
    // The type of the first value, after a key of 20 bytes.
    assert!(matches!(with(24 + 8 + 20, &77u32.to_le_bytes()), GgufError::ValueType { value: 77, .. }));
}

#[test]
fn every_eight_bytes_set_to_the_maximum_neither_panic_nor_allocate() {
    let whole = sample().to_bytes();
    for at in 0..whole.len() - 8 {
        let mut damaged = whole.clone();
        damaged[at..at + 8].fill(0xff);
        if let Ok(gguf) = read(&damaged) {
            let _ = ModelInfo::from_gguf(&gguf);
        }
    }
}

#[test]
fn unsound_directories_are_refused() {
    let problem = |writer: GgufWriter| read(&writer.to_bytes()).expect_err("unsound").to_string();
    let alignment = |n| problem(GgufWriter::new().key("general.alignment", Value::U32(n)));
    for n in [0, 3, 4, 48, 1 << 20] {
        assert!(alignment(n).contains(&format!("general.alignment is {n};")), "{}", alignment(n));
    }
    let twice = GgufWriter::new().key("k", Value::U8(1)).key("k", Value::U8(2));
    assert!(problem(twice).contains("key 'k' occurs twice"));
    let twice = GgufWriter::new().tensor_f32("t", &[1], &[0.0]).tensor_f32("t", &[1], &[0.0]);
    assert!(problem(twice).contains("tensor 't' occurs twice"));
    let shape = |shape: &[u64], dtype| problem(GgufWriter::new().tensor("t", shape, dtype, vec![0; 64]));
    assert!(shape(&[], GgmlType::F32).contains("0 dimensions"));
    assert!(shape(&[1, 1, 1, 1, 1], GgmlType::F32).contains("5 dimensions"));
    assert!(shape(&[4, 0], GgmlType::F32).contains("dimension 0"));
    assert!(shape(&[33], GgmlType::Q4_0).contains("blocks of 32"));
    assert!(shape(&[1 << 40, 1 << 40], GgmlType::F32).contains("more bytes than can be counted"));
    assert!(shape(&[u64::MAX], GgmlType::F16).contains("more bytes than can be counted"));
    assert!(shape(&[1 << 20], GgmlType::F32).contains("end beyond the file"));
    // Two tensors at the same place: the second offset is patched to 0.
    let mut bytes = GgufWriter::new().tensor_f32("a", &[1], &[0.0]).tensor_f32("b", &[1], &[0.0]).to_bytes();
    let at = bytes.windows(8).rposition(|eight| eight == 32u64.to_le_bytes()).unwrap();
    bytes[at..at + 8].fill(0);
    assert!(read(&bytes).expect_err("overlap").to_string().contains("overlaps"));
    bytes[at] = 1;
    assert!(read(&bytes).expect_err("unaligned").to_string().contains("not a multiple of the alignment"));
    let deep = (0..6).fold(Array::U8(vec![1]), |inner, _| Array::Array(vec![inner]));
    assert!(problem(GgufWriter::new().key("deep", Value::Array(deep))).contains("nesting"));
    let long = "x".repeat(70_000);
    assert!(problem(GgufWriter::new().key(&long, Value::U8(0))).contains("length of a metadata key"));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        any::<u64>().prop_map(Value::U64),
        (-1e30..1e30f32).prop_map(Value::F32),
        (-1e300..1e300f64).prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::Str),
        proptest::collection::vec(any::<String>(), 0..5).prop_map(|v| Value::Array(Array::Str(v))),
        proptest::collection::vec(any::<i32>(), 0..9).prop_map(|v| Value::Array(Array::I32(v))),
        proptest::collection::vec(any::<bool>(), 0..9).prop_map(|v| Value::Array(Array::Bool(v))),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::btree_map("[a-z.]{1,12}", value(), 0..8),
        rows in 1..5u64,
        power in 3..8u32,
    ) {
        let mut writer = GgufWriter::new().alignment(1 << power);
        for (key, value) in &entries {
            writer = writer.key(&format!("x.{key}"), value.clone());
        }
        writer = writer.tensor("t", &[32, rows], GgmlType::Q4_0, vec![1; 18 * rows as usize]);
        let gguf = read(&writer.to_bytes()).unwrap();
        for (key, value) in &entries {
            prop_assert_eq!(gguf.metadata().get_value(&format!("x.{key}")), Some(value));
        }
        prop_assert_eq!(gguf.tensor("t").unwrap().bytes, 18 * rows);
    }

    #[test]
    fn damaged_bytes_never_panic(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = sample().to_bytes();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(gguf) = read(&bytes) {
            let _ = ModelInfo::from_gguf(&gguf);
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"GGUF\x03\x00\x00\x00".to_vec();
        bytes.extend(noise);
        let _ = read(&bytes);
    }
}
