//! Steps of eight constrained streams beside those of eight free ones, round by round in turn.

use exsa_benches::bench_model;
use exsa_benches::compare::Ratio;
use exsa_benches::driver::Run;
use exsa_benches::error::BenchError;
use exsa_benches::measure::in_turn;
use exsa_benches::percentile::{median, range};
use exsa_benches::prompts::Prompts;
use exsa_benches::verdict;
use exsa_core::backend::{Model, SessionOptions};
use exsa_core::clock::SystemClock;
use exsa_core::constraint::Constraint;
use exsa_core::queue::Fcfs;
use exsa_core::speculate::SpeculationMode;
use exsa_core::{EngineLoop, EngineOptions, Request, SamplingParams};
use std::sync::Arc;

const STREAMS: usize = 8;
const PROMPT: usize = 16;
const ROUNDS: usize = 15;

/// Tokens that each stream generates in a round.
const SLICE: usize = 8;

/// Slowdown of a step that is allowed.
const SLOWDOWN_MAX: f64 = 1.03;

/// The lexemes of JSON in any order.
const LEXEMES: &str = r#"
start: (STRING | NUMBER | NAME | MARK)*
STRING: /"([^"\\\x00-\x1f]|\\["\\\/bfnrt])*"/
NUMBER: /-?(0|[1-9][0-9]*)(\.[0-9]+)?/
NAME: "true" | "false" | "null"
MARK: /[\[\]{},:\n ]/
"#;

/// Grammars whose texts can always go on and leave a choice at each token, so that every token needs a mask
/// and a row.
fn grammars() -> [(&'static str, Constraint); 2] {
    [("lexemes of JSON", Constraint::lark(LEXEMES)), ("regex", Constraint::regex("[^\\x00-\\x1f]*"))]
}

/// Prints the slowdown for each grammar.
pub(crate) fn run() -> Result<(), BenchError> {
    let (model, name) = bench_model::any()?;
    for (grammar, constraint) in grammars() {
        let [mut free, mut constrained] =
            [Streams::new(&model, None)?, Streams::new(&model, Some(&constraint))?];
        let mut seconds = [Vec::new(), Vec::new()];
        in_turn(ROUNDS, 2, |i| {
            let streams = if i == 0 { &mut free } else { &mut constrained };
            seconds[i].push(streams.step()?);
            Ok(())
        })?;
        report(&name, grammar, &seconds);
    }
    Ok(())
}

fn report(model: &str, grammar: &str, seconds: &[Vec<f64>; 2]) {
    let [free, constrained] = seconds;
    let (Some(slowdown), Some(step)) = (Ratio::new(constrained, free), median(free)) else { return };
    // Free rounds differ from each other by this much, without any constraint.
    let [least, greatest] = range(free).unwrap_or_default();
    let interval = (greatest - least) / step;
    let value = format!(
        "{:.4} times the step of {:.2} ms [{:.4}, {:.4}], free rounds within {:.1} % of each other",
        slowdown.median,
        step * 1e3,
        slowdown.range[0],
        slowdown.range[1],
        interval * 1e2,
    );
    let holds = slowdown.median <= SLOWDOWN_MAX && slowdown.median - 1.0 <= interval;
    let name = format!("{STREAMS} streams, {grammar}, {ROUNDS} rounds, {model}");
    println!("{}", verdict::line(&name, &value, "at most 1.03, and within the interval", holds));
}

/// Streams of an engine, on their way.
struct Streams {
    engine: EngineLoop,
    run: Run,
}

impl Streams {
    fn new(model: &Arc<dyn Model>, constraint: Option<&Constraint>) -> Result<Self, BenchError> {
        // Streams that take forced tokens run ahead of the others.
        let generate = 4 * ROUNDS * SLICE;
        let session = SessionOptions::new().sequences(STREAMS).context_tokens(PROMPT + generate + 16);
        // Drafts would let streams run ahead as well.
        let options = EngineOptions::default().session(session).speculation(SpeculationMode::Off);
        let (queue, clock) = (Box::new(Fcfs::new()), Arc::new(SystemClock::new()));
        let engine = EngineLoop::new(model.clone(), options, queue, clock);
        let mut engine =
            engine.map_err(|source| BenchError::Load { what: "a session of 8 streams".into(), source })?;
        let prompts = Prompts::new(&**model, 1)?.draw(&[PROMPT; STREAMS], 0);
        let request = |prompt| {
            // No stream ends before the others.
            let sampling = SamplingParams::greedy().min_tokens(generate as u32);
            let request = Request::tokens(prompt).sampling(sampling);
            match constraint {
                Some(constraint) => request.constraint(constraint.clone()),
                None => request,
            }
        };
        let mut run = Run::submit_requests(&engine, prompts.into_iter().map(request).collect(), generate)?;
        run.fill(&mut engine)?;
        // Lexers and caches warm up.
        run.slice(&mut engine, SLICE)?;
        Ok(Self { engine, run })
    }

    /// Mean seconds of a step.
    fn step(&mut self) -> Result<f64, BenchError> {
        Ok(1.0 / self.run.slice(&mut self.engine, SLICE)?.steps_per_second())
    }
}
