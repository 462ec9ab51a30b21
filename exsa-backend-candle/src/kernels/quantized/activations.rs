//! Activations as bytes: quantized once per row, shared by all products with weights of one kind.
//!
//! Rows are cut into panels of at most [`PANEL`] rows; within a panel, the 64 bytes of each row for one part
//! of `k` lie side by side: `[k / 64][rows][64]`. Scales and sums are `[block][rows]`. A row's numbers do not
//! depend on the other rows.

use super::layout::PackedType;
use super::scratch::Scratch;
use crate::kernels::ExpertRows;
use crate::kernels::memory::buffer::resize;
use crate::kernels::memory::team::{Target, Team};
use crate::kernels::simd::{Simd, dispatch};

/// Rows of a panel at most.
pub const PANEL: usize = 16;

/// Sizes of panels that there are kernels for; a panel of other sizes is padded with zero rows.
pub const PANEL_SIZES: [usize; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16];

/// A run of rows that a kernel takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Panel {
    /// First row.
    pub start: usize,
    /// Rows that are there.
    pub rows: usize,
    /// Rows with padding; one of [`PANEL_SIZES`].
    pub padded: usize,
    /// Padded rows in the panels before.
    pub before: usize,
}

/// Quantized rows `[m, k]`. The vectors are kept between calls, so that the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Activations {
    /// Values in a row, with zeros up to a whole super-block.
    pub(super) k_padded: usize,
    /// Values that share a scale: 32 or 256.
    pub(super) block: usize,
    pub(super) panels: Vec<Panel>,
    /// Ends of the panels of each group of rows; the first group begins at the first panel.
    pub(super) group_ends: Vec<usize>,
    /// `[padded rows × k_padded]`, a part of a row in each.
    q: Vec<Line>,
    /// One for each row and block.
    pub(super) scales: Vec<f32>,
    /// Zero-point terms for blocks of 32: sums of 32 quantized values each, times minus the weights' offset.
    pub(super) zero_points: Vec<i32>,
    /// Sums of 32 quantized values each: for blocks of 256, `[block][row][8]`.
    pub(super) sums32: Vec<i16>,
    /// Sums of 16 quantized values each: for blocks of 256, `[block][row][16]`.
    pub(super) sums16: Vec<i16>,
    /// Scratch memory of each thread of the products.
    pub(super) scratch: Vec<Scratch>,
}

