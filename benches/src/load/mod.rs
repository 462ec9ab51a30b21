//! Load: many users' requests at one engine in this process or at servers, in turn, measured from where the
//! users are.
#![doc = include_str!("figures.md")]

pub mod answer;
pub mod http;
pub mod in_process;
pub mod options;
pub mod processor;
mod report;
pub mod round;
pub mod sse;
pub mod target;
pub mod user;
pub mod workload;

use crate::error::BenchError;
use crate::measure::in_turn;
use crate::progress::say;
use crate::throughput::write_line;
use http::Server;
use in_process::InProcess;
use options::LoadGenOptions;
use report::{Ratios, Report, Summary};
use std::io::Write;
use target::Target;
use workload::Workload;

/// Sends the same requests to every target in turn, round by round, and writes a line of JSON for each target
/// and each comparison with the first.
pub fn run(options: &LoadGenOptions, out: &mut dyn Write) -> Result<(), BenchError> {
    let targets = targets(options)?;
    let workload = Workload::new(options)?;
    let mut summaries: Vec<Vec<Summary>> = vec![Vec::new(); targets.len()];
    for target in &targets {
        for i in 0..options.warmup {
            round::run(&**target, &workload.warmup(u64::MAX - i as u64)?)?;
        }
    }
    let mut turns = 0..;
    in_turn(options.rounds, targets.len(), |i| {
        let turn: usize = turns.next().unwrap_or_default();
        let target: &dyn Target = &*targets[i];
        let is_engine = i < options.engine.len();
        let pid = options.pid.iter().find(|(name, _)| name == target.name()).map(|(_, pid)| *pid);
        let used = || if is_engine { processor::seconds(None) } else { processor::seconds(Some(pid?)) };
        let before = used();
        let answers = round::run(target, &workload.round((turn / targets.len()) as u64)?)?;
        let mut summary = Summary::new(&answers);
        summary.processor_seconds = used().zip(before).map(|(after, before)| after - before);
        say(format_args!(
            "  {}: {:.2} s, {:.1} generated tokens/s, first token {:.0} ms at the median",
            target.name(),
            summary.seconds,
            summary.generated_tokens_per_second,
            summary.ttft_ms_p50,
        ));
        summaries[i].push(summary);
        Ok(())
    })?;
    let reports: Vec<_> = targets
        .iter()
        .zip(&summaries)
        .map(|(target, summaries)| Report::new(target.name(), options, summaries))
        .collect();
    for report in &reports {
        write_line(report, out)?;
    }
    let Some((first, others)) = targets.split_first() else { return Ok(()) };
    for (i, other) in others.iter().enumerate() {
        write_line(&Ratios::new((first.name(), &summaries[0]), (other.name(), &summaries[i + 1])), out)?;
    }
    Ok(())
}

/// The targets that `options` name, engines first.
fn targets(options: &LoadGenOptions) -> Result<Vec<Box<dyn Target>>, BenchError> {
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    for backend in &options.engine {
        targets.push(Box::new(InProcess::start(options, backend)?));
    }
    for (name, url) in &options.http {
        targets.push(Box::new(Server::new(name.clone(), url.clone(), options)));
    }
    if targets.is_empty() { Err(BenchError::NoTarget) } else { Ok(targets) }
}
