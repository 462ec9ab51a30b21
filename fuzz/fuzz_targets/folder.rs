//! Folders of Hugging Face's form with any `config.json`, `tokenizer.json`, index and header of weights. No
//! panic, no large allocation; what is accepted has all its tensors in its files.
#![no_main]

use exsa_core::backend::ModelSource;
use exsa_core::model_file::ModelFile;
use exsa_core::tokenizer;
use libfuzzer_sys::fuzz_target;
use std::fs;

/// Files of the folder; the input replaces one.
const FILES: [(&str, &[u8]); 3] = [
    (
        "config.json",
        br#"{"model_type":"llama","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":4,"vocab_size":3}"#,
    ),
    (
        "tokenizer.json",
        br#"{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#,
    ),
    ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
];
const INDEX: &str = "model.safetensors.index.json";

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let folder = std::env::temp_dir().join(format!("exsa-fuzz-folder-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let _ = fs::remove_file(folder.join(INDEX));
    for (name, content) in FILES {
        fs::write(folder.join(name), content).expect("a file");
    }
    let name = FILES.get(usize::from(choice % 4)).map_or(INDEX, |file| file.0);
    fs::write(folder.join(name), bytes).expect("a file");
    match ModelFile::open(&ModelSource::file(&folder)) {
        Ok(file) => {
            let gguf = file.gguf();
            for tensor in gguf.tensors() {
                let stored = file.source(tensor).map_or(tensor.bytes, |source| source.bytes);
                assert!(tensor.offset + stored <= gguf.files()[tensor.file].len);
            }
            let _ = tokenizer::load(gguf.metadata());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
