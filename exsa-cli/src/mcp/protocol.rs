//! Messages of the protocol: JSON-RPC 2.0.

use super::{NAME_CHARS_MAX, RESULT_BYTES_MAX};
use crate::output::visible;
use exsa::core::chat::Json;

/// Supported protocol versions, newest first.
pub(super) const VERSIONS: [&str; 3] = ["2025-06-18", "2025-03-26", "2024-11-05"];

/// JSON-RPC error code for unknown methods.
const METHOD_NOT_FOUND: i128 = -32601;

/// Maximum characters of server text quoted in an error.
const EXCERPT_CHARS: usize = 120;

/// A message from the server.
#[derive(Debug)]
pub(super) enum Message {
    /// The answer to the request with this id.
    Answer(i128, Result<Json, String>),
    /// A request from the server, with the answer to send.
    Request(String),
    /// A message that needs no answer.
    Notification,
}

/// Builds an object from fields.
pub(super) fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
    fields.into_iter().collect()
}

/// Builds a request, or without an id a notification.
pub(super) fn request(id: Option<i128>, method: &str, params: Json) -> String {
    let mut fields = vec![("jsonrpc", Json::from("2.0"))];
    fields.extend(id.map(|id| ("id", Json::Int(id))));
    fields.push(("method", method.into()));
    fields.push(("params", params));
    fields.into_iter().collect::<Json>().to_string()
}

/// Parameters of `initialize`.
pub(super) fn initialize() -> Json {
    object([
        ("protocolVersion", VERSIONS[0].into()),
        ("capabilities", object([])),
        ("clientInfo", object([("name", "exsa".into()), ("version", env!("CARGO_PKG_VERSION").into())])),
    ])
}

/// Parses a line.
///
/// # Errors
///
/// The line is not a JSON-RPC 2.0 message; as text.
pub(super) fn read(line: &[u8]) -> Result<Message, String> {
    let garbage = || format!("it sent a line that is not a protocol message: {}", excerpt(line));
    let text = std::str::from_utf8(line).map_err(|_| garbage())?;
    let message: Json = text.trim().parse().map_err(|_| garbage())?;
    if message.get("jsonrpc").and_then(Json::as_str) != Some("2.0") {
        return Err(garbage());
    }
    match (message.get("method"), message.get("id")) {
        (Some(Json::String(method)), Some(id @ (Json::Int(_) | Json::String(_)))) => {
            Ok(Message::Request(answer(method, id.clone())))
        }
        (Some(Json::String(_)), None) => Ok(Message::Notification),
        (None, Some(Json::Int(id))) => match (message.get("result"), message.get("error")) {
            (Some(result @ Json::Object(_)), None) => Ok(Message::Answer(*id, Ok(result.clone()))),
            (None, Some(error)) => Ok(Message::Answer(*id, Err(error_text(error)))),
            _ => Err(garbage()),
        },
        _ => Err(garbage()),
    }
}

/// Builds the answer to a request from the server: this client offers no methods.
fn answer(method: &str, id: Json) -> String {
    let head = ("jsonrpc", Json::from("2.0"));
    let answer = match method {
        "ping" => object([head, ("id", id), ("result", object([]))]),
        _ => {
            let error = object([
                ("code", Json::Int(METHOD_NOT_FOUND)),
                ("message", format!("this client has no method {method}").into()),
            ]);
            object([head, ("id", id), ("error", error)])
        }
    };
    answer.to_string()
}

fn error_text(error: &Json) -> String {
    match error.get("message").and_then(Json::as_str) {
        Some(message) => excerpt(message.as_bytes()),
        None => excerpt(error.to_string().as_bytes()),
    }
}

/// Returns the beginning of a text, on one line.
fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * EXCERPT_CHARS)]).trim().to_owned();
    let short: String = text.chars().take(EXCERPT_CHARS).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{}{more}", visible(&short))
}

/// Reads a tool definition: its name, and the tool in OpenAI's form.
///
/// # Errors
///
/// The tool has an invalid name, or no schema; as text.
pub(super) fn tool(tool: &Json) -> Result<(String, Json), String> {
    let name = tool.get("name").and_then(Json::as_str).unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(allowed) {
        return Err(format!(
            "invalid tool name '{}'; allowed are 1 to {NAME_CHARS_MAX} letters, digits and _ - . /",
            excerpt(name.as_bytes())
        ));
    }
    let Some(schema @ Json::Object(_)) = tool.get("inputSchema") else {
        return Err(format!("its tool '{name}' has no inputSchema, which must be a JSON object"));
    };
    let description = tool.get("description").and_then(Json::as_str).unwrap_or_default();
    let function =
        object([("name", name.into()), ("description", description.into()), ("parameters", schema.clone())]);
    Ok((name.to_owned(), object([("type", "function".into()), ("function", function)])))
}

