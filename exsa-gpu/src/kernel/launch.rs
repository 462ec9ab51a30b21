//! Launches of the kernels, one method each: arguments in the kernel's order, and its grid.

use super::params::{
    AddParams, AttendParams, CombineParams, EmbedParams, GateParams, GatherParams, HeadsParams, LogitParams,
    NormParams, ProductParams,
};
use super::{KernelSpec, KvElement, WeightType};
use crate::device::{Arg, Device, DeviceError, Stream};
use std::collections::BTreeMap;

/// Threads of the kernels over elements.
const EACH_THREADS: u32 = 256;

/// Chunks of 8 values that a threadgroup of `embed` writes.
const EMBED_CHUNKS: u32 = 64;

/// Rows of a matrix that a threadgroup computes for few rows of activations.
const FEW_ROWS: u32 = 8;

/// Rows of activations up to which a matrix is multiplied by the kernels for few.
const FEW_MAX: u32 = 16;

/// Rows of a matrix, and of activations, of a threadgroup of `product_many`.
const MANY: (u32, u32) = (64, 32);

/// Heads of a threadgroup of `heads`.
const HEADS: u32 = 4;

/// Memory from a byte of a buffer on.
pub(crate) struct At<'a, D: Device>(pub &'a D::Buffer, pub u64);

impl<D: Device> Clone for At<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for At<'_, D> {}

impl<'a, D: Device> At<'a, D> {
    /// Memory from float `n` on.
    pub fn floats(buffer: &'a D::Buffer, n: usize) -> Self {
        Self(buffer, 4 * n as u64)
    }

    fn arg(self) -> Arg<'a, D::Buffer> {
        Arg::Buffer(self.0, self.1)
    }
}

/// Compiled kernels that every model needs.
#[derive(Debug)]
pub(crate) struct Kernels<D: Device> {
    norm: D::Kernel,
    add_rows: D::Kernel,
    add_bias: D::Kernel,
    gate: D::Kernel,
    logits: D::Kernel,
    gather: D::Kernel,
    arg_max: D::Kernel,
    combine: D::Kernel,
    weights: BTreeMap<&'static str, WeightKernels<D>>,
}

/// Compiled kernels for weights of one type.
#[derive(Debug)]
struct WeightKernels<D: Device> {
    embed: D::Kernel,
    /// For up to 1, 4 and 8 rows at a time.
    few: [D::Kernel; 3],
    many: D::Kernel,
}

/// Compiled kernels of attention for one type of cache and width of heads.
#[derive(Debug)]
pub(crate) struct AttentionKernels<D: Device> {
    heads: D::Kernel,
    /// For views of one row, and for longer ones: a head at a time, and four.
    attend: [[D::Kernel; 2]; 2],
}

impl<D: Device> Kernels<D> {
    /// Compiles the kernels for weights of these types.
    pub fn new(device: &D, types: impl IntoIterator<Item = WeightType>) -> Result<Self, DeviceError> {
        let row = |name| device.kernel(&KernelSpec::row(name));
        let mut weights = BTreeMap::new();
        for weight in types {
            if !weights.contains_key(weight.name()) {
                let few = |m| device.kernel(&KernelSpec::product_few(weight, m));
                let kernels = WeightKernels {
                    embed: device.kernel(&KernelSpec::embed(weight))?,
                    few: [few(1)?, few(4)?, few(8)?],
                    many: device.kernel(&KernelSpec::product_many(weight))?,
                };
                weights.insert(weight.name(), kernels);
            }
        }
        Ok(Self {
            norm: row("norm_rows")?,
            add_rows: row("add_rows")?,
            add_bias: row("add_bias")?,
            gate: row("gate")?,
            logits: row("logits")?,
            gather: row("gather_rows")?,
            arg_max: row("arg_max")?,
            combine: device.kernel(&KernelSpec::combine())?,
            weights,
        })
    }

    fn of(&self, weight: WeightType) -> Result<&WeightKernels<D>, DeviceError> {
        self.weights.get(weight.name()).ok_or_else(|| DeviceError::Kernel {
            name: weight.name().to_owned(),
            problem: "the kernels of this type of weights were not compiled".to_owned(),
        })
    }

