//! Element types of the KV cache.

/// Element type of cached keys or values: [`SessionOptions::kv_type`](super::SessionOptions::kv_type).
///
/// A backend refuses an unsupported type with
/// [`LoadError::Option`](crate::error::LoadError::Option), which lists the supported types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum KvType {
    /// IEEE single precision, 32 bits.
    F32,
    /// IEEE half precision, 16 bits, 11 of them significant.
    #[default]
    F16,
    /// bfloat16, 16 bits, 8 of them significant.
    Bf16,
    /// 8-bit integers in blocks of 32 with one scale.
    Q8_0,
    /// 4-bit integers in blocks of 32 with one scale.
    Q4_0,
}

impl KvType {
    /// Name for user input: `f32`, `f16`, `bf16`, `q8_0`, `q4_0`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// All types.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

    /// The type with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv_type| kv_type.name() == name)
    }
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