/// Returns the text of a call's result, or of its error.
pub(super) fn result_text(result: &Json) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in result.get("content").and_then(Json::as_array).unwrap_or_default() {
        let text = |part: &Json, key: &str| part.get(key).and_then(Json::as_str).map(str::to_owned);
        let kind = text(part, "type").unwrap_or_default();
        parts.push(match kind.as_str() {
            "text" => text(part, "text").unwrap_or_default(),
            "resource" => part
                .get("resource")
                .and_then(|resource| text(resource, "text"))
                .unwrap_or_else(|| "[a resource that is not text]".to_owned()),
            "resource_link" => format!("[a link: {}]", text(part, "uri").unwrap_or_default()),
            kind => format!("[{} that is not text]", excerpt(kind.as_bytes())),
        });
    }
    if parts.is_empty()
        && let Some(value) = result.get("structuredContent")
    {
        parts.push(value.to_string());
    }
    let text = cut(parts.join("\n"));
    if result.get("isError") == Some(&Json::Bool(true)) { Err(text) } else { Ok(text) }
}

/// Truncates a text to the length that is passed to the model.
fn cut(mut text: String) -> String {
    if text.len() > RESULT_BYTES_MAX {
        let bytes = text.len();
        let end = (0..=RESULT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str(&format!("\n[cut: {bytes} bytes, of which {RESULT_BYTES_MAX} are allowed]"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        text.parse().unwrap()
    }

    #[test]
    fn messages_are_told_apart() {
        let answer = |text: &str| read(text.as_bytes()).unwrap();
        assert!(matches!(answer(r#"{"jsonrpc":"2.0","id":3,"result":{}}"#), Message::Answer(3, Ok(_))));
        let error = answer(r#"{"jsonrpc":"2.0","id":3,"error":{"code":1,"message":"no\u001b"}}"#);
        assert!(matches!(error, Message::Answer(3, Err(text)) if text == "no\\u{1b}"));
        assert!(matches!(answer(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#), Message::Notification));
        let Message::Request(ping) = answer(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#) else {
            panic!("no request")
        };
        assert_eq!(ping, r#"{"jsonrpc": "2.0", "id": "a", "result": {}}"#);
        let Message::Request(roots) = answer(r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#) else {
            panic!("no request")
        };
        assert!(roots.contains("-32601") && roots.contains("roots/list"), "{roots}");
        for garbage in
            ["Listening on port 80", "{}", "[]", "{\"jsonrpc\":\"2.0\"}", "{\"jsonrpc\":\"2.0\",\"id\":1}"]
        {
            let error = read(garbage.as_bytes()).unwrap_err();
            assert!(error.contains(garbage), "{error}");
        }
        assert!(read(b"\xff\xfe").is_err());
        assert!(read("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn tools_have_a_name_and_a_schema() {
        let (name, definition) =
            tool(&json(r#"{"name":"a.b","inputSchema":{"type":"object","properties":{"z":{},"a":{}}}}"#))
                .unwrap();
        assert_eq!(name, "a.b");
        // Properties keep their order.
        assert!(definition.to_string().contains(r#""properties": {"z": {}, "a": {}}"#), "{definition}");
        for wrong in [r#"{"inputSchema":{}}"#, r#"{"name":"a b","inputSchema":{}}"#, r#"{"name":"a"}"#, "3"] {
            assert!(tool(&json(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn results_are_texts() {
        let text = |text: &str| result_text(&json(text));
        assert_eq!(
            text(r#"{"content":[{"type":"text","text":"a"},{"type":"image","data":"AAAA"}]}"#),
            Ok("a\n[image that is not text]".into())
        );
        assert_eq!(text(r#"{"content":[],"structuredContent":{"n":1}}"#), Ok(r#"{"n": 1}"#.into()));
        assert_eq!(text(r#"{"content":[{"type":"text","text":"e"}],"isError":true}"#), Err("e".into()));
        let long = format!(r#"{{"content":[{{"type":"text","text":"{}"}}]}}"#, "ä".repeat(RESULT_BYTES_MAX));
        let long = text(&long).unwrap();
        assert!(long.len() < RESULT_BYTES_MAX + 100 && long.contains("[cut: 131072 bytes"));
    }
}
