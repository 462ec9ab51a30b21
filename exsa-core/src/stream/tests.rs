use super::*;
use crate::chat::{Message, ToolCall};
use crate::finish::{FinishReason, RequestError, Usage};
use futures_core::stream::{FusedStream, Stream};
use parking_lot::Mutex;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn ends() -> (StreamSender, TokenStream) {
    channel(64, |_| {})
}

fn failed() -> FinishReason {
    FinishReason::Failed(RequestError::Panicked("on purpose".into()))
}

fn pieces(mut stream: TokenStream) -> (String, Vec<RequestError>) {
    let (mut text, mut errors) = (String::new(), Vec::new());
    for piece in stream.text() {
        match piece {
            Ok(piece) => {
                assert!(!piece.is_empty());
                assert!(errors.is_empty(), "text after an error");
                text.push_str(&piece);
            }
            Err(error) => errors.push(error),
        }
    }
    (text, errors)
}

/// Records the groups of events that a sink receives, with room for `room` groups.
struct Groups(Arc<Mutex<Vec<Vec<Event>>>>, usize);

impl EventSink for Groups {
    fn events(&mut self, events: &mut Vec<Event>) -> bool {
        let mut groups = self.0.lock();
        groups.push(std::mem::take(events));
        groups.len() < self.1
    }
}

fn token(text: &str) -> Event {
    Event::Token(Token::new(1, text))
}

#[test]
fn a_sink_gets_groups_as_they_were_sent() {
    let signals = Arc::new(Mutex::new(Vec::new()));
    let seen = signals.clone();
    let (sender, stream) = channel(2, move |signal| seen.lock().push(signal));
    assert!(sender.send(&mut vec![token("a")]));
    assert!(!sender.send(&mut vec![token("b"), token("c")]), "the queue is full");
    let groups = Arc::new(Mutex::new(Vec::new()));
    let handle = stream.pipe(Box::new(Groups(groups.clone(), 3)));
    assert_eq!(*groups.lock(), [vec![token("a"), token("b"), token("c")]], "unread events come first");
    assert_eq!(*signals.lock(), [StreamSignal::Drained]);
    let early = Event::Finished(Finished::new(FinishReason::Cancelled));
    assert!(sender.send(&mut vec![token("d"), early, token("e")]));
    assert!(!sender.send(&mut vec![token("f")]), "the sink has no room for more");
    assert!(!sender.send(&mut Vec::new()), "nothing changes with no event");
    handle.drained();
    let finished = Finished::new(FinishReason::MaxTokens);
    sender.finish_with(vec![token("g")], finished.clone());
    let last = vec![token("g"), Event::Finished(finished)];
    assert_eq!(groups.lock()[1..], [vec![token("d"), token("e")], vec![token("f")], last]);
    assert_eq!(Arc::strong_count(&groups), 1, "the sink is dropped at the end");
    drop(handle);
    assert_eq!(*signals.lock(), [StreamSignal::Drained; 2], "a request that has ended is not cancelled");
}

/// Events that were in transit when the stream became full must not hide that there is room again.
#[test]
fn a_late_event_does_not_hide_that_there_is_room() {
    let signals = Arc::new(Mutex::new(Vec::new()));
    let seen = signals.clone();
    let (sender, mut stream) = channel(8, move |signal| seen.lock().push(signal));
    for i in 1..=8 {
        assert_eq!(sender.token(Token::new(1, "a")), i < 8);
    }
    assert!(stream.next().is_some() && stream.next().is_some());
    assert!(!sender.token(Token::new(1, "late")));
    for _ in 0..3 {
        assert!(stream.next().is_some());
    }
    assert_eq!(*signals.lock(), [StreamSignal::Drained]);
    assert!(sender.token(Token::new(1, "b")));
}

#[test]
fn a_sink_gets_a_stream_that_has_ended() {
    let (sender, stream) = ends();
    sender.token(Token::new(1, "a"));
    drop(sender);
    let groups = Arc::new(Mutex::new(Vec::new()));
    let handle = stream.pipe(Box::new(Groups(groups.clone(), 9)));
    let stopped = Finished::new(FinishReason::Failed(RequestError::EngineStopped));
    assert_eq!(*groups.lock(), [vec![token("a"), Event::Finished(stopped)]]);
    assert_eq!(Arc::strong_count(&groups), 1);
    drop(handle);
}

#[test]
fn dropping_the_handle_of_a_sink_cancels() {
    let signals = Arc::new(Mutex::new(Vec::new()));
    let seen = signals.clone();
    let (sender, stream) = channel(2, move |signal| seen.lock().push(signal));
    drop(stream.pipe(Box::new(Groups(Arc::default(), 3))));
    assert_eq!(*signals.lock(), [StreamSignal::Cancelled]);
    sender.finish(Finished::new(FinishReason::Cancelled));
}

