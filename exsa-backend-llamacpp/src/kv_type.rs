//! Element types of the KV cache.

use crate::options::FlashAttention;
use exsa_core::backend::{KvType, SessionOptions};
use exsa_core::error::LoadError;

/// Element types of a session's KV cache, as supported by llama.cpp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KvTypes {
    pub keys: KvType,
    pub values: KvType,
}

impl KvTypes {
    /// Returns the types of a session with `options`, for a model whose heads have `head_widths` keys and
    /// values. Quantized values need flash attention, and heads of whole blocks, without which llama.cpp may
    /// abort the process.
    pub fn of(
        options: &SessionOptions,
        flash_attention: FlashAttention,
        head_widths: [usize; 2],
    ) -> Result<Self, LoadError> {
        let types = Self {
            keys: options.key_type.unwrap_or_default(),
            values: options.value_type.unwrap_or_default(),
        };
        let [key_width, value_width] = head_widths;
        for (option, kv_type, width) in
            [("key_type", types.keys, key_width), ("value_type", types.values, value_width)]
        {
            if bytes_of_32(kv_type).is_none() {
                let known = KvType::ALL.map(KvType::name).join(", ");
                let problem = format!("{kv_type}, but llama.cpp has {known}");
                return Err(LoadError::Option { option, problem });
            }
            if is_quantized(kv_type) && !width.is_multiple_of(BLOCK) {
                let problem =
                    format!("{kv_type} has blocks of {BLOCK}, but this model's heads have {width} values");
                return Err(LoadError::Option { option, problem });
            }
        }
        if is_quantized(types.values) && flash_attention == FlashAttention::Off {
            let problem = format!("values in {} need flash attention, which is off", types.values);
            return Err(LoadError::Option { option: "value_type", problem });
        }
        Ok(types)
    }

    /// Bytes of `cells` cells of a model whose KV takes `f16_bytes` bytes per token in f16, half of them
    /// keys.
    pub fn bytes(self, f16_bytes: u64, cells: usize) -> u64 {
        let of = |kv_type| bytes_of_32(kv_type).unwrap_or(F32_BYTES);
        let per_pair = u128::from(of(self.keys) + of(self.values));
        let bytes = u128::from(f16_bytes) * per_pair * cells as u128 / 128;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Values in a block of a quantized type.
const BLOCK: usize = 32;

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

/// Whether values of this type are integers in blocks.
fn is_quantized(kv_type: KvType) -> bool {
    matches!(kv_type, KvType::Q8_0 | KvType::Q4_0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [usize; 2] = [64, 32];

    #[test]
    fn every_type_of_core_is_known() {
        for kv_type in KvType::ALL {
            let options = SessionOptions::new().kv_type(kv_type);
            let types = KvTypes::of(&options, FlashAttention::Auto, WHOLE).unwrap();
            assert_eq!((types.keys, types.values), (kv_type, kv_type));
        }
        let default = KvTypes::of(&SessionOptions::new(), FlashAttention::Off, [80, 80]).unwrap();
        assert_eq!(default, KvTypes { keys: KvType::F16, values: KvType::F16 });
        assert_eq!(default.bytes(1000, 3), 3000);
        let mixed = KvTypes { keys: KvType::Q8_0, values: KvType::Q4_0 };
        assert_eq!(mixed.bytes(1280, 2), 1280 * 2 * 52 / 128);
    }

    #[test]
    fn quantized_types_need_flash_attention_and_whole_blocks() {
        let of = |keys, values, widths| {
            let options = SessionOptions::new().kv_types(keys, values);
            KvTypes::of(&options, FlashAttention::Off, widths).map_err(|error| error.to_string())
        };
        let says = |result: Result<KvTypes, String>, words: [&str; 2]| {
            let error = result.unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        assert!(of(KvType::Q8_0, KvType::F16, [64, 80]).is_ok());
        says(of(KvType::F16, KvType::Q4_0, WHOLE), ["value_type", "q4_0"]);
        says(of(KvType::Q8_0, KvType::F16, [80, 64]), ["key_type", "80"]);
        says(of(KvType::F16, KvType::Q4_0, [64, 16]), ["value_type", "16"]);
    }
}
