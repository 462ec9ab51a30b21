//! Types of weights, and of cached keys and values, that kernels exist for.

use exsa_core::gguf::GgmlType;

/// Type of a weight on the device: the blocks of the file, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum WeightType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

impl WeightType {
    /// All types.
    pub const ALL: [Self; 16] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
    ];

    /// The type of tensors of `dtype`; `None` if there are no kernels for it.
    #[must_use]
    pub fn of(dtype: GgmlType) -> Option<Self> {
        Self::ALL.into_iter().find(|weight| weight.dtype() == dtype)
    }

    /// The type in files.
    #[must_use]
    pub fn dtype(self) -> GgmlType {
        match self {
            Self::F32 => GgmlType::F32,
            Self::F16 => GgmlType::F16,
            Self::BF16 => GgmlType::BF16,
            Self::Q4_0 => GgmlType::Q4_0,
            Self::Q4_1 => GgmlType::Q4_1,
            Self::Q5_0 => GgmlType::Q5_0,
            Self::Q5_1 => GgmlType::Q5_1,
            Self::Q8_0 => GgmlType::Q8_0,
            Self::Q2K => GgmlType::Q2K,
            Self::Q3K => GgmlType::Q3K,
            Self::Q4K => GgmlType::Q4K,
            Self::Q5K => GgmlType::Q5K,
            Self::Q6K => GgmlType::Q6K,
            Self::Iq4Nl => GgmlType::Iq4Nl,
            Self::Iq4Xs => GgmlType::Iq4Xs,
            Self::Mxfp4 => GgmlType::Mxfp4,
        }
    }

    /// Name in kernels: `q4_k`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.names().1
    }

    /// Name of the struct in `formats.inl`.
    pub(super) fn structure(self) -> &'static str {
        self.names().0
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::F32 => ("WeightF32", "f32"),
            Self::F16 => ("WeightF16", "f16"),
            Self::BF16 => ("WeightBF16", "bf16"),
            Self::Q4_0 => ("WeightQ4_0", "q4_0"),
            Self::Q4_1 => ("WeightQ4_1", "q4_1"),
            Self::Q5_0 => ("WeightQ5_0", "q5_0"),
            Self::Q5_1 => ("WeightQ5_1", "q5_1"),
            Self::Q8_0 => ("WeightQ8_0", "q8_0"),
            Self::Q2K => ("WeightQ2_K", "q2_k"),
            Self::Q3K => ("WeightQ3_K", "q3_k"),
            Self::Q4K => ("WeightQ4_K", "q4_k"),
            Self::Q5K => ("WeightQ5_K", "q5_k"),
            Self::Q6K => ("WeightQ6_K", "q6_k"),
            Self::Iq4Nl => ("WeightIQ4_NL", "iq4_nl"),
            Self::Iq4Xs => ("WeightIQ4_XS", "iq4_xs"),
            Self::Mxfp4 => ("WeightMXFP4", "mxfp4"),
        }
    }

    /// Values that the columns of a matrix are a multiple of: kernels load 8 at once.
    #[must_use]
    pub fn columns_multiple(self) -> u64 {
        self.dtype().block_len().max(8)
    }
}

/// Element type of cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvElement {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl KvElement {
    /// All types.
    pub const ALL: [Self; 2] = [Self::F16, Self::F32];

    /// Name in kernels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// Name of the type in the source.
    pub(super) fn structure(self) -> &'static str {
        match self {
            Self::F16 => "half",
            Self::F32 => "float",
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}
