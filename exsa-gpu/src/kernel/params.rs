//! Parameters of kernels, as the structs of the same names in the source lie in memory: words of 4 bytes.

/// A struct of `u32` and `f32`, and its bytes.
macro_rules! params {
    ($($name:ident { $($field:ident: $type:ty),+ $(,)? })+) => {$(
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name {
            $(pub $field: $type,)+
        }

        impl $name {
            const WORDS: usize = [$(stringify!($field)),+].len();

            pub fn bytes(&self) -> [u8; 4 * Self::WORDS] {
                let mut bytes = [0; 4 * Self::WORDS];
                let words = [$(self.$field.to_ne_bytes()),+];
                for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
                    to.copy_from_slice(&word);
                }
                bytes
            }
        }
    )+};
}

params! {
    NormParams { cols: u32, stride: u32, flags: u32, epsilon: f32, factor: f32 }
    AddParams { cols: u32, stride: u32, factor: f32 }
    GateParams { cols: u32, activation: u32, gated: u32 }
    LogitParams { cols: u32, factor: f32, softcap: f32 }
    GatherParams { cols: u32 }
    EmbedParams { cols: u32, factor: f32 }
    ProductParams { rows: u32, cols: u32, m: u32, x_stride: u32, y_stride: u32 }
    HeadsParams { heads: u32, kv_heads: u32, dim: u32, pairs: u32, flags: u32, epsilon: f32 }
    AttendParams {
        heads: u32, kv_heads: u32, dim: u32, stride: u32, window: u32, splits: u32, scale: f32, softcap: f32
    }
    CombineParams { heads: u32, dim: u32, splits: u32 }
}

pub(crate) const NORM_ADD: u32 = 1;
pub(crate) const NORM_LAYER: u32 = 2;
pub(crate) const NORM_BIAS: u32 = 4;

pub(crate) const GATE_SILU: u32 = 0;
pub(crate) const GATE_GELU: u32 = 1;

pub(crate) const HEADS_QUERY_NORM: u32 = 1;
pub(crate) const HEADS_KEY_NORM: u32 = 2;
pub(crate) const HEADS_INTERLEAVED: u32 = 4;

/// Positions of the fine part of a table of angles.
pub(crate) const ROPE_FINE: usize = 256;

/// Words of a view in attention.
pub(crate) const VIEW_WORDS: usize = 5;
