//! Tests of pools: answers that go on elsewhere, placement, queue, health.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cuts;
mod faults;
mod given_up;
mod late;
mod placement;
mod proxy;
mod queue;
mod random;

use exsa_core::stream::Finished;
use exsa_core::{Event, TokenStream};

/// All that a consumer sees of a request, in a form that does not depend on where it was cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Events but the last.
    pub events: Vec<Event>,
    /// The last event.
    pub finished: Finished,
}

/// Reads a stream to its end.
pub fn read(stream: TokenStream) -> Seen {
    let mut events: Vec<_> = stream.collect();
    let Some(Event::Finished(finished)) = events.pop() else { panic!("no end") };
    assert!(!events.iter().any(|event| matches!(event, Event::Finished(_))), "two ends");
    Seen { events, finished }
}

/// Compares all but times, drafts and the note about a continuation. `several` answers end in any order.
#[track_caller]
pub fn assert_same(seen: &Seen, expected: &Seen, several: bool, what: &str) {
    let normal = |seen: &Seen| {
        let mut seen = seen.clone();
        let usage = &mut seen.finished.usage;
        (usage.queue_time, usage.time_to_first_token, usage.cached_tokens) = (None, None, 0);
        usage.total_time = Default::default();
        // Drafts depend on measured costs, and on where the answer was cut.
        *usage.drafts = Default::default();
        seen.finished.continued = None;
        seen
    };
    let (mut a, mut b) = (normal(seen), normal(expected));
    if several {
        // The answer that ends last may be another one.
        let by_answer = |seen: &mut Seen| {
            let end =
                std::mem::replace(&mut seen.finished, Finished::new(exsa_core::FinishReason::Cancelled));
            let mut answers = std::collections::BTreeMap::<usize, Vec<String>>::new();
            for event in seen.events.drain(..) {
                let (index, text) = match &event {
                    Event::Token(token) | Event::Reasoning(token) => (token.index, format!("{event:?}")),
                    Event::AnswerFinished(end) => {
                        (end.index, format!("{:?} {:?} {:?}", end.text, end.reason, end.seed))
                    }
                    other => (usize::MAX, format!("{other:?}")),
                };
                answers.entry(index).or_default().push(text);
            }
            let last = format!("{:?} {:?} {:?}", end.text, end.reason, end.seed);
            answers.entry(end.index).or_default().push(last);
            (answers, end.usage)
        };
        assert_eq!(by_answer(&mut a), by_answer(&mut b), "{what}");
        return;
    }
    assert_eq!(a.finished, b.finished, "{what}");
    assert_eq!(a.events, b.events, "{what}");
}
