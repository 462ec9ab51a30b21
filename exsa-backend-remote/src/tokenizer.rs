//! The local tokenizer of a remote model.

use crate::error::ConnectError;
use crate::options::TokenizerSource;
use exsa_core::backend::ModelSource;
use exsa_core::engine::PromptEncoder;
use exsa_core::gguf::Gguf;
use exsa_core::model_info::{ModelInfo, check_source, check_type};
use exsa_core::tokenizer;
use std::fs::File;
use std::io::{BufReader, Cursor};

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
    check_source(source).map_err(|error| failed(&error))?;
    let gguf = match source {
        ModelSource::File(path) => {
            let file = File::open(path);
            let file = file.map_err(|error| failed(&format_args!("{}: {error}", path.display())))?;
            Gguf::read(&mut BufReader::new(file))
        }
        ModelSource::Embedded(bytes) => Gguf::read(&mut Cursor::new(bytes)),
        ModelSource::Memory(bytes) => Gguf::read(&mut Cursor::new(bytes)),
        _ => return Err(failed(&"a source of this kind cannot be read")),
    };
    let gguf = gguf.map_err(|error| failed(&error))?;
    check_type(&gguf).map_err(|error| failed(&error))?;
    let info = ModelInfo::from_gguf(&gguf).map_err(|error| failed(&error))?;
    let tokenizer = tokenizer::load(gguf.metadata()).map_err(|error| failed(&error))?;
    let encoder = PromptEncoder::new(&info, tokenizer);
    Ok((info, encoder))
}
