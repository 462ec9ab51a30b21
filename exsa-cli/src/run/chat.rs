//! A chat on the terminal.

use super::answer::Printer;
use super::commands::{self, Effect};
use super::conversation::Conversation;
use super::reply;
use super::tools::Tools;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use exsa::{Engine, Message};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// Delimiter of a multi-line message.
const BLOCK: &str = "\"\"\"";

/// Chats until the user ends it.
pub(super) fn chat(
    engine: &Engine,
    mut conversation: Conversation,
    tools: &mut Tools,
    interrupt: &Interrupt,
    verbose: bool,
) -> Result<(), CliError> {
    let mut editor = DefaultEditor::new().map_err(|error| CliError::Other(format!("terminal: {error}")))?;
    if !tools.is_empty() {
        eprintln!("{}", tools.summary());
    }
    eprintln!("{}\n/help lists the commands.", engine.model().summary());
    while let Some(line) = message(&mut editor)? {
        if line.trim().is_empty() {
            continue;
        }
        // A missing history entry is harmless.
        let _ = editor.add_history_entry(&line);
        if line.starts_with('/') {
            match commands::run(line.trim(), &mut conversation) {
                Ok(Effect::Say(text)) => {
                    println!("{text}");
                    continue;
                }
                Ok(Effect::Answer) => {}
                Ok(Effect::End) => break,
                Err(error) => {
                    println!("{error}");
                    continue;
                }
            }
        } else {
            conversation.messages.push(Message::user(line.trim()));
        }
        let before = conversation.messages.len().saturating_sub(1);
        match reply::reply(engine, &mut conversation, tools, interrupt, &mut Printer::new()) {
            Ok((answer, _)) if verbose => eprintln!("{}", answer.summary()),
            Ok(_) => {}
            Err(error) => {
                println!("{error}");
                // The message has no answer; it would break the alternation of roles.
                conversation.messages.truncate(before);
            }
        }
    }
    Ok(())
}

/// Reads a message, multi-line within `"""`; `None` at the end of the input.
fn message(editor: &mut DefaultEditor) -> Result<Option<String>, CliError> {
    let Some(first) = line(editor, "> ")? else { return Ok(None) };
    let Some(rest) = first.trim_start().strip_prefix(BLOCK) else { return Ok(Some(first)) };
    let mut text = rest.to_owned();
    while !text.trim_end().ends_with(BLOCK) {
        let Some(next) = line(editor, ". ")? else { return Ok(None) };
        text.push('\n');
        text.push_str(&next);
    }
    let text = text.trim_end();
    Ok(Some(text[..text.len() - BLOCK.len()].trim_matches('\n').to_owned()))
}

fn line(editor: &mut DefaultEditor, prompt: &str) -> Result<Option<String>, CliError> {
    match editor.readline(prompt) {
        Ok(line) => Ok(Some(line)),
        Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
        Err(error) => Err(CliError::Other(format!("terminal: {error}"))),
    }
}
