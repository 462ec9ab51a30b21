//! How an engine is doing, as numbers.

/// A snapshot of an engine's counters. Counters only grow; the rest is as of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Requests that hold a sequence.
    pub running: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Tokens of KV in blocks that are held.
    pub kv_tokens_used: usize,
    /// Tokens of KV in all blocks.
    pub kv_tokens_max: usize,
    /// Forward passes.
    pub steps: u64,
    /// Tokens computed: prompts, and again what preempted sequences had computed before.
    pub tokens_computed: u64,
    /// Tokens generated.
    pub tokens_generated: u64,
    /// Requests accepted.
    pub submitted: u64,
    /// Requests ended, failed ones included.
    pub finished: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Times a request lost its sequence to another.
    pub preemptions: u64,
}
