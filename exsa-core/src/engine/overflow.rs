//! Conversations that are too long: which messages can be dropped, in order.

use crate::chat::Message;
use crate::engine::input_processor::{Encoded, InputProcessor};
use crate::generator::SubmitError;
use crate::overflow::Overflow;
use crate::request::{Prompt, Request};
use std::ops::Range;

impl InputProcessor {
    /// Encodes the prompt, and returns the number of messages dropped to make it fit, if the request allows
    /// that.
    pub(super) fn encode_to_fit(&self, request: &Request) -> Result<(Encoded, usize), SubmitError> {
        let encoded = self.encode(request)?;
        let (Overflow::DropMessages, Prompt::Chat(messages)) = (request.overflow, &request.prompt) else {
            return Ok((encoded, 0));
        };
        let window = self.info.capabilities.context_window();
        let answer = request.max_tokens.unwrap_or(window / 4).min(window / 2).max(1);
        let prompt_max = window.saturating_sub(answer);
        let units = droppable(messages);
        if encoded.tokens.len() <= prompt_max || units.is_empty() {
            return Ok((encoded, 0));
        }
        let without = |units: &[Vec<usize>]| {
            let dropped = units.concat();
            let kept = messages.iter().enumerate().filter(|(i, _)| !dropped.contains(i));
            let kept: Vec<_> = kept.map(|(_, message)| message.clone()).collect();
            Ok::<_, SubmitError>((self.encode_chat(&kept, request)?, dropped.len()))
        };
        let mut fitting = without(&units)?;
        // If even that is too long, the later length check refuses the request.
        let (mut least, mut most) =
            if fitting.0.tokens.len() > prompt_max { (0, 0) } else { (1, units.len()) };
        while least < most {
            let middle = least.midpoint(most);
            let shorter = without(&units[..middle])?;
            if shorter.0.tokens.len() > prompt_max {
                least = middle + 1;
            } else {
                (fitting, most) = (shorter, middle);
            }
        }
        Ok(fitting)
    }
}

/// Groups of messages, by index, that can be dropped, in order: the turns before the last user message,
/// oldest first, then the rounds of tool calls after it, except for the last round.
fn droppable(messages: &[Message]) -> Vec<Vec<usize>> {
    let results = last_results(messages);
    let last_user = messages.iter().rposition(|message| message.role == "user");
    let question = last_user.unwrap_or(messages.len().saturating_sub(1));
    let mut dropped = units(messages, 0..question, &results, |message| message.role == "user");
    if !messages.is_empty() {
        let rounds = question + 1..messages.len();
        let mut rounds = units(messages, rounds, &results, |message| message.role != "tool");
        rounds.pop();
        dropped.append(&mut rounds);
    }
    dropped
}

/// Splits the messages in `range` into groups, without system messages. A message for which `begins` holds
/// starts a new group, unless results of calls in the previous group follow it. A group with results beyond
/// the range is left out, as are all groups after it.
fn units(
    messages: &[Message],
    range: Range<usize>,
    results: &[usize],
    begins: impl Fn(&Message) -> bool,
) -> Vec<Vec<usize>> {
    let mut units: Vec<Vec<usize>> = Vec::new();
    let mut complete_at = 0;
    for i in range.clone() {
        let message = &messages[i];
        if matches!(message.role.as_str(), "system" | "developer") {
            continue;
        }
        match units.last_mut() {
            Some(unit) if i <= complete_at || !begins(message) => unit.push(i),
            _ => units.push(vec![i]),
        }
        complete_at = complete_at.max(results[i]);
    }
    if complete_at >= range.end {
        units.pop();
    }
    units
}

/// For each message, the index of the last result of its tool calls; its own index if there is none.
fn last_results(messages: &[Message]) -> Vec<usize> {
    let mut results: Vec<usize> = (0..messages.len()).collect();
    for (i, message) in messages.iter().enumerate().filter(|(_, message)| message.role == "tool") {
        let asks = |caller: &Message| match &message.tool_call_id {
            Some(id) => caller.tool_calls.iter().any(|call| call.id.as_ref() == Some(id)),
            None => !caller.tool_calls.is_empty(),
        };
        if let Some(caller) = messages[..i].iter().rposition(asks) {
            results[caller] = i;
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;

    fn call(id: &str) -> Message {
        Message::assistant("").tool_call(ToolCall::new("f", "{}").id(id))
    }

    #[test]
    fn turns_go_before_rounds_and_the_question_stays() {
        let messages = [
            Message::system("s"),
            Message::assistant("greeting"),
            Message::user("1"),
            call("a"),
            Message::tool("a", "r"),
            Message::assistant("1"),
            Message::system("s"),
            Message::user("2"),
            Message::assistant("2"),
            Message::user("3"),
            call("b"),
            Message::tool("b", "r"),
            call("c"),
            Message::tool("c", "r"),
        ];
        let expected = [vec![1], vec![2, 3, 4, 5], vec![7, 8], vec![10, 11]];
        assert_eq!(droppable(&messages), expected);
        assert_eq!(droppable(&messages[..10]), expected[..3]);
        assert_eq!(droppable(&messages[..3]), expected[..1], "a question alone stays");
        assert_eq!(droppable(&messages[..2]), [[0; 0]; 0], "so does a message that is the only one");
        assert_eq!(droppable(&[]), [[0; 0]; 0]);
    }

    #[test]
    fn a_call_goes_with_its_results_wherever_they_are() {
        let late = [
            Message::user("1"),
            call("a"),
            Message::user("hurry"),
            Message::tool("a", "r"),
            Message::user("2"),
            Message::assistant("2"),
            Message::user("3"),
        ];
        assert_eq!(droppable(&late), [vec![0, 1, 2, 3], vec![4, 5]]);
        assert_eq!(droppable(&late[..4]), [[0; 0]; 0], "its result comes after the last question");
        let abandoned = [Message::user("1"), call("a"), Message::user("2"), Message::user("3")];
        assert_eq!(droppable(&abandoned), [vec![0, 1], vec![2]]);
        // A result without an id belongs to the last call.
        let mut nameless = Message::tool("", "r");
        nameless.tool_call_id = None;
        let messages = [Message::user("1"), call("a"), nameless, Message::user("2")];
        assert_eq!(droppable(&messages), [vec![0, 1, 2]]);
    }
}
