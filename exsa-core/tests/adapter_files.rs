//! Adapter files: refused settings and headers, with their messages.
#![allow(clippy::unwrap_used, clippy::panic)]

use exsa_core::adapter::{AdapterFile, BaseMatrix, BaseModel, Factor, PeftConfig, SafetensorsHeader};
use exsa_core::backend::ModelSource;
use serde_json::{Value, json};
use std::io::Cursor;
use std::path::PathBuf;

fn config(changes: Value) -> Result<PeftConfig, String> {
    let mut config = json!({
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "use_rslora": false, "use_dora": false,
        "fan_in_fan_out": false, "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {},
        "init_lora_weights": true, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM",
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    PeftConfig::from_json(config.to_string().as_bytes())
}

#[test]
fn settings_that_are_refused() {
    config(json!({})).unwrap();
    config(json!({"use_rslora": true, "init_lora_weights": "gaussian", "lora_alpha": 0.5})).unwrap();
    for (changes, words) in [
        (json!({"peft_type": "LOHA"}), "peft_type is \"LOHA\""),
        (json!({"peft_type": null}), "\"LORA\" is needed"),
        (json!({"r": 0}), "r is 0; 1 to 4096 is allowed"),
        (json!({"r": 100_000}), "r is 100000; 1 to 4096 is allowed"),
        (json!({"r": "eight"}), "r is \"eight\""),
        (json!({"lora_alpha": "much"}), "a number is required"),
        (json!({"use_dora": true}), "DoRA is not supported"),
        (json!({"fan_in_fan_out": true}), "transposed weights"),
        (json!({"bias": "all"}), "trained biases are not supported"),
        (json!({"lora_bias": true}), "biases of the adapter's matrices"),
        (json!({"modules_to_save": ["lm_head"]}), "modules_to_save is [\"lm_head\"]"),
        (json!({"layer_replication": [[0, 4]]}), "layers that occur several times"),
        (json!({"trainable_token_indices": [1]}), "embeddings of individual tokens"),
        (json!({"alora_invocation_tokens": [1]}), "after certain tokens"),
        (json!({"init_lora_weights": "pissa"}), "changed weights of the model"),
        (json!({"rank_pattern": {"^model.*q_proj$": 4}}), "not a plain module name"),
        (json!({"rank_pattern": {"q_proj": 0}}), "1 or more is allowed"),
        (json!({"alpha_pattern": [1]}), "numbers by name are allowed"),
    ] {
        let problem = config(changes).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
    assert!(PeftConfig::from_json(b"{").unwrap_err().contains("not valid JSON"));
    assert!(PeftConfig::from_json(b"[]").unwrap_err().contains("not a JSON object"));
    assert!(PeftConfig::from_json("[".repeat(100_000).as_bytes()).is_err());
}

fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn header(bytes: &[u8]) -> Result<usize, String> {
    SafetensorsHeader::read(&mut Cursor::new(bytes)).map(|header| header.tensors.len())
}

#[test]
fn headers_that_are_refused() {
    let a = r#""a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}"#;
    let b = r#""b": {"dtype": "F16", "shape": [3], "data_offsets": [16, 22]}"#;
    assert_eq!(header(&file(&format!("{{{b}, {a}, \"__metadata__\": {{\"x\": \"y\"}}}}"), 22)), Ok(2));
    assert_eq!(header(&file("{}", 0)), Ok(0));
    let of = |tensor: &str, data: usize| header(&file(&format!("{{\"a\": {tensor}}}"), data)).unwrap_err();
    for (problem, words) in [
        (header(b"1234567").unwrap_err(), "7 bytes, but a safetensors file has 8 or more"),
        (header(&u64::MAX.to_le_bytes()).unwrap_err(), "its header takes 18446744073709551615 bytes"),
        (header(&file("{}", 0)[..9]).unwrap_err(), "1 bytes follow"),
        (header(&file("nonsense", 0)).unwrap_err(), "not valid JSON"),
        (header(&file("[]", 0)).unwrap_err(), "not a JSON object"),
        (header(&file(&format!("{{{a}}}"), 17)).unwrap_err(), "16 bytes, but 17 follow"),
        (header(&file(&format!("{{{a}, {b}}}"), 20)).unwrap_err(), "the data has 20"),
        (header(&file(&format!("{{{b}}}"), 22)).unwrap_err(), "begins at byte 16"),
        (of(r#"{"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}"#, 8), "its type is I64"),
        (of(r#"{"shape": [1], "data_offsets": [0, 4]}"#, 4), "no dtype"),
        (of(r#"{"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}"#, 4), "shape is not a list"),
        (
            of(r#"{"dtype": "F32", "shape": [1, 1, 1, 1, 1], "data_offsets": [0, 4]}"#, 4),
            "shape is not a list",
        ),
        (of(r#"{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}"#, 4), "does not fit"),
        (of(r#"{"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}"#, 4), "its byte range is 4 to 0"),
        (of(r#"{"dtype": "F32", "shape": [1], "data_offsets": [0]}"#, 4), "not a pair"),
        (
            of(r#"{"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}"#, 4),
            "does not fit",
        ),
    ] {
        assert!(problem.contains(words), "{problem}");
    }
    // Two tensors of the same bytes.
    let twice = a.replace("\"a\"", "\"b\"");
    assert!(header(&file(&format!("{{{a}, {twice}}}"), 16)).unwrap_err().contains("end at 16"));
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A folder with these tensors, of f32 zeros.
fn folder(test: &str, tensors: &[(&str, [usize; 2])]) -> Folder {
    let path = std::env::temp_dir().join(format!("exsa-peft-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += shape[0] * shape[1] * 4;
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(format!("base_model.model.{name}"), entry);
    }
    std::fs::write(path.join("adapter_model.safetensors"), file(&Value::Object(header).to_string(), end))
        .unwrap();
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "rank_pattern": {"k_proj": 4}}"#;
    std::fs::write(path.join("adapter_config.json"), config).unwrap();
    Folder(path)
}

#[test]
fn folders() {
    let matrix = |name: &str| match name {
        "blk.0.attn_q.weight" => Ok(BaseMatrix::new(6, 8)),
        "blk.0.attn_k.weight" => Ok(BaseMatrix::new(6, 4)),
        other => Err(format!("the model has no tensor {other}")),
    };
    let base = BaseModel { architecture: "llama", n_head: 2, n_head_kv: 1, matrix: &matrix };
    let open = |folder: &Folder| {
        AdapterFile::open(&ModelSource::file(&folder.0), &base).map_err(|error| error.to_string())
    };
    let q = "model.layers.0.self_attn.q_proj";
    let (qa, qb) = (format!("{q}.lora_A.weight"), format!("{q}.lora_B.weight"));
    let k = "model.layers.0.self_attn.k_proj";
    let (ka, kb) = (format!("{k}.lora_A.weight"), format!("{k}.lora_B.weight"));
    let whole = folder(
        "whole",
        &[(qa.as_str(), [2, 6]), (qb.as_str(), [8, 2]), (ka.as_str(), [4, 6]), (kb.as_str(), [4, 4])],
    );
    let mut found = open(&whole).unwrap();
    let scales: Vec<_> =
        found.pairs().iter().map(|pair| (pair.weight.clone(), pair.rank, pair.scale)).collect();
    let expected = [("blk.0.attn_k.weight".to_owned(), 4, 2.0), ("blk.0.attn_q.weight".to_owned(), 2, 4.0)];
    assert_eq!(scales, expected);
    let mut bytes = Vec::new();
    found.read(1, Factor::B, &mut bytes).unwrap();
    assert_eq!(bytes.len(), 8 * 2 * 4);
    for (tensors, words) in [
        (vec![(qa.as_str(), [2, 6])], "there is no lora_B"),
        (vec![(qb.as_str(), [8, 2])], "there is no lora_A"),
        (vec![(qa.as_str(), [2, 6]), (qb.as_str(), [6, 2])], "the shapes"),
        (vec![(qa.as_str(), [4, 6]), (qb.as_str(), [8, 4])], "its rank is 4, but adapter_config.json says 2"),
        (
            vec![("model.layers.0.self_attn.q_proj.lora_magnitude_vector", [1, 8])],
            "the tensors of an adapter are named",
        ),
        (vec![("model.embed_tokens.lora_embedding_A", [2, 6])], "the tensors of an adapter are named"),
        (
            vec![
                ("model.layers.7.mlp.up_proj.lora_A.weight", [2, 6]),
                ("model.layers.7.mlp.up_proj.lora_B.weight", [8, 2]),
            ],
            "no tensor blk.7.ffn_up.weight",
        ),
        (
            vec![("model.norm.lora_A.weight", [2, 6]), ("model.norm.lora_B.weight", [8, 2])],
            "no layer of this name",
        ),
        (vec![], "no tensor"),
    ] {
        let problem = open(&folder("broken", &tensors)).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
    std::fs::remove_file(whole.0.join("adapter_config.json")).unwrap();
    assert!(open(&whole).unwrap_err().contains("adapter_config.json"));
}
