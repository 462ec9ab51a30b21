//! Files of hybrid models that are damaged or not supported.

use super::support::edit_of;
use super::{refuse, says};
use exsa_core::gguf::{Array, Value};

fn heads(heads: &[u32]) -> Value {
    Value::Array(Array::U32(heads.to_vec()))
}

#[test]
fn layers_without_attention() {
    let with = |value| edit_of("lfm2-f32").set("lfm2.attention.head_count_kv", value);
    for value in [heads(&[0, 0, 0, 0]), heads(&[0, 0, 2, 4]), heads(&[0, 0, 3, 0]), heads(&[0, 0, 8, 0])] {
        says(&refuse(&with(value)), &["head_count_kv"]);
    }
    says(&refuse(&with(heads(&[0, 0, 2]))), &["head_count_kv", "3 elements", "block_count"]);
    // Attention where the file has a convolution.
    says(&refuse(&with(heads(&[2, 0, 2, 0]))), &["blk.0.attn_q.weight", "missing"]);
    says(&refuse(&with(Value::U32(2))), &["blk.0.attn_q.weight", "missing"]);
}

#[test]
fn sizes_of_convolutions() {
    let with = |value| edit_of("lfm2-f32").set("lfm2.shortconv.l_cache", Value::U32(value));
    for value in [0, 1, 65, u32::MAX] {
        says(&refuse(&with(value)), &["shortconv.l_cache", "2 to 64"]);
    }
    says(&refuse(&with(3)), &["blk.0.shortconv.conv.weight", "[4, 48]", "[3, 48]"]);
    says(&refuse(&edit_of("lfm2-f32").without("lfm2.shortconv.l_cache")), &["shortconv.l_cache"]);
}

#[test]
fn sizes_of_delta_nets() {
    let with = |key: &str, value| edit_of("qwen35-f32").set(&format!("qwen35.{key}"), Value::U32(value));
    for (key, value, said) in [
        ("ssm.state_size", 0, "1 to 256"),
        ("ssm.state_size", 257, "1 to 256"),
        ("ssm.state_size", 4, "16"),
        ("ssm.group_count", 0, "1 to"),
        ("ssm.group_count", 3, "multiples of ssm.group_count"),
        ("ssm.time_step_rank", u32::MAX, "1 to"),
        ("ssm.inner_size", 31, "32"),
        ("ssm.conv_kernel", 1, "2 to 64"),
        ("full_attention_interval", 0, "1 to"),
        ("full_attention_interval", 5, "attention in at least one layer"),
        ("full_attention_interval", 2, "blk.1."),
    ] {
        says(&refuse(&with(key, value)), &[said]);
    }
    let layers = Value::Array(Array::Bool(vec![true; 3]));
    let edit = edit_of("qwen35-f32").set("qwen35.attention.recurrent_layers", layers);
    says(&refuse(&edit), &["recurrent_layers", "3 values", "4 values"]);
    let sections = Value::Array(Array::I32(vec![1, 1, 1, 1]));
    let edit = edit_of("qwen35-f32").set("qwen35.rope.dimension_sections", sections);
    says(&refuse(&edit), &["sections of positions"]);
}
