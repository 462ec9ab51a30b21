//! Checks of heads and attention.

use super::rig::{Rig, word};
use crate::device::{Device, DeviceError};
use crate::kernel::KvElement;
use crate::kernel::launch::{At, AttentionKernels};
use crate::kernel::params::{
    AttendParams, CombineParams, HEADS_INTERLEAVED, HEADS_KEY_NORM, HEADS_QUERY_NORM, HeadsParams,
};
use crate::session::angle_table;
use exsa_models::RopeFrequencies;

const BLOCK_TOKENS: usize = 32;
const LIMIT: f64 = 5e-6;

pub(super) fn check<D: Device>(rig: &mut Rig<'_, D>, element: KvElement) -> Result<(), DeviceError> {
    for flags in [0, HEADS_INTERLEAVED, HEADS_QUERY_NORM | HEADS_KEY_NORM] {
        heads(rig, element, flags)?;
    }
    // Widths of each kernel, one head and several for each head of keys, windows, splits and caps.
    let shape = Shape { dim: 20, kv_heads: 3, group: 1, window: 0, splits: 1, softcap: 0.0, rows_max: 1 };
    attend(rig, element, shape)?;
    attend(rig, element, Shape { dim: 64, kv_heads: 2, group: 6, splits: 3, ..shape })?;
    attend(rig, element, Shape { dim: 80, kv_heads: 1, group: 4, window: 37, softcap: 20.0, ..shape })?;
    attend(rig, element, Shape { dim: 256, kv_heads: 1, group: 2, window: 50, splits: 4, ..shape })?;
    // Views of several rows.
    attend(rig, element, Shape { dim: 20, window: 33, rows_max: 8, ..shape })?;
    attend(rig, element, Shape { dim: 128, kv_heads: 2, group: 5, rows_max: 2, ..shape })
}

/// Values as the cache keeps them, and their bytes.
fn rounded(element: KvElement, values: &[f32]) -> (Vec<f32>, Vec<u8>) {
    match element {
        KvElement::F32 => (values.to_vec(), values.iter().flat_map(|v| v.to_ne_bytes()).collect()),
        KvElement::F16 => {
            let halves: Vec<half::f16> = values.iter().map(|v| half::f16::from_f32(*v)).collect();
            let bytes = halves.iter().flat_map(|v| v.to_ne_bytes()).collect();
            (halves.iter().map(|v| v.to_f32()).collect(), bytes)
        }
    }
}

/// Values of a cache.
fn cached<D: Device>(
    rig: &mut Rig<'_, D>,
    element: KvElement,
    buffer: &D::Buffer,
    n: usize,
) -> Result<Vec<f32>, DeviceError> {
    let words = rig.read_words(buffer, (n * element.bytes()).div_ceil(4))?;
    Ok(match element {
        KvElement::F32 => words.iter().map(|word| f32::from_bits(*word)).collect(),
        KvElement::F16 => words
            .iter()
            .flat_map(|word| [*word as u16, (*word >> 16) as u16])
            .map(|bits| half::f16::from_bits(bits).to_f32())
            .collect(),
    })
}

