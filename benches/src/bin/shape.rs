//! Writes a GGUF with random weights in the shape of a known model and in any mixture of types: speed does
//! not depend on the values. The vocabulary is the built-in model's, filled up with tokens of no use.
#![forbid(unsafe_code)]

use clap::Parser;
use exsa_benches::progress::say;
use exsa_benches::shape::{self, SHAPES};
use exsa_core::gguf::GgmlType;
use exsa_quant::Mixture;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of the program.
#[derive(Parser)]
#[command(about = "Writes a GGUF with random weights in the shape of a known model")]
struct Options {
    /// Name of the shape.
    #[arg(long, value_name = "NAME", value_parser = SHAPES.map(|shape| shape.name))]
    shape: String,

    /// A mixture as files are named by it (Q4_K_M), or a type for all matrices (IQ3_XXS).
    #[arg(long, value_name = "TYPE", value_parser = types)]
    r#type: shape::Types,

    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn types(name: &str) -> Result<shape::Types, String> {
    let dtype = (0..64).filter_map(GgmlType::from_id).find(|dtype| dtype.name().eq_ignore_ascii_case(name));
    match (Mixture::from_name(name), dtype) {
        (Some(mixture), _) => Ok(shape::Types::Mixture(mixture)),
        (None, Some(dtype)) => Ok(shape::Types::All(dtype)),
        (None, None) => {
            let names: Vec<_> = Mixture::all().map(Mixture::name).collect();
            Err(format!("no type and no mixture; mixtures are {}", names.join(", ")))
        }
    }
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let written = SHAPES
        .iter()
        .filter(|shape| shape.name == options.shape)
        .try_for_each(|shape| shape.write(&options.r#type, &options.out));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {}: {error}", options.out.display()));
            ExitCode::FAILURE
        }
    }
}
