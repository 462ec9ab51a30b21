//! Low-rank products `y += scale · B (A x)` for groups of rows, each with matrices of its own.
//!
//! Two steps of the team: first all `A x`, shared out by tiles of `A` and panels of rows, into an
//! intermediate buffer in the panels that the second step reads; then all `B (A x)`, shared out by tiles of
//! `B`. A panel of `x` is reordered by the thread that multiplies it: tiles of `A` are few, and no memory is
//! needed for it.
//!
//! Sums have the order of the other float products, and the products of a row's adapters are added to it one
//! after the other, in their order: the bits of a row depend on its own `x` and adapters alone.

use super::activations::{Line, ROWS_MAX};
use super::element::{Element, FloatType};
use super::kernel::{Ahead, BLOCK, Block};
use super::matrix::{FloatMatrix, TILE};
use super::sets;
use crate::kernels::memory::team::{Target, Team};
use crate::kernels::quantized::Isa;
use half::{bf16, f16};
use std::ops::Range;

/// Tiles of `B` that a thread multiplies with a panel at a time.
const CHUNK: usize = 8;

/// Multiplications below which other threads are left alone: sharing costs a few microseconds.
const SHARED_PRODUCTS_MIN: usize = 1 << 18;

/// The matrices of an adapter for one projection.
pub(crate) struct LowRank {
    /// `[rank, columns]`.
    a: FloatMatrix,
    /// `[rows, rank]`.
    b: FloatMatrix,
    scale: f32,
}

impl LowRank {
    /// `scale · B A`; `None` if the shapes do not fit.
    pub fn new(a: FloatMatrix, b: FloatMatrix, scale: f32) -> Option<Self> {
        (a.n == b.k).then_some(Self { a, b, scale })
    }
}

/// Rows that have the same adapters.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowGroup {
    /// Their places in the list of rows of [`LowRankProducts`].
    pub rows: Range<usize>,
    /// Places of their adapters.
    pub adapters: Range<usize>,
}

/// Operands of the low-rank products of one or more projections of the same `x`.
pub(crate) struct LowRankProducts<'a, const N: usize> {
    /// `[m, k]`.
    pub x: &'a [f32],
    /// Width of `x`.
    pub k: usize,
    /// Outputs, `[m, n]` each, and their widths.
    pub outputs: [(&'a mut [f32], usize); N],
    /// The groups; a row is in one of them at most.
    pub groups: &'a [RowGroup],
    /// Rows of all groups.
    pub rows: &'a [u32],
}

/// Products `A x` of one group, adapter and output, or the sums `B (A x)` of one group and output.
#[derive(Clone, Copy, Debug)]
struct Unit {
    /// The group.
    group: usize,
    /// Place of the adapter among those of the group.
    adapter: usize,
    /// The output.
    output: usize,
    /// Number of the unit's first item, and of the first after it.
    first: usize,
    end: usize,
    /// Offset of its intermediate values.
    start: usize,
}

/// Memory of low-rank products, sized for the largest batch.
pub(crate) struct LowRankScratch {
    /// `A x`, scaled: by unit and panel `[rank padded to tiles][rows]`.
    values: Vec<f32>,
    down: Vec<Unit>,
    up: Vec<Unit>,
    threads: Vec<ThreadScratch>,
}

/// Memory of one thread.
#[derive(Clone)]
struct ThreadScratch {
    /// A block of a panel, `[k][rows]`.
    x: Vec<f32>,
    /// Sums of a panel with up to two tiles.
    sums: [Line; ROWS_MAX * 2],
}

/// Sizes of a [`LowRankScratch`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRankSizes {
    /// Rows of a batch.
    pub rows: usize,
    /// Groups of a batch.
    pub groups: usize,
    /// Adapters of a row.
    pub adapters: usize,
    /// Rank of an adapter.
    pub rank: usize,
    /// Projections of the same `x`.
    pub outputs: usize,
    /// Threads.
    pub threads: usize,
}

impl LowRankSizes {
    fn values(&self) -> usize {
        let products = self.rows.saturating_mul(self.adapters).saturating_mul(self.outputs);
        products.saturating_mul(self.rank.next_multiple_of(TILE))
    }

    fn units(&self) -> usize {
        self.groups.saturating_mul(self.outputs)
    }

