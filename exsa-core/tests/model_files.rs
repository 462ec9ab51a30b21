//! Headers of models in several files and in folders: any bytes are read or refused in words.
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::gguf::{GgmlType, GgufWriter, Value};
use exsa_core::model_file::{Conversion, MetadataOverride, ModelFile};
use exsa_core::tokenizer::{self, EncodeOptions};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of this test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exsa-model-files-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), bytes).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Result<ModelFile, String> {
    ModelFile::open(&path.into()).map_err(|error| error.to_string())
}

/// `config.json` of a model of one layer, two heads and a width of 8.
fn config() -> Json {
    json!({ "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 4, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
        "vocab_size": 7, "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": [1] })
}

/// `tokenizer.json` of SentencePiece's form.
fn tokenizer_json() -> Json {
    json!({
        "added_tokens": [
            { "id": 0, "content": "<s>", "special": true }, { "id": 1, "content": "</s>", "special": true },
        ],
        "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
        "pre_tokenizer": { "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious" },
        "post_processor": { "type": "TemplateProcessing", "single": [
            { "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
        ] },
        "model": { "type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
            "vocab": { "<s>": 0, "</s>": 1, "<unk>": 2, "\u{2581}": 3, "a": 4, "\u{2581}a": 5, "aa": 6 },
            "merges": ["\u{2581} a", "a a"] },
    })
}

/// A safetensors file of zeros.
fn safetensors(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<u64>() * 2;
        header.insert(
            (*name).to_owned(),
            json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }),
        );
    }
    let header = Json::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end as usize]].concat()
}

const TENSORS: [(&str, &[u64]); 4] = [
    ("model.embed_tokens.weight", &[7, 8]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.k_proj.bias", &[4]),
    ("model.norm.weight", &[8]),
];

fn folder(test: &str) -> Scratch {
    let scratch = Scratch::new(test);
    scratch.write("config.json", config().to_string());
    scratch.write("tokenizer.json", tokenizer_json().to_string());
    scratch.write("model.safetensors", safetensors(&TENSORS));
    scratch
}

#[test]
fn a_folder_becomes_the_header_of_a_gguf() {
    let scratch = folder("header");
    scratch.write("chat_template.jinja", "{{ messages }}");
    scratch.write("generation_config.json", "{\"eos_token_id\": [1, 2]}");
    let file = open(&scratch.0).unwrap();
    let (gguf, metadata) = (file.gguf(), file.gguf().metadata());
    let number = |key: &str| metadata.require::<u64>(key).unwrap();
    assert_eq!(metadata.require::<&str>("general.architecture").unwrap(), "llama");
    assert_eq!((number("llama.block_count"), number("llama.embedding_length")), (1, 8));
    assert_eq!((number("llama.attention.head_count"), number("llama.attention.head_count_kv")), (2, 1));
    assert_eq!(metadata.require::<&str>("tokenizer.chat_template").unwrap(), "{{ messages }}");
    let names: Vec<&str> = gguf.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(
        names,
        ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.attn_k.bias", "output_norm.weight"]
    );
    assert_eq!(gguf.tensor("token_embd.weight").unwrap().shape, [8, 7]);
    let conversion = |name: &str| {
        let tensor = gguf.tensor(name).unwrap();
        file.source(tensor).map_or(Conversion::None, |source| source.conversion)
    };
    assert_eq!(conversion("blk.0.attn_q.weight"), Conversion::PairRows { heads: 2 });
    assert_eq!(conversion("blk.0.attn_k.bias"), Conversion::PairRows { heads: 1 });
    assert_eq!(conversion("output_norm.weight"), Conversion::None);
    let tokenizer = tokenizer::load(metadata).unwrap();
    let special = tokenizer.special();
    assert_eq!(
        (special.bos, special.eos, special.add_bos, special.roles.eot),
        (Some(0), Some(1), true, Some(2))
    );
    let mut ids = Vec::new();
    tokenizer.encode("aa a", &EncodeOptions::default(), &mut ids);
    assert_eq!(ids, [6, 5]);
}

#[test]
fn norms_of_gemma_are_f32_with_1_added() {
    let scratch = folder("gemma");
    let mut config = config();
    for (key, value) in [
        ("model_type", json!("gemma2")),
        ("hidden_act", json!("gelu_pytorch_tanh")),
        ("head_dim", json!(4)),
        ("query_pre_attn_scalar", json!(4)),
        ("attn_logit_softcapping", Json::Null),
    ] {
        config[key] = value;
    }
    scratch.write("config.json", config.to_string());
    let tensors = [TENSORS[0], ("model.layers.0.post_attention_layernorm.weight", &[8][..])];
    scratch.write("model.safetensors", safetensors(&tensors));
    let file = open(&scratch.0).unwrap();
    let norm = file.gguf().tensor("blk.0.post_attention_norm.weight").unwrap();
    assert_eq!((norm.dtype, norm.bytes), (GgmlType::F32, 32));
    let source = file.source(norm).unwrap();
    assert_eq!((source.dtype, source.bytes, source.conversion), (GgmlType::BF16, 16, Conversion::AddOne));
    let cap = |key: &str| file.gguf().metadata().require::<f32>(key).unwrap();
    assert_eq!((cap("gemma2.attn_logit_softcapping"), cap("gemma2.final_logit_softcapping")), (0.0, 30.0));
    config["query_pre_attn_scalar"] = json!(144);
    scratch.write("config.json", config.to_string());
    assert!(open(&scratch.0).unwrap_err().contains("query_pre_attn_scalar is 144; 4 is supported"));
}

#[test]
fn a_missing_part_is_named() {
    let scratch = Scratch::new("split");
    let part = |index: u16| {
        GgufWriter::new()
            .key("general.architecture", Value::Str("llama".into()))
            .key("split.no", Value::U16(index))
            .key("split.count", Value::U16(2))
            .tensor_f32(&format!("t{index}"), &[2], &[0.0; 2])
            .to_bytes()
    };
    scratch.write("m-00001-of-00002.gguf", part(0));
    let second = scratch.0.join("m-00002-of-00002.gguf");
    let text = open(&scratch.0.join("m-00001-of-00002.gguf")).unwrap_err();
    assert!(text.contains("m-00002-of-00002.gguf") && text.contains("missing"), "{text}");
    scratch.write("m-00002-of-00002.gguf", part(1));
    let file = open(&second).unwrap();
    let places: Vec<_> =
        file.gguf().tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.file)).collect();
    assert_eq!(places, [("t0", 0), ("t1", 1)]);
    assert_eq!(file.paths()[1], second);
}

