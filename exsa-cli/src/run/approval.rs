//! Confirmation of tool calls.

use crate::error::CliError;
use crate::output::visible;
use exsa::core::chat::Json;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::collections::BTreeSet;
use std::io::IsTerminal;

/// The decision on a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Run,
    /// Not run, with the reason for the model.
    Refused(String),
}

/// Tools that may be called, and whether the user can be asked.
#[derive(Debug)]
pub(super) struct Approval {
    allowed: BTreeSet<String>,
    interactive: bool,
}

/// Reply of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Yes,
    No,
    Always,
}

impl Approval {
    /// Allows the named tools. Other calls need confirmation on a terminal, and are refused without one.
    pub(super) fn new(allowed: &[String]) -> Self {
        let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        Self { allowed: allowed.iter().cloned().collect(), interactive }
    }

    /// Shows a call and decides whether to run it.
    pub(super) fn decide(&mut self, tool: &str, arguments: &Json) -> Result<Decision, CliError> {
        eprintln!("tool {} {}", visible(tool), visible(&arguments.to_string()));
        if self.allowed.contains(tool) {
            return Ok(Decision::Run);
        }
        if !self.interactive {
            eprintln!(
                "exsa: not run, since there is no terminal for confirmation; allow it: --mcp-allow {}",
                visible(tool)
            );
            return Ok(Decision::Refused("the user has not allowed this tool".into()));
        }
        match ask()? {
            Reply::Yes => Ok(Decision::Run),
            Reply::No => Ok(Decision::Refused("the user has refused this call".into())),
            Reply::Always => {
                self.allowed.insert(tool.to_owned());
                Ok(Decision::Run)
            }
        }
    }
}

/// Asks until the reply is valid.
fn ask() -> Result<Reply, CliError> {
    let failed = |error: ReadlineError| CliError::Other(format!("terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(failed)?;
    loop {
        match editor.readline("run it? y(es), n(o), always: ") {
            Ok(line) => {
                if let Some(reply) = reply(&line) {
                    return Ok(reply);
                }
            }
            Err(ReadlineError::Eof) => return Ok(Reply::No),
            Err(ReadlineError::Interrupted) => return Err(CliError::Interrupted),
            Err(error) => return Err(failed(error)),
        }
    }
}

fn reply(line: &str) -> Option<Reply> {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(Reply::Yes),
        "n" | "no" => Some(Reply::No),
        "a" | "always" => Some(Reply::Always),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_answers_count() {
        assert_eq!(reply(" Y "), Some(Reply::Yes));
        assert_eq!(reply("no"), Some(Reply::No));
        assert_eq!(reply("always"), Some(Reply::Always));
        assert_eq!((reply(""), reply("yesterday")), (None, None));
    }

    #[test]
    fn without_a_terminal_only_allowed_tools_run() {
        let mut approval = Approval { allowed: ["a".to_owned()].into(), interactive: false };
        let arguments = Json::Object(Vec::new());
        assert_eq!(approval.decide("a", &arguments).unwrap(), Decision::Run);
        assert!(matches!(approval.decide("b", &arguments).unwrap(), Decision::Refused(_)));
    }
}