    /// Bytes of the memory; none if rows have no adapters.
    pub fn bytes(&self) -> u64 {
        if self.adapters == 0 {
            return 0;
        }
        let units = self.units().saturating_mul(self.adapters + 1).saturating_mul(size_of::<Unit>());
        let thread = size_of::<ThreadScratch>() + BLOCK * ROWS_MAX * size_of::<f32>();
        (self.values() as u64)
            .saturating_mul(size_of::<f32>() as u64)
            .saturating_add((units as u64).saturating_add((self.threads * thread) as u64))
    }
}

impl LowRankScratch {
    /// Memory of these sizes, or `None` if there is not as much.
    pub fn new(sizes: &LowRankSizes) -> Option<Self> {
        if sizes.adapters == 0 {
            return Some(Self { values: Vec::new(), down: Vec::new(), up: Vec::new(), threads: Vec::new() });
        }
        let len = sizes.values();
        Vec::<f32>::new().try_reserve_exact(len).ok()?;
        let thread = ThreadScratch { x: vec![0.0; BLOCK * ROWS_MAX], sums: [Line::default(); ROWS_MAX * 2] };
        Some(Self {
            values: vec![0.0; len],
            down: Vec::with_capacity(sizes.units().saturating_mul(sizes.adapters)),
            up: Vec::with_capacity(sizes.units()),
            threads: vec![thread; sizes.threads],
        })
    }

    /// Adds the products. `matrices` gives those of an adapter, by its place, for an output, and the
    /// request's factor on them.
    pub fn add<'m, const N: usize>(
        &mut self,
        products: LowRankProducts<'_, N>,
        matrices: impl Fn(usize, usize) -> Option<(&'m LowRank, f32)> + Sync,
        isa: Isa,
        team: &mut Team,
    ) {
        let LowRankProducts { x, k, outputs, groups, rows } = products;
        let m = x.len() / k;
        for (out, n) in &outputs {
            assert_eq!(out.len(), m * n, "the output has another shape");
        }
        let used = groups.iter().flat_map(|group| &rows[group.rows.clone()]);
        assert!(used.clone().all(|row| (*row as usize) < m), "a row past the end");
        let work = self.list_units(groups, &outputs.each_ref().map(|(_, n)| *n), k, &matrices, isa);
        let Some(last) = self.down.last() else { return };
        let outputs = outputs.map(|(out, n)| (Target(out.as_mut_ptr()), n));
        let job = Job {
            x,
            k,
            outputs: &outputs,
            groups,
            rows,
            matrices: &matrices,
            values: Target(self.values.as_mut_ptr()),
            isa,
        };
        let items = last.end;
        let grain = if work < SHARED_PRODUCTS_MIN { items } else { team.grain(items) };
        let units = &self.down;
        team.for_each_with(&mut self.threads, items, grain, |scratch, range| {
            // SAFETY: shapes and rows are checked above; each item is handed out once, and has a part of the
            // intermediate values of its own, which were sized for all units.
            each_item(units, range, |unit, item| unsafe { job.multiply_a(unit, item, scratch) });
        });
        let items = self.up.last().map_or(0, |unit| unit.end);
        let grain = if work < SHARED_PRODUCTS_MIN { items } else { team.grain(items) };
        let (down, units) = (&self.down, &self.up);
        team.for_each_with(&mut self.threads, items, grain, |scratch, range| {
            // SAFETY: as above; an item has the columns of its tiles in the rows of its group to itself.
            each_item(units, range, |unit, item| unsafe { job.multiply_b(unit, item, down, scratch) });
        });
    }

    /// Lists the units of both steps; returns the number of multiplications.
    fn list_units<'m, const N: usize>(
        &mut self,
        groups: &[RowGroup],
        widths: &[usize; N],
        k: usize,
        matrices: impl Fn(usize, usize) -> Option<(&'m LowRank, f32)>,
        isa: Isa,
    ) -> usize {
        self.down.clear();
        self.up.clear();
        let (mut down, mut up, mut start, mut work) = (0, 0, 0, 0);
        for (group, RowGroup { rows, adapters }) in groups.iter().enumerate() {
            let panels = rows.len().div_ceil(isa.floats().rows_max());
            for (output, n) in widths.iter().enumerate() {
                let before = self.down.len();
                for adapter in adapters.clone() {
                    let Some((low_rank, _)) = matrices(adapter, output) else { continue };
                    assert_eq!((low_rank.a.k, low_rank.b.n), (k, *n), "an adapter of another model");
                    let end = down + low_rank.a.tiles() * panels;
                    self.down.push(Unit { group, adapter, output, first: down, end, start });
                    down = end;
                    start += low_rank.a.tiles() * TILE * rows.len();
                    work += rows.len() * low_rank.a.n * (k + n);
                }
                if self.down.len() > before {
                    let end = up + n.div_ceil(TILE * CHUNK) * panels;
                    // The adapters of this unit are the units of the first step from here on.
                    self.up.push(Unit { group, adapter: before, output, first: up, end, start });
                    up = end;
                }
            }
        }
        assert!(start <= self.values.len(), "more adapters or larger ones than the session has memory for");
        work
    }
}

