//! Quantization mixtures, by which files are named.

use exsa_core::gguf::GgmlType;

/// A mixture: the assignment of types to tensors. The rules are llama.cpp's, so that a name denotes the same
/// file layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, non_camel_case_types, reason = "the names are llama.cpp's and say all there is")]
pub enum Mixture {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q2KS,
    Q3KS,
    Q3KM,
    Q3KL,
    Q4KS,
    Q4KM,
    Q5KS,
    Q5KM,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Tq1_0,
    Tq2_0,
    /// MXFP4 for the experts of mixture-of-experts models, Q8_0 for the rest.
    Mxfp4Moe,
    Q1_0,
    Q2_0,
}

/// Mixture, `general.file_type`, name, type of most tensors.
const MIXTURES: [(Mixture, u32, &str, GgmlType); 25] = [
    (Mixture::F32, 0, "F32", GgmlType::F32),
    (Mixture::F16, 1, "F16", GgmlType::F16),
    (Mixture::BF16, 32, "BF16", GgmlType::BF16),
    (Mixture::Q4_0, 2, "Q4_0", GgmlType::Q4_0),
    (Mixture::Q4_1, 3, "Q4_1", GgmlType::Q4_1),
    (Mixture::Q5_0, 8, "Q5_0", GgmlType::Q5_0),
    (Mixture::Q5_1, 9, "Q5_1", GgmlType::Q5_1),
    (Mixture::Q8_0, 7, "Q8_0", GgmlType::Q8_0),
    (Mixture::Q2K, 10, "Q2_K", GgmlType::Q2K),
    (Mixture::Q2KS, 21, "Q2_K_S", GgmlType::Q2K),
    (Mixture::Q3KS, 11, "Q3_K_S", GgmlType::Q3K),
    (Mixture::Q3KM, 12, "Q3_K_M", GgmlType::Q3K),
    (Mixture::Q3KL, 13, "Q3_K_L", GgmlType::Q3K),
    (Mixture::Q4KS, 14, "Q4_K_S", GgmlType::Q4K),
    (Mixture::Q4KM, 15, "Q4_K_M", GgmlType::Q4K),
    (Mixture::Q5KS, 16, "Q5_K_S", GgmlType::Q5K),
    (Mixture::Q5KM, 17, "Q5_K_M", GgmlType::Q5K),
    (Mixture::Q6K, 18, "Q6_K", GgmlType::Q6K),
    (Mixture::Iq4Nl, 25, "IQ4_NL", GgmlType::Iq4Nl),
    (Mixture::Iq4Xs, 30, "IQ4_XS", GgmlType::Iq4Xs),
    (Mixture::Tq1_0, 36, "TQ1_0", GgmlType::Tq1_0),
    (Mixture::Tq2_0, 37, "TQ2_0", GgmlType::Tq2_0),
    (Mixture::Mxfp4Moe, 38, "MXFP4_MOE", GgmlType::Mxfp4),
    (Mixture::Q1_0, 40, "Q1_0", GgmlType::Q1_0),
    (Mixture::Q2_0, 41, "Q2_0", GgmlType::Q2_0),
];

impl Mixture {
    /// All mixtures.
    pub fn all() -> impl Iterator<Item = Self> {
        MIXTURES.iter().map(|row| row.0)
    }

    /// The mixture of this name: `Q4_K_M`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        MIXTURES.iter().find(|row| row.2.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    /// The name: `Q4_K_M`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The value of `general.file_type`.
    pub fn file_type(self) -> u32 {
        self.row().1
    }

    /// The type of most tensors.
    pub fn default_type(self) -> GgmlType {
        self.row().3
    }

    fn row(self) -> &'static (Self, u32, &'static str, GgmlType) {
        &MIXTURES[self.index()]
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for Mixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (i, row) in MIXTURES.iter().enumerate() {
            assert_eq!(row.0.index(), i);
            assert_eq!(Mixture::from_name(&row.2.to_lowercase()), Some(row.0));
            assert!(crate::can_quantize(row.3), "{}", row.2);
        }
        assert_eq!(Mixture::from_name("Q4_K"), None);
    }
}
