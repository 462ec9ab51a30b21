//! Element types of the KV cache.

use crate::options::FlashAttention;
use exsa_core::backend::{KvType, SessionOptions};
use exsa_core::error::LoadError;

/// Element types of a session's KV cache, each of them one that llama.cpp has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KvTypes {
    pub keys: KvType,
    pub values: KvType,
}

impl KvTypes {
    /// The types of a session with `options`. Quantized values need flash attention.
    pub fn of(options: &SessionOptions, flash_attention: FlashAttention) -> Result<Self, LoadError> {
        let types = Self {
            keys: options.key_type.unwrap_or_default(),
            values: options.value_type.unwrap_or_default(),
        };
        for (option, kv_type) in [("key_type", types.keys), ("value_type", types.values)] {
            if bytes_of_32(kv_type).is_none() {
                let known = KvType::ALL.map(KvType::name).join(", ");
                let problem = format!("{kv_type}, but llama.cpp has {known}");
                return Err(LoadError::Option { option, problem });
            }
        }
        let quantized = matches!(types.values, KvType::Q8_0 | KvType::Q4_0);
        if quantized && flash_attention == FlashAttention::Off {
            let problem = format!("values in {} need flash attention, which is off", types.values);
            return Err(LoadError::Option { option: "value_type", problem });
        }
        Ok(types)
    }

    /// Bytes of `cells` cells of a model whose KV takes `f16_bytes` bytes per token in f16, half of them keys.
    pub fn bytes(self, f16_bytes: u64, cells: usize) -> u64 {
        let of = |kv_type| bytes_of_32(kv_type).unwrap_or(F32_BYTES);
        let per_pair = u128::from(of(self.keys) + of(self.values));
        let bytes = u128::from(f16_bytes) * per_pair * cells as u128 / 128;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Bytes of 32 values in f32.
const F32_BYTES: u64 = 128;

/// Bytes of 32 values; `None` for types that llama.cpp does not have.
fn bytes_of_32(kv_type: KvType) -> Option<u64> {
    match kv_type {
        KvType::F32 => Some(F32_BYTES),
        KvType::F16 | KvType::Bf16 => Some(64),
        // One block: a scale in f16 and 32 integers.
        KvType::Q8_0 => Some(34),
        KvType::Q4_0 => Some(18),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_core_is_known() {
        for kv_type in KvType::ALL {
            let types = KvTypes::of(&SessionOptions::new().kv_type(kv_type), FlashAttention::Auto).unwrap();
            assert_eq!((types.keys, types.values), (kv_type, kv_type));
        }
        let default = KvTypes::of(&SessionOptions::new(), FlashAttention::Off).unwrap();
        assert_eq!(default, KvTypes { keys: KvType::F16, values: KvType::F16 });
        assert_eq!(default.bytes(1000, 3), 3000);
        let mixed = KvTypes { keys: KvType::Q8_0, values: KvType::Q4_0 };
        assert_eq!(mixed.bytes(1280, 2), 1280 * 2 * 52 / 128);
    }

    #[test]
    fn quantized_values_need_flash_attention() {
        let of =
            |keys, values| KvTypes::of(&SessionOptions::new().kv_types(keys, values), FlashAttention::Off);
        assert!(of(KvType::Q8_0, KvType::F16).is_ok());
        let error = of(KvType::F16, KvType::Q4_0).unwrap_err().to_string();
        assert!(error.contains("value_type") && error.contains("q4_0"), "{error}");
    }
}
