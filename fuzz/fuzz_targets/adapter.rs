//! Adapters on any bytes: configurations of PEFT, headers of safetensors files, adapters as GGUF. No panic,
//! no large allocation; what is accepted is sound.
#![no_main]

use exsa_core::adapter::{AdapterFile, BaseMatrix, BaseModel, Factor, PeftConfig, SafetensorsHeader};
use exsa_core::backend::ModelSource;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => match PeftConfig::from_json(bytes) {
            Ok(config) => assert_eq!(config, config.clone()),
            Err(problem) => assert!(!problem.is_empty()),
        },
        1 => match SafetensorsHeader::read(&mut Cursor::new(bytes)) {
            Ok(header) => {
                let mut end = None;
                for tensor in &header.tensors {
                    assert!(end.is_none_or(|end| end == tensor.offset));
                    end = Some(tensor.offset + tensor.bytes);
                }
                assert!(end.is_none_or(|end| end == bytes.len() as u64));
            }
            Err(problem) => assert!(!problem.is_empty()),
        },
        _ => {
            let matrix = |name: &str| match name {
                "blk.0.attn_q.weight" => Ok(BaseMatrix::new(8, 4)),
                "blk.0.ffn_down.weight" => Ok(BaseMatrix::new(32, 8)),
                _ => Err("no such tensor".to_owned()),
            };
            let base = BaseModel { architecture: "llama", n_head: 2, n_head_kv: 1, matrix: &matrix };
            let Ok(mut file) = AdapterFile::open(&ModelSource::Memory(bytes.into()), &base) else { return };
            assert!(file.rank() > 0);
            let mut values = Vec::new();
            for index in 0..file.pairs().len() {
                for factor in [Factor::A, Factor::B] {
                    if file.read(index, factor, &mut values).is_ok() {
                        assert_eq!(values.len() as u64, file.pairs()[index].tensor(factor).bytes);
                    }
                }
            }
        }
    }
});
