//! Mixtures of experts: forms of files that are the same model, and files that are refused.

use super::support::{data, edit_of, load};
use super::{logits, refuse, says};
use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::{Edit, Tensor};
use exsa_conformance::harness::worst;
use exsa_core::gguf::{GgmlType, Value};

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn of(edit: &Edit) -> Vec<Vec<f32>> {
    logits(&edit.load(&CandleBackend::new()).unwrap())
}

/// Gates and values of all experts in one tensor are the same model, to the bit.
#[test]
fn fused_gates() {
    let mut edit = edit_of("qwen3moe-f32");
    let expected = of(&edit);
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}_exps.weight");
        let (gate, up) =
            (edit.tensor(&name("gate")).unwrap().clone(), edit.tensor(&name("up")).unwrap().clone());
        let len = gate.data.len() / gate.shape[2] as usize;
        let pairs = gate.data.chunks_exact(len).zip(up.data.chunks_exact(len));
        let data = pairs.flat_map(|(gate, up)| [gate, up].concat()).collect();
        let shape = vec![gate.shape[0], 2 * gate.shape[1], gate.shape[2]];
        edit.tensors.push(Tensor { name: name("gate_up"), shape, dtype: gate.dtype, data });
        edit = edit.without_tensor(&name("gate")).without_tensor(&name("up"));
    }
    assert!(of(&edit) == expected);
}

/// Experts of a type without a kernel of its own are multiplied in f32.
#[test]
fn experts_of_slow_types() {
    for (name, slow) in [("qwen2moe-f32", "_exps.weight"), ("gpt-oss-f32", "ffn_up_exps.weight")] {
        let mut edit = edit_of(name);
        let expected = of(&edit);
        for tensor in edit.tensors.iter_mut().filter(|tensor| tensor.name.ends_with(slow)) {
            tensor.data = floats(tensor).iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
            tensor.dtype = GgmlType::F64;
        }
        let scale = expected.iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
        for (found, expected) in of(&edit).iter().zip(&expected) {
            assert!(worst(found, expected) < 1e-5 * scale, "{name}");
        }
    }
}

/// Layers that predict more tokens are left out, whatever they hold.
#[test]
fn layers_that_predict_more_tokens() {
    let expected = of(&edit_of("glm4moe-f32"));
    let edit = edit_of("glm4moe-f32")
        .set("glm4moe.block_count", Value::U32(3))
        .set("glm4moe.nextn_predict_layers", Value::U32(1))
        .add_f32("blk.2.nextn.enorm.weight", &[3], &[1.0; 3]);
    assert!(of(&edit) == expected);
    says(
        &refuse(&edit.set("glm4moe.nextn_predict_layers", Value::U32(3))),
        &["nextn_predict_layers", "0 to 2"],
    );
    let other = edit_of("qwen3moe-f32").set("qwen3moe.nextn_predict_layers", Value::U32(1));
    says(&refuse(&other), &["predict more tokens"]);
}

/// The bias for the choice is no part of what ERNIE must have, and makes a difference.
#[test]
fn a_bias_for_the_choice() {
    let edit = edit_of("ernie4_5-moe-f32");
    let expected = of(&edit);
    assert!(of(&edit.clone().without_tensor("blk.1.exp_probs_b.bias")) != expected);
    let shifted = edit.change("blk.1.exp_probs_b.bias", |tensor| {
        let values: Vec<f32> = floats(tensor);
        tensor.data = values.iter().flat_map(|x| (x + 0.5).to_le_bytes()).collect();
    });
    let scale = expected.iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
    for (found, expected) in of(&shifted).iter().zip(&expected) {
        assert!(worst(found, expected) < 1e-6 * scale, "the same for all experts changes nothing");
    }
}