/// Calls `work` with each item of `range`, numbered inside its unit.
fn each_item(units: &[Unit], range: Range<usize>, mut work: impl FnMut(&Unit, usize)) {
    let first = units.partition_point(|unit| unit.end <= range.start);
    for unit in units[first..].iter().take_while(|unit| unit.first < range.end) {
        for item in range.start.max(unit.first)..range.end.min(unit.end) {
            work(unit, item - unit.first);
        }
    }
}

/// State shared by the threads.
struct Job<'a, M, const N: usize> {
    x: &'a [f32],
    k: usize,
    outputs: &'a [(Target<f32>, usize); N],
    groups: &'a [RowGroup],
    rows: &'a [u32],
    matrices: &'a M,
    values: Target<f32>,
    isa: Isa,
}

impl<'m, M: Fn(usize, usize) -> Option<(&'m LowRank, f32)>, const N: usize> Job<'_, M, N> {
    /// Rows of panel `panel` of a group, and the number of rows before it.
    fn panel(&self, group: usize, panel: usize) -> (&[u32], usize) {
        let rows = &self.rows[self.groups[group].rows.clone()];
        let start = panel * self.isa.floats().rows_max();
        (&rows[start..rows.len().min(start + self.isa.floats().rows_max())], start)
    }

    /// Multiplies one tile of `A` with one panel, into the intermediate values.
    ///
    /// # Safety
    ///
    /// `item` is one of the unit's, no other thread has it, and its intermediate values are there.
    unsafe fn multiply_a(&self, unit: &Unit, item: usize, scratch: &mut ThreadScratch) {
        let Some((LowRank { a, scale, .. }, factor)) = (self.matrices)(unit.adapter, unit.output) else {
            return;
        };
        let (tile, panel) = (item % a.tiles(), item / a.tiles());
        let (rows, before) = self.panel(unit.group, panel);
        for start in (0..self.k).step_by(BLOCK) {
            let len = BLOCK.min(self.k - start);
            for (r, row) in rows.iter().enumerate() {
                let row = &self.x[*row as usize * self.k + start..][..len];
                for (value, to) in row.iter().zip(scratch.x[r..].iter_mut().step_by(rows.len())) {
                    *to = *value;
                }
            }
            // SAFETY: the panel is in the scratch memory, which has room for the sums of every panel.
            unsafe {
                self.tiles(a, tile..tile + 1, start, len, scratch.x.as_ptr(), rows.len(), &mut scratch.sums)
            };
        }
        let scale = scale * factor;
        let rank = a.tiles() * TILE;
        let at = unit.start + before * rank + tile * TILE * rows.len();
        for i in 0..TILE {
            for r in 0..rows.len() {
                let sum = scratch.sums[r].0[i];
                // SAFETY: the panel's values begin at `before` rows of `rank` values; this tile has its own
                // `TILE` rows of them.
                unsafe { *self.values.at(at + i * rows.len() + r) = sum * scale };
            }
        }
    }

    /// Multiplies a chunk of tiles of `B` with one panel, for all adapters of the unit, and adds the
    /// products.
    ///
    /// # Safety
    ///
    /// `item` is one of the unit's, no other thread has it, the first step is done, and the outputs are
    /// there.
    unsafe fn multiply_b(&self, unit: &Unit, item: usize, down: &[Unit], scratch: &mut ThreadScratch) {
        let (out, n) = &self.outputs[unit.output];
        let chunks = n.div_ceil(TILE * CHUNK);
        let (chunk, panel) = (item % chunks, item / chunks);
        let (rows, before) = self.panel(unit.group, panel);
        let same = |other: &&Unit| (other.group, other.output) == (unit.group, unit.output);
        for part in down[unit.adapter..].iter().take_while(same) {
            let Some((LowRank { a, b, .. }, _)) = (self.matrices)(part.adapter, part.output) else {
                continue;
            };
            let at = part.start + before * a.tiles() * TILE;
            let end = b.tiles().min((chunk + 1) * CHUNK);
            let at_once = self.isa.floats().tiles(rows.len());
            for tile in (chunk * CHUNK..end).step_by(at_once) {
                let tiles = tile..end.min(tile + at_once);
                for start in (0..b.k).step_by(BLOCK) {
                    let len = BLOCK.min(b.k - start);
                    let x = self.values.at(at + start * rows.len()).cast_const();
                    // SAFETY: the first step wrote the panel, `[rank][rows]`, and no thread writes it now.
                    unsafe { self.tiles(b, tiles.clone(), start, len, x, rows.len(), &mut scratch.sums) };
                }
                for (t, tile) in tiles.clone().enumerate() {
                    let (column, width) = (tile * TILE, TILE.min(n - tile * TILE));
                    for (r, row) in rows.iter().enumerate() {
                        let sums = &scratch.sums[r * tiles.len() + t].0[..width];
                        // SAFETY: the output has this row, and its columns of this tile belong to this item.
                        let out = unsafe {
                            std::slice::from_raw_parts_mut(out.at(*row as usize * n + column), width)
                        };
                        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
                    }
                }
            }
        }
    }

    /// Multiplies tiles of `matrix` with a panel of `rows` rows over the block of `k` that begins at `start`;
    /// blocks after the first are added to the sums.
    ///
    /// # Safety
    ///
    /// `x` points to `len` times `rows` values.
    #[allow(clippy::too_many_arguments, reason = "the operands of one kernel")]
    unsafe fn tiles(
        &self,
        matrix: &FloatMatrix,
        tiles: Range<usize>,
        start: usize,
        len: usize,
        x: *const f32,
        rows: usize,
        sums: &mut [Line; ROWS_MAX * 2],
    ) {
        // SAFETY: passed on; the elements are those of the matrix.
        unsafe {
            match matrix.kind {
                FloatType::F32 => self.tiles_as::<f32>(matrix, tiles, start, len, x, rows, sums),
                FloatType::F16 => self.tiles_as::<f16>(matrix, tiles, start, len, x, rows, sums),
                FloatType::BF16 => self.tiles_as::<bf16>(matrix, tiles, start, len, x, rows, sums),
            }
        }
    }

    /// # Safety
    ///
    /// As of [`tiles`](Self::tiles), and `E` is the type of the matrix.
    #[allow(clippy::too_many_arguments, reason = "the operands of one kernel")]
    unsafe fn tiles_as<E: Element>(
        &self,
        matrix: &FloatMatrix,
        tiles: Range<usize>,
        start: usize,
        len: usize,
        x: *const f32,
        rows: usize,
        sums: &mut [Line; ROWS_MAX * 2],
    ) {
        let weights = matrix.at::<E>(tiles.start, start);
        let block = Block {
            weights,
            tile_stride: matrix.k * TILE,
            x,
            len,
            out: sums.as_mut_ptr().cast(),
            out_stride: tiles.len() * TILE,
            add: start > 0,
            // The next weights of the tile, or of the one after it; they may lie past the end.
            ahead: Ahead {
                at: weights.wrapping_add(len * TILE).cast(),
                tile_stride: matrix.k * TILE * size_of::<E>(),
                step: TILE * size_of::<E>(),
            },
        };
        // SAFETY: the tiles are there, and the sums have room for every panel and two tiles.
        unsafe { sets::multiply(self.isa, rows, tiles.len(), &block) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::memory::pages::Arena;
    use exsa_core::gguf::GgmlType;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.0 - 1.0).collect()
    }

    fn matrix(n: usize, k: usize, seed: usize, f16: bool, team: &mut Team) -> (FloatMatrix, Vec<f32>) {
        let values = numbers(n * k, seed);
        let half = |value: &f32| half::f16::from_f32(*value);
        let (dtype, bytes, values): (_, Vec<u8>, _) = if f16 {
            let rounded = values.iter().map(|value| half(value).to_f32()).collect();
            (GgmlType::F16, values.iter().flat_map(|value| half(value).to_le_bytes()).collect(), rounded)
        } else {
            (GgmlType::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect(), values)
        };
        let packed = FloatMatrix::pack(dtype, &bytes, n, k, team, &mut Arena::default()).unwrap().unwrap();
        (packed, values)
    }

    /// Two outputs of 40 and 17 columns, three adapters: one in f16, one without the second output.
    #[test]
    fn sums_are_those_of_the_formula_for_any_grouping() {
        let (m, k, widths) = (19, 300, [40, 17]);
        for isa in Isa::available() {
            for threads in 1..=3 {
                let mut team = Team::new(threads).unwrap();
                let mut adapters = Vec::new();
                for (i, rank) in [1, 16, 70].into_iter().enumerate() {
                    let outputs = widths.map(|n| {
                        let (a, a_values) = matrix(rank, k, i, i == 1, &mut team);
                        let (b, b_values) = matrix(n, rank, i + 9, i == 1, &mut team);
                        (LowRank::new(a, b, 0.5).unwrap(), a_values, b_values)
                    });
                    adapters.push((rank, outputs));
                }
                let matrices = |adapter: usize, output: usize| {
                    let (_, outputs) = &adapters[adapter];
                    (adapter != 2 || output == 0).then_some((&outputs[output].0, 2.0 + adapter as f32))
                };
                let x = numbers(m * k, 77);
                // Rows of each set of adapters; row 18 has none.
                let sets: [(Vec<u32>, Range<usize>); 3] =
                    [((0..9).collect(), 0..1), (vec![17, 10, 12], 1..3), (vec![9, 11, 13, 14, 15, 16], 1..2)];
                let sizes = LowRankSizes { rows: m, groups: 3, adapters: 2, rank: 70, outputs: 2, threads };
                let mut scratch = LowRankScratch::new(&sizes).unwrap();
                let mut run = |sets: &[(Vec<u32>, Range<usize>)]| {
                    let (mut rows, mut groups) = (Vec::new(), Vec::new());
                    for (list, adapters) in sets {
                        groups.push(RowGroup {
                            rows: rows.len()..rows.len() + list.len(),
                            adapters: adapters.clone(),
                        });
                        rows.extend_from_slice(list);
                    }
                    let mut outs = widths.map(|n| vec![1.0f32; m * n]);
                    let [first, second] = &mut outs;
                    let outputs = [(&mut first[..], widths[0]), (&mut second[..], widths[1])];
                    let products = LowRankProducts { x: &x, k, outputs, groups: &groups, rows: &rows };
                    scratch.add(products, matrices, isa, &mut team);
                    outs
                };
                let all = run(&sets);
                for (output, n) in widths.into_iter().enumerate() {
                    for row in 0..m {
                        let set = sets.iter().find(|(rows, _)| rows.contains(&(row as u32)));
                        let ids = set.map_or(0..0, |(_, adapters)| adapters.clone());
                        for column in 0..n {
                            let mut expected = 1.0f64;
                            for id in ids.clone().filter(|id| *id != 2 || output == 0) {
                                let (rank, outputs) = &adapters[id];
                                let (_, a, b) = &outputs[output];
                                for r in 0..*rank {
                                    let dot: f64 = (0..k)
                                        .map(|i| f64::from(x[row * k + i]) * f64::from(a[r * k + i]))
                                        .sum();
                                    expected +=
                                        f64::from(b[column * rank + r]) * dot * 0.5 * (2.0 + id as f64);
                                }
                            }
                            let found = f64::from(all[output][row * n + column]);
                            // Sums of f32 over the input and the rank, some of which cancel.
                            let off = (found - expected).abs() / expected.abs().max(10.0);
                            assert!(
                                off < 1e-4,
                                "{} row {row} column {column}: {found} {expected}",
                                isa.name()
                            );
                        }
                    }
                }
                for (row, adapters) in
                    sets.iter().flat_map(|(rows, ids)| rows.iter().map(|row| (*row, ids.clone())))
                {
                    let alone = run(&[(vec![row], adapters)]);
                    for (output, n) in widths.into_iter().enumerate() {
                        let at = row as usize * n..(row as usize + 1) * n;
                        assert_eq!(alone[output][at.clone()], all[output][at], "row {row} alone");
                    }
                }
            }
        }
    }
}
