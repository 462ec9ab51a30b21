//! Errors of GGUF files.

use super::limits::ALIGNMENT_MAX;

/// Error of reading a GGUF file. Offsets are in bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Reading failed.
    #[error("reading the file: {0}")]
    Io(#[from] std::io::Error),
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file: it begins with {found:02x?}, not with \"GGUF\"")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The version is not supported.
    #[error("GGUF version {version} is not supported (2 and 3 are); {hint}")]
    Version {
        /// The version that the file states.
        version: u32,
        /// Probable format of the file, and a remedy.
        hint: &'static str,
    },
    /// The file ends too early.
    #[error("the file is truncated: {what} at offset {offset} needs {needed} bytes, {left} are left")]
    Truncated {
        /// The part that was to be read.
        what: String,
        /// Its offset in the file.
        offset: u64,
        /// Bytes that it takes at least.
        needed: u64,
        /// Bytes left in the file.
        left: u64,
    },
    /// A number exceeds a limit of this reader.
    #[error("{what} at offset {offset} is {value}; at most {limit} is allowed")]
    Limit {
        /// The things that the number counts.
        what: String,
        /// Its offset in the file.
        offset: u64,
        /// The number.
        value: u64,
        /// The greatest allowed.
        limit: u64,
    },
    /// Bytes that should be text are not UTF-8.
    #[error("{what} at offset {offset} is not UTF-8")]
    Text {
        /// Kind of the text.
        what: String,
        /// Its offset in the file.
        offset: u64,
    },
    /// A value has a type that does not exist.
    #[error("{what} at offset {offset}: {value} is not a value type (0 to 12 are)")]
    ValueType {
        /// Which value.
        what: String,
        /// Offset of the type.
        offset: u64,
        /// The type's number.
        value: u32,
    },
    /// A key or a tensor's name occurs twice.
    #[error("{what} '{name}' occurs twice, the second time at offset {offset}")]
    Duplicate {
        /// `key` or `tensor`.
        what: &'static str,
        /// The name.
        name: String,
        /// Offset of its second entry.
        offset: u64,
    },
    /// `general.alignment` cannot be used.
    #[error(
        "general.alignment is {value}; it must be a power of two from 8 to {ALIGNMENT_MAX} (offset {offset})"
    )]
    Alignment {
        /// The alignment found.
        value: u64,
        /// Offset of its entry.
        offset: u64,
    },
    /// A boolean is neither 0 nor 1.
    #[error("{what} at offset {offset}: {value} is not a boolean (0 and 1 are)")]
    Bool {
        /// Which value.
        what: String,
        /// Offset of the byte.
        offset: u64,
        /// The byte.
        value: u8,
    },
    /// A key that is needed is missing.
    #[error("key '{0}' is missing")]
    Missing(String),
    /// The value of a key has the wrong type or is out of range.
    #[error("key '{key}' at offset {offset}: found {found}, expected {expected}")]
    Type {
        /// The key.
        key: String,
        /// Offset of its entry.
        offset: u64,
        /// The value found.
        found: String,
        /// Allowed values.
        expected: &'static str,
    },
    /// The entry of a tensor is invalid.
    #[error("tensor '{name}' at offset {offset}: {problem}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// Offset of its entry.
        offset: u64,
        /// The problem, and the values that are allowed.
        problem: String,
    },
    /// The files of a split model do not belong together, or one of them is missing.
    #[error("{file}: {problem}")]
    Split {
        /// Name of the file.
        file: String,
        /// The problem, and the files that are expected.
        problem: String,
    },
}
