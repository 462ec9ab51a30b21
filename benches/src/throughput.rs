//! The program: loads the model once on each backend, measures case after case.

use crate::adapters;
use crate::backends;
use crate::bandwidth;
use crate::case::Case;
use crate::compare::Comparison;
use crate::error::BenchError;
use crate::kernels::int8_peak;
use crate::measure::{Contender, Measured, Rounds, measure};
use crate::memory;
use crate::options::Options;
use crate::progress::say;
use crate::prompts::Prompts;
use crate::report::{Figures, Machine, Report, Settings};
use crate::weights::Weights;
use exsa_core::PrefixCacheOptions;
use exsa_core::backend::{LoadOptions, LoadProgress, Model, ModelSource, SessionOptions, ThreadOptions};
use exsa_core::clock::SystemClock;
use exsa_core::error::LoadError;
use exsa_core::queue::Fcfs;
use exsa_core::speculate::SpeculationMode;
use exsa_core::{EngineLoop, EngineOptions};
use serde::Serialize;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens of KV that each stream has to spare: more than a block of any backend, of which the engine wants
/// one free for every stream that runs.
const SPARE_TOKENS: usize = 256;

/// Least tokens of prompts in a step, for an estimate of how far the first streams get while others' prompts
/// are computed.
const STEP_TOKENS_MIN: usize = 32;

/// Measures every case that `options` ask for and writes lines of JSON for each to `out`: one for each
/// backend, and one for each comparison.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), BenchError> {
    let weights = options.model.as_deref().map(Weights::read).transpose().map_err(|source| {
        let what = options.model.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        BenchError::Load { what, source }
    })?;
    let mut loaded: Vec<_> =
        options.backend.iter().map(|name| Loaded::load(options, name)).collect::<Result<_, _>>()?;
    if options.adapters > 0 {
        loaded =
            loaded.into_iter().flat_map(|loaded| [loaded.clone(), loaded.with_adapters(options)]).collect();
    }
    let cases = Case::all(options);
    // Cases that do not fit are refused before anything is measured.
    let lengths: Vec<_> = cases.iter().map(|case| case.lengths(options.seed)).collect();
    for (case, lengths) in cases.iter().zip(&lengths) {
        loaded.iter().try_for_each(|loaded| loaded.room(options, case, lengths).map(drop))?;
    }
    for (i, (case, lengths)) in cases.iter().zip(&lengths).enumerate() {
        say(format_args!("case {}/{}: {case}", i + 1, cases.len()));
        measure_case(options, &loaded, weights, case, lengths, out)?;
    }
    Ok(())
}

/// Writes `line` as JSON.
pub fn write_line(line: &impl Serialize, out: &mut dyn Write) -> Result<(), BenchError> {
    let line = serde_json::to_string(line).map_err(|error| BenchError::Write(error.into()))?;
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(BenchError::Write)
}

fn measure_case(
    options: &Options,
    loaded: &[Loaded],
    weights: Option<Weights>,
    case: &Case,
    lengths: &[usize],
    out: &mut dyn Write,
) -> Result<(), BenchError> {
    let before = machine(options)?;
    memory::reset_peak();
    let mut contenders = Vec::with_capacity(loaded.len());
    let mut generate = usize::MAX;
    for loaded in loaded {
        let room = loaded.room(options, case, lengths)?;
        generate = generate.min(room.generate);
        contenders.push(loaded.contender(options, case, room)?);
    }
    let rounds = Rounds {
        warmup: options.warmup,
        prefill: if case.generate == 0 { options.rounds } else { prefill_rounds(options) },
        decode: options.rounds,
        batch: options.batch,
    };
    let measured = measure(&mut contenders, case, lengths, rounds, generate)?;
    // Memory of several models together says nothing about one.
    let peak = memory::peak_rss_bytes().filter(|_| loaded.len() == 1);
    let after = machine(options)?;
    let machine = Machine {
        bandwidth: before.bandwidth.max(after.bandwidth),
        int8: if after.int8.map(ops) > before.int8.map(ops) { after.int8 } else { before.int8 },
    };
    for ((loaded, contender), measured) in loaded.iter().zip(&contenders).zip(&measured) {
        let figures = Figures::new(measured, lengths, peak, weights, machine);
        write_line(&loaded.report(options, case, lengths, figures, &contender.engine), out)?;
    }
    compare(options, case, loaded, &measured, out)
}

