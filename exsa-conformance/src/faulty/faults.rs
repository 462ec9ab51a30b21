//! What goes wrong, and when.

use exsa_core::batch::{Batch, Span};
use exsa_core::{SeqId, TokenId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A method of the seam that can fail.
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
    /// `Session::release`, which has no error: it can panic and stall.
    Release,
    /// `Session::save`.
    Save,
    /// `Session::restore`.
    Restore,
}

/// When a fault is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the call of this number, counted from 1 over all sessions.
    Nth(Operation, u64),
    /// At every call.
    Always(Operation),
    /// At every forward pass in which this sequence has a span; the fault is that sequence's.
    Sequence(SeqId),
    /// At every forward pass with this token; the fault is the sequence's that holds it.
    Token(TokenId),
}

/// What happens when a fault is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An error, and nothing is done.
    Fail,
    /// An error after all was done: what lies beyond the spans' positions is there, though the pass failed.
    FailLate,
    /// A panic.
    Panic,
    /// Nothing for so long, whatever the interrupt says, and then what should have been.
    Stall(Duration),
    /// Nothing until the interrupt is raised, and `StepError::Interrupted` then; what should have been if it was not raised
    /// for so long.
    Hang(Duration),
    /// A NaN in the rows of the sequence at fault, in all rows if none is.
    NotANumber,
    /// No rows at all.
    NoRows,
    /// One row too few.
    RowMissing,
    /// One row too many.
    RowTooMany,
    /// Rows of one value too few.
    NarrowRows,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<(When, Effect)>,
    calls: HashMap<Operation, u64>,
    failed: HashMap<Operation, u64>,
    fired: u64,
}

/// The faults of a backend. Clones share them, so a test adds some while the backend runs, and counts calls.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault. Of several that are due at once, the one added first happens.
    pub fn add(&self, when: When, effect: Effect) {
        self.0.lock().faults.push((when, effect));
    }

    /// The same, for chains.
    pub fn with(self, when: When, effect: Effect) -> Self {
        self.add(when, effect);
        self
    }

    /// Takes all faults away.
    pub fn clear(&self) {
        self.0.lock().faults.clear();
    }

    /// Calls of `operation` so far.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.0.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    /// Calls of `operation` that gave an error so far, on purpose or not; of those that move KV, load or make something.
    pub fn failed(&self, operation: Operation) -> u64 {
        self.0.lock().failed.get(&operation).copied().unwrap_or(0)
    }

    /// Faults that happened so far.
    pub fn fired(&self) -> u64 {
        self.0.lock().fired
    }

    /// Counts a call; the fault that is due, and the sequence that it is about.
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

    /// Runs `work`, or what the fault that is due makes of it. Effects on rows have none here.
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

/// What an error or a panic says.
pub(super) fn words(operation: Operation) -> String {
    format!("{operation:?} fails on purpose")
}

/// A backend's panic is what is tested.
#[expect(clippy::panic)]
pub(super) fn panic_on_purpose(operation: Operation) -> ! {
    panic!("{}", words(operation))
}