#[test]
fn text_holds_all_that_a_token_or_the_end_brings() {
    let (sender, mut stream) = ends();
    for text in ["He", "", "llo", ""] {
        sender.token(Token::new(1, text));
    }
    let usage = Usage::new(3, 4);
    sender.finish(Finished::new(FinishReason::MaxTokens).text(" --").usage(usage.clone()).seed(7));
    assert_eq!((stream.usage(), stream.finished()), (None, None));
    let items: Vec<_> = stream.text().map(|piece| piece.unwrap()).collect();
    assert_eq!(items, ["He", "llo", " --"]);
    assert_eq!(stream.usage(), Some(&usage));
    assert_eq!(stream.finished().unwrap().seed, Some(7));
    assert!(stream.text().next().is_none());
}

#[test]
fn a_failure_is_one_error_after_the_text() {
    let (sender, stream) = ends();
    sender.token(Token::new(1, "some"));
    sender.finish(Finished::new(failed()).text(" held"));
    assert_eq!(pieces(stream), ("some held".into(), vec![RequestError::Panicked("on purpose".into())]));

    let (sender, stream) = ends();
    drop(sender);
    assert_eq!(pieces(stream), (String::new(), vec![RequestError::EngineStopped]));
}

#[test]
fn the_text_stream_gives_what_the_iterator_gives() {
    let (sender, stream) = ends();
    let mut text = stream.into_text_stream();
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(Pin::new(&mut text).poll_next(&mut context), Poll::Pending);
    sender.token(Token::new(1, "a"));
    assert_eq!(Pin::new(&mut text).poll_next(&mut context), Poll::Ready(Some(Ok("a".into()))));
    sender.token(Token::new(1, ""));
    assert_eq!(Pin::new(&mut text).poll_next(&mut context), Poll::Pending);
    sender.finish(Finished::new(failed()).text("b"));
    assert_eq!(Pin::new(&mut text).poll_next(&mut context), Poll::Ready(Some(Ok("b".into()))));
    assert!(!text.is_terminated(), "the error is still to come");
    assert!(matches!(Pin::new(&mut text).poll_next(&mut context), Poll::Ready(Some(Err(_)))));
    assert!(text.is_terminated());
    assert_eq!(Pin::new(&mut text).poll_next(&mut context), Poll::Ready(None));
    assert_eq!(text.finished().unwrap().reason, failed());
}

#[test]
fn the_text_stream_waits_and_polls() {
    let (sender, stream) = ends();
    let mut text = stream.into_text_stream();
    assert_eq!(text.next_timeout(Duration::ZERO), None);
    assert!(!text.is_terminated(), "nothing has come yet");
    sender.token(Token::new(1, ""));
    sender.token(Token::new(2, "a"));
    assert_eq!(
        text.next_timeout(Duration::ZERO),
        Some(Ok("a".into())),
        "a token without text is passed over"
    );
    let late = std::thread::spawn(move || sender.finish(Finished::new(failed()).text("b")));
    assert_eq!(text.next_timeout(Duration::MAX), Some(Ok("b".into())));
    assert!(matches!(text.next_timeout(Duration::ZERO), Some(Err(_))));
    assert_eq!(text.next_timeout(Duration::MAX), None);
    assert!(text.is_terminated());
    late.join().unwrap();
}

#[test]
fn deltas_are_collected() {
    let (sender, stream) = ends();
    sender.reasoning(Token::new(1, "let me "));
    sender.reasoning(Token::new(2, "see"));
    sender.token(Token::new(None, "It is ").logprob(-0.5).top_logprobs([(3, -0.5), (4, -2.0)]));
    sender.tool_call(ToolCallDelta::new(1).name("time").arguments("{}"));
    sender.tool_call(ToolCallDelta::new(0).id("call-0").name("weather").arguments("{\"city\":"));
    sender.tool_call(ToolCallDelta::new(0).arguments("\"Ulm\"}"));
    sender.finish(Finished::new(FinishReason::EndOfGeneration).text("mild"));
    let answer = stream.complete().unwrap();
    assert_eq!((answer.text.as_str(), answer.reasoning.as_str()), ("It is mild", "let me see"));
    assert_eq!(answer.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [Some(1), Some(2), None]);
    assert_eq!(answer.tokens[2].top_logprobs[1], TopLogprob::new(4, -2.0));
    let calls: Vec<_> =
        answer.tool_calls.iter().map(|call| (call.id.as_deref(), &*call.name, &*call.arguments)).collect();
    assert_eq!(calls, [(Some("call-0"), "weather", "{\"city\":\"Ulm\"}"), (None, "time", "{}")]);
    let expected = Message::assistant("It is mild")
        .reasoning("let me see")
        .tool_call(ToolCall::new("weather", "{\"city\":\"Ulm\"}").id("call-0"))
        .tool_call(ToolCall::new("time", "{}"));
    assert_eq!(Message::from(answer), expected);
}

