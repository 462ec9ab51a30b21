//! Options of `throughput`.

use crate::backends::{self, KvOptions};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use exsa_core::schedule::Mode;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Most tokens that a prompt, an answer or a batch may have.
const TOKENS_MAX: u64 = 1 << 20;
/// Most streams that may run together.
const PARALLEL_MAX: u64 = 4096;
/// Most threads, and most rounds.
const COUNT_MAX: u64 = 1024;

/// Measures how fast a backend runs a GGUF model, and prints one JSON line per case on stdout.
///
/// Every prompt length is measured with every number of parallel streams. Words for people go to stderr.
#[derive(Clone, Debug, Parser)]
#[command(name = "throughput", version, after_long_help = concat!("Figures\n\n", include_str!("figures.md")))]
pub struct Options {
    /// The backend; several are measured in turn and compared with the first.
    #[arg(long, value_name = "NAME,…", default_value = "candle", value_delimiter = ',', value_parser = backend_name)]
    pub backend: Vec<String>,

    /// The model, a GGUF file; the scripted backend needs none.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// Device to run on, by the backend's name for it; its preferred one by default.
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Tokens of the prompts; several lengths make several cases.
    #[arg(long, value_name = "N,…", default_value = "512", value_delimiter = ',', value_parser = tokens(1))]
    pub prompt: Vec<usize>,

    /// Prompts of mixed lengths instead, each drawn from LOW to HIGH tokens.
    #[arg(long, value_name = "LOW,HIGH", value_parser = length_range, conflicts_with = "prompt")]
    pub ragged: Option<(usize, usize)>,

    /// Tokens that each stream generates in a round; 0 measures prompts alone.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = tokens(0))]
    pub generate: usize,

    /// Streams that run together; several numbers make several cases.
    #[arg(long, value_name = "N,…", default_value = "1", value_delimiter = ',', value_parser = count(1, PARALLEL_MAX))]
    pub parallel: Vec<usize>,

    /// Threads that compute, and that the memory bandwidth is measured with; as many as the machine has
    /// processors by default.
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,

    /// Times that each case is measured, the backends in turn; the medians are told.
    #[arg(long, alias = "repetitions", value_name = "N", default_value_t = 3, value_parser = count(1, COUNT_MAX))]
    pub rounds: usize,

    /// Times that the prompts alone are measured, as many as --rounds by default; 0 leaves only what decoding
    /// needs.
    #[arg(long, value_name = "N", value_parser = count(0, COUNT_MAX))]
    pub prefill_rounds: Option<usize>,

    /// Times that the beginnings of the prompts, a batch of tokens in all, are computed before measuring.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(0, COUNT_MAX))]
    pub warmup: usize,

    /// Tokens in a batch, over all streams.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = tokens(1))]
    pub batch: usize,

    /// Tokens of one prompt in a batch.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = tokens(1))]
    pub prefill_chunk: usize,

    /// Mode of the engine: latency, throughput or balanced.
    #[arg(long, value_name = "MODE", default_value = "throughput", value_parser = mode)]
    pub mode: Mode,

    /// Tokens that a sequence may hold; just enough for the case by default.
    #[arg(long, value_name = "N", value_parser = tokens(1))]
    pub context: Option<usize>,

    /// Tokens of KV over all streams, never less than the case needs; context times streams by default.
    #[arg(long, value_name = "N", value_parser = count(1, TOKENS_MAX * PARALLEL_MAX))]
    pub kv_tokens: Option<usize>,

    /// MiB that the KV cache may take.
    #[arg(long, value_name = "MIB", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub kv_mib: u64,

    /// Random adapters (LoRA) that the streams use in turn; each backend is then measured without and with
    /// them.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count(0, 64), conflicts_with = "memory")]
    pub adapters: usize,

    /// Rank of the adapters.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count(1, 4096))]
    pub adapter_rank: usize,

    /// Keys and values.
    #[command(flatten)]
    pub kv: KvOptions,

