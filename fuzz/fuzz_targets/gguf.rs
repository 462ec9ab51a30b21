//! The GGUF reader on any bytes: no panic, no overflow, no large allocation; what it accepts is sound.
#![no_main]

use exsa_core::gguf::Gguf;
use exsa_core::model_info::ModelInfo;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|bytes: &[u8]| {
    let gguf = match Gguf::read(&mut Cursor::new(bytes)) {
        Ok(gguf) => gguf,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(gguf.file_len(), bytes.len() as u64);
    let mut spans = Vec::new();
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        assert!(tensor.elements() > 0 && tensor.offset >= gguf.data_offset());
        spans.push((tensor.offset, tensor.offset + tensor.bytes));
    }
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    assert!(spans.last().is_none_or(|span| span.1 <= gguf.file_len()));
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        assert!(metadata.get_value(key).is_some());
        let _ = value.type_name();
        let _ = metadata.get::<u32>(key);
        let _ = metadata.get::<f32>(key);
        let _ = metadata.get::<&str>(key);
        let _ = metadata.get::<Vec<i32>>(key);
        let _ = metadata.get::<&[String]>(key);
    }
    if let Ok(info) = ModelInfo::from_gguf(&gguf) {
        assert!(!info.summary().is_empty());
    }
});
