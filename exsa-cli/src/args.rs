//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use exsa::core::model_file::MetadataOverride;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

/// Runs, inspects, measures and quantizes GGUF models.
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
    /// Show a model: architecture, weights, memory, template, licence
    Show(ShowArgs),
    /// Turn text into token ids
    Tokenize(TokenizeArgs),
    /// Turn texts into vectors, a line of JSON each
    Embed(EmbedArgs),
    /// Measure prompt and generation speed
    Bench(BenchArgs),
    /// Measure how well a model predicts a text
    Perplexity(PerplexityArgs),
    /// Compute an importance matrix, by which `quantize` weighs errors
    Imatrix(ImatrixArgs),
    /// Write a model with smaller weights
    Quantize(QuantizeArgs),
    /// Fetch a model from Hugging Face or another address
    Pull(PullArgs),
    /// List the fetched models
    List(ListArgs),
    /// Delete fetched models
    Rm(RmArgs),
    /// Check processor, memory and kernels
    Doctor(DoctorArgs),
    /// Serve models over HTTP
    #[cfg(feature = "server")]
    Serve(Box<ServeArgs>),
    /// Manage the API keys of a server
    #[cfg(feature = "server")]
    Key(exsa_server::cli::Key),
    /// Verify the audit log of a server, make keys for it
    #[cfg(feature = "server")]
    Audit(exsa_server::cli::Audit),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    Man {
        /// Folder of the pages
        folder: PathBuf,
    },
}

