//! MCP client of one server.

use super::TOOLS_MAX;
use super::process::{NoLine, Process};
use super::protocol::{self, Message, VERSIONS, object};
use crate::error::CliError;
use exsa::core::chat::Json;
use std::time::{Duration, Instant};

/// A server and its tools.
#[derive(Debug)]
pub(crate) struct Client {
    command: String,
    process: Process,
    /// Id of the last request.
    id: i128,
    tools: Vec<(String, Json)>,
}

/// Reason for a missing answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The user has interrupted.
    Interrupted,
    /// Any other failure, as text.
    Failed(String),
}

impl Client {
    /// Starts a server and lists its tools, within `time`. `stopped` returns whether the user has
    /// interrupted.
    pub(crate) fn start(command: &str, time: Duration, stopped: &dyn Fn() -> bool) -> Result<Self, CliError> {
        let process = Process::start(command)?;
        let mut client = Self { command: command.to_owned(), process, id: 0, tools: Vec::new() };
        let end = Instant::now() + time;
        let begun = client.begin(end, stopped).and_then(|()| client.list(end, stopped));
        match begun {
            Ok(()) => Ok(client),
            Err(NoAnswer::Interrupted) => Err(CliError::Interrupted),
            Err(NoAnswer::Failed(problem)) => Err(CliError::Other(format!("--mcp '{command}': {problem}"))),
        }
    }

    /// Names and definitions of tools.
    pub(crate) fn tools(&self) -> &[(String, Json)] {
        &self.tools
    }

    /// The command line of the server.
    pub(crate) fn command(&self) -> &str {
        &self.command
    }