fn heads<D: Device>(rig: &mut Rig<'_, D>, element: KvElement, flags: u32) -> Result<(), DeviceError> {
    let (rows, kv_heads) = (rig.number(1..=3), rig.number(1..=3));
    let (n_head, dim) = (kv_heads * rig.number(1..=3), 2 * rig.number(9..=40));
    let pairs = dim / 2 - rig.number(0..=5);
    let all = n_head + 2 * kv_heads;
    let radians = (0..pairs).map(|i| 100f64.powf(-(i as f64) / pairs as f64)).collect();
    let frequencies = RopeFrequencies { radians, magnitude: 1.25 };
    let context = 5000;
    let x = rig.floats(rows * all * dim);
    let (query_norm, key_norm) = (rig.floats(dim), rig.floats(dim));
    let positions: Vec<u32> = (0..rows).map(|_| word(rig.number(0..=context - 1))).collect();
    let blocks = 3;
    let slots: Vec<u32> = (0..rows).map(|i| word(i * 37 % (blocks * BLOCK_TOKENS))).collect();
    let cache = blocks * kv_heads * BLOCK_TOKENS * dim;
    let kernels = AttentionKernels::new(rig.device, element, word(dim))?;
    let buffers = [
        rig.guarded(&x)?,
        rig.upload(&query_norm)?,
        rig.upload(&key_norm)?,
        rig.bytes(&angle_table(&frequencies, context))?,
        rig.upload_words(&positions)?,
        rig.upload_words(&slots)?,
        rig.upload(&vec![0.0; cache])?,
        rig.upload(&vec![0.0; cache])?,
    ];
    let params = HeadsParams {
        heads: word(n_head),
        kv_heads: word(kv_heads),
        dim: word(dim),
        pairs: word(pairs),
        flags,
        epsilon: 1e-6,
    };
    kernels.heads(&mut rig.stream, buffers.each_ref().map(|buffer| At(buffer, 0)), rows, params)?;

    let got = rig.read(&buffers[0], rows * all * dim)?;
    let keys = cached(rig, element, &buffers[6], cache)?;
    let values = cached(rig, element, &buffers[7], cache)?;
    let (mut queries, mut kept) = (Vec::new(), Vec::new());
    let (mut expected_queries, mut expected_kept) = (Vec::new(), Vec::new());
    for (row, (position, slot)) in positions.iter().zip(&slots).enumerate() {
        for head in 0..all {
            let at = (row * all + head) * dim;
            let is_key = (n_head..n_head + kv_heads).contains(&head);
            let norm = match (head < n_head, is_key) {
                (true, _) if flags & HEADS_QUERY_NORM != 0 => Some(query_norm.as_slice()),
                (_, true) if flags & HEADS_KEY_NORM != 0 => Some(key_norm.as_slice()),
                _ => None,
            };
            let mut vector: Vec<f64> = x[at..at + dim].iter().map(|x| f64::from(*x)).collect();
            if let Some(norm) = norm {
                let mean = vector.iter().map(|x| x * x).sum::<f64>() / dim as f64;
                let scale = 1.0 / (mean + 1e-6).sqrt();
                vector.iter_mut().zip(norm).for_each(|(x, w)| *x *= scale * f64::from(*w));
            }
            if head < n_head + kv_heads {
                rotate(&mut vector, &frequencies, *position, flags & HEADS_INTERLEAVED != 0);
            }
            if head < n_head {
                queries.extend_from_slice(&got[at..at + dim]);
                expected_queries.extend(vector.into_iter().map(|x| (x, 1.0 + x.abs())));
            } else {
                let (slot, kv_head) = (*slot as usize, (head - n_head) % kv_heads);
                let place = (slot / BLOCK_TOKENS * kv_heads + kv_head) * BLOCK_TOKENS + slot % BLOCK_TOKENS;
                let cache = if is_key { &keys } else { &values };
                kept.extend_from_slice(&cache[place * dim..][..dim]);
                expected_kept.extend(vector.into_iter().map(|x| (x, 1.0 + x.abs())));
            }
        }
    }
    let name = format!("heads_{} {rows} x {n_head}/{kv_heads} x {dim}, flags {flags}", element.name());
    rig.compare(format!("{name}: queries"), &queries, expected_queries, LIMIT);
    let limit = if element == KvElement::F16 { 5e-4 } else { LIMIT };
    rig.compare(format!("{name}: keys and values"), &kept, expected_kept, limit);
    Ok(())
}

/// RoPE in f64.
fn rotate(vector: &mut [f64], frequencies: &RopeFrequencies, position: u32, interleaved: bool) {
    let pairs = frequencies.radians.len();
    for (i, frequency) in frequencies.radians.iter().enumerate() {
        let (first, second) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
        let (sine, cosine) = (f64::from(position) * frequency).sin_cos();
        let (a, b) = (vector[first] * frequencies.magnitude, vector[second] * frequencies.magnitude);
        vector[first] = a * cosine - b * sine;
        vector[second] = a * sine + b * cosine;
    }
}

#[derive(Clone, Copy)]
struct Shape {
    dim: usize,
    kv_heads: usize,
    /// Heads of queries for each head of keys and values.
    group: usize,
    window: usize,
    splits: usize,
    softcap: f32,
    /// Rows of a view at most.
    rows_max: usize,
}