fn ops(peak: int8_peak::Int8Peak) -> f64 {
    peak.operations_per_second
}

fn prefill_rounds(options: &Options) -> usize {
    options.prefill_rounds.unwrap_or(options.rounds)
}

fn machine(options: &Options) -> Result<Machine, BenchError> {
    let threads = options.threads();
    Ok(Machine { bandwidth: bandwidth::measure(threads)?, int8: int8_peak::measure(threads) })
}

fn compare(
    options: &Options,
    case: &Case,
    loaded: &[Loaded],
    measured: &[Measured],
    out: &mut dyn Write,
) -> Result<(), BenchError> {
    let labels: Vec<_> = loaded.iter().map(Loaded::label).collect();
    let mut named = labels.iter().map(String::as_str).zip(measured);
    let Some(first) = named.next() else { return Ok(()) };
    let model = options.model.as_ref().map_or_else(|| "built in".into(), |path| path.display().to_string());
    named.try_for_each(|other| write_line(&Comparison::new(&model, case, first, other), out))
}

/// A model on one backend.
#[derive(Clone)]
pub struct Loaded {
    name: String,
    /// Random adapters that its streams use in turn.
    adapters: usize,
    model: Arc<dyn Model>,
    device: Option<String>,
    /// How long loading took.
    pub time: Duration,
}

/// Room for a case.
pub struct Room {
    session: SessionOptions,
    /// Tokens that each stream may generate.
    pub generate: usize,
}

impl Loaded {
    /// Loads the model that `options` name on the backend `name`.
    pub fn load(options: &Options, name: &str) -> Result<Self, BenchError> {
        let backend = backends::backend_with(name, &options.kv)?;
        let path = options.model.as_deref().filter(|_| backends::needs_file(name));
        let source = match path {
            Some(path) => ModelSource::file(path),
            None if !backends::needs_file(name) => ModelSource::Embedded(&[]),
            None => return Err(BenchError::ModelMissing { backend: name.into() }),
        };
        let what = path.map_or_else(|| name.to_owned(), |path| path.display().to_string());
        let failed = |source: LoadError| BenchError::Load { what: what.clone(), source };
        let threads = ThreadOptions::new(Some(options.threads()));
        let mut load_options = LoadOptions::new().threads(threads);
        load_options.device.clone_from(&options.device);
        say(format_args!("{name}: loading {what}"));
        let start = Instant::now();
        let model = backend.load(&source, &load_options, &mut LoadProgress::none()).map_err(failed)?;
        let time = start.elapsed();
        say(format_args!("{name}: {} in {:.1} s", model.info().summary(), time.as_secs_f64()));
        let preferred = || backend.devices().into_iter().next().map(|device| device.name);
        let device = options.device.clone().or_else(preferred);
        Ok(Self { name: name.into(), adapters: 0, model, device, time })
    }

    fn with_adapters(self, options: &Options) -> Self {
        Self { adapters: options.adapters, ..self }
    }

    fn label(&self) -> String {
        match self.adapters {
            0 => self.name.clone(),
            n => format!("{} with {n} adapters", self.name),
        }
    }

