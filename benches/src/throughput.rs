//! The program: loads the model once, measures case after case.

use crate::backends;
use crate::bandwidth;
use crate::case::Case;
use crate::error::BenchError;
use crate::measure::measure;
use crate::memory;
use crate::options::Options;
use crate::progress::say;
use crate::prompts::Prompts;
use crate::report::{Figures, Report, Settings};
use crate::weights;
use exsa_core::backend::{LoadOptions, LoadProgress, Model, ModelSource, SessionOptions, ThreadOptions};
use exsa_core::clock::SystemClock;
use exsa_core::error::LoadError;
use exsa_core::queue::Fcfs;
use exsa_core::{EngineLoop, EngineOptions, PrefixCacheOptions};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens of KV that each stream has to spare: more than a block of any backend, of which the engine wants one free for
/// every stream that runs.
const SPARE_TOKENS: usize = 256;

/// Measures every case that `options` ask for and writes a line of JSON for each to `out`.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), BenchError> {
    let bench = Bench::load(options)?;
    let cases = Case::all(options);
    // What does not fit is refused before anything is measured.
    let lengths: Vec<_> = cases.iter().map(|case| case.lengths(options.seed)).collect();
    for (case, lengths) in cases.iter().zip(&lengths) {
        bench.session_options(case, lengths)?;
    }
    for (i, (case, lengths)) in cases.iter().zip(&lengths).enumerate() {
        say(format_args!("case {}/{}: {case}", i + 1, cases.len()));
        let report = bench.measure(case, lengths)?;
        let line = serde_json::to_string(&report).map_err(|error| BenchError::Write(error.into()))?;
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(BenchError::Write)?;
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    model: Arc<dyn Model>,
    device: Option<String>,
    prompts: Prompts,
    weights_bytes: Option<u64>,
}

impl<'a> Bench<'a> {
    fn load(options: &'a Options) -> Result<Self, BenchError> {
        let backend = backends::backend(&options.backend)?;
        let path = options.model.as_deref().filter(|_| backends::needs_file(&options.backend));
        let source = match path {
            Some(path) => ModelSource::file(path),
            None if !backends::needs_file(&options.backend) => ModelSource::Embedded(&[]),
            None => return Err(BenchError::ModelMissing { backend: options.backend.clone() }),
        };
        let what = path.map_or_else(|| options.backend.clone(), |path| path.display().to_string());
        let failed = |source: LoadError| BenchError::Load { what: what.clone(), source };
        let weights_bytes = path.map(weights::bytes_per_step).transpose().map_err(failed)?;
        let threads = ThreadOptions { compute: Some(options.threads()) };
        let load_options = LoadOptions { device: options.device.clone(), threads };
        say(format_args!("loading {what}"));
        let start = Instant::now();
        let model = backend.load(&source, &load_options, &mut LoadProgress::none()).map_err(failed)?;
        say(format_args!("{} in {:.1} s", model.info().summary(), start.elapsed().as_secs_f64()));
        let preferred = || backend.devices().into_iter().next().map(|device| device.name);
        Ok(Self {
            device: options.device.clone().or_else(preferred),
            prompts: Prompts::new(&*model, options.seed)?,
            options,
            model,
            weights_bytes,
        })
    }

