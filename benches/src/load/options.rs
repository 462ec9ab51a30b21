//! Options of `load`.

use crate::backends::{self, KvOptions};
use crate::load::user::{Arrival, User, arrival, range};
use crate::options::mode;
use clap::Parser;
use exsa_core::schedule::Mode;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Sends the requests of many users to engines in this process and to servers, in turn, and prints a JSON
/// line for each, and one for each comparison with the first.
///
/// For example, an engine against llama-server:
///
/// llama-server -m F -t 2 -np 16 -c 16384 --port 8080
///
/// load --model F --engine candle --http llama-server=http://127.0.0.1:8080 --threads 2 --slots 16 --requests
/// 16 --shared 512 --own 128
#[derive(Clone, Debug, Parser)]
#[command(name = "load", version, after_long_help = concat!("Figures\n\n", include_str!("figures.md")))]
pub struct LoadGenOptions {
    /// An engine in this process, on this backend.
    #[arg(long, value_name = "BACKEND,…", value_delimiter = ',', value_parser = backend)]
    pub engine: Vec<String>,

    /// A server that speaks OpenAI's completions: a name for the results, and its address up to /v1.
    #[arg(long, value_name = "NAME=URL", value_parser = server)]
    pub http: Vec<(String, String)>,

    /// The process of a server on this machine, for its processor time (Linux).
    #[arg(long, value_name = "NAME=PID", value_parser = process)]
    pub pid: Vec<(String, u32)>,

    /// The model's name in requests to servers.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub http_model: String,

    /// The model, a GGUF file: for engines, and for the vocabulary that prompts are drawn from.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// Requests in a round.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count(1, 1 << 16))]
    pub requests: usize,

    /// Tokens at the beginning of the prompt that all requests of a round share.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count(0, 1 << 20))]
    pub shared: usize,

    /// Tokens of each prompt's own: a number or a range.
    #[arg(long, value_name = "N|LOW-HIGH", default_value = "128", value_parser = range)]
    pub own: (usize, usize),

    /// Tokens of each answer.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count(1, 1 << 20))]
    pub generate: usize,

    /// When requests come: burst, every:SECONDS, or poisson:RATE a second.
    #[arg(long, value_name = "HOW", default_value = "burst", value_parser = arrival)]
    pub arrival: Arrival,

    /// A user with requests of his own, as NAME:KEY=VALUE:…; keys are requests, shared, own, generate,
    /// arrival (with a slash: every/0.5) and start (seconds). What is not said is as for all. Without users
    /// there is one.
    #[arg(long, value_name = "USER")]
    pub user: Vec<String>,

    /// Send prompts as text instead of token ids; their lengths are then near what is asked.
    #[arg(long)]
    pub text: bool,

    /// Times that the requests are sent to each target; medians are told.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count(1, 1000))]
    pub rounds: usize,

    /// Rounds of shortened requests before.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(0, 1000))]
    pub warmup: usize,

    /// Threads that engines compute with; as many as the machine has processors by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Sequences that engines run together.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count(1, 4096))]
    pub slots: usize,

    /// Tokens of one sequence in engines.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count(1, 1 << 20))]
    pub context: usize,

    /// Tokens of KV in engines; context times slots by default.
    #[arg(long, value_name = "N", value_parser = count(1, 1 << 30))]
    pub kv_tokens: Option<usize>,

    /// MiB that their KV may take.
    #[arg(long, value_name = "MIB", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub kv_mib: u64,

    /// Keys and values of engines.
    #[command(flatten)]
    pub kv: KvOptions,

    /// Tokens in a batch of engines.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count(1, 1 << 20))]
    pub batch: usize,

    /// Tokens of one prompt in a batch while streams decode.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(1, 1 << 20))]
    pub prefill_chunk: usize,

    /// Mode of the engines: latency, throughput or balanced.
    #[arg(long, value_name = "MODE", default_value = "balanced", value_parser = mode)]
    pub mode: Mode,

    /// Seconds that an answer of a server may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,

    /// Seed of the prompts and of random arrivals.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl LoadGenOptions {
    /// Threads to compute with.
    pub fn threads(&self) -> NonZeroUsize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(all)
    }

    /// The users, each with what it does not say itself filled in.
    pub fn users(&self) -> Result<Vec<User>, String> {
        let all = User {
            name: "all".into(),
            requests: self.requests,
            shared: self.shared,
            own: self.own,
            generate: self.generate,
            start: Duration::ZERO,
            arrival: self.arrival,
        };
        if self.user.is_empty() {
            return Ok(vec![all]);
        }
        self.user.iter().map(|text| all.with(text)).collect()
    }
}

fn count(min: usize, max: usize) -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(min as u64..=max as u64)
}

fn backend(text: &str) -> Result<String, String> {
    backends::backend(text).map(|backend| backend.name().to_owned()).map_err(|error| error.to_string())
}

fn server(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && url.starts_with("http://") => Ok((name.into(), url.into())),
        _ => Err("NAME=http://HOST:PORT is expected; https is not spoken".into()),
    }
}

fn process(text: &str) -> Result<(String, u32), String> {
    let parts = text.split_once('=').and_then(|(name, pid)| Some((name, pid.parse().ok()?)));
    match parts {
        Some((name, pid)) if !name.is_empty() => Ok((name.into(), pid)),
        _ => Err("NAME=PID is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        <LoadGenOptions as clap::CommandFactory>::command().debug_assert();
    }
}
