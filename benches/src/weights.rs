//! How much of a model's weights a decode step reads.

use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use std::fs::File;
use std::path::Path;

/// Bytes of weights that one decode step of the GGUF at `path` has to read, however many streams it serves: all
/// tensors, less the embedding table where there is an output matrix beside it. Of the table, a step reads but a row
/// for each stream.
pub fn bytes_per_step(path: &Path) -> Result<u64, LoadError> {
    let io = |source| LoadError::Io { path: path.into(), source };
    let gguf = Gguf::read(&mut File::open(path).map_err(io)?)?;
    Ok(read_bytes(gguf.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.bytes))))
}

fn read_bytes<'a>(tensors: impl Iterator<Item = (&'a str, u64)> + Clone) -> u64 {
    let untied = tensors.clone().any(|(name, _)| name == "output.weight");
    tensors
        .filter(|(name, _)| !(untied && *name == "token_embd.weight"))
        .fold(0, |sum, (_, bytes)| sum.saturating_add(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_the_output_matrix_too_is_read() {
        let tied = [("token_embd.weight", 100), ("blk.0.attn_q.weight", 10), ("output_norm.weight", 1)];
        assert_eq!(read_bytes(tied.into_iter()), 111);
        let untied = [("token_embd.weight", 100), ("blk.0.attn_q.weight", 10), ("output.weight", 100)];
        assert_eq!(read_bytes(untied.into_iter()), 110);
        assert_eq!(read_bytes([].into_iter()), 0);
    }

    #[test]
    fn a_file_that_is_no_model_is_refused() {
        assert!(matches!(bytes_per_step(Path::new("nowhere.gguf")), Err(LoadError::Io { .. })));
        assert!(matches!(bytes_per_step(Path::new("Cargo.toml")), Err(LoadError::Gguf(_))));
    }
}
