//! Whole files: mixtures of types, importance matrices, and the conversion.

mod convert;
mod error;
mod importance;
mod mixture;
mod options;
mod rules;

pub use convert::quantize_gguf;
pub use error::{ImportanceError, QuantizeError};
pub use importance::{CalibrationText, ImportanceMatrix};
pub use mixture::Mixture;
pub use options::{Progress, QuantizeOptions, QuantizeSummary};
pub use rules::planned_types;