    /// Measure memory and loading time instead, each backend in a process of its own that runs each case
    /// once.
    #[arg(long)]
    pub memory: bool,

    /// Set for these processes.
    #[arg(long, hide = true, requires = "memory")]
    pub alone: bool,

    /// Seed of the random prompts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl Options {
    /// Threads to compute with.
    pub fn threads(&self) -> NonZeroUsize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(all)
    }
}

fn count(min: u64, max: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(min..=max)
}

fn tokens(min: u64) -> RangedU64ValueParser<usize> {
    count(min, TOKENS_MAX)
}

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let allowed = || format!("a number from 1 to {COUNT_MAX} is allowed");
    let threads: NonZeroUsize = text.parse().map_err(|_| allowed())?;
    if threads.get() as u64 <= COUNT_MAX { Ok(threads) } else { Err(allowed()) }
}

/// A mode of the engine by its name.
pub fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "latency" => Ok(Mode::Latency),
        "throughput" => Ok(Mode::Throughput),
        "balanced" => Ok(Mode::Balanced),
        _ => Err("latency, throughput and balanced are allowed".into()),
    }
}

fn backend_name(text: &str) -> Result<String, String> {
    backends::backend(text).map(|backend| backend.name().to_owned()).map_err(|error| error.to_string())
}

fn length_range(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once(',').and_then(|(low, high)| {
        let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (1 <= low && low <= high && high as u64 <= TOKENS_MAX).then_some((low, high))
    });
    parsed.ok_or_else(|| format!("two numbers LOW,HIGH with 1 <= LOW <= HIGH <= {TOKENS_MAX} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, PromptLength};

    fn parse(line: &str) -> Result<Options, String> {
        let words = std::iter::once("throughput").chain(line.split_whitespace());
        Options::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_documented_command_line() {
        let line = "--backend scripted --model F --prompt 512 --generate 128 --parallel 1,4,16 --threads 2";
        let options = parse(line).unwrap();
        assert_eq!(options.parallel, [1, 4, 16]);
        assert_eq!(options.threads().get(), 2);
        let cases = Case::all(&options);
        let prompt = PromptLength::Fixed(512);
        assert_eq!(cases, [1, 4, 16].map(|parallel| Case { prompt, generate: 128, parallel }));
    }

    #[test]
    fn every_prompt_with_every_number_of_streams() {
        let cases = Case::all(&parse("--backend scripted --prompt 8,16 --parallel 1,2").unwrap());
        let seen: Vec<_> = cases.iter().map(ToString::to_string).collect();
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[1], "prompt 8, generate 128, parallel 2");
        let cases = Case::all(&parse("--backend scripted --ragged 10,20 --parallel 3").unwrap());
        assert_eq!(cases.len(), 1);
        assert_eq!(cases[0].to_string(), "prompts of 10 to 20, generate 128, parallel 3");
    }

    #[test]
    fn bad_values_are_refused_with_what_is_allowed() {
        for (line, words) in [
            ("--parallel 0", "1..=4096"),
            ("--parallel 1,,2", "--parallel"),
            ("--parallel -3", "-3"),
            ("--prompt 0", "1..=1048576"),
            ("--prompt many", "many"),
            ("--prompt 99999999999999999999", "99999999999999999999"),
            ("--threads 0", "1 to 1024"),
            ("--threads 4000", "1 to 1024"),
            ("--rounds 0", "1..=1024"),
            ("--backend vllm", "scripted, candle"),
            ("--ragged 9,3", "LOW <= HIGH"),
            ("--ragged 9", "LOW,HIGH"),
            ("--ragged 0,3", "1 <= LOW"),
            ("--ragged 1,2 --prompt 3", "--prompt"),
            ("--batch 0", "1..=1048576"),
            ("--kv-mib 0", "1..=16777216"),
            ("--generate 1.5", "1.5"),
            ("--mode fast", "balanced"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn the_command_is_well_formed() {
        <Options as clap::CommandFactory>::command().debug_assert();
    }
}
