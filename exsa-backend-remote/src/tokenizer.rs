//! The local tokenizer of a remote model.

use crate::error::ConnectError;
use crate::options::TokenizerSource;
use exsa_core::engine::PromptEncoder;
use exsa_core::model_file::ModelFile;
use exsa_core::model_info::{ModelInfo, check_type};
use exsa_core::tokenizer;

/// Loads the model information of the tokenizer's source, and the encoder.
pub(crate) fn load(source: &TokenizerSource) -> Result<(ModelInfo, PromptEncoder), ConnectError> {
    let source = match source {
        TokenizerSource::Gguf(source) => source,
        TokenizerSource::Tokenizer(tokenizer) => {
            let info = ModelInfo::new(tokenizer.n_vocab(), 0);
            let encoder = PromptEncoder::new(&info, tokenizer.clone());
            return Ok((info, encoder));
        }
    };
    let failed = |error: &dyn std::fmt::Display| ConnectError::Tokenizer(error.to_string());
    let file = ModelFile::open(source).map_err(|error| failed(&error))?;
    let gguf = file.gguf();
    check_type(gguf).map_err(|error| failed(&error))?;
    let info = ModelInfo::from_gguf(gguf).map_err(|error| failed(&error))?;
    let tokenizer = tokenizer::load(gguf.metadata()).map_err(|error| failed(&error))?;
    let encoder = PromptEncoder::new(&info, tokenizer);
    Ok((info, encoder))
}
