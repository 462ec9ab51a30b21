//! Sums of squares over the inputs of projections.

use crate::adapters::{Place, Projection};
use exsa_models::Architecture;
use std::collections::BTreeMap;

/// Sums over the rows that a model's projections had as inputs.
#[derive(Debug, Default)]
pub(crate) struct InputSums {
    /// By layer and projection; the output is behind the last layer.
    sums: BTreeMap<(usize, u8), PlaceSums>,
    /// Column sums of the rows that are added.
    columns: Vec<f64>,
}

/// Sums of one projection.
#[derive(Debug)]
pub(crate) struct PlaceSums {
    /// The projection.
    pub place: Place,
    /// Sum of squares of each column.
    pub squares: Vec<f64>,
    /// Rows of the sums.
    pub rows: u64,
}

impl InputSums {
    /// Adds the rows `x`, `[rows, k]`, which are the inputs of each of `places`.
    pub fn add<const N: usize>(&mut self, places: [Place; N], x: &[f32], k: usize) {
        self.columns.clear();
        self.columns.resize(k, 0.0);
        for row in x.chunks_exact(k) {
            for (sum, x) in self.columns.iter_mut().zip(row) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        for place in places {
            let sums = self.sums.entry(key(place)).or_insert_with(|| PlaceSums {
                place,
                squares: vec![0.0; k],
                rows: 0,
            });
            sums.squares.iter_mut().zip(&self.columns).for_each(|(sum, column)| *sum += column);
            sums.rows += (x.len() / k) as u64;
        }
    }

    /// The sums of all projections that had inputs, by layer.
    pub fn iter(&self) -> impl Iterator<Item = &PlaceSums> {
        self.sums.values()
    }
}

fn key(place: Place) -> (usize, u8) {
    match place {
        Place::Layer(layer, projection) => (layer, projection as u8),
        Place::Output => (usize::MAX, 0),
    }
}

/// Name of the weight at `place` in files of an architecture.
pub(crate) fn weight_name(place: Place, architecture: &Architecture) -> String {
    let Place::Layer(layer, projection) = place else { return "output.weight".to_owned() };
    let part = match projection {
        Projection::Query if architecture.fused_qkv => "attn_qkv",
        Projection::Query => "attn_q",
        Projection::Key => "attn_k",
        Projection::Value => "attn_v",
        Projection::AttentionOutput => "attn_output",
        Projection::Gate => "ffn_gate",
        Projection::Up => "ffn_up",
        Projection::Down => "ffn_down",
    };
    format!("blk.{layer}.{part}.weight")
}
