//! The section `[models.NAME.draft]`: a draft model beside the model.

use super::units;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// A smaller model with the same vocabulary, which drafts tokens for the model of the table.
///
/// ```
/// use exsa_server::models::DraftEntry;
///
/// let draft: DraftEntry = serde_json::from_value(serde_json::json!({"path": "small.gguf", "drafts_max": 8}))?;
/// assert_eq!(draft.drafts_max.map(usize::from), Some(8));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DraftEntry {
    /// The GGUF file: absolute, or relative to one of the folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Whether it is the built-in model instead of a file.
    pub builtin: bool,
    /// Maximum drafts per request and step; 16 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drafts_max: Option<NonZeroUsize>,
    /// Maximum bytes of its KV cache; 256 MiB by default.
    #[serde(with = "units::bytes", skip_serializing_if = "Option::is_none")]
    pub kv_bytes: Option<u64>,
}