    /// A session in which all streams of the case fit together; refuses cases that no session fits.
    pub fn room(&self, options: &Options, case: &Case, lengths: &[usize]) -> Result<Room, BenchError> {
        let longest = lengths.iter().max().copied().unwrap_or_default();
        let n_ctx = self.model.info().n_ctx;
        let (limit, what) = match options.context {
            Some(context) if context < n_ctx => (context, "--context"),
            _ => (n_ctx, "the model's context"),
        };
        // A run of one token comes even where none are to be generated.
        let rounds = if case.is_mixed() { 1 } else { options.rounds };
        let generate = case.generate.saturating_mul(rounds).saturating_add(1);
        if longest.saturating_add(generate) > limit {
            return Err(BenchError::Context { prompt: longest, generate, limit, what });
        }
        let ahead = match case.parallel {
            1 => 0,
            streams => streams + lengths.iter().sum::<usize>() / STEP_TOKENS_MIN,
        };
        let generate = generate.saturating_add(ahead).min(limit - longest);
        let kv_needed = lengths.iter().fold(0usize, |sum, len| {
            sum.saturating_add(*len).saturating_add(generate).saturating_add(SPARE_TOKENS)
        });
        if let Some(given) = options.kv_tokens.filter(|given| *given < kv_needed) {
            return Err(BenchError::KvTokens { given, parallel: case.parallel, needed: kv_needed });
        }
        let context = options.context.unwrap_or(longest + generate).min(n_ctx);
        // Whole contexts, as a host has it that does not say more.
        let kv_tokens =
            options.kv_tokens.unwrap_or_else(|| kv_needed.max(context.saturating_mul(case.parallel)));
        let session = SessionOptions::new()
            .sequences(case.parallel)
            .context_tokens(context)
            .kv_tokens(kv_tokens)
            .kv_bytes(options.kv_mib << 20)
            .batch_tokens(options.batch)
            .threads(ThreadOptions::new(Some(options.threads())))
            .adapters(usize::from(self.adapters > 0), options.adapter_rank);
        Ok(Room { session: options.kv.session(session), generate })
    }

    /// An engine with such a session.
    pub fn contender(&self, options: &Options, case: &Case, room: Room) -> Result<Contender, BenchError> {
        // Every prompt is computed, no prefix is shared, and each step of a stream gives one token.
        let engine_options = EngineOptions::default()
            .session(room.session)
            .queue_max(case.parallel)
            .prefill_chunk_max(options.prefill_chunk)
            .mode(options.mode)
            .speculation(SpeculationMode::Off)
            .prefix_cache(PrefixCacheOptions::disabled());
        let (queue, clock) = (Box::new(Fcfs::new()), Arc::new(SystemClock::new()));
        let engine = EngineLoop::new(self.model.clone(), engine_options, queue, clock)
            .map_err(|source| BenchError::Load { what: "session".into(), source })?;
        let names: Vec<String> = (0..self.adapters).map(|i| format!("adapter-{i}")).collect();
        for (name, seed) in names.iter().zip(1..) {
            let path = options
                .model
                .as_deref()
                .ok_or_else(|| BenchError::ModelMissing { backend: self.name.clone() })?;
            let source = adapters::random(path, options.adapter_rank, seed)?;
            engine
                .load_adapter(name, &source)
                .map_err(|error| BenchError::Adapter { name: name.clone(), source: error })?;
        }
        let prompts = Prompts::new(&*self.model, options.seed)?;
        Ok(Contender::new(self.label(), engine, prompts).adapters(names))
    }

    fn report(
        &self,
        options: &Options,
        case: &Case,
        lengths: &[usize],
        figures: Figures,
        engine: &EngineLoop,
    ) -> Report {
        let (info, stats) = (self.model.info(), engine.stats());
        let file = options.model.as_ref().filter(|_| backends::needs_file(&self.name));
        let settings = Settings {
            rounds: options.rounds,
            prefill_rounds: prefill_rounds(options),
            warmup: options.warmup,
            batch: options.batch,
            prefill_chunk: options.prefill_chunk,
            kv_tokens: stats.scheduler.kv_tokens_max,
            preemptions: stats.scheduler.preemptions,
            seed: options.seed,
            version: env!("CARGO_PKG_VERSION"),
        };
        let sum: usize = lengths.iter().sum();
        Report {
            backend: self.label(),
            device: self.device.clone(),
            model: file.map_or_else(|| info.name.clone(), |path| path.display().to_string()),
            model_name: info.name.clone(),
            architecture: info.architecture.clone(),
            quantization: info.quantization.clone(),
            parameters: info.parameters,
            threads: options.threads().get(),
            prompt: (sum + lengths.len() / 2) / lengths.len().max(1),
            prompt_range: [
                lengths.iter().min().copied().unwrap_or_default(),
                lengths.iter().max().copied().unwrap_or_default(),
            ],
            generate: case.generate,
            parallel: case.parallel,
            figures,
            settings,
        }
    }
}
