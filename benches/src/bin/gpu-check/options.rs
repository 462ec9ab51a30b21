//! Options of the program.

use clap::Parser;
use std::path::PathBuf;

/// Options of the program.
#[derive(Parser)]
#[command(name = "gpu-check", about = "Checks an NVIDIA GPU and writes a report in JSON")]
pub struct Options {
    /// Folder of the report, gpu-check.json, and of the generated model.
    #[arg(value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,

    /// Folder of compiled kernels.
    #[arg(long, value_name = "FOLDER")]
    pub kernels: Option<PathBuf>,

    /// Folder of models to compare with the candle backend, besides the built-in one.
    #[arg(long, value_name = "FOLDER")]
    pub models: Option<PathBuf>,

    /// Parts to run; all without it.
    #[arg(long = "part", value_name = "NAME", value_parser = ["kernels", "models", "speed", "conformance"])]
    pub parts: Vec<String>,

    /// Seconds after which no further measurement begins.
    #[arg(long, value_name = "N", default_value_t = 330)]
    pub seconds: u64,

    /// Shape of the generated model, by the names of the program `shape`.
    #[arg(long, value_name = "NAME", default_value = "1b")]
    pub shape: String,

    /// Streams that decode together.
    #[arg(long, value_name = "N,N…", value_delimiter = ',', default_value = "1,8,32,128")]
    pub streams: Vec<usize>,

    /// Tokens of the prompt that prefill is measured with.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub prefill: usize,

    /// Passes of each measurement of decoding.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub passes: usize,

    /// Only compile all kernels for these targets (90 is sm_90) into --kernels, without a GPU.
    #[arg(long, value_name = "SM,SM…", value_delimiter = ',')]
    pub compile: Vec<u32>,

    /// Use the emulated device: a trial of this program.
    #[cfg(feature = "emulated")]
    #[arg(long)]
    pub emulated: bool,
}