fn attend<D: Device>(rig: &mut Rig<'_, D>, element: KvElement, shape: Shape) -> Result<(), DeviceError> {
    let Shape { dim, kv_heads, group, window, splits, softcap, rows_max } = shape;
    let (n_views, n_head) = (rig.number(2..=3), kv_heads * group);
    let counts: Vec<usize> = (0..n_views).map(|_| rig.number(1..=rows_max)).collect();
    let rows: usize = counts.iter().sum();
    let stride = (n_head + 2 * kv_heads) * dim;
    let lengths: Vec<usize> =
        (0..n_views).map(|view| if view == 0 { 1 } else { rig.number(2..=150) }).collect();
    let n_blocks = 9;
    let x = rig.floats(rows * stride);
    let n = n_blocks * kv_heads * BLOCK_TOKENS * dim;
    let ((keys, key_bytes), (values, value_bytes)) =
        (rounded(element, &rig.floats(n)), rounded(element, &rig.floats(n)));
    // Views in another order than the queries, tables anywhere among the blocks.
    let (mut tables, mut views, mut out_row) = (Vec::new(), Vec::new(), 0);
    for (length, n) in lengths.iter().zip(&counts) {
        views.extend([rows - out_row - n, tables.len(), *length, *n, out_row].map(word));
        out_row += n;
        for _ in 0..(length + n - 1).div_ceil(BLOCK_TOKENS) {
            tables.push(word(rig.number(0..=n_blocks - 1)));
        }
    }
    let kernels = AttentionKernels::new(rig.device, element, word(dim))?;
    let parts = rig.output(n_views * n_head * splits * (dim + 2))?;
    let out = rig.output(rows * n_head * dim)?;
    let buffers = [
        rig.upload(&x)?,
        rig.bytes(&key_bytes)?,
        rig.bytes(&value_bytes)?,
        rig.upload_words(&tables)?,
        rig.upload_words(&views)?,
    ];
    let scale = 1.0 / (dim as f32).sqrt();
    let params = AttendParams {
        heads: word(n_head),
        kv_heads: word(kv_heads),
        dim: word(dim),
        stride: word(stride),
        window: word(window),
        splits: word(splits),
        scale,
        softcap,
    };
    let [xs, ks, vs, ts, views_at] = buffers.each_ref().map(|buffer| At(buffer, 0));
    let to = if splits == 1 { &out } else { &parts };
    kernels.attend(
        &mut rig.stream,
        [xs, ks, vs, ts, views_at, At(to, 0)],
        (n_views, rows_max == 1),
        params,
    )?;
    if splits > 1 {
        let kernels = rig.kernels(&[])?;
        let params = CombineParams { heads: word(n_head), dim: word(dim), splits: word(splits) };
        kernels.combine(&mut rig.stream, [At(&parts, 0), views_at, At(&out, 0)], n_views, params)?;
    }
    let got = rig.read(&out, rows * n_head * dim)?;
    let mut expected = Vec::new();
    let row_of = |view: usize| (0..counts[view]).map(move |row| (view, row));
    for (view, row) in (0..n_views).flat_map(row_of) {
        let view = &views[5 * view..][..5];
        let (length, x_row) = (view[2] as usize + row, view[0] as usize + row);
        let table = &tables[view[1] as usize..];
        let start = if window > 0 { length.saturating_sub(window) } else { 0 };
        for head in 0..n_head {
            let query = &x[x_row * stride + head * dim..][..dim];
            let place = |token: usize| {
                let block = table[token / BLOCK_TOKENS] as usize;
                ((block * kv_heads + head / group) * BLOCK_TOKENS + token % BLOCK_TOKENS) * dim
            };
            let scores: Vec<f64> = (start..length)
                .map(|token| {
                    let key = &keys[place(token)..][..dim];
                    let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    let (score, cap) = (dot * f64::from(scale), f64::from(softcap));
                    if softcap > 0.0 { cap * (score / cap).tanh() } else { score }
                })
                .collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dim {
                let sum =
                    weights.iter().zip(start..).map(|(w, token)| w * f64::from(values[place(token) + d]));
                expected.push((sum.sum::<f64>() / total, 1.0));
            }
        }
    }
    let name = format!(
        "attend_{} {rows} rows in {n_views} views x {n_head}/{kv_heads} x {dim}, window {window}, {splits} splits",
        element.name()
    );
    rig.compare(name, &got, expected, LIMIT);
    Ok(())
}

/// Splits of which some saw no token.
pub(super) fn check_combine<D: Device>(rig: &mut Rig<'_, D>) -> Result<(), DeviceError> {
    let (rows, heads, splits, dim) = (rig.number(1..=3), rig.number(1..=3), rig.number(2..=5), 72);
    let width = dim + 2;
    let mut parts = rig.floats(rows * heads * splits * width);
    for (i, part) in parts.chunks_mut(width).enumerate() {
        part[dim + 1] = 1.0 + part[dim + 1].abs();
        if i % splits == 1 {
            part[..dim].fill(0.0);
            (part[dim], part[dim + 1]) = (-3.0e38, 0.0);
        }
    }
    let kernels = rig.kernels(&[])?;
    let (from, to) = (rig.upload(&parts)?, rig.output(rows * heads * dim)?);
    let params = CombineParams { heads: word(heads), dim: word(dim), splits: word(splits) };
    // Rows of the output in the opposite order.
    let views: Vec<u32> = (0..rows).flat_map(|row| [0, 0, 0, 1, word(rows - 1 - row)]).collect();
    let views = rig.upload_words(&views)?;
    kernels.combine(&mut rig.stream, [At(&from, 0), At(&views, 0), At(&to, 0)], rows, params)?;
    let got = rig.read(&to, rows * heads * dim)?;
    let mut expected = Vec::new();
    for at in (0..rows).rev().flat_map(|row| row * heads..(row + 1) * heads) {
        let parts = &parts[at * splits * width..][..splits * width];
        let of = |part: &[f32], i: usize| f64::from(part[i]);
        let top = parts.chunks(width).map(|part| of(part, dim)).fold(f64::MIN, f64::max);
        let fade = |part: &[f32]| (of(part, dim) - top).exp();
        let total: f64 = parts.chunks(width).map(|part| fade(part) * of(part, dim + 1)).sum();
        for d in 0..dim {
            let sum: f64 = parts.chunks(width).map(|part| fade(part) * of(part, d)).sum();
            expected.push((sum / total, 1.0));
        }
    }
    rig.compare(format!("combine {rows} x {heads} x {splits} x {dim}"), &got, expected, LIMIT);
    Ok(())
}
