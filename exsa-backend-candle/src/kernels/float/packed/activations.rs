//! Activations of float products: f32, reordered into panels, and the memory that threads work in.

use super::element::FloatType;
use super::kernel::BLOCK;
use super::matrix::TILE;
use crate::kernels::ExpertRows;
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
    /// The rows, in panels that are alike; of groups one after the other.
    pub(super) rows: Vec<PanelRows>,
    values: Vec<f32>,
    /// Scratch memory of each thread of the products.
    pub(super) scratch: Vec<Scratch>,
}

/// Consecutive rows that are multiplied with the same weights, and the number of their panels.
#[derive(Clone, Copy, Debug)]
pub(super) struct PanelRows {
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub m: usize,
    /// Number of panels.
    pub panels: usize,
}

impl PanelRows {
    /// Panel `index` of all.
    pub fn panel(&self, index: usize) -> Panel {
        let (rows, more) = (self.m / self.panels, self.m % self.panels);
        let start = self.start + index * rows + index.min(more);
        Panel { start, rows: rows + usize::from(index < more) }
    }
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
    /// Groups of rows.
    groups: usize,
    /// Lines of converted weights of a thread.
    converted: usize,
}

impl FloatSizes {
    /// For `m` rows of `k` values and weights of type `kind`.
    pub fn new(m: usize, k: usize, kind: FloatType, isa: Isa) -> Self {
        let converted = kind != FloatType::F32 && m > STREAMED_PANELS * isa.floats().rows_max();
        Self { values: m * k, groups: 1, converted: if converted { GROUP * BLOCK } else { 0 } }
    }

    /// The same, in up to `groups` groups.
    pub fn grouped(m: usize, groups: usize, k: usize, kind: FloatType, isa: Isa) -> Self {
        Self { groups: groups.max(1), ..Self::new(m, k, kind, isa) }
    }

    /// Sizes that serve for both.
    pub fn max(self, other: Self) -> Self {
        Self {
            values: self.values.max(other.values),
            groups: self.groups.max(other.groups),
            converted: self.converted.max(other.converted),
        }
    }

    /// Bytes on `threads` threads.
    pub fn bytes(&self, threads: usize) -> u64 {
        let thread = size_of::<Scratch>() + self.converted * size_of::<Line>();
        let rows = self.groups * size_of::<PanelRows>() + self.values * size_of::<f32>();
        (rows + threads * thread) as u64
    }
}

impl FloatActivations {
    /// Takes over the rows of `x`, `[m, k]` row-major, for products with `isa`.
    pub fn fill(&mut self, x: &[f32], k: usize, isa: Isa, team: &mut Team) {
        let m = x.len() / k;
        let panels = m.div_ceil(isa.floats().rows_max());
        self.rows.clear();
        self.rows.reserve_exact(1);
        self.rows.push(PanelRows { start: 0, m, panels });
        self.take_over(x, (m, k), None, team);
    }

    /// Takes over rows of `x`, `[rows, k]` row-major, for products of `groups` with `isa`: those that
    /// `sources` lists, or all in order.
    pub fn fill_groups(
        &mut self,
        x: &[f32],
        k: usize,
        (groups, sources): (&[ExpertRows], Option<&[u32]>),
        isa: Isa,
        team: &mut Team,
    ) {
        self.rows.clear();
        self.rows.reserve_exact(groups.len());
        self.rows.extend(groups.iter().map(|ExpertRows { rows, .. }| PanelRows {
            start: rows.start,
            m: rows.len(),
            panels: rows.len().div_ceil(isa.floats().rows_max()),
        }));
        let m = sources.map_or(x.len() / k, <[u32]>::len);
        self.take_over(x, (m, k), sources, team);
    }

    /// Makes room for products of such sizes.
    pub fn reserve(&mut self, sizes: &FloatSizes) {
        self.rows.reserve_exact(sizes.groups.saturating_sub(self.rows.len()));
        self.values.reserve_exact(sizes.values.saturating_sub(self.values.len()));
    }

    /// Reorders rows of `x` to the `m` rows of the panels.
    fn take_over(&mut self, x: &[f32], (m, k): (usize, usize), sources: Option<&[u32]>, team: &mut Team) {
        (self.m, self.k) = (m, k);
        if self.values.len() < m * k {
            resize(&mut self.values, m * k);
        }
        let values = Target(self.values.as_mut_ptr());
        let row = |row: usize| {
            let source = sources.map_or(row, |sources| sources[row] as usize);
            &x[source * k..][..k]
        };
        let blocks = k.div_ceil(BLOCK);
        let shared = &*self;
        let fill = |rows: &PanelRows, part: usize| {
            let (panel, start) = (rows.panel(part / blocks), part % blocks * BLOCK);
            let len = BLOCK.min(k - start);
            let at = panel.start * k + start * panel.rows;
            // SAFETY: the values were sized for all panels, and each part is handed out once.
            let out = unsafe { std::slice::from_raw_parts_mut(values.at(at), len * panel.rows) };
            reorder(|i| row(panel.start + i), start, panel.rows, out);
        };
        let alone = m * k < SHARED_VALUES_MIN;
        if let [rows] = &shared.rows[..] {
            let parts = rows.panels * blocks;
            let grain = if alone { parts } else { team.grain(parts) };
            team.for_each(parts, grain, |range| range.for_each(|part| fill(rows, part)));
        } else {
            let groups = &shared.rows;
            let grain = if alone { groups.len() } else { team.grain(groups.len()) };
            team.for_each(groups.len(), grain, |range| {
                for rows in &groups[range] {
                    (0..rows.panels * blocks).for_each(|part| fill(rows, part));
                }
            });
        }
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
        let rows = self.rows.capacity() * size_of::<PanelRows>() + self.values.capacity() * size_of::<f32>();
        (rows + scratch) as u64
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

/// Writes columns `start..` of `count` rows, which `row` gives, to `out`, `[columns][count]`.
fn reorder<'a>(row: impl Fn(usize) -> &'a [f32], start: usize, count: usize, out: &mut [f32]) {
    macro_rules! counts {
        ($($count:literal)*) => {
            match count {
                $( $count => reorder_rows::<$count>(row, start, out), )*
                _ => unreachable!("a panel of {count} rows"),
            }
        };
    }
    counts!(1 2 3 4 5 6 7 8 9 10 11 12)
}

fn reorder_rows<'a, const R: usize>(row: impl Fn(usize) -> &'a [f32], start: usize, out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<R>();
    let len = out.len();
    let rows: [&[f32]; R] = std::array::from_fn(|r| &row(r)[start..][..len]);
    for (i, out) in out.iter_mut().enumerate() {
        *out = std::array::from_fn(|r| rows[r][i]);
    }
}