    /// `norm_rows`, for `rows` rows; `t`, `bias` may be any buffer where the flags leave them out.
    pub fn norm(
        &self,
        stream: &mut D::Stream,
        [x, t, weight, bias, y]: [At<'_, D>; 5],
        rows: usize,
        params: NormParams,
    ) -> Result<(), DeviceError> {
        let args = [x.arg(), t.arg(), weight.arg(), bias.arg(), y.arg(), Arg::Params(&params.bytes())];
        stream.launch(&self.norm, [count(rows)?, 1, 1], &args)
    }

    /// `add_rows`.
    pub fn add_rows(
        &self,
        stream: &mut D::Stream,
        [x, t]: [At<'_, D>; 2],
        rows: usize,
        params: AddParams,
    ) -> Result<(), DeviceError> {
        let grid = each(params.cols, rows)?;
        stream.launch(&self.add_rows, grid, &[x.arg(), t.arg(), Arg::Params(&params.bytes())])
    }

    /// `add_bias`.
    pub fn add_bias(
        &self,
        stream: &mut D::Stream,
        [x, bias]: [At<'_, D>; 2],
        rows: usize,
        params: AddParams,
    ) -> Result<(), DeviceError> {
        let grid = each(params.cols, rows)?;
        stream.launch(&self.add_bias, grid, &[x.arg(), bias.arg(), Arg::Params(&params.bytes())])
    }

    /// `gate`.
    pub fn gate(
        &self,
        stream: &mut D::Stream,
        [x, y]: [At<'_, D>; 2],
        rows: usize,
        params: GateParams,
    ) -> Result<(), DeviceError> {
        let grid = each(params.cols, rows)?;
        stream.launch(&self.gate, grid, &[x.arg(), y.arg(), Arg::Params(&params.bytes())])
    }

    /// `logits`.
    pub fn logits(
        &self,
        stream: &mut D::Stream,
        x: At<'_, D>,
        rows: usize,
        params: LogitParams,
    ) -> Result<(), DeviceError> {
        let grid = each(params.cols, rows)?;
        stream.launch(&self.logits, grid, &[x.arg(), Arg::Params(&params.bytes())])
    }

    /// `gather_rows`, `n` rows.
    pub fn gather(
        &self,
        stream: &mut D::Stream,
        [x, rows, y]: [At<'_, D>; 3],
        n: usize,
        params: GatherParams,
    ) -> Result<(), DeviceError> {
        let args = [x.arg(), rows.arg(), y.arg(), Arg::Params(&params.bytes())];
        stream.launch(&self.gather, each(params.cols, n)?, &args)
    }

    /// `arg_max`.
    pub fn arg_max(
        &self,
        stream: &mut D::Stream,
        [x, best]: [At<'_, D>; 2],
        rows: usize,
        params: GatherParams,
    ) -> Result<(), DeviceError> {
        let args = [x.arg(), best.arg(), Arg::Params(&params.bytes())];
        stream.launch(&self.arg_max, [count(rows)?, 1, 1], &args)
    }

    /// `embed` of `n` tokens.
    pub fn embed(
        &self,
        stream: &mut D::Stream,
        weight: WeightType,
        [table, tokens, y]: [At<'_, D>; 3],
        n: usize,
        params: EmbedParams,
    ) -> Result<(), DeviceError> {
        let args = [table.arg(), tokens.arg(), y.arg(), Arg::Params(&params.bytes())];
        let grid = [(params.cols / 8).div_ceil(EMBED_CHUNKS), count(n)?, 1];
        stream.launch(&self.of(weight)?.embed, grid, &args)
    }

    /// A product, by the kernel for so many rows.
    pub fn product(
        &self,
        stream: &mut D::Stream,
        weight: WeightType,
        operands: [At<'_, D>; 3],
        params: ProductParams,
    ) -> Result<(), DeviceError> {
        let rows_at_once = match params.m {
            1 => 1,
            2..=4 => 4,
            5..=FEW_MAX => 8,
            _ => 0,
        };
        self.product_by(stream, weight, operands, params, rows_at_once)
    }

    /// A product by the kernel for 1, 4 or 8 rows at a time, or 0 for that for many.
    pub fn product_by(
        &self,
        stream: &mut D::Stream,
        weight: WeightType,
        [w, x, y]: [At<'_, D>; 3],
        params: ProductParams,
        rows_at_once: u32,
    ) -> Result<(), DeviceError> {
        let kernels = self.of(weight)?;
        let few = |kernel, m: u32| (kernel, [params.rows.div_ceil(FEW_ROWS), params.m.div_ceil(m), 1]);
        let (kernel, grid) = match rows_at_once {
            1 => few(&kernels.few[0], 1),
            4 => few(&kernels.few[1], 4),
            8 => few(&kernels.few[2], 8),
            _ => (&kernels.many, [params.rows.div_ceil(MANY.0), params.m.div_ceil(MANY.1), 1]),
        };
        stream.launch(kernel, grid, &[w.arg(), x.arg(), y.arg(), Arg::Params(&params.bytes())])
    }

    /// `combine` of `n` views.
    pub fn combine(
        &self,
        stream: &mut D::Stream,
        [parts, views, out]: [At<'_, D>; 3],
        n: usize,
        params: CombineParams,
    ) -> Result<(), DeviceError> {
        let args = [parts.arg(), views.arg(), out.arg(), Arg::Params(&params.bytes())];
        stream.launch(&self.combine, [count(n)?, params.heads, 1], &args)
    }
}

impl<D: Device> AttentionKernels<D> {
    /// Compiles the kernels for heads of `dim` dimensions.
    pub fn new(device: &D, element: KvElement, dim: u32) -> Result<Self, DeviceError> {
        let attend = |shape| {
            let spec = KernelSpec::attend(element, dim, shape).ok_or_else(|| DeviceError::Kernel {
                name: "attend".to_owned(),
                problem: format!("heads of {dim} dimensions, but at most 256 are supported"),
            })?;
            device.kernel(&spec)
        };
        let heads = device.kernel(&KernelSpec::heads(element))?;
        let attend = [[attend((1, 1))?, attend((1, 4))?], [attend((8, 1))?, attend((2, 4))?]];
        Ok(Self { heads, attend })
    }

    /// Rows of a view at most, if it is not of one row.
    pub fn rows_at_once(heads: u32, kv_heads: u32) -> usize {
        if heads_at_once(heads, kv_heads) == 1 { 8 } else { 2 }
    }

    /// `heads`.
    pub fn heads(
        &self,
        stream: &mut D::Stream,
        args: [At<'_, D>; 8],
        rows: usize,
        params: HeadsParams,
    ) -> Result<(), DeviceError> {
        let [x, query_norm, key_norm, angles, positions, slots, keys, values] = args.map(At::arg);
        let bytes = params.bytes();
        let args = [x, query_norm, key_norm, angles, positions, slots, keys, values, Arg::Params(&bytes)];
        let heads = (params.heads + 2 * params.kv_heads).div_ceil(HEADS);
        stream.launch(&self.heads, [count(rows)?, heads, 1], &args)
    }

    /// Threadgroups of a view and split of attention.
    pub fn groups(heads: u32, kv_heads: u32) -> u32 {
        kv_heads * (heads / kv_heads).div_ceil(heads_at_once(heads, kv_heads))
    }

    /// `attend` of `n` views, of one row each or of more.
    pub fn attend(
        &self,
        stream: &mut D::Stream,
        args: [At<'_, D>; 6],
        (n, is_single): (usize, bool),
        params: AttendParams,
    ) -> Result<(), DeviceError> {
        let [x, keys, values, tables, views, out] = args.map(At::arg);
        let bytes = params.bytes();
        let args = [x, keys, values, tables, views, out, Arg::Params(&bytes)];
        let grid = [count(n)?, Self::groups(params.heads, params.kv_heads), params.splits];
        let [one, four] = &self.attend[usize::from(!is_single)];
        let kernel = if heads_at_once(params.heads, params.kv_heads) == 1 { one } else { four };
        stream.launch(kernel, grid, &args)
    }
}

/// Heads that a threadgroup of `attend` computes.
fn heads_at_once(heads: u32, kv_heads: u32) -> u32 {
    if heads == kv_heads { 1 } else { 4 }
}

fn each(cols: u32, rows: usize) -> Result<[u32; 3], DeviceError> {
    Ok([cols.div_ceil(EACH_THREADS), count(rows)?, 1])
}

fn count(n: usize) -> Result<u32, DeviceError> {
    u32::try_from(n).map_err(|_| DeviceError::Range(format!("{n} rows")))
}
