//! A Llama in plain Rust and float64, one token after the other, to compare hidden states with.
#![allow(dead_code)]

use exsa_conformance::edit::Edit;
use exsa_core::gguf::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

pub struct Naive {
    weights: HashMap<String, Vec<f64>>,
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_head_kv: usize,
    base: f64,
    epsilon: f64,
    /// Sums of the squared inputs of products by weight, and their number.
    pub inputs: RefCell<BTreeMap<String, (Vec<f64>, u64)>>,
}

impl Naive {
    pub fn new(edit: &Edit) -> Self {
        let number = |key: &str| match edit.get(&format!("llama.{key}")) {
            Some(Value::U32(value)) => f64::from(*value),
            Some(Value::F32(value)) => f64::from(*value),
            other => panic!("{key}: {other:?}"),
        };
        let float = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        let tensors = edit.tensors.iter();
        let weights = tensors
            .map(|tensor| (tensor.name.clone(), tensor.data.chunks_exact(4).map(float).collect()))
            .collect();
        Self {
            weights,
            n_layer: number("block_count") as usize,
            n_embd: number("embedding_length") as usize,
            n_head: number("attention.head_count") as usize,
            n_head_kv: number("attention.head_count_kv") as usize,
            base: edit.get("llama.rope.freq_base").map_or(10_000.0, |_| number("rope.freq_base")),
            epsilon: number("attention.layer_norm_rms_epsilon"),
            inputs: RefCell::default(),
        }
    }

    /// The normalized hidden states behind the last layer, one per token.
    pub fn hidden_states(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let embeddings = &self.weights["token_embd.weight"];
        let embedding = |token: &u32| embeddings[*token as usize * self.n_embd..][..self.n_embd].to_vec();
        let mut states: Vec<Vec<f64>> = tokens.iter().map(embedding).collect();
        for layer in 0..self.n_layer {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (position, state) in states.iter_mut().enumerate() {
                let normed = self.norm(state, &name("attn_norm"));
                let mut query = self.product(&normed, &name("attn_q"));
                let mut key = self.product(&normed, &name("attn_k"));
                self.rotate(&mut query, self.n_head, position);
                self.rotate(&mut key, self.n_head_kv, position);
                keys.push(key);
                values.push(self.product(&normed, &name("attn_v")));
                let attended = self.attend(&query, &keys, &values);
                add(state, &self.product(&attended, &name("attn_output")));
                let normed = self.norm(state, &name("ffn_norm"));
                let gate = self.product(&normed, &name("ffn_gate"));
                let up = self.product(&normed, &name("ffn_up"));
                let hidden: Vec<f64> =
                    gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                add(state, &self.product(&hidden, &name("ffn_down")));
            }
        }
        states.iter().map(|state| self.norm(state, "output_norm.weight")).collect()
    }

    fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + self.epsilon).sqrt();
        x.iter().zip(&self.weights[name]).map(|(x, weight)| x * scale * weight).collect()
    }

    fn product(&self, x: &[f64], name: &str) -> Vec<f64> {
        let mut inputs = self.inputs.borrow_mut();
        let (sums, count) = inputs.entry(name.to_owned()).or_insert_with(|| (vec![0.0; x.len()], 0));
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * x);
        *count += 1;
        let dot = |row: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum();
        self.weights[name].chunks_exact(x.len()).map(dot).collect()
    }

    /// RoPE on neighbouring pairs.
    fn rotate(&self, x: &mut [f64], heads: usize, position: usize) {
        let head_dim = x.len() / heads;
        for head in x.chunks_exact_mut(head_dim) {
            for (i, pair) in head.chunks_exact_mut(2).enumerate() {
                let angle = position as f64 / self.base.powf(2.0 * i as f64 / head_dim as f64);
                let (sin, cos) = angle.sin_cos();
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
            }
        }
    }

    /// Attention of one token to those up to it.
    fn attend(&self, query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
        let head_dim = query.len() / self.n_head;
        let mut out = vec![0.0; query.len()];
        for head in 0..self.n_head {
            let kv = head * self.n_head_kv / self.n_head * head_dim;
            let query = &query[head * head_dim..][..head_dim];
            let score = |key: &Vec<f64>| {
                let dot: f64 = query.iter().zip(&key[kv..]).map(|(a, b)| a * b).sum();
                (dot / (head_dim as f64).sqrt()).exp()
            };
            let scores: Vec<f64> = keys.iter().map(score).collect();
            let sum: f64 = scores.iter().sum();
            for (score, value) in scores.iter().zip(values) {
                let out = &mut out[head * head_dim..][..head_dim];
                out.iter_mut().zip(&value[kv..]).for_each(|(out, value)| *out += score / sum * value);
            }
        }
        out
    }
}

fn add(state: &mut [f64], more: &[f64]) {
    state.iter_mut().zip(more).for_each(|(x, more)| *x += more);
}