/// 64 quantized values, on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
#[allow(dead_code, reason = "the kernels reach the values by pointers")]
struct Line([i8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Lengths of the vectors of [`Activations`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ActivationSizes {
    panels: usize,
    groups: usize,
    q: usize,
    scales: usize,
    zero_points: usize,
    sums32: usize,
    sums16: usize,
}

impl ActivationSizes {
    /// Of `m` rows of `k` values for weights of `kind`.
    pub fn new(m: usize, k: usize, kind: PackedType) -> Self {
        let padded_rows = m / PANEL * PANEL + padded(m % PANEL);
        Self::of((m.div_ceil(PANEL), 1, padded_rows), k, kind)
    }

    /// The same in up to `groups` groups, whatever their rows are.
    pub fn grouped(m: usize, groups: usize, k: usize, kind: PackedType) -> Self {
        // The last panel of a group may be padded, but none of fewer rows than these is.
        const PADDED: usize = 9;
        const PADDING_MAX: usize = 3;
        let padding = PADDING_MAX * groups.min(m / PADDED);
        Self::of((m / PANEL + groups, groups, m + padding), k, kind)
    }

    fn of((panels, groups, padded_rows): (usize, usize, usize), k: usize, kind: PackedType) -> Self {
        let (k_padded, block) = (k.next_multiple_of(kind.super_block()), kind.activation_block());
        let blocks = padded_rows * (k_padded / block);
        let (n32, n256) = if block == 32 { (blocks, 0) } else { (0, blocks) };
        Self {
            panels,
            groups,
            q: padded_rows * k_padded / 64,
            scales: blocks,
            zero_points: n32,
            sums32: n256 * 8,
            sums16: n256 * 16,
        }
    }

    /// Sizes that serve for both.
    pub fn max(self, other: Self) -> Self {
        Self {
            panels: self.panels.max(other.panels),
            groups: self.groups.max(other.groups),
            q: self.q.max(other.q),
            scales: self.scales.max(other.scales),
            zero_points: self.zero_points.max(other.zero_points),
            sums32: self.sums32.max(other.sums32),
            sums16: self.sums16.max(other.sums16),
        }
    }

    /// Bytes of the vectors.
    pub fn bytes(&self) -> u64 {
        let bytes = self.panels * size_of::<Panel>()
            + self.groups * size_of::<usize>()
            + self.q * size_of::<Line>()
            + (self.scales + self.zero_points) * 4
            + (self.sums32 + self.sums16) * 2;
        bytes as u64
    }
}

/// Rows of a panel of `rows` rows with padding.
fn padded(rows: usize) -> usize {
    if rows == 0 { 0 } else { PANEL_SIZES.into_iter().find(|n| *n >= rows).unwrap_or(PANEL) }
}

impl Activations {
    /// The quantized values from place `at` on, a multiple of 64.
    pub(super) fn values(&self, at: usize) -> *const i8 {
        self.q[at / 64..].as_ptr().cast()
    }

    /// Whether all values, scales and sums of `panel` are there.
    pub(super) fn holds(&self, panel: Panel) -> bool {
        let end = panel.before + panel.padded;
        let blocks = end * (self.k_padded / self.block);
        let sums = if self.block == 32 {
            self.zero_points.len() >= blocks
        } else {
            self.sums32.len() >= blocks * 8 && self.sums16.len() >= blocks * 16
        };
        self.q.len() * 64 >= end * self.k_padded && self.scales.len() >= blocks && sums
    }

    /// Quantizes `x`, `[m, k]` row-major, for weights of `kind`.
    pub fn quantize(&mut self, x: &[f32], k: usize, kind: PackedType, team: &mut Team) {
        let m = x.len() / k;
        self.panels.clear();
        self.panels.reserve_exact(m.div_ceil(PANEL));
        self.group_ends.clear();
        self.group_ends.reserve_exact(1);
        let padded_rows = self.plan_panels(0, m, 0);
        self.group_ends.push(self.panels.len());
        self.quantize_panels(x, (k, kind), padded_rows, None, team);
    }

    /// Quantizes rows of `x`, `[rows, k]` row-major, for products of `groups` with weights of `kind`: those
    /// that `sources` lists, or all in order.
    pub fn quantize_groups(
        &mut self,
        x: &[f32],
        (k, kind): (usize, PackedType),
        (groups, sources): (&[ExpertRows], Option<&[u32]>),
        team: &mut Team,
    ) {
        self.panels.clear();
        self.group_ends.clear();
        self.group_ends.reserve_exact(groups.len());
        let mut padded_rows = 0;
        // One row of `x` is quantized once for all groups.
        let single = sources.is_some() && x.len() == k && groups.iter().all(|group| group.rows.len() == 1);
        for ExpertRows { rows, .. } in groups {
            self.panels.reserve_exact(rows.len().div_ceil(PANEL));
            padded_rows = self.plan_panels(rows.start, rows.len(), if single { 0 } else { padded_rows });
            self.group_ends.push(self.panels.len());
        }
        self.quantize_panels(x, (k, kind), padded_rows, sources, team);
    }

    /// Makes room for products of such sizes.
    pub fn reserve(&mut self, sizes: &ActivationSizes) {
        fn reserve<T>(values: &mut Vec<T>, len: usize) {
            values.reserve_exact(len.saturating_sub(values.len()));
        }
        reserve(&mut self.panels, sizes.panels);
        reserve(&mut self.group_ends, sizes.groups);
        reserve(&mut self.q, sizes.q);
        reserve(&mut self.scales, sizes.scales);
        reserve(&mut self.zero_points, sizes.zero_points);
        reserve(&mut self.sums32, sizes.sums32);
        reserve(&mut self.sums16, sizes.sums16);
    }

    /// For tests: values that there is memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> [usize; 7] {
        let Self { panels, group_ends, q, scales, zero_points, sums32, sums16, .. } = self;
        [
            panels.capacity(),
            group_ends.capacity(),
            q.capacity(),
            scales.capacity(),
            zero_points.capacity(),
            sums32.capacity(),
            sums16.capacity(),
        ]
    }

    /// The panels of group `index`.
    pub(super) fn group(&self, index: usize) -> &[Panel] {
        let start = if index == 0 { 0 } else { self.group_ends[index - 1] };
        &self.panels[start..self.group_ends[index]]
    }

    /// Quantizes the rows of all panels, of `padded_rows` rows.
    fn quantize_panels(
        &mut self,
        x: &[f32],
        (k, kind): (usize, PackedType),
        padded_rows: usize,
        sources: Option<&[u32]>,
        team: &mut Team,
    ) {
        self.block = kind.activation_block();
        self.k_padded = k.next_multiple_of(kind.super_block());
        let sizes = ActivationSizes::of((0, 0, padded_rows), k, kind);
        refill(&mut self.q, sizes.q);
        refill(&mut self.scales, sizes.scales);
        refill(&mut self.zero_points, sizes.zero_points);
        refill(&mut self.sums32, sizes.sums32);
        refill(&mut self.sums16, sizes.sums16);
        let shape = Shape { k, k_padded: self.k_padded, block: self.block, offset: kind.offset() };
        let values = Targets {
            q: Target(self.q.as_mut_ptr().cast()),
            scales: Target(self.scales.as_mut_ptr()),
            zero_points: Target(self.zero_points.as_mut_ptr()),
            sums32: Target(self.sums32.as_mut_ptr()),
            sums16: Target(self.sums16.as_mut_ptr()),
        };
        // Panels of one row that all groups share are the same.
        let panels = match &self.panels[..] {
            [first, second, ..] if first.before == second.before => &self.panels[..1],
            panels => panels,
        };
        let rows = Rows { x, sources };
        team.for_each(panels.len(), (panels.len() / 16).max(1), |range| {
            for panel in &panels[range] {
                // SAFETY: the vectors were sized for all panels, and each panel is handed out once.
                let mut out = unsafe { values.panel(*panel, shape) };
                quantize_panel(rows, *panel, shape, &mut out);
            }
        });
    }

    /// Cuts the `m` rows from `start` on into panels, which come after `before` padded rows; returns the
    /// padded rows with them.
    fn plan_panels(&mut self, start: usize, m: usize, before: usize) -> usize {
        let (end, mut start, mut before) = (start + m, start, before);
        while start < end {
            let rows = PANEL.min(end - start);
            let padded = padded(rows);
            self.panels.push(Panel { start, rows, padded, before });
            start += rows;
            before += padded;
        }
        before
    }
}

fn refill<T: Clone + Default>(values: &mut Vec<T>, len: usize) {
    values.clear();
    resize(values, len);
}

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    k: usize,
    k_padded: usize,
    block: usize,
    offset: i32,
}

/// Rows to quantize: of `x`, or those of it that are listed.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    x: &'a [f32],
    sources: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// Row `row` of `k` values.
    #[inline(always)]
    fn row(self, row: usize, k: usize) -> &'a [f32] {
        let source = self.sources.map_or(row, |sources| sources[row] as usize);
        &self.x[source * k..][..k]
    }
}

