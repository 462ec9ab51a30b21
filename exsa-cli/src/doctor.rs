//! `exsa doctor`: the machine as the engine sees it, and a self-test.

use crate::args::DoctorArgs;
use crate::error::CliError;
use crate::output::bytes;
use exsa::candle::CandleBackend;
use exsa::{Engine, InferenceBackend, Request, SamplingParams};
use serde::Serialize;
use std::io::Write;
use std::time::Instant;

/// Tokens that the self-test generates per instruction set.
const TOKENS: usize = 200;

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    system: String,
    threads_available: usize,
    memory_total: Option<u64>,
    memory_available: Option<u64>,
    devices: Vec<String>,
    instruction_sets: Vec<&'static str>,
    self_test: Vec<Outcome>,
    healthy: bool,
}

/// Result of the self-test on one instruction set.
#[derive(Debug, Serialize)]
struct Outcome {
    instruction_set: &'static str,
    tokens_per_second: Option<f64>,
    problem: Option<String>,
}

/// Runs the command.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<(), CliError> {
    let instruction_sets = CandleBackend::instruction_sets();
    let self_test = if args.quick { Vec::new() } else { self_test(&instruction_sets) };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH),
        threads_available: std::thread::available_parallelism().map_or(1, usize::from),
        memory_total: memory("MemTotal:"),
        memory_available: memory("MemAvailable:"),
        devices: CandleBackend::new().devices().into_iter().map(|device| device.name).collect(),
        healthy: self_test.iter().all(|outcome| outcome.problem.is_none()),
        instruction_sets,
        self_test,
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        print(&report, &mut out)?;
    }
    if report.healthy { Ok(()) } else { Err(CliError::Other("the self-test failed".into())) }
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let size = |size: Option<u64>| size.map_or("unknown".into(), bytes);
    writeln!(out, "exsa           {}", report.version)?;
    writeln!(out, "system         {}", report.system)?;
    writeln!(out, "processors     {} available to this process", report.threads_available)?;
    writeln!(
        out,
        "memory         {}, {} available",
        size(report.memory_total),
        size(report.memory_available)
    )?;
    writeln!(out, "devices        {}", report.devices.join(", "))?;
    writeln!(out, "kernels        {} (the last one is used)", report.instruction_sets.join(", "))?;
    for outcome in &report.self_test {
        let result = match (&outcome.problem, outcome.tokens_per_second) {
            (Some(problem), _) => problem.clone(),
            (None, speed) => format!("ok, {:.0} tokens/s", speed.unwrap_or_default()),
        };
        writeln!(out, "self-test      {}: {result}", outcome.instruction_set)?;
    }
    Ok(())
}

/// Runs the built-in model with each instruction set. Matrix products are bit-identical, so all texts must be
/// equal.
fn self_test(sets: &[&'static str]) -> Vec<Outcome> {
    let mut expected: Option<String> = None;
    let outcome = |set: &&'static str| {
        let (tokens_per_second, problem) = match story(set) {
            Ok((text, speed)) => {
                let same = *expected.get_or_insert_with(|| text.clone()) == text;
                (speed, (!same).then(|| format!("its text differs from that of {}", sets[0])))
            }
            Err(error) => (None, Some(error.to_string())),
        };
        Outcome { instruction_set: set, tokens_per_second, problem }
    };
    sets.iter().map(outcome).collect()
}

fn story(set: &str) -> exsa::Result<(String, Option<f64>)> {
    let backend = CandleBackend::new().isa(set);
    let engine = Engine::builder().backend(backend).sequences(1).load(exsa::tiny::GGUF)?;
    let request = Request::text("Once upon a time").sampling(SamplingParams::greedy()).ignore_eos(true);
    let begun = Instant::now();
    let answer = engine.complete(request.max_tokens(TOKENS))?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok((answer.text, Some(answer.usage.completion_tokens as f64 / seconds)))
}

/// Reads an entry of `/proc/meminfo`, in bytes.
fn memory(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