#[test]
fn overrides_are_read_as_they_are_written() {
    for text in ["a.b=int:-5", "a=float:0.5", "a=bool:true", "a=str:x=y:z", "a=str:"] {
        assert_eq!(text.parse::<MetadataOverride>().unwrap().to_string(), text);
    }
    for text in ["a", "a=5", "a=int:x", "a=bool:1", "a=float:inf", "=int:1", "a=u32:1", "a=str:\0"] {
        let error = text.parse::<MetadataOverride>().unwrap_err().to_string();
        assert!(error.contains("KEY=TYPE:VALUE"), "{error}");
    }
}

/// A value that no configuration has.
fn odd() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC{0,8}".prop_map(Json::from),
        Just(json!([])),
        Just(json!([[1, null], {}])),
        Just(json!({ "type": "BPE", "factor": -1 })),
        Just(json!(u64::MAX)),
        Just(json!(0)),
    ]
}

/// Replaces the value at place `at` of a walk through `value`.
fn replace(value: &mut Json, at: &mut usize, new: &Json) {
    if *at == 0 {
        *value = new.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        Json::Array(list) => list.iter_mut().for_each(|value| replace(value, at, new)),
        Json::Object(map) => map.values_mut().for_each(|value| replace(value, at, new)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn odd_values_are_read_or_refused(which in 0usize..3, at in 0usize..60, new in odd()) {
        let scratch = folder("odd");
        let index = json!({ "weight_map": { "model.norm.weight": "model.safetensors" } });
        let (name, mut value) = match which {
            0 => ("config.json", config()),
            1 => ("tokenizer.json", tokenizer_json()),
            _ => ("model.safetensors.index.json", index),
        };
        replace(&mut value, &mut { at }, &new);
        scratch.write(name, value.to_string());
        match open(&scratch.0) {
            Ok(file) => {
                let files = file.gguf().files();
                prop_assert!(file.gguf().tensors().iter().all(|tensor| tensor.file < files.len()));
                let _ = tokenizer::load(file.gguf().metadata());
            }
            Err(text) => prop_assert!(!text.is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(which in 0usize..3, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let scratch = folder("bytes");
        let name = ["config.json", "tokenizer.json", "model.safetensors"][which];
        let mut bytes = fs::read(scratch.0.join(name)).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        scratch.write(name, bytes);
        if let Err(text) = open(&scratch.0) {
            prop_assert!(!text.is_empty());
        }
    }
}
