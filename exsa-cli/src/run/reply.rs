//! Reply to the last message of a conversation, including its tool calls.

use super::answer::{self, Answer, Printer};
use super::conversation::Conversation;
use super::tools::Tools;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use exsa::core::tools::ToolChoice;
use exsa::{Engine, Message};

/// Maximum answers per reply; the last one must not call tools.
const ANSWERS_MAX: usize = 9;

/// Generates the reply to the last message, and appends all its messages. Returns the last answer, and
/// whether Ctrl-C stopped it.
pub(super) fn reply(
    engine: &Engine,
    conversation: &mut Conversation,
    tools: &mut Tools,
    interrupt: &Interrupt,
    printer: &mut Printer,
) -> Result<(Answer, bool), CliError> {
    for number in 1..=ANSWERS_MAX {
        let mut request = tools.offer(conversation.request()?);
        if number > 1 && matches!(request.tools.choice, ToolChoice::Required | ToolChoice::Named(_)) {
            // Only the first answer is required to call a tool.
            request.tools.choice = ToolChoice::Auto;
        }
        let stream = engine.submit(request)?;
        interrupt.watch(stream.cancel_handle());
        let answer = answer::print(stream, printer);
        let stopped = interrupt.take_stopped();
        let answer = answer?;
        conversation.messages.push(answer.message(stopped));
        if stopped || answer.calls.is_empty() {
            return Ok((answer, stopped));
        }
        if number == ANSWERS_MAX {
            break;
        }
        for call in &answer.calls {
            let result = tools.run(call, interrupt)?;
            let id = call.id.clone().unwrap_or_default();
            conversation.messages.push(Message::tool(id, result).name(&call.name));
        }
    }
    Err(CliError::Other(format!("the model still calls tools in answer {ANSWERS_MAX}, which is the limit")))
}
