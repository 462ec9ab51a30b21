//! How fast Exsa is: what the `throughput` program and the micro-benchmarks are made of.
//!
//! ```sh
//! cargo run --release -p exsa-benches --bin throughput -- --backend candle --model F --prompt 512 --generate 128 --parallel 1,4,16
//! cargo run --release -p exsa-benches --bin load -- --help
//! cargo run --release -p exsa-benches --bin speculation -- --model F --streams 1,8
//! cargo bench -p exsa-benches            # sampler, constraints, tokenizer, detokenizer, scheduler, engine, products
//! cargo bench -p exsa-benches --bench sampler
//! ```
//!
//! # Figures of `throughput`
#![doc = include_str!("figures.md")]
#![deny(unsafe_code)]

pub mod adapters;
pub mod backends;
pub mod bandwidth;
pub mod bench_model;
pub mod case;
pub mod compare;
pub mod driver;
pub mod error;
pub mod footprint;
pub mod kernels;
pub mod load;
pub mod measure;
pub mod memory;
pub mod options;
pub mod percentile;
pub mod progress;
pub mod prompts;
pub mod random;
pub mod report;
pub mod shape;
pub mod speculation;
pub mod text;
pub mod threads;
pub mod throughput;
pub mod trace;
pub mod verdict;
pub mod vocabulary;
pub mod weights;
