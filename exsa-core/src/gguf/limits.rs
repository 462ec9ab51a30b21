//! Limits of a GGUF. Real files stay far below; a damaged file exceeds them, or its own length, before memory
//! of its claimed size is allocated.

/// Bytes of header, metadata and tensor directory together: 256 MiB. A vocabulary of 256 Ki tokens with its
/// merges takes about 16 MiB.
pub const HEADER_BYTES_MAX: u64 = 256 << 20;

/// Keys of metadata.
pub const KEYS_MAX: u64 = 1 << 16;

/// Tensors.
pub const TENSORS_MAX: u64 = 1 << 18;

/// Bytes of a key; the format's own limit.
pub const KEY_BYTES_MAX: u64 = (1 << 16) - 1;

/// Bytes of a tensor's name; the format says 64, some files have more.
pub const NAME_BYTES_MAX: u64 = 1024;

/// Dimensions of a tensor; ggml's limit.
pub const DIMENSIONS_MAX: u32 = 4;

/// Arrays inside arrays: 1 is an array of plain values.
pub const NESTING_MAX: u32 = 4;

/// Bytes of `general.alignment`.
pub const ALIGNMENT_MAX: u64 = 1 << 16;
