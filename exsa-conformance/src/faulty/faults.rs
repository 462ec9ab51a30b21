//! Faults and their triggers.

use exsa_core::batch::{Batch, Span};
use exsa_core::{SeqId, TokenId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A method of a backend, model or session that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `InferenceBackend::inspect`.
    Inspect,
    /// `InferenceBackend::load`.
    Load,
    /// `Model::session`.
    Session,
    /// `Session::forward`.
    Forward,
    /// `Session::fork`.
    Fork,
    /// `Session::truncate`.
    Truncate,
    /// `Session::release`, which returns no error: it can only panic or stall.
    Release,
    /// `Session::save`.
    Save,
    /// `Session::restore`.
    Restore,
}

/// Trigger of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the n-th call, counted from 1 over all sessions.
    Nth(Operation, u64),
    /// At every call.
    Always(Operation),
    /// At every forward pass with a span of this sequence, which is then at fault.
    Sequence(SeqId),
    /// At every forward pass with this token; the sequence that holds it is at fault.
    Token(TokenId),
}

/// Effect of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An error, without doing anything.
    Fail,
    /// An error after the work was done: KV past the spans' positions exists although the pass failed.
    FailLate,
    /// A panic.
    Panic,
    /// The end of the process, as by a crash of a native library.
    Abort,
    /// A delay that ignores the interrupt, then the normal result.
    Stall(Duration),
    /// A wait for the interrupt, then `StepError::Interrupted`;
    /// the normal result if it is not raised within this time.
    Hang(Duration),
    /// A NaN in the rows of the sequence at fault, or in all rows if no sequence is at fault.
    NotANumber,
    /// No rows at all.
    NoRows,
    /// One row too few.
    RowMissing,
    /// One row too many.
    RowTooMany,
    /// Rows with one value too few.
    NarrowRows,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<(When, Effect)>,
    calls: HashMap<Operation, u64>,
    failed: HashMap<Operation, u64>,
    fired: u64,
}

/// The faults of a backend. Clones share state, so a test
/// can add faults and count calls while the backend runs.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// Creates an empty list of faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault. If several faults are due at once, the earliest added takes effect.
    pub fn add(&self, when: When, effect: Effect) {
        self.0.lock().faults.push((when, effect));
    }

    /// Like [`add`](Self::add), for chaining.
    pub fn with(self, when: When, effect: Effect) -> Self {
        self.add(when, effect);
        self
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.0.lock().faults.clear();
    }

    /// Calls of `operation` so far.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.0.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    /// Calls of `operation` that failed so far, on purpose or
    /// not; counted for every operation except the forward pass.
    pub fn failed(&self, operation: Operation) -> u64 {
        self.0.lock().failed.get(&operation).copied().unwrap_or(0)
    }

    /// Faults triggered so far.
    pub fn fired(&self) -> u64 {
        self.0.lock().fired
    }

    /// Counts a call. Returns the due fault and the sequence at fault.
    pub(super) fn due(&self, operation: Operation, batch: Option<&Batch>) -> Option<(Effect, Option<SeqId>)> {
        let mut state = self.0.lock();
        let call = state.calls.entry(operation).or_default();
        *call += 1;
        let call = *call;
        let due = state.faults.iter().find_map(|(when, effect)| match *when {
            When::Nth(op, n) => (op == operation && n == call).then_some((*effect, None)),
            When::Always(op) => (op == operation).then_some((*effect, None)),
            When::Sequence(seq) => {
                let span = batch?.spans().find(|span| span.seq == seq)?;
                Some((*effect, Some(span.seq)))
            }
            When::Token(token) => {
                let holds = |span: &Span<'_>| span.token_ids().is_some_and(|tokens| tokens.contains(&token));
                let span = batch?.spans().find(holds)?;
                Some((*effect, Some(span.seq)))
            }
        });
        state.fired += u64::from(due.is_some());
        due
    }

    /// Runs `work` under the due fault. Effects on rows do not apply here.
    pub(super) fn call<T, E>(
        &self,
        operation: Operation,
        work: impl FnOnce() -> Result<T, E>,
        error: impl FnOnce(String) -> E,
    ) -> Result<T, E> {
        let result = match self.due(operation, None).map(|(effect, _)| effect) {
            Some(Effect::Fail) => Err(error(words(operation))),
            Some(Effect::FailLate) => work().and_then(|_| Err(error(words(operation)))),
            Some(Effect::Panic) => panic_on_purpose(operation),
            Some(Effect::Abort) => std::process::abort(),
            Some(Effect::Stall(time) | Effect::Hang(time)) => {
                std::thread::sleep(time);
                work()
            }
            _ => work(),
        };
        if result.is_err() {
            *self.0.lock().failed.entry(operation).or_default() += 1;
        }
        result
    }
}

/// Text of the error or panic.
pub(super) fn words(operation: Operation) -> String {
    format!("{operation:?} fails on purpose")
}

/// Simulates a panic in the backend.
#[expect(clippy::panic)]
pub(super) fn panic_on_purpose(operation: Operation) -> ! {
    panic!("{}", words(operation))
}
