//! Conversation and settings, which can be saved.

use crate::error::CliError;
use crate::settings::Settings;
use exsa::{Message, Prompt, Request};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Messages so far, and the settings of the next answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversation {
    pub(super) system: Option<String>,
    pub(super) messages: Vec<Message>,
    pub(super) settings: Settings,
}

/// File format of a saved conversation. Messages have OpenAI's form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    #[serde(default)]
    system: Option<String>,
    messages: Vec<Message>,
    #[serde(default)]
    settings: Map<String, Value>,
}

impl Conversation {
    pub(super) fn new(system: Option<String>, settings: Settings) -> Self {
        Self { system, messages: Vec::new(), settings }
    }

    /// Creates the request for the next answer.
    pub(super) fn request(&self) -> Result<Request, CliError> {
        let system = self.system.iter().map(Message::system);
        self.settings.request(Prompt::Chat(system.chain(self.messages.iter().cloned()).collect()))
    }

    /// Removes the last answer, so that it can be generated again. Returns whether a question remains.
    pub(super) fn remove_answer(&mut self) -> bool {
        while self.messages.last().is_some_and(|message| message.role != "user") {
            self.messages.pop();
        }
        !self.messages.is_empty()
    }

    /// Writes the conversation as JSON.
    pub(super) fn save(&self, path: &Path) -> Result<(), CliError> {
        let saved =
            json!({"system": self.system, "messages": self.messages, "settings": self.settings.json()});
        let text = serde_json::to_string_pretty(&saved)?;
        std::fs::write(path, text + "\n").map_err(|error| CliError::file(path, error))
    }

    /// Reads a saved conversation.
    pub(super) fn load(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
        let saved: Saved = serde_json::from_str(&text).map_err(|error| CliError::file(path, error))?;
        let settings = Settings::from_json(saved.settings).map_err(|error| CliError::file(path, error))?;
        Ok(Self { system: saved.system, messages: saved.messages, settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_conversations_come_back() {
        let mut conversation = Conversation::new(Some("Be kind.".into()), Settings::default());
        conversation.settings.set("top_k", "5").unwrap();
        conversation.messages = vec![Message::user("Hi"), Message::assistant("Hello.")];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.json");
        conversation.save(&path).unwrap();
        let loaded = Conversation::load(&path).unwrap();
        assert_eq!(loaded.system, conversation.system);
        assert_eq!(loaded.messages, conversation.messages);
        assert_eq!(loaded.settings, conversation.settings);
        std::fs::write(&path, "{\"messages\": 3}").unwrap();
        assert!(Conversation::load(&path).unwrap_err().to_string().contains("chat.json"));
    }

    #[test]
    fn the_last_answer_is_removed() {
        let mut conversation = Conversation::default();
        assert!(!conversation.remove_answer());
        conversation.messages = vec![Message::user("a"), Message::assistant("b")];
        assert!(conversation.remove_answer());
        assert_eq!(conversation.messages, [Message::user("a")]);
    }
}
