//! Tools of MCP servers in `exsa run`, with a server that is a shell script, and with all that can be wrong
//! with one.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "failures of helpers are failures of tests")]

use serde_json::Value;
use std::process::{Command, Output, Stdio};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp_server.sh");

/// A run in which the model has to call the tool. Its input is no terminal to ask on.
fn exsa(fault: &str, more: &[&str]) -> Output {
    let server = format!("sh '{SERVER}' '{fault}'");
    let run =
        ["run", "builtin", "Weather?", "--mcp", &server, "--json", "--seed", "1", "-n", "64", "--threads=1"];
    let forced = ["--set", "tool_choice=required"];
    Command::new(env!("CARGO_BIN_EXE_exsa"))
        .args(run)
        .args(forced)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", error(output));
    error(output)
}

/// The calls of a run that succeeds, and what it wrote to standard error.
fn called(fault: &str, more: &[&str]) -> (Vec<Value>, String) {
    let output = exsa(fault, more);
    assert!(output.status.success(), "{fault}: {}", error(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    (answer["tool_calls"].as_array().unwrap().clone(), error(&output))
}

/// The result of the first call, allowed by name.
fn result(fault: &str, more: &[&str]) -> (String, String) {
    let (calls, error) = called(fault, &[&["--mcp-allow", "weather"], more].concat());
    assert_eq!(calls[0]["name"], "weather", "{fault}");
    let arguments: Value = serde_json::from_str(calls[0]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, serde_json::json!({"city": "Bern"}));
    (calls[0]["result"].as_str().unwrap().to_owned(), error)
}

#[test]
fn allowed_tools_are_called() {
    let (weather, shown) = result("", &[]);
    assert_eq!(weather, "sunny in Bern");
    assert!(shown.contains("tool weather") && shown.contains("Bern"), "{shown}");
    // Notifications and requests of the server come between; its list of tools may have pages.
    assert_eq!(result("chatty", &[]).0, "sunny, and pinged");
    assert_eq!(result("pages", &["--mcp-allow", "second", "--set", TOOL]).0, "sunny in Bern");
}

/// A call of one tool by name, where there are several.
const TOOL: &str = r#"tool_choice={"type": "function", "function": {"name": "weather"}}"#;

#[test]
fn without_a_terminal_other_tools_are_not_called() {
    let (calls, shown) = called("", &[]);
    assert!(calls[0]["result"].as_str().unwrap().contains("not allowed"), "{calls:?}");
    assert!(shown.contains("--mcp-allow weather"), "{shown}");
}

#[test]
fn faults_of_a_server_are_told_in_words() {
    for (fault, words) in [
        ("die", "it ended (exit status: 3); it wrote: out of clouds"),
        ("garbage", "not a protocol message: It is sunny."),
        ("huge", "a line of more than 4194304 bytes"),
        ("stranger", "request 99, which was not made"),
        ("error", "no such town"),
        ("refuse", "no forecast"),
    ] {
        let (result, shown) = result(fault, &[]);
        assert!(result.starts_with("Error: ") && result.contains(words), "{fault}: {result}");
        assert!(shown.contains(words), "{fault}: {shown}");
    }
    let (hung, _) = result("hang", &["--mcp-timeout", "1"]);
    assert!(hung.contains("did not answer tools/call within"), "{hung}");
}

#[test]
fn servers_that_do_not_start_end_the_run() {
    for (fault, words) in [
        ("old", "version '1999-01-01'"),
        ("toolless", "offers no tools"),
        ("banner", "not a protocol message: Server listening on stdio"),
        ("gone", "it ended (exit status: 7); it wrote: no licence"),
        ("nameless", "invalid tool name 'a b'"),
    ] {
        let shown = failed(&exsa(fault, &[]), 1);
        assert!(shown.contains(words) && shown.contains("mcp_server.sh"), "{fault}: {shown}");
    }
    let exsa = |arguments: &[&str]| {
        let run = ["run", "builtin", "x"].iter().chain(arguments);
        Command::new(env!("CARGO_BIN_EXE_exsa")).args(run).stdin(Stdio::null()).output().unwrap()
    };
    let missing = failed(&exsa(&["--mcp", "no-such-program-anywhere"]), 1);
    assert!(missing.contains("no-such-program-anywhere"), "{missing}");
    failed(&exsa(&["--mcp", "sh 'x"]), 2);
    let server = format!("sh '{SERVER}'");
    let unknown = failed(&exsa(&["--mcp", &server, "--mcp-allow", "wether"]), 2);
    assert!(unknown.contains("'wether'") && unknown.contains("weather"), "{unknown}");
    let twice = failed(&exsa(&["--mcp", &server, "--mcp", &server]), 1);
    assert!(twice.contains("another server has a tool 'weather'"), "{twice}");
    failed(&exsa(&["--mcp", &server, "--raw"]), 2);
}
