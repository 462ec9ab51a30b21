//! Options, progress and result of a conversion.

use super::{ImportanceMatrix, Mixture};
use exsa_core::gguf::GgmlType;

/// Options of [`quantize_gguf`](super::quantize_gguf).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// The mixture.
    pub mixture: Mixture,
    /// Importance of columns; none by default.
    pub importance: Option<ImportanceMatrix>,
    /// Number of threads; 0, the default, uses all of the machine.
    pub threads: usize,
    /// Whether already quantized tensors may be requantized; `false` by default.
    pub allow_requantize: bool,
    /// Whether all matrices get the mixture's main type; `false` by default.
    pub pure: bool,
    /// Types by text in the tensor's name. The first match overrides the mixture's rules.
    pub overrides: Vec<(String, GgmlType)>,
}

impl QuantizeOptions {
    /// Options for `mixture`, with defaults for the rest.
    #[must_use]
    pub fn new(mixture: Mixture) -> Self {
        Self {
            mixture,
            importance: None,
            threads: 0,
            allow_requantize: false,
            pure: false,
            overrides: Vec::new(),
        }
    }

    /// Sets the importance matrix.
    #[must_use]
    pub fn importance(mut self, importance: ImportanceMatrix) -> Self {
        self.importance = Some(importance);
        self
    }

    /// Sets the number of threads.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets whether already quantized tensors may be requantized.
    #[must_use]
    pub fn allow_requantize(mut self, allow: bool) -> Self {
        self.allow_requantize = allow;
        self
    }

    /// Sets whether all matrices get the mixture's main type.
    #[must_use]
    pub fn pure(mut self, pure: bool) -> Self {
        self.pure = pure;
        self
    }

    /// Sets the type of tensors whose names contain `part`. If the rows of a tensor are not whole blocks of
    /// the type, another type is used.
    #[must_use]
    pub fn tensor_type(mut self, part: &str, dtype: GgmlType) -> Self {
        self.overrides.push((part.to_owned(), dtype));
        self
    }
}

/// Progress of a conversion, for its callback.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Name of the tensor in progress.
    pub tensor: &'a str,
    /// Its new type.
    pub dtype: GgmlType,
    /// Index of the tensor, from 0.
    pub index: usize,
    /// Number of tensors.
    pub tensors: usize,
    /// Converted bytes of the input's tensors.
    pub bytes_done: u64,
    /// Bytes of all tensors of the input.
    pub bytes: u64,
}

/// The result of a conversion.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QuantizeSummary {
    /// Bytes of the input's tensors.
    pub bytes_before: u64,
    /// Bytes of the output's tensors.
    pub bytes_after: u64,
    /// Number of converted tensors; the others were copied.
    pub converted: usize,
    /// Number of converted tensors without an entry in the importance matrix; all of them if there is no
    /// matrix.
    pub without_importance: usize,
}
