//! Pooling: the computation of one embedding from the hidden states of a text.

use exsa_core::backend::Pooling;
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;

/// A model file's metadata about embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolingFacts {
    /// The pooling that the model was trained with, if the file names one.
    of_file: Option<Pooling>,
    /// Whether there is a classification head.
    has_head: bool,
}

impl PoolingFacts {
    /// Reads them from a GGUF, whose `pooling_type` is llama.cpp's number.
    pub fn of(gguf: &Gguf) -> Result<Self, LoadError> {
        let metadata = gguf.metadata();
        let architecture: String = metadata.require("general.architecture")?;
        let key = format!("{architecture}.pooling_type");
        let of_file = match metadata.get::<u32>(&key)? {
            None | Some(0) => None,
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::First),
            Some(3) => Some(Pooling::Last),
            Some(4) => Some(Pooling::Rank),
            Some(other) => {
                return Err(LoadError::Unsupported {
                    what: format!("{key} = {other}"),
                    supported: "0 to 4".to_owned(),
                });
            }
        };
        let has_head = gguf.tensor("cls.weight").is_some() || gguf.tensor("cls.output.weight").is_some();
        Ok(Self { of_file, has_head })
    }

    /// Returns the pooling of a session whose options request `asked`.
    pub fn choose(self, asked: Option<Pooling>) -> Result<Option<Pooling>, LoadError> {
        let pooling = asked.or(self.of_file);
        if pooling == Some(Pooling::Rank) && !self.has_head {
            return Err(LoadError::Option {
                option: "pooling",
                problem: "this model has no classification head to rank with".to_owned(),
            });
        }
        Ok(pooling)
    }
}