#[test]
fn metadata_that_do_not_fit() {
    for (name, key, value, words) in [
        ("qwen3moe", "expert_used_count", Value::U32(10), ["expert_used_count = 10", "1 to 9"]),
        ("qwen3moe", "expert_used_count", Value::U32(0), ["expert_used_count = 0", "1 to 9"]),
        ("qwen3moe", "expert_count", Value::U32(1), ["expert_count", "2 or more"]),
        ("qwen3moe", "expert_count", Value::U32(1 << 20), ["expert_count", "0 to 4096"]),
        ("qwen3moe", "expert_count", Value::U32(8), ["blk.0.ffn_gate_inp.weight", "[32, 8] is expected"]),
        ("qwen3moe", "expert_feed_forward_length", Value::U32(25), ["ffn_gate_exps", "[32, 25, 9]"]),
        ("qwen2moe", "expert_shared_feed_forward_length", Value::U32(41), ["ffn_gate_shexp", "[32, 41]"]),
        ("glm4moe", "expert_weights_scale", Value::F32(f32::NAN), ["expert_weights_scale", "found NaN"]),
        ("glm4moe", "expert_weights_scale", Value::F32(-1.0), ["expert_weights_scale = -1", "0.000001"]),
        (
            "glm4moe",
            "expert_group_count",
            Value::U32(3),
            ["expert_group_count = 3", "divisors of expert_count"],
        ),
        ("glm4moe", "expert_group_count", Value::U32(8), ["expert_group_count = 8", "up to half"]),
        ("glm4moe", "expert_group_used_count", Value::U32(5), ["expert_group_used_count = 5", "1 to 4"]),
        ("glm4moe", "expert_group_used_count", Value::U32(1), ["groups of 2 experts", "the 3 of a token"]),
        ("glm4moe", "expert_gating_func", Value::U32(4), ["expert_gating_func = 4", "2 (sigmoid)"]),
        ("glm4moe", "leading_dense_block_count", Value::U32(3), ["leading_dense_block_count = 3", "0 to 2"]),
        ("glm4moe", "expert_shared_count", Value::U32(1 << 20), ["expert_shared_count", "0 to 1024"]),
        ("ernie4_5-moe", "interleave_moe_layer_step", Value::U32(2), ["interleave_moe_layer_step = 2", "1"]),
        ("gpt-oss", "expert_count", Value::Str("4".into()), ["gpt-oss.expert_count", ""]),
    ] {
        let edit = edit_of(&format!("{name}-f32")).set(&format!("{name}.{key}"), value);
        says(&refuse(&edit), &words);
    }
}

#[test]
fn tensors_that_do_not_fit() {
    let edit = edit_of("qwen3moe-f32");
    let shaped = |name: &str, shape: &[u64]| {
        let values = vec![0.0; shape.iter().product::<u64>() as usize];
        edit.clone().without_tensor(name).add_f32(name, shape, &values)
    };
    let router = "blk.1.ffn_gate_inp.weight";
    for shape in [[9, 32].as_slice(), &[32], &[32, 9, 1]] {
        says(&refuse(&shaped(router, shape)), &[router, "[32, 9] is expected"]);
    }
    let experts = "blk.1.ffn_down_exps.weight";
    for shape in [[24, 32, 8].as_slice(), &[24, 32 * 9], &[32, 24, 9]] {
        says(&refuse(&shaped(experts, shape)), &[experts, "[24, 32, 9] is expected"]);
    }
    let one_each = edit.clone().add_f32("blk.0.ffn_gate.0.weight", &[32, 24], &[0.0; 32 * 24]);
    says(&refuse(&one_each), &["blk.0.ffn_gate.0.weight", "ffn_gate_exps", "one tensor"]);
    let scaled = edit.clone().add_f32("blk.0.ffn_up_exps.scale", &[9], &[1.0; 9]);
    says(&refuse(&scaled), &["blk.0.ffn_up_exps.scale", "scales beside the weights"]);
    let dense = edit.clone().add_f32("blk.0.ffn_up.weight", &[32, 96], &[0.0; 32 * 96]);
    says(&refuse(&dense), &["blk.0.ffn_up.weight", "no such tensor"]);
    let bias = edit_of("gpt-oss-f32").change("blk.0.ffn_up_exps.bias", |tensor| tensor.shape.reverse());
    says(&refuse(&bias), &["blk.0.ffn_up_exps.bias", "[24, 4] is expected"]);
    let sinks = edit_of("gpt-oss-f32").without_tensor("blk.1.attn_sinks.weight");
    says(&refuse(&sinks), &["blk.1.attn_sinks.weight", "missing"]);
}

/// A router that gives no numbers gives logits that are none, and no panic.
#[test]
fn routers_that_give_no_numbers() {
    for name in ["qwen3moe-f32", "glm4moe-f32", "gpt-oss-f32"] {
        let edit = edit_of(name).change("blk.1.ffn_gate_inp.weight", |tensor| {
            tensor.data = f32::NAN.to_le_bytes().repeat(tensor.data.len() / 4);
        });
        assert!(of(&edit).iter().flatten().all(|logit| logit.is_nan()), "{name}");
    }
    // A model with experts among its layers is the one that the file holds.
    assert!(logits(&load(data("glm4moe-f32.gguf"))).iter().flatten().all(|logit| logit.is_finite()));
}