    /// Calls a tool. Returns its result, or the error that it reports.
    pub(crate) fn call(
        &mut self,
        name: &str,
        arguments: Json,
        timeout: Duration,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Result<String, String>, NoAnswer> {
        let params = object([("name", name.into()), ("arguments", arguments)]);
        let result = self.request("tools/call", params, Instant::now() + timeout, stopped)?;
        Ok(protocol::result_text(&result))
    }

    /// Negotiates the protocol version.
    fn begin(&mut self, end: Instant, stopped: &dyn Fn() -> bool) -> Result<(), NoAnswer> {
        let server = self.request("initialize", protocol::initialize(), end, stopped)?;
        let version = server.get("protocolVersion").and_then(Json::as_str).unwrap_or_default();
        if !VERSIONS.contains(&version) {
            let (version, known) = (crate::output::visible(version), VERSIONS.join(", "));
            return Err(NoAnswer::Failed(format!("it speaks protocol version '{version}', not {known}")));
        }
        if server.get("capabilities").and_then(|capabilities| capabilities.get("tools")).is_none() {
            return Err(NoAnswer::Failed("it offers no tools".into()));
        }
        let ready = protocol::request(None, "notifications/initialized", object([]));
        self.process.send(ready).map_err(NoAnswer::Failed)
    }

    /// Lists the tools, page by page.
    fn list(&mut self, end: Instant, stopped: &dyn Fn() -> bool) -> Result<(), NoAnswer> {
        let mut params = object([]);
        loop {
            let page = self.request("tools/list", params, end, stopped)?;
            let tools = page.get("tools").and_then(Json::as_array);
            let tools = tools.ok_or_else(|| NoAnswer::Failed("its tool list is not an array".into()))?;
            for tool in tools {
                let tool = protocol::tool(tool).map_err(NoAnswer::Failed)?;
                if self.tools.iter().any(|(name, _)| *name == tool.0) {
                    return Err(NoAnswer::Failed(format!("it has two tools named '{}'", tool.0)));
                }
                self.tools.push(tool);
            }
            if self.tools.len() > TOOLS_MAX {
                return Err(NoAnswer::Failed(format!("it has more than {TOOLS_MAX} tools, the limit")));
            }
            match page.get("nextCursor") {
                // An empty page with a cursor could repeat forever.
                Some(cursor @ Json::String(_)) if !tools.is_empty() => {
                    params = object([("cursor", cursor.clone())]);
                }
                _ => return Ok(()),
            }
        }
    }

    /// Sends a request and waits for the answer. Answers incoming requests and skips notifications meanwhile.
    fn request(
        &mut self,
        method: &str,
        params: Json,
        end: Instant,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Json, NoAnswer> {
        self.id += 1;
        let (id, begun) = (self.id, Instant::now());
        self.process.send(protocol::request(Some(id), method, params)).map_err(NoAnswer::Failed)?;
        loop {
            let line = match self.process.line(end, stopped) {
                Ok(line) => line,
                Err(NoLine::Broken(problem)) => return Err(NoAnswer::Failed(problem)),
                Err(NoLine::Timeout) => {
                    self.cancel(id, "timeout");
                    let seconds = begun.elapsed().as_secs_f64();
                    return Err(NoAnswer::Failed(format!(
                        "it did not answer {method} within {seconds:.0} s"
                    )));
                }
                Err(NoLine::Interrupted) => {
                    self.cancel(id, "interrupted by the user");
                    return Err(NoAnswer::Interrupted);
                }
            };
            match protocol::read(&line) {
                Ok(Message::Answer(of, answer)) if of == id => return answer.map_err(NoAnswer::Failed),
                // Late answer to a request that was cancelled.
                Ok(Message::Answer(of, _)) if (1..id).contains(&of) => {}
                Ok(Message::Answer(of, _)) => {
                    let problem = format!("it answered request {of}, which was not made");
                    return Err(NoAnswer::Failed(self.process.give_up(problem)));
                }
                Ok(Message::Request(answer)) => self.process.send(answer).map_err(NoAnswer::Failed)?,
                Ok(Message::Notification) => {}
                Err(problem) => return Err(NoAnswer::Failed(self.process.give_up(problem))),
            }
        }
    }

    /// Tells the server that a request is cancelled.
    fn cancel(&mut self, id: i128, reason: &str) {
        let params = object([("requestId", Json::Int(id)), ("reason", reason.into())]);
        // A failed send needs no handling here: the next read reports it.
        let _ = self.process.send(protocol::request(None, "notifications/cancelled", params));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn command(fault: &str) -> String {
        format!("sh '{}/tests/mcp_server.sh' {fault}", env!("CARGO_MANIFEST_DIR"))
    }

    fn call(client: &mut Client, time: Duration, stopped: bool) -> Result<Result<String, String>, NoAnswer> {
        client.call("weather", object([("city", "Bern".into())]), time, &|| stopped)
    }

    #[test]
    fn late_answers_are_left_out() {
        let mut client = Client::start(&command("late"), PATIENCE, &|| false).unwrap();
        let first = call(&mut client, Duration::from_millis(50), false).unwrap_err();
        assert!(matches!(first, NoAnswer::Failed(problem) if problem.contains("did not answer tools/call")));
        assert_eq!(call(&mut client, PATIENCE, false).unwrap(), Ok("sunny again".into()));
    }

    #[test]
    fn a_call_can_be_interrupted() {
        let mut client = Client::start(&command("hang"), PATIENCE, &|| false).unwrap();
        assert!(matches!(call(&mut client, PATIENCE, true), Err(NoAnswer::Interrupted)));
    }

    #[test]
    fn a_server_that_does_not_begin_is_given_up() {
        let error = Client::start(&command("mute"), Duration::from_millis(100), &|| false).unwrap_err();
        assert!(error.to_string().contains("did not answer initialize"), "{error}");
    }

    #[test]
    fn a_broken_server_is_not_asked_again() {
        let mut client = Client::start(&command("die"), PATIENCE, &|| false).unwrap();
        for _ in 0..2 {
            let NoAnswer::Failed(problem) = call(&mut client, PATIENCE, false).unwrap_err() else {
                panic!("it was not interrupted")
            };
            assert!(problem.contains("it ended (exit status: 3)"), "{problem}");
        }
    }
}
