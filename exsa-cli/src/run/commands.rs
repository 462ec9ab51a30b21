//! Slash commands of a chat.

use super::conversation::Conversation;
use crate::error::CliError;
use crate::settings::Settings;
use std::path::Path;

/// Help text of the chat.
pub(super) const HELP: &str = "\
/set NAME VALUE   change a setting, as /set temperature 0.2; /set alone lists the names
/system TEXT      change the instructions to the model; /system alone removes them
/regenerate       answer the last message again
/undo             forget the last message and its answer
/clear            forget the conversation
/save FILE        write the conversation to a file
/load FILE        read a conversation from a file
/show             settings and length of the conversation
/help             this list
/bye              end; Ctrl-D too

\"\"\" begins and ends a multi-line message. Ctrl-C stops an answer.";

/// Effect of a command on the chat.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// A text to show.
    Say(String),
    /// Answer the last message again.
    Answer,
    /// End the chat.
    End,
}

/// Runs a slash command.
pub(super) fn run(line: &str, conversation: &mut Conversation) -> Result<Effect, CliError> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let say = |text: &str| Ok(Effect::Say(text.to_owned()));
    match name {
        "/bye" | "/exit" | "/quit" => Ok(Effect::End),
        "/help" | "/?" => say(HELP),
        "/set" if rest.is_empty() => Ok(Effect::Say(Settings::names().join(", "))),
        "/set" => {
            let (name, value) = rest.split_once([' ', '=']).unwrap_or((rest, ""));
            conversation.settings.set(name, value.trim())?;
            Ok(Effect::Say(format!("{name} is {}", value.trim())))
        }
        "/system" => {
            conversation.system = (!rest.is_empty()).then(|| rest.to_owned());
            say(if rest.is_empty() { "no instructions" } else { "instructions changed" })
        }
        "/regenerate" => match conversation.remove_answer() {
            true => Ok(Effect::Answer),
            false => say("there is no message to answer"),
        },
        "/undo" => {
            conversation.remove_answer();
            conversation.messages.pop();
            Ok(Effect::Say(format!("{} messages left", conversation.messages.len())))
        }
        "/clear" => {
            conversation.messages.clear();
            say("the conversation is empty")
        }
        "/save" if !rest.is_empty() => {
            conversation.save(Path::new(rest))?;
            Ok(Effect::Say(format!("saved to {rest}")))
        }
        "/load" if !rest.is_empty() => {
            *conversation = Conversation::load(Path::new(rest))?;
            Ok(Effect::Say(format!("{} messages loaded", conversation.messages.len())))
        }
        "/save" | "/load" => Err(CliError::Usage(format!("{name} needs a file name"))),
        "/show" => {
            let settings = serde_json::to_string(&conversation.settings.json())?;
            let system = conversation.system.as_deref().unwrap_or("none");
            let messages = conversation.messages.len();
            Ok(Effect::Say(format!("messages: {messages}\ninstructions: {system}\nsettings: {settings}")))
        }
        _ => Err(CliError::Usage(format!("unknown command {name}; /help lists the commands"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa::Message;

    #[test]
    fn commands_change_the_conversation() {
        let mut conversation = Conversation::default();
        run("/set temperature 0.5", &mut conversation).unwrap();
        run("/set top_k=7", &mut conversation).unwrap();
        run("/system Answer in rhymes.", &mut conversation).unwrap();
        assert_eq!(conversation.system.as_deref(), Some("Answer in rhymes."));
        let Effect::Say(shown) = run("/show", &mut conversation).unwrap() else {
            panic!("/show says nothing")
        };
        assert!(shown.contains("\"temperature\":0.5") && shown.contains("\"top_k\":7"), "{shown}");

        conversation.messages = vec![Message::user("a"), Message::assistant("b")];
        assert_eq!(run("/regenerate", &mut conversation).unwrap(), Effect::Answer);
        assert_eq!(conversation.messages.len(), 1);
        run("/undo", &mut conversation).unwrap();
        assert!(conversation.messages.is_empty());
        assert_eq!(run("/bye", &mut conversation).unwrap(), Effect::End);
    }

    #[test]
    fn wrong_commands_say_so() {
        let mut conversation = Conversation::default();
        for line in ["/nothing", "/save", "/set warmth 3", "/load /no/such/file"] {
            assert!(run(line, &mut conversation).is_err(), "{line}");
        }
    }
}
