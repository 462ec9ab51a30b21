//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use exsa::core::model_file::MetadataOverride;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

/// Run, inspect, benchmark and quantize GGUF models.
#[derive(Debug, Parser)]
#[command(
    name = "exsa",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted by Ctrl-C."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer a prompt, or chat
    Run(RunArgs),
    /// Show a model: architecture, weights, memory, chat template, licence
    Show(ShowArgs),
    /// Tokenize a text
    Tokenize(TokenizeArgs),
    /// Embed texts: one vector per text, as JSON lines
    Embed(EmbedArgs),
    /// Benchmark prefill and decode speed
    Bench(BenchArgs),
    /// Measure the perplexity of a model on a text
    Perplexity(PerplexityArgs),
    /// Compute an importance matrix for `quantize`
    Imatrix(ImatrixArgs),
    /// Quantize a model
    Quantize(QuantizeArgs),
    /// Fetch a model from Hugging Face or another address
    Pull(PullArgs),
    /// List downloaded models
    List(ListArgs),
    /// Delete downloaded models
    Rm(RmArgs),
    /// Check processor, memory and kernels, and run a self-test
    Doctor(DoctorArgs),
    /// Serve models over HTTP
    #[cfg(feature = "server")]
    Serve(Box<ServeArgs>),
    /// Manage the API keys of a server
    #[cfg(feature = "server")]
    Key(exsa_server::cli::Key),
    /// Verify the audit log of a server, or create its keys
    #[cfg(feature = "server")]
    Audit(exsa_server::cli::Audit),
    /// Print a completion script
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    Man {
        /// Output folder
        folder: PathBuf,
    },
}

