//! Memory for weights and KV, the threads that work on it, and prefetches.

pub mod buffer;
pub mod pages;
pub mod prefetch;
pub mod team;
pub mod weight_memory;
