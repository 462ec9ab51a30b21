//! Metadata of the host in llama.cpp's form.

use exsa_core::error::LoadError;
use exsa_core::model_file::{MetadataOverride, OverrideValue};
use llama_cpp_sys_2 as sys;
use std::ffi::c_char;

/// `overrides`, with the entry behind them that ends the list.
pub(super) fn kv_overrides(
    overrides: &[MetadataOverride],
) -> Result<Vec<sys::llama_model_kv_override>, LoadError> {
    let mut list = overrides.iter().map(kv_override).collect::<Result<Vec<_>, _>>()?;
    list.push(empty());
    Ok(list)
}

/// An entry without a key, which ends a list.
fn empty() -> sys::llama_model_kv_override {
    sys::llama_model_kv_override {
        tag: sys::LLAMA_KV_OVERRIDE_TYPE_INT,
        key: [0; 128],
        __bindgen_anon_1: sys::llama_model_kv_override__bindgen_ty_1 { val_i64: 0 },
    }
}

fn kv_override(item: &MetadataOverride) -> Result<sys::llama_model_kv_override, LoadError> {
    let mut entry = empty();
    let refuse = || LoadError::Option {
        option: "metadata_override",
        problem: format!("{item}: keys and texts of up to 127 bytes without NUL are allowed"),
    };
    put(&item.key, &mut entry.key).ok_or_else(refuse)?;
    match &item.value {
        OverrideValue::Int(value) => entry.__bindgen_anon_1.val_i64 = *value,
        OverrideValue::Float(value) => {
            entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_FLOAT;
            entry.__bindgen_anon_1.val_f64 = *value;
        }
        OverrideValue::Bool(value) => {
            entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_BOOL;
            entry.__bindgen_anon_1.val_bool = *value;
        }
        OverrideValue::Str(text) => {
            entry.tag = sys::LLAMA_KV_OVERRIDE_TYPE_STR;
            let mut value = [0; 128];
            put(text, &mut value).ok_or_else(refuse)?;
            entry.__bindgen_anon_1.val_str = value;
        }
        _ => return Err(refuse()),
    }
    Ok(entry)
}

/// Writes `text` with a NUL behind it; `None` if it does not fit.
fn put(text: &str, out: &mut [c_char; 128]) -> Option<()> {
    if text.contains('\0') {
        return None;
    }
    let (last, rest) = out.split_last_mut()?;
    *last = 0;
    for (to, from) in rest.get_mut(..text.len())?.iter_mut().zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Some(())
}
