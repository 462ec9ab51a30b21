//! Qwen 2, 2.5 and 3.

use super::{Architecture, PLAIN, QkNorm};

/// Qwen2 and Qwen2.5 (arXiv:2407.10671): biases on queries, keys and values, which any projection may have.
pub(super) static QWEN2: Architecture = Architecture { name: "qwen2", ..PLAIN };

/// Qwen3 (arXiv:2505.09388): no biases, but norms of queries and keys.
pub(super) static QWEN3: Architecture = Architecture { name: "qwen3", qk_norm: QkNorm::Heads, ..PLAIN };
