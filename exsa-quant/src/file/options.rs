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
    /// Threads; 0, the default, for all that the machine has.
    pub threads: usize,
    /// Whether tensors that are quantized already may be quantized again; not by default.
    pub allow_requantize: bool,
    /// Whether all matrices get the mixture's main type; not by default.
    pub pure: bool,
    /// Types of tensors whose names contain a text; the first that matches counts before the mixture's rules.
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

    /// Sets whether quantized tensors may be quantized again.
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

    /// Sets the type of tensors whose names contain `part`. Widths that do not fit it still lead to another.
    #[must_use]
    pub fn tensor_type(mut self, part: &str, dtype: GgmlType) -> Self {
        self.overrides.push((part.to_owned(), dtype));
        self
    }
}

/// A point of a conversion, for its callback.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Name of the tensor in progress.
    pub tensor: &'a str,
    /// Its new type.
    pub dtype: GgmlType,
    /// Number of the tensor, from 0 on.
    pub index: usize,
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of the input's tensors that are done.
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
    /// Tensors that were converted; the others were copied.
    pub converted: usize,
    /// Converted tensors that the importance matrix says nothing about; all of them without one.
    pub without_importance: usize,
}