/// How a model is run.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct EngineArgs {
    /// Backend: candle, or llamacpp in a build with that feature
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Device of the backend, as `exsa doctor` lists them
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Threads that compute [default: as many as there are physical cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Tokens of prompt and answer together [default: the model's context length]
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
    /// A GGUF file, a fetched model (hf:OWNER/REPO:QUANT), a preset (.toml), or `builtin` for the built-in
    /// story model, the default
    pub model: Option<String>,
    /// The prompt; without one, a chat begins, or the piped input is the prompt
    pub prompt: Option<String>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Instructions to the model
    #[arg(long, short)]
    pub system: Option<String>,
    /// Continue the prompt as text, without a chat template
    #[arg(long)]
    pub raw: bool,
    /// Maximum tokens of an answer
    #[arg(long, short = 'n', value_name = "TOKENS")]
    pub max_tokens: Option<NonZeroUsize>,
    /// 0 always takes the most probable token
    #[arg(long, allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// The same seed gives the same answer
    #[arg(long)]
    pub seed: Option<u64>,
    /// A setting of requests by its name in the JSON API, as top_k=40; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
    /// Answer in JSON by this schema: a file, or the schema itself
    #[arg(long, value_name = "SCHEMA")]
    pub json_schema: Option<String>,
    /// Command of an MCP server whose tools the model may call, as `python3 server.py`; repeatable
    #[arg(long, value_name = "COMMAND", conflicts_with = "raw")]
    pub mcp: Vec<String>,
    /// A tool that may be called without asking; repeatable. Without a terminal no other is called
    #[arg(long, value_name = "NAME")]
    pub mcp_allow: Vec<String>,
    /// Seconds that a call of a tool may take
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub mcp_timeout: NonZeroU64,
    /// Print the answer as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print tokens, times and speed to standard error
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    /// A GGUF file, a fetched model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// List the metadata
    #[arg(long)]
    pub metadata: bool,
    /// List the tensors
    #[arg(long)]
    pub tensors: bool,
    /// Print the chat template alone
    #[arg(long)]
    pub template: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct TokenizeArgs {
    /// A GGUF file, a fetched model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    /// The text; standard input without it
    pub text: Option<String>,
    /// Recognise control tokens that the text spells out
    #[arg(long)]
    pub special: bool,
    /// Print the number of tokens alone
    #[arg(long, conflicts_with = "json")]
    pub count: bool,
    /// Print the ids as a JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct EmbedArgs {
    /// A GGUF file, or a fetched model (hf:OWNER/REPO:QUANT)
    pub model: String,
    /// The texts; the lines of standard input without them
    pub texts: Vec<String>,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Keep the first N numbers of each vector and normalise them again
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// A GGUF file, a fetched model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Tokens of each prompt
    #[arg(long, short, default_value = "512")]
    pub prompt: NonZeroUsize,
    /// Tokens to generate for each prompt
    #[arg(long, short = 'n', default_value = "64")]
    pub generate: NonZeroUsize,
    /// Streams at a time, a row each
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    pub parallel: Vec<NonZeroUsize>,
    /// Rounds, of which the median is shown
    #[arg(long, default_value = "3")]
    pub rounds: NonZeroUsize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct QuantizeArgs {
    /// The GGUF file to read, or a fetched model (hf:OWNER/REPO:QUANT)
    pub input: String,
    /// The GGUF file to write; it must not exist
    pub output: PathBuf,
    /// The mixture, as files are named by it: Q4_K_M, Q8_0
    pub mixture: String,
    /// Importance matrix, as `exsa imatrix` and llama-imatrix write it
    #[arg(long, visible_alias = "imatrix", value_name = "FILE")]
    pub importance: Option<PathBuf>,
    /// Threads [default: as many as there are cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Give all matrices the same type
    #[arg(long)]
    pub pure: bool,
    /// Quantize weights that are quantized already
    #[arg(long)]
    pub allow_requantize: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ImatrixArgs {
    /// A GGUF file, a fetched model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    /// The text; standard input without it
    pub file: Option<PathBuf>,
    /// The GGUF file to write; it must not exist
    #[arg(long, short, value_name = "FILE", default_value = "imatrix.gguf")]
    pub output: PathBuf,
    /// Threads that compute [default: as many as there are physical cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Tokens of each chunk
    #[arg(long, short, value_name = "TOKENS", default_value = "512")]
    pub context: NonZeroUsize,
    /// Maximum chunks [default: all of the text]
    #[arg(long, value_name = "N")]
    pub chunks: Option<NonZeroUsize>,
    /// Include the output projection, where it has weights of its own
    #[arg(long)]
    pub process_output: bool,
    /// Element type of the KV cache: f32, f16, q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub kv_type: String,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PerplexityArgs {
    /// A GGUF file, a fetched model (hf:OWNER/REPO:QUANT), or `builtin`
    pub model: String,
    /// The text; standard input without it
    pub file: Option<PathBuf>,
    /// Backend: candle, or llamacpp in a build with that feature
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Device of the backend, as `exsa doctor` lists them
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Threads that compute [default: as many as there are physical cores]
    #[arg(long, short)]
    pub threads: Option<NonZeroUsize>,
    /// Tokens of each chunk, of which the second half is scored
    #[arg(long, short, value_name = "TOKENS", default_value = "512")]
    pub context: NonZeroUsize,
    /// Maximum chunks [default: all of the text]
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
    /// A GGUF file, or the source of a model, which is fetched if it is not there: hf:OWNER/REPO:QUANT or an
    /// https address; goes before --model
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
    /// hf:OWNER/REPO, hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE, or an https address, behind which
    /// #sha256=DIGEST may stand
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Branch, tag or commit of the repository
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub revision: String,
    /// Leave out the projector of a model that takes pictures
    #[arg(long)]
    pub no_projector: bool,
    /// Parts of a file that are fetched at a time, 1 to 16
    #[arg(long, value_name = "N", default_value = "4")]
    pub parallel: usize,
    /// File with the access token, open to its owner alone [default: HF_TOKEN, HF_TOKEN_PATH or Hugging
    /// Face's own file]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Address of the hub or of a mirror [default: HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Allow addresses, mirrors and redirects without TLS
    #[arg(long)]
    pub allow_http: bool,
    /// Take files from the cache alone, and fail where one is missing
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
    /// The models, as `exsa list` names them
    #[arg(required_unless_present = "incomplete", value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Delete downloads that were broken off
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
