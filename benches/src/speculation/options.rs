//! Options of `speculation`.

use super::workload::Workload;
use clap::Parser;
use clap::builder::PossibleValuesParser;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Measures what drafts are worth, and prints one JSON line per workload, number of streams and proposer.
///
/// Without rates the prompts are text of four kinds, and the proposers those of the engine. With rates the
/// prompts are random tokens, and the drafts are known tokens of the answer, right at these rates: for models
/// with random weights, whose time is that of a real model.
#[derive(Clone, Debug, Parser)]
#[command(name = "speculation", version)]
pub struct Options {
    /// The backend.
    #[arg(long, value_name = "NAME", default_value = "candle", value_parser = PossibleValuesParser::new(crate::backends::NAMES))]
    pub backend: String,

    /// The model, a GGUF file.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,

    /// Rates at which drafts are right, 0 to 1.
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', value_parser = rate)]
    pub rate: Vec<f64>,

    /// Numbers of streams that run together.
    #[arg(long, value_name = "N,…", default_value = "1,4,8,16", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    pub streams: Vec<u16>,

    /// Tokens per answer at most.
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u16).range(2..=4096))]
    pub generate: u16,

    /// Rounds measured; another one before them warms up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub rounds: u16,

    /// Temperature of the draw.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f32,

    /// Verify all drafts that are proposed, whether they are expected to pay or not.
    #[arg(long)]
    pub all_drafts: bool,

    /// Threads that compute; all processors by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

impl Options {
    /// Threads to compute with.
    pub fn threads(&self) -> NonZeroUsize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(all)
    }

    /// The workloads to measure.
    pub(super) fn workloads(&self) -> &'static [Workload] {
        if self.rate.is_empty() { &Workload::TEXTS } else { &[Workload::Random] }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "a number from 0 to 1 is allowed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_refused() {
        let parse = |extra: &[&str]| {
            Options::try_parse_from([&["speculation", "--model", "m.gguf"], extra].concat())
                .map_err(|e| e.to_string())
        };
        let options = parse(&["--rate", "0.5,1", "--streams", "2"]).unwrap();
        assert_eq!((options.rate.as_slice(), options.streams.as_slice()), (&[0.5, 1.0][..], &[2][..]));
        assert!(parse(&["--rate", "1.5"]).unwrap_err().contains("0 to 1"));
        assert!(parse(&["--streams", "0"]).unwrap_err().contains("1..=256"));
        assert!(parse(&["--backend", "vllm"]).unwrap_err().contains("candle"));
    }
}
