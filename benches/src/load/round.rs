//! One round: all requests of all users, each on a thread of its own.

use crate::error::BenchError;
use crate::load::answer::Answer;
use crate::load::target::Target;
use crate::load::workload::Planned;
use std::time::{Duration, Instant};

/// Time for all threads to come up before the first request is sent.
const LEAD: Duration = Duration::from_millis(50);

/// Bytes of stack of a thread, which does little.
const STACK_BYTES: usize = 256 << 10;

/// Sends every request when its time has come and waits for all answers; the first error ends in an error,
/// once all have ended.
pub fn run(target: &dyn Target, planned: &[Planned]) -> Result<Vec<Answer>, BenchError> {
    let start = Instant::now() + LEAD;
    std::thread::scope(|scope| {
        let senders: Vec<_> = planned
            .iter()
            .map(|request| {
                let send = move || send(target, request, start);
                std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, send)
            })
            .collect::<Result<_, _>>()
            .map_err(BenchError::Thread)?;
        let answers: Vec<_> = senders.into_iter().map(|sender| sender.join()).collect();
        answers
            .into_iter()
            .map(|answer| {
                let target = || target.name().to_owned();
                answer.unwrap_or_else(|_| {
                    Err(BenchError::Answer { target: target(), reason: "the sender panicked".into() })
                })
            })
            .collect()
    })
}

fn send(target: &dyn Target, request: &Planned, start: Instant) -> Result<Answer, BenchError> {
    let at = start + request.at;
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
    let mut pieces = Vec::with_capacity(request.generate);
    let usage = target.answer(request, &mut || pieces.push(start.elapsed()))?;
    if pieces.is_empty() {
        // Tokens of random weights may be parts of characters alone, which no text comes of before the end.
        pieces.push(start.elapsed());
    }
    let (user, user_name) = (request.user, request.user_name.clone());
    Ok(Answer { user, user_name, arrived: request.at, pieces, usage })
}
