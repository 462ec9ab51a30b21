//! Tools of MCP servers, with confirmation by the user.

use super::approval::{Approval, Decision};
use crate::args::RunArgs;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::mcp::{Client, NoAnswer, START_TIME};
use crate::output::visible;
use exsa::Request;
use exsa::core::chat::{Json, ToolCall};
use serde_json::{Value, json};
use std::time::Duration;

/// MCP servers with their tools, and the calls so far.
#[derive(Debug)]
pub(super) struct Tools {
    clients: Vec<Client>,
    approval: Approval,
    timeout: Duration,
    called: Vec<Value>,
}

impl Tools {
    /// Starts the MCP servers of the command line.
    pub(super) fn start(args: &RunArgs, interrupt: &Interrupt) -> Result<Self, CliError> {
        let mut tools = Self {
            clients: Vec::new(),
            approval: Approval::new(&args.mcp_allow),
            timeout: Duration::from_secs(args.mcp_timeout.get()),
            called: Vec::new(),
        };
        for command in &args.mcp {
            let client = interrupt.during(|stopped| Client::start(command, START_TIME, stopped))?;
            if let Some((name, _)) = client.tools().iter().find(|(name, _)| tools.client_of(name).is_some()) {
                return Err(CliError::Other(format!(
                    "--mcp '{command}': another server has a tool '{name}' too"
                )));
            }
            tools.clients.push(client);
        }
        let names = tools.names();
        match args.mcp_allow.iter().find(|allowed| !names.contains(&allowed.as_str())) {
            Some(name) => Err(CliError::Usage(format!(
                "--mcp-allow: unknown tool '{name}'; allowed are {}",
                if names.is_empty() { "none (--mcp)".to_owned() } else { names.join(", ") }
            ))),
            None => Ok(tools),
        }
    }

    /// Whether there are no servers.
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Summary: one line per server with its tools.
    pub(super) fn summary(&self) -> String {
        let line = |client: &Client| {
            let names: Vec<&str> = client.tools().iter().map(|(name, _)| name.as_str()).collect();
            format!("tools of {}: {}", visible(client.command()), names.join(", "))
        };
        self.clients.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Adds the tools to a request.
    pub(super) fn offer(&self, mut request: Request) -> Request {
        let tools = self.clients.iter().flat_map(Client::tools);
        request.chat.tools = tools.map(|(_, definition)| definition.clone()).collect();
        request
    }

    /// Runs a call if the user allows it. Returns the result for the model, which may be an error.
    pub(super) fn run(&mut self, call: &ToolCall, interrupt: &Interrupt) -> Result<String, CliError> {
        let result = self.result(call, interrupt)?;
        if let Err(problem) = &result {
            eprintln!("exsa: {}: {}", visible(&call.name), visible(problem));
        }
        let text = result.unwrap_or_else(|problem| format!("Error: {problem}"));
        self.called.push(json!({"name": call.name, "arguments": call.arguments, "result": text}));
        Ok(text)
    }

    /// Takes the calls made since the last time, with their results.
    pub(super) fn take_called(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.called)
    }

    /// Returns the result of a call, or its problem.
    fn result(&mut self, call: &ToolCall, interrupt: &Interrupt) -> Result<Result<String, String>, CliError> {
        let Some(index) = self.client_of(&call.name) else {
            return Ok(Err(format!(
                "unknown tool '{}'; the tools are {}",
                call.name,
                self.names().join(", ")
            )));
        };
        let text = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let arguments = match text.parse() {
            Ok(arguments @ Json::Object(_)) => arguments,
            _ => return Ok(Err("its arguments are not a JSON object".into())),
        };
        match self.approval.decide(&call.name, &arguments)? {
            Decision::Run => {}
            Decision::Refused(reason) => return Ok(Err(reason)),
        }
        let (client, timeout) = (&mut self.clients[index], self.timeout);
        match interrupt.during(|stopped| client.call(&call.name, arguments, timeout, stopped)) {
            Ok(result) => Ok(result),
            Err(NoAnswer::Failed(problem)) => Ok(Err(format!("the server failed: {problem}"))),
            Err(NoAnswer::Interrupted) => Err(CliError::Interrupted),
        }
    }

    fn client_of(&self, tool: &str) -> Option<usize> {
        self.clients.iter().position(|client| client.tools().iter().any(|(name, _)| name == tool))
    }

    fn names(&self) -> Vec<&str> {
        self.clients.iter().flat_map(Client::tools).map(|(name, _)| name.as_str()).collect()
    }
}
