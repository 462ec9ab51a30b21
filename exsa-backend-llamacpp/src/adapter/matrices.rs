//! The matrices of a model that adapters can change.

use super::OUTPUT;
use crate::source::Checked;
use exsa_core::adapter::{AdapterFile, BaseMatrix, BaseModel};
use exsa_core::backend::ModelSource;
use exsa_core::error::LoadError;
use std::collections::BTreeMap;

/// The token embedding. If the output is tied to it, llama.cpp would multiply with an adapter's lookup
/// matrices and abort the process.
const EMBEDDING: &str = "token_embd.weight";

/// Architectures whose graphs have a fixed size in llama.cpp, which the products of adapters could exceed:
/// that would abort the process.
const FIXED_PLANS: [&str; 16] = [
    "kimi-k3",
    "glm5-next",
    "hrm_text",
    "hy_v4",
    "qwen3next",
    "kimi-linear",
    "bailingmoe3",
    "qwen35",
    "qwen35moe",
    "clef",
    "qwen4exp",
    "deepseek4",
    "dflash",
    "nanbeige",
    "minimax-01",
    "minimax-m3",
];

/// The matrices of a model by name.
pub(crate) struct Matrices {
    architecture: String,
    n_head: usize,
    n_head_kv: usize,
    by_name: BTreeMap<String, BaseMatrix>,
}

impl Matrices {
    /// Collects the matrices of the model `checked`.
    pub fn of(checked: &Checked<'_>) -> Self {
        let architecture = checked.info.architecture.clone();
        // 0 for lists of heads by layer.
        let number = |key: &str| {
            let value = checked.gguf.metadata().get::<usize>(&format!("{architecture}.attention.{key}"));
            value.ok().flatten().unwrap_or(0)
        };
        let n_head = number("head_count");
        let n_head_kv =
            match checked.gguf.metadata().get_value(&format!("{architecture}.attention.head_count_kv")) {
                Some(_) => number("head_count_kv"),
                None => n_head,
            };
        let mut by_name = BTreeMap::new();
        for tensor in checked.tensors() {
            let mut dims = tensor.shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX));
            let (Some(columns), Some(rows)) = (dims.next(), dims.next()) else { continue };
            let matrix = BaseMatrix::new(columns, rows).experts(dims.next().unwrap_or(1));
            let matrix = if tensor.name == EMBEDDING { matrix.lookup() } else { matrix };
            if dims.all(|more| more == 1) {
                by_name.insert(tensor.name.clone(), matrix);
            }
        }
        Self { architecture, n_head, n_head_kv, by_name }
    }

    /// Opens an adapter for the model and checks its header.
    pub fn open(&self, source: &ModelSource) -> Result<AdapterFile, LoadError> {
        if FIXED_PLANS.contains(&self.architecture.as_str()) {
            return Err(LoadError::Unsupported {
                what: format!("adapters of the architecture {}", self.architecture),
                supported: "adapters of architectures for which llama.cpp's plans grow with them".to_owned(),
            });
        }
        let Self { n_head, n_head_kv, .. } = *self;
        let matrix = |name: &str| self.matrix(name);
        let base = BaseModel { architecture: &self.architecture, n_head, n_head_kv, matrix: &matrix };
        AdapterFile::open(source, &base)
    }

    /// Rows of the matrix with the most rows in the layers.
    pub fn layer_rows_max(&self) -> usize {
        let layers = self.by_name.iter().filter(|(name, _)| name.starts_with("blk."));
        layers.map(|(_, matrix)| matrix.rows).max().unwrap_or(0)
    }

    fn matrix(&self, name: &str) -> Result<BaseMatrix, String> {
        let Some(matrix) = self.by_name.get(name) else {
            return Err(format!("the model has no matrix {name}"));
        };
        if name == EMBEDDING && !self.by_name.contains_key(OUTPUT) {
            return Err(
                "the model's output has the same weights, for which llama.cpp has no adapters".to_owned()
            );
        }
        Ok(*matrix)
    }
}