/// Outputs of quantization for one panel.
pub(crate) struct PanelValues<'a> {
    q: &'a mut [i8],
    scales: &'a mut [f32],
    zero_points: &'a mut [i32],
    sums32: &'a mut [i16],
    sums16: &'a mut [i16],
}

/// Outputs of quantization for all panels.
struct Targets {
    q: Target<i8>,
    scales: Target<f32>,
    zero_points: Target<i32>,
    sums32: Target<i16>,
    sums16: Target<i16>,
}

impl Targets {
    /// The part of `panel`.
    ///
    /// # Safety
    ///
    /// The vectors have room for it, outlive the result, and nobody else uses this part.
    unsafe fn panel<'a>(&self, panel: Panel, shape: Shape) -> PanelValues<'a> {
        let per_row = shape.k_padded / shape.block;
        let (before, blocks) = (panel.before * per_row, panel.padded * per_row);
        let (n32, n256) = if shape.block == 32 { (1, 0) } else { (0, 1) };
        // SAFETY: the rows before the panel and its own are there, by the caller's promise; parts that a kind
        // does not have are empty.
        unsafe {
            PanelValues {
                q: std::slice::from_raw_parts_mut(
                    self.q.at(panel.before * shape.k_padded),
                    panel.padded * shape.k_padded,
                ),
                scales: std::slice::from_raw_parts_mut(self.scales.at(before), blocks),
                zero_points: std::slice::from_raw_parts_mut(self.zero_points.at(before * n32), blocks * n32),
                sums32: std::slice::from_raw_parts_mut(self.sums32.at(before * n256 * 8), blocks * n256 * 8),
                sums16: std::slice::from_raw_parts_mut(
                    self.sums16.at(before * n256 * 16),
                    blocks * n256 * 16,
                ),
            }
        }
    }
}