#[test]
fn the_prompt_is_collected_once_for_all_answers() {
    let (sender, stream) = ends();
    let token = |id: u32, logprob: Option<f32>| PromptToken::new(id, logprob);
    assert!(sender.prompt(PromptLogprobs::new(0, [token(5, None), token(6, Some(-1.0))])));
    sender.prompt(PromptLogprobs::new(2, [token(7, Some(-2.0))]));
    sender.token(Token::new(1, "a"));
    sender.answer_finished(
        AnswerFinished::new(0, FinishReason::MaxTokens).logprob(AnswerLogprob::new(-3.0, 2)),
    );
    sender.finish(Finished::new(FinishReason::MaxTokens).index(1).logprob(AnswerLogprob::new(0.0, 0)));
    let answers = stream.complete_all().unwrap();
    let expected = [token(5, None), token(6, Some(-1.0)), token(7, Some(-2.0))];
    assert!(answers.iter().all(|answer| *answer.prompt == expected));
    let means: Vec<_> = answers.iter().map(|answer| answer.logprob.unwrap().mean()).collect();
    assert_eq!(means, [-1.5, f64::NEG_INFINITY]);
    // It is no text.
    let (sender, stream) = ends();
    sender.prompt(PromptLogprobs::new(0, [token(5, None)]));
    sender.finish(Finished::new(FinishReason::MaxTokens).text("a"));
    assert_eq!(pieces(stream), ("a".into(), Vec::new()));
}

#[test]
fn answers_without_text_are_messages() {
    let (sender, stream) = ends();
    sender.finish(Finished::new(FinishReason::EndOfGeneration));
    assert_eq!(Message::from(stream.complete().unwrap()), Message::assistant(""));
    let (sender, stream) = ends();
    sender.tool_call(ToolCallDelta::new(0).name("time").arguments("{}"));
    sender.finish(Finished::new(FinishReason::EndOfGeneration));
    let expected = Message::assistant("").parts([]).tool_call(ToolCall::new("time", "{}"));
    assert_eq!(Message::from(stream.complete().unwrap()), expected);
}

/// Three answers, of which the first ends first, and the last at the end.
fn three_answers(last: FinishReason) -> TokenStream {
    let (sender, stream) = ends();
    sender.token(Token::new(1, "a"));
    sender.token(Token::new(2, "b").index(1));
    sender.token(Token::new(3, "c").index(2));
    sender.answer_finished(AnswerFinished::new(0, FinishReason::StopString(0)).text("A").seed(10));
    sender.answer_finished(AnswerFinished::new(1, FinishReason::MaxTokens).seed(11));
    sender.token(Token::new(4, "c").index(2));
    sender.finish(Finished::new(last).index(2).text("C").seed(12));
    stream
}

#[test]
fn several_answers_end_one_by_one() {
    let answers = three_answers(FinishReason::EndOfGeneration).complete_all().unwrap();
    let found: Vec<_> = answers
        .into_iter()
        .map(|answer| (answer.index, answer.text, answer.tokens.len(), answer.reason, answer.seed))
        .collect();
    let expected = [
        (0, "aA", 1, FinishReason::StopString(0), Some(10)),
        (1, "b", 1, FinishReason::MaxTokens, Some(11)),
        (2, "ccC", 2, FinishReason::EndOfGeneration, Some(12)),
    ];
    assert_eq!(found, expected.map(|(index, text, n, reason, seed)| (index, text.into(), n, reason, seed)));
    assert_eq!(pieces(three_answers(failed())), ("aA".into(), Vec::new()));
    assert_eq!(three_answers(failed()).complete().unwrap().text, "aA");
    assert!(three_answers(failed()).complete_all().is_err());
}

#[test]
fn an_early_end_ends_every_open_answer() {
    let (sender, stream) = ends();
    sender.token(Token::new(1, "a").index(1));
    sender.finish(Finished::new(FinishReason::Cancelled));
    let answers = stream.complete_all().unwrap();
    assert!(answers.iter().all(|answer| answer.reason == FinishReason::Cancelled));
    assert_eq!(answers.iter().map(|answer| &*answer.text).collect::<Vec<_>>(), ["", "a"]);
    // A large index from a remote engine does not allocate memory of that size.
    let (sender, stream) = ends();
    sender.token(Token::new(1, "a").index(usize::MAX));
    sender.tool_call(ToolCallDelta::new(usize::MAX).name("f"));
    sender.finish(Finished::new(FinishReason::Cancelled));
    assert_eq!(stream.complete_all().unwrap().len(), 2);
}

#[test]
fn completing_needs_no_runtime() {
    let (sender, stream) = ends();
    let mut future = pin!(stream.complete_async());
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    sender.token(Token::new(1, "x"));
    assert!(future.as_mut().poll(&mut context).is_pending());
    sender.finish(Finished::new(FinishReason::MaxTokens));
    let Poll::Ready(answer) = future.as_mut().poll(&mut context) else { panic!("the answer is there") };
    assert_eq!(answer.unwrap().text, "x");
}

#[test]
fn a_wait_that_exceeds_the_clock_is_for_ever() {
    let (sender, mut stream) = ends();
    assert!(stream.next_timeout(Duration::from_millis(1)).is_none());
    let waits = std::thread::spawn(move || (stream.next_timeout(Duration::MAX), stream.next()));
    sender.token(Token::new(1, "x"));
    drop(sender);
    let (first, last) = waits.join().unwrap();
    assert_eq!(first, Some(Event::Token(Token::new(1, "x"))));
    assert!(matches!(last, Some(Event::Finished(_))));
}