/// Options of the engine.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct EngineArgs {
    /// Backend: candle, or llamacpp if built with that feature
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Device of the backend, as listed by `exsa doctor`
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Compute threads [default: number of physical cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Context length: tokens of prompt and answer together [default: the model's context length]
    #[arg(long, short, value_name = "TOKENS")]
    pub context: Option<NonZeroUsize>,
    /// Element type of the KV cache: f32, f16, q8_0 [default: f16]
    #[arg(long, value_name = "TYPE")]
    pub kv_type: Option<String>,
    /// Metadata in place of the file's, such as llama.rope.freq_base=float:1e6; types are int, float, bool
    /// and str; may be given several times
    #[arg(long, value_name = "KEY=TYPE:VALUE")]
    pub override_kv: Vec<MetadataOverride>,
    /// Type that matrices of F32, F16 and BF16 are quantized to while they are loaded: Q8_0, Q4_K and others
    #[arg(long, value_name = "TYPE")]
    pub quantize: Option<String>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// A GGUF file, a downloaded model (hf:OWNER/REPO:QUANT), a preset (.toml), or `builtin` for the built-in
    /// story model, the default
    pub model: Option<String>,
    /// The prompt; without it, the piped input, or a chat on a terminal
    pub prompt: Option<String>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// System prompt
    #[arg(long, short)]
    pub system: Option<String>,
    /// Complete the prompt as text, without a chat template
    #[arg(long)]
    pub raw: bool,
    /// Maximum tokens of an answer
    #[arg(long, short = 'n', value_name = "TOKENS")]
    pub max_tokens: Option<NonZeroUsize>,
    /// Temperature; 0 is greedy
    #[arg(long, allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Seed; the same seed gives the same answer
    #[arg(long)]
    pub seed: Option<u64>,
    /// A request setting by its name in the JSON API, such as top_k=40; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
    /// Answer in JSON that matches this schema: a file, or the schema itself
    #[arg(long, value_name = "SCHEMA")]
    pub json_schema: Option<String>,
    /// Command of an MCP server whose tools the model may call, such as `python3 server.py`; repeatable
    #[arg(long, value_name = "COMMAND", conflicts_with = "raw")]
    pub mcp: Vec<String>,
    /// A tool that may be called without confirmation; repeatable. Without a terminal, only these are called
    #[arg(long, value_name = "NAME")]
    pub mcp_allow: Vec<String>,
    /// Timeout of a tool call, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub mcp_timeout: NonZeroU64,
    /// Print the answer as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print token counts, times and speed to standard error
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    /// A GGUF file, a downloaded model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// List the metadata
    #[arg(long)]
    pub metadata: bool,
    /// List the tensors
    #[arg(long)]
    pub tensors: bool,
    /// Print only the chat template
    #[arg(long)]
    pub template: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct TokenizeArgs {
    /// A GGUF file, a downloaded model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    /// The text; by default standard input
    pub text: Option<String>,
    /// Recognise control tokens in the text
    #[arg(long)]
    pub special: bool,
    /// Print only the number of tokens
    #[arg(long, conflicts_with = "json")]
    pub count: bool,
    /// Print the ids as a JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct EmbedArgs {
    /// A GGUF file, or a downloaded model (hf:OWNER/REPO:QUANT)
    pub model: String,
    /// The texts; by default the lines of standard input
    pub texts: Vec<String>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Truncate each vector to its first N dimensions and normalise it again
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// A GGUF file, a downloaded model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Prompt tokens per stream
    #[arg(long, short, default_value = "512")]
    pub prompt: NonZeroUsize,
    /// Tokens to generate per stream
    #[arg(long, short = 'n', default_value = "64")]
    pub generate: NonZeroUsize,
    /// Numbers of concurrent streams, one row each
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    pub parallel: Vec<NonZeroUsize>,
    /// Rounds; the median is shown
    #[arg(long, default_value = "3")]
    pub rounds: NonZeroUsize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct QuantizeArgs {
    /// The GGUF file to read, or a downloaded model (hf:OWNER/REPO:QUANT)
    pub input: String,
    /// The GGUF file to write; it must not exist
    pub output: PathBuf,
    /// The quantization mixture, such as Q4_K_M or Q8_0
    pub mixture: String,
    /// Importance matrix, as written by `exsa imatrix` or llama-imatrix
    #[arg(long, visible_alias = "imatrix", value_name = "FILE")]
    pub importance: Option<PathBuf>,
    /// Threads [default: number of cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Use the same type for all matrices
    #[arg(long)]
    pub pure: bool,
    /// Requantize weights that are already quantized
    #[arg(long)]
    pub allow_requantize: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ImatrixArgs {
    /// A GGUF file, a downloaded model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    /// The text; by default standard input
    pub file: Option<PathBuf>,
    /// The GGUF file to write; it must not exist
    #[arg(long, short, value_name = "FILE", default_value = "imatrix.gguf")]
    pub output: PathBuf,
    /// Compute threads [default: number of physical cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Tokens per chunk
    #[arg(long, short, value_name = "TOKENS", default_value = "512")]
    pub context: NonZeroUsize,
    /// Maximum number of chunks [default: the whole text]
    #[arg(long, value_name = "N")]
    pub chunks: Option<NonZeroUsize>,
    /// Include the output projection, if it is not tied to the embeddings
    #[arg(long)]
    pub process_output: bool,
    /// Element type of the KV cache: f32, f16, q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub kv_type: String,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PerplexityArgs {
    /// A GGUF file, a downloaded model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    /// The text; by default standard input
    pub file: Option<PathBuf>,
    /// Backend: candle, or llamacpp if built with that feature
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Device of the backend, as listed by `exsa doctor`
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Compute threads [default: number of physical cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Tokens per chunk; the second half of each chunk is scored
    #[arg(long, short, value_name = "TOKENS", default_value = "512")]
    pub context: NonZeroUsize,
    /// Maximum number of chunks [default: the whole text]
    #[arg(long, value_name = "N")]
    pub chunks: Option<NonZeroUsize>,
    /// Element type of the KV cache: f32, f16, q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub kv_type: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(feature = "server")]
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// A GGUF file, or the source of a model, which is downloaded if it is not cached: hf:OWNER/REPO:QUANT or
    /// an https address; overrides --model
    #[arg(value_name = "MODEL")]
    pub source: Option<String>,
    /// Allow addresses, mirrors and redirects without TLS
    #[arg(long)]
    pub allow_http: bool,
    #[command(flatten)]
    pub server: exsa_server::cli::Args,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PullArgs {
    /// hf:OWNER/REPO, hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE, or an https address, optionally followed by
    /// #sha256=DIGEST
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Branch, tag or commit of the repository
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub revision: String,
    /// Skip the vision projector (mmproj)
    #[arg(long)]
    pub no_projector: bool,
    /// Concurrent parts of a file, 1 to 16
    #[arg(long, value_name = "N", default_value = "4")]
    pub parallel: usize,
    /// File with the access token, readable only by its owner [default: HF_TOKEN, HF_TOKEN_PATH or Hugging
    /// Face's own file]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Address of the hub or of a mirror [default: HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Allow addresses, mirrors and redirects without TLS
    #[arg(long)]
    pub allow_http: bool,
    /// Use only the cache, and fail if a file is missing
    #[arg(long)]
    pub offline: bool,
    /// Print the paths as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RmArgs {
    /// The models, as listed by `exsa list`
    #[arg(required_unless_present = "incomplete", value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Delete incomplete downloads
    #[arg(long)]
    pub incomplete: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Skip the self-test
    #[arg(long)]
    pub quick: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
