//! Whole steps of the engine on the scripted backend: take commands, plan, forward, sample, commit, emit, and
//! the reading of streams. The backend draws 258 logits a token from a hash and computes nothing else, so
//! this is what the engine costs.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use exsa_core::backend::SessionOptions;
use exsa_core::clock::SystemClock;
use exsa_core::queue::Fcfs;
use exsa_core::scripted::ScriptedModel;
use exsa_core::speculate::SpeculationMode;
use exsa_core::{EngineLoop, EngineOptions, Event, Request, SamplingParams, TokenStream};
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

const PROMPT: usize = 64;
const GENERATE: usize = 256;

/// An engine that is never done: who ends is followed by another.
struct Busy {
    engine: EngineLoop,
    streams: Vec<TokenStream>,
    sampling: SamplingParams,
}

impl Busy {
    fn new(running: usize, sampling: SamplingParams) -> Result<Self, Box<dyn Error>> {
        let session = SessionOptions::new().sequences(running).kv_tokens(2 * running * (PROMPT + GENERATE));
        let options = EngineOptions::default().session(session).speculation(SpeculationMode::Off);
        let (queue, clock) = (Box::new(Fcfs::new()), Arc::new(SystemClock::new()));
        let engine = EngineLoop::new(ScriptedModel::ngram(1).shared(), options, queue, clock)?;
        let mut busy = Self { engine, streams: Vec::with_capacity(running), sampling };
        for i in 0..running {
            // Ends spread evenly over the steps, as they do in a server.
            let stream = busy.submit(1 + i * GENERATE / running)?;
            busy.streams.push(stream);
        }
        for _ in 0..2 * GENERATE {
            busy.step()?;
        }
        Ok(busy)
    }

    fn submit(&self, generate: usize) -> Result<TokenStream, Box<dyn Error>> {
        let request = Request::tokens(vec![1; PROMPT]).max_tokens(generate).ignore_eos(true);
        Ok(self.engine.submit(request.sampling(self.sampling.clone()))?)
    }

    fn step(&mut self) -> Result<usize, Box<dyn Error>> {
        self.engine.step();
        let mut tokens = 0;
        for i in 0..self.streams.len() {
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(event) = self.streams[i].poll_event(&mut context) {
                match event {
                    Some(Event::Token(_)) => tokens += 1,
                    Some(_) | None => {
                        self.streams[i] = self.submit(GENERATE)?;
                        break;
                    }
                }
            }
        }
        Ok(tokens)
    }
}

fn engine(criterion: &mut Criterion) {
    for (name, sampling) in [("greedy", SamplingParams::greedy()), ("default", SamplingParams::default())] {
        let mut group = criterion.benchmark_group(format!("engine/{name}"));
        for running in [1, 16, 64, 256] {
            group.throughput(Throughput::Elements(running as u64));
            match Busy::new(running, sampling.clone()) {
                Ok(mut busy) => {
                    group.bench_function(
                        BenchmarkId::from_parameter(format!("{running}-running")),
                        |bencher| {
                            bencher.iter(|| busy.step());
                        },
                    );
                }
                Err(error) => eprintln!("skipped: {running} running: {error}"),
            }
        }
        group.finish();
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