/// Quantizes the rows of one panel.
fn quantize_panel(rows: Rows<'_>, panel: Panel, shape: Shape, out: &mut PanelValues<'_>) {
    #[cfg(target_arch = "x86_64")]
    if super::quantize512::available() {
        /// # Safety
        ///
        /// The processor has AVX-512.
        #[target_feature(enable = "avx512f")]
        fn avx512(rows: Rows<'_>, panel: Panel, shape: Shape, out: &mut PanelValues<'_>) {
            // SAFETY: the processor has AVX-512, of which this function is made too.
            let largest = |block: &[[f32; 32]]| unsafe { super::quantize512::largest(block) };
            // SAFETY: as above.
            let quantize32 = |values: &[f32; 32], inverse, q: &mut [i8; 32]| unsafe {
                super::quantize512::quantize32(values, inverse, q)
            };
            quantize_panel_by(rows, panel, shape, out, largest, quantize32);
        }
        // SAFETY: the processor has AVX-512.
        return unsafe { avx512(rows, panel, shape, out) };
    }
    quantize_panel_plain(rows, panel, shape, out);
}

dispatch! {
    /// The same in plain Rust.
    quantize_panel_plain = quantize_panel_body(rows: Rows<'_>, panel: Panel, shape: Shape, out: &mut PanelValues<'_>)
}

#[inline(always)]
fn quantize_panel_body<S: Simd>(rows: Rows<'_>, panel: Panel, shape: Shape, out: &mut PanelValues<'_>) {
    quantize_panel_by(rows, panel, shape, out, largest, quantize32);
}

/// The rows of one panel, with functions for a block and for 32 values of it.
#[inline(always)]
fn quantize_panel_by(
    rows: Rows<'_>,
    panel: Panel,
    shape: Shape,
    out: &mut PanelValues<'_>,
    largest: impl Fn(&[[f32; 32]]) -> f32,
    quantize32: impl Fn(&[f32; 32], f32, &mut [i8; 32]) -> [i32; 2],
) {
    let parts = shape.block / 32;
    for row in 0..panel.rows {
        // Blocks of weights hold 32 values or more: nothing is left over.
        let (values, _) = rows.row(panel.start + row, shape.k).as_chunks::<32>();
        for (b, block) in values.chunks(parts).enumerate() {
            let largest = largest(block);
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let at = b * panel.padded + row;
            out.scales[at] = largest / 127.0;
            for (j, part) in block.iter().enumerate() {
                let chunk = b * parts + j;
                let to = (chunk / 2 * panel.padded + row) * 64 + chunk % 2 * 32;
                let Some(q) = out.q[to..].first_chunk_mut() else { continue };
                let sums = quantize32(part, inverse, q);
                if parts == 1 {
                    out.zero_points[at] = (sums[0].wrapping_add(sums[1])).wrapping_mul(-shape.offset);
                } else {
                    out.sums32[at * 8 + j] = sums[0].wrapping_add(sums[1]) as i16;
                    out.sums16[at * 16 + j * 2] = sums[0] as i16;
                    out.sums16[at * 16 + j * 2 + 1] = sums[1] as i16;
                }
            }
        }
    }
}

/// The greatest magnitude; not a number if any value is none, or infinite: the products then are not numbers
/// either, and the sampler refuses them.
#[inline(always)]
fn largest(block: &[[f32; 32]]) -> f32 {
    // Without their sign, the bits of floats have the order of the floats, with what is no number above all.
    let mut lanes = [0u32; 32];
    for values in block {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = (*lane).max(value.to_bits() & 0x7fff_ffff);
        }
    }
    let largest = f32::from_bits(lanes.into_iter().fold(0, u32::max));
    if largest.is_finite() { largest } else { f32::NAN }
}

/// Quantizes to `round(value * inverse)`; the sums of the first and the second 16.
#[inline(always)]
fn quantize32(values: &[f32; 32], inverse: f32, q: &mut [i8; 32]) -> [i32; 2] {
    // Adding 1.5 × 2^23 leaves the nearest integer, ties to even, in the low bits of the mantissa.
    const MAGIC: f32 = 12_582_912.0;
    let mut sums = [0i32; 2];
    for ((sum, values), q) in sums.iter_mut().zip(values.as_chunks::<16>().0).zip(q.as_chunks_mut::<16>().0) {
        for (q, value) in q.iter_mut().zip(values) {
            *q = (value * inverse + MAGIC).to_bits() as i8;
        }
        *sum = q.iter().map(|q| i32::from(*q)).sum();
    }
    sums
}
