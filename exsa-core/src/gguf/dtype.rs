//! The types of tensors.

/// Type of a tensor's elements, as ggml numbers them.
///
/// Quantized types pack a block of elements along the first (fastest) dimension into a few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, non_camel_case_types, reason = "the names are ggml's and say all there is")]
pub enum GgmlType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq2Xxs,
    Iq2Xs,
    Iq3Xxs,
    Iq1S,
    Iq4Nl,
    Iq3S,
    Iq2S,
    Iq4Xs,
    I8,
    I16,
    I32,
    I64,
    F64,
    Iq1M,
    BF16,
    Tq1_0,
    Tq2_0,
    Mxfp4,
    Nvfp4,
    Q1_0,
    Q2_0,
}

/// Type, its number in files, its name, elements and bytes of a block.
const TYPES: [(GgmlType, u32, &str, u64, u64); 35] = {
    use GgmlType::*;
    [
        (F32, 0, "F32", 1, 4),
        (F16, 1, "F16", 1, 2),
        (Q4_0, 2, "Q4_0", 32, 18),
        (Q4_1, 3, "Q4_1", 32, 20),
        (Q5_0, 6, "Q5_0", 32, 22),
        (Q5_1, 7, "Q5_1", 32, 24),
        (Q8_0, 8, "Q8_0", 32, 34),
        (Q8_1, 9, "Q8_1", 32, 36),
        (Q2K, 10, "Q2_K", 256, 84),
        (Q3K, 11, "Q3_K", 256, 110),
        (Q4K, 12, "Q4_K", 256, 144),
        (Q5K, 13, "Q5_K", 256, 176),
        (Q6K, 14, "Q6_K", 256, 210),
        (Q8K, 15, "Q8_K", 256, 292),
        (Iq2Xxs, 16, "IQ2_XXS", 256, 66),
        (Iq2Xs, 17, "IQ2_XS", 256, 74),
        (Iq3Xxs, 18, "IQ3_XXS", 256, 98),
        (Iq1S, 19, "IQ1_S", 256, 50),
        (Iq4Nl, 20, "IQ4_NL", 32, 18),
        (Iq3S, 21, "IQ3_S", 256, 110),
        (Iq2S, 22, "IQ2_S", 256, 82),
        (Iq4Xs, 23, "IQ4_XS", 256, 136),
        (I8, 24, "I8", 1, 1),
        (I16, 25, "I16", 1, 2),
        (I32, 26, "I32", 1, 4),
        (I64, 27, "I64", 1, 8),
        (F64, 28, "F64", 1, 8),
        (Iq1M, 29, "IQ1_M", 256, 56),
        (BF16, 30, "BF16", 1, 2),
        (Tq1_0, 34, "TQ1_0", 256, 54),
        (Tq2_0, 35, "TQ2_0", 256, 66),
        (Mxfp4, 39, "MXFP4", 32, 17),
        (Nvfp4, 40, "NVFP4", 64, 36),
        (Q1_0, 41, "Q1_0", 128, 18),
        (Q2_0, 42, "Q2_0", 64, 18),
    ]
};

impl GgmlType {
    /// The type of this number in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// The type of this name, in any case: `Q4_K`.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.2.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    /// The type's number in files.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The type's name: `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements in a block; 1 for types that are not quantized.
    pub fn block_len(self) -> u64 {
        self.row().3
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> u64 {
        self.row().4
    }

    fn row(self) -> &'static (GgmlType, u32, &'static str, u64, u64) {
        &TYPES[self as usize]
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (i, row) in TYPES.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(GgmlType::from_id(row.1), Some(row.0));
            assert_eq!(GgmlType::from_name(&row.2.to_lowercase()), Some(row.0));
        }
        assert_eq!(GgmlType::from_id(4), None, "removed from the format");
    }
}
