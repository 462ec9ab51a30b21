//! Activations of float products: f32, reordered into panels, and the memory that threads work in.

use super::element::FloatType;
use super::kernel::BLOCK;
use super::matrix::TILE;
use crate::kernels::memory::buffer::resize;
use crate::kernels::memory::team::{Target, Team};
use crate::kernels::quantized::Isa;

/// Maximum tiles that are multiplied with all panels while their block of `k` is in the second-level cache.
pub(super) const GROUP: usize = 8;

/// Maximum panels that each convert weights for themselves.
pub(super) const STREAMED_PANELS: usize = 3;

/// Maximum rows of a panel with any instruction set.
pub(super) const ROWS_MAX: usize = 12;

/// Values that are reordered on the calling thread alone: to share them takes longer.
const SHARED_VALUES_MIN: usize = 1 << 14;

/// Rows `[m, k]` in panels, each `[k][rows]`. The memory is kept between calls, so that the steady state
/// allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct FloatActivations {
    pub(super) m: usize,
    pub(super) k: usize,
    /// Number of panels.
    pub(super) panels: usize,
    values: Vec<f32>,
    /// Scratch memory of each thread of the products.
    pub(super) scratch: Vec<Scratch>,
}

/// A run of rows that a kernel takes at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
}

/// Scratch memory of one thread.
#[derive(Debug)]
pub(super) struct Scratch {
    /// A block of `k` of up to [`GROUP`] tiles in f32, `[tile][k][16]`.
    pub converted: Vec<Line>,
    /// Sums of a panel with tiles that are not wholly in the output.
    pub edge: [Line; ROWS_MAX * 2],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { converted: Vec::new(), edge: [Line::default(); ROWS_MAX * 2] }
    }
}

/// A row of a tile in f32, on a cache line of its own.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub [f32; TILE]);

/// Lengths of the memory of [`FloatActivations`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FloatSizes {
    values: usize,
    /// Lines of converted weights of a thread.
    converted: usize,
}

impl FloatSizes {
    /// For `m` rows of `k` values and weights of type `kind`.
    pub fn new(m: usize, k: usize, kind: FloatType, isa: Isa) -> Self {
        let converted = kind != FloatType::F32 && m > STREAMED_PANELS * isa.floats().rows_max();
        Self { values: m * k, converted: if converted { GROUP * BLOCK } else { 0 } }
    }

    /// Sizes that serve for both.
    pub fn max(self, other: Self) -> Self {
        Self { values: self.values.max(other.values), converted: self.converted.max(other.converted) }
    }

    /// Bytes on `threads` threads.
    pub fn bytes(&self, threads: usize) -> u64 {
        let thread = size_of::<Scratch>() + self.converted * size_of::<Line>();
        (self.values * size_of::<f32>() + threads * thread) as u64
    }
}

impl FloatActivations {
    /// Takes over the rows of `x`, `[m, k]` row-major, for products with `isa`.
    pub fn fill(&mut self, x: &[f32], k: usize, isa: Isa, team: &mut Team) {
        (self.m, self.k) = (x.len() / k, k);
        self.panels = self.m.div_ceil(isa.floats().rows_max());
        if self.values.len() < x.len() {
            resize(&mut self.values, x.len());
        }
        let values = Target(self.values.as_mut_ptr());
        let blocks = k.div_ceil(BLOCK);
        let parts = self.panels * blocks;
        let grain = if x.len() < SHARED_VALUES_MIN { parts } else { team.grain(parts) };
        let shared = &*self;
        team.for_each(parts, grain, |range| {
            for part in range {
                let (panel, start) = (shared.panel(part / blocks), part % blocks * BLOCK);
                let len = BLOCK.min(k - start);
                let at = panel.start * k + start * panel.rows;
                // SAFETY: the values were sized for all panels, and each part is handed out once.
                let out = unsafe { std::slice::from_raw_parts_mut(values.at(at), len * panel.rows) };
                let rows = &x[panel.start * k..][..panel.rows * k];
                reorder(rows, k, start, panel.rows, out);
            }
        });
    }

    /// Panel `index` of all.
    pub(super) fn panel(&self, index: usize) -> Panel {
        let (rows, more) = (self.m / self.panels, self.m % self.panels);
        Panel { start: index * rows + index.min(more), rows: rows + usize::from(index < more) }
    }

    /// The activations of `panel` from column `k` on: `[k][rows]`.
    pub(super) fn at(&self, panel: Panel, k: usize) -> *const f32 {
        self.values[panel.start * self.k + k * panel.rows..].as_ptr()
    }

    /// For tests: bytes of the memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let lines = self.scratch.iter().map(|scratch| scratch.converted.capacity() * size_of::<Line>());
        let scratch = self.scratch.capacity() * size_of::<Scratch>() + lines.sum::<usize>();
        (self.values.capacity() * size_of::<f32>() + scratch) as u64
    }

    /// Sizes the scratch memory of `threads` threads, with room for converted weights where `converting`. For
    /// every thread before any works: a helper may come to its first product at any time.
    pub(super) fn size_scratch(&mut self, threads: usize, converting: bool) {
        self.scratch.reserve_exact(threads.saturating_sub(self.scratch.len()));
        self.scratch.resize_with(threads.max(self.scratch.len()), Scratch::default);
        if converting {
            for scratch in &mut self.scratch[..threads] {
                resize(&mut scratch.converted, GROUP * BLOCK);
            }
        }
    }
}

/// Writes columns `start..` of `count` `rows` of `k` values to `out`, `[columns][count]`.
fn reorder(rows: &[f32], k: usize, start: usize, count: usize, out: &mut [f32]) {
    macro_rules! counts {
        ($($count:literal)*) => {
            match count {
                $( $count => reorder_rows::<$count>(rows, k, start, out), )*
                _ => unreachable!("a panel of {count} rows"),
            }
        };
    }
    counts!(1 2 3 4 5 6 7 8 9 10 11 12)
}

fn reorder_rows<const R: usize>(rows: &[f32], k: usize, start: usize, out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<R>();
    let len = out.len();
    let rows: [&[f32]; R] = std::array::from_fn(|r| &rows[r * k + start..][..len]);
    for (i, out) in out.iter_mut().enumerate() {
        *out = std::array::from_fn(|r| rows[r][i]);
    }
}