    /// A session in which all streams of the case fit together; refuses cases that no session fits.
    fn session_options(&self, case: &Case, lengths: &[usize]) -> Result<SessionOptions, BenchError> {
        let Options { context, kv_tokens, generate, .. } = *self.options;
        let longest = lengths.iter().max().copied().unwrap_or_default();
        // A run of one token comes even where none are to be generated.
        let generate = generate.max(1);
        let needed = longest.saturating_add(generate);
        let n_ctx = self.model.info().n_ctx;
        let (limit, what) = match context {
            Some(context) if context < n_ctx => (context, "--context"),
            _ => (n_ctx, "the model's context"),
        };
        if needed > limit {
            return Err(BenchError::Context { prompt: longest, generate, limit, what });
        }
        let kv_needed = lengths.iter().fold(0usize, |sum, len| {
            sum.saturating_add(*len).saturating_add(generate).saturating_add(SPARE_TOKENS)
        });
        match kv_tokens {
            Some(given) if given < kv_needed => {
                Err(BenchError::KvTokens { given, parallel: case.parallel, needed: kv_needed })
            }
            kv_tokens => Ok(SessionOptions {
                sequences_max: case.parallel,
                context_tokens_max: Some(context.unwrap_or(needed).min(n_ctx)),
                kv_tokens_max: Some(kv_tokens.unwrap_or(kv_needed)),
                kv_bytes_max: self.options.kv_mib << 20,
                batch_tokens_max: self.options.batch,
                threads: ThreadOptions { compute: Some(self.options.threads()) },
                ..SessionOptions::default()
            }),
        }
    }

    fn measure(&self, case: &Case, lengths: &[usize]) -> Result<Report, BenchError> {
        let options = self.options;
        let threads = options.threads();
        let before = bandwidth::measure(threads)?;
        memory::reset_peak();
        let session = self.session_options(case, lengths)?;
        let context = session.context_tokens_max.unwrap_or(self.model.info().n_ctx);
        let engine_options = EngineOptions {
            session,
            queue_max: case.parallel,
            prefill_chunk_max: options.prefill_chunk,
            // What is measured is computed: no prompt from the cache, and chunks of the size that was asked for.
            prefix_cache: PrefixCacheOptions::disabled(),
            inter_token_target: Duration::MAX,
            ..EngineOptions::default()
        };
        let queue = Box::new(Fcfs::new());
        let clock = Arc::new(SystemClock::new());
        let mut engine = EngineLoop::new(self.model.clone(), engine_options, queue, clock)
            .map_err(|source| BenchError::Load { what: "session".into(), source })?;
        let times = (options.warmup, options.repetitions);
        let measured = measure(&mut engine, &self.prompts, case, lengths, times)?;
        let peak = memory::peak_rss_bytes();
        let stats = engine.stats();
        drop(engine);
        let bandwidth = before.max(bandwidth::measure(threads)?);
        if case.generate > 0 && measured.decode.is_empty() {
            say("  the streams never decoded all together: --generate is too small for a decode rate");
        }
        let settings = Settings {
            repetitions: options.repetitions,
            warmup: options.warmup,
            batch: options.batch,
            prefill_chunk: options.prefill_chunk,
            context,
            kv_tokens: stats.kv_tokens_max,
            preemptions: stats.preemptions,
            seed: options.seed,
            version: env!("CARGO_PKG_VERSION"),
        };
        let figures = Figures::new(&measured, peak, self.weights_bytes, bandwidth);
        Ok(self.report(case, lengths, figures, settings))
    }

    fn report(&self, case: &Case, lengths: &[usize], figures: Figures, settings: Settings) -> Report {
        let info = self.model.info();
        let sum: usize = lengths.iter().sum();
        let shortest = lengths.iter().min().copied().unwrap_or_default();
        let longest = lengths.iter().max().copied().unwrap_or_default();
        let file = self.options.model.as_ref().filter(|_| backends::needs_file(&self.options.backend));
        Report {
            backend: self.options.backend.clone(),
            device: self.device.clone(),
            model: file.map_or_else(|| info.name.clone(), |path| path.display().to_string()),
            model_name: info.name.clone(),
            architecture: info.architecture.clone(),
            quantization: info.quantization.clone(),
            parameters: info.parameters,
            threads: self.options.threads().get(),
            prompt: (sum + lengths.len() / 2) / lengths.len().max(1),
            prompt_range: [shortest, longest],
            generate: case.generate,
            parallel: case.parallel,
            figures,
            settings,
        }
    }
}
