//! Input items of `/v1/responses`, and their conversion to a conversation.

use crate::http::error::ApiError;
use serde_json::{Map, Value, json};

/// Maximum items of a request, including those of previous responses.
const ITEMS_MAX: usize = 4096;

/// Returns the items of `input`, where a text is a user message. `id` generates ids for items without one.
pub(super) fn items(input: Value, id: impl Fn(&str) -> String) -> Result<Vec<Value>, ApiError> {
    let items = match input {
        Value::String(text) => {
            let content = json!([{"type": "input_text", "text": text}]);
            vec![json!({"type": "message", "role": "user", "content": content})]
        }
        Value::Array(items) => items,
        _ => return Err(ApiError::invalid("input: a text or a list of items is expected").param("input")),
    };
    if items.is_empty() || items.len() > ITEMS_MAX {
        let message = format!("input: {} items, but 1 to {ITEMS_MAX} are allowed", items.len());
        return Err(ApiError::invalid(message).param("input"));
    }
    let named = |(index, item): (usize, Value)| {
        let Value::Object(mut item) = item else { return Err(at(index, "an object is expected")) };
        if item.get("type").is_none_or(Value::is_null) {
            item.insert("type".into(), "message".into());
        }
        let prefix = match item.get("type").and_then(Value::as_str) {
            Some("message") => "msg_",
            Some("function_call") => "fc_",
            Some("function_call_output") => "fco_",
            Some("reasoning") => "rs_",
            kind => {
                let message = format!(
                    "the type {} is not supported; allowed are message, function_call, function_call_output and \
                     reasoning",
                    kind.map_or("of the item".into(), |kind| format!("'{}'", shortened(kind)))
                );
                return Err(at(index, &message));
            }
        };
        if !item.get("id").is_some_and(Value::is_string) {
            item.insert("id".into(), id(prefix).into());
        }
        Ok(Value::Object(item))
    };
    items.into_iter().enumerate().map(named).collect()
}

/// Converts `items` to messages of a chat completion. Consecutive reasoning, text and calls become one
/// assistant message.
pub(super) fn messages(items: &[Value]) -> Result<Vec<Value>, ApiError> {
    let mut messages = Messages::default();
    if items.len() > ITEMS_MAX {
        let message = format!(
            "input: {} items with those of the previous response; at most {ITEMS_MAX} are allowed",
            items.len()
        );
        return Err(ApiError::invalid(message).param("input"));
    }
    for (index, item) in items.iter().enumerate() {
        let Value::Object(item) = item else { continue };
        messages.push(item).map_err(|problem| at(index, &problem))?;
    }
    messages.flush();
    Ok(messages.list)
}

fn at(index: usize, problem: &str) -> ApiError {
    let param = format!("input[{index}]");
    ApiError::invalid(format!("{param}: {problem}")).param(param)
}

/// Returns the beginning of a client's text, for messages.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[derive(Default)]
struct Messages {
    list: Vec<Value>,
    /// The assistant message in progress.
    open: Map<String, Value>,
}

impl Messages {
    fn push(&mut self, item: &Map<String, Value>) -> Result<(), String> {
        match item.get("type").and_then(Value::as_str) {
            Some("message") => self.message(item),
            Some("reasoning") => {
                self.reasoning(item);
                Ok(())
            }
            Some("function_call") => self.call(item),
            Some("function_call_output") => {
                self.flush();
                let id = text_of(item, "call_id")?;
                let content = match item.get("output") {
                    Some(Value::String(text)) => text.as_str().into(),
                    Some(Value::Array(parts)) => content(parts, "output")?,
                    _ => return Err("output: a text or a list of parts is expected".into()),
                };
                self.list.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn message(&mut self, item: &Map<String, Value>) -> Result<(), String> {
        let role = text_of(item, "role")?;
        let content = match item.get("content") {
            Some(Value::String(text)) => text.as_str().into(),
            Some(Value::Array(parts)) => content(parts, "content")?,
            _ => return Err("content: a text or a list of parts is expected".into()),
        };
        match role {
            "assistant" => {
                // A second text begins a second message, as does a text after calls.
                if self.open.contains_key("content") || self.open.contains_key("tool_calls") {
                    self.flush();
                }
                self.open.insert("content".into(), content);
            }
            "user" | "system" | "developer" => {
                self.flush();
                self.list.push(json!({"role": role, "content": content}));
            }
            role => {
                let role = shortened(role);
                return Err(format!("role is '{role}', but user, assistant, system or developer is allowed"));
            }
        }
        Ok(())
    }

    /// Collects the texts of a reasoning item: its content, or else its summary.
    fn reasoning(&mut self, item: &Map<String, Value>) {
        let texts = |name: &str| -> String {
            let parts = item.get(name).and_then(Value::as_array).into_iter().flatten();
            parts.filter_map(|part| part.get("text")?.as_str()).collect::<Vec<_>>().join("\n")
        };
        let text = Some(texts("content")).filter(|text| !text.is_empty()).unwrap_or_else(|| texts("summary"));
        if self.open.contains_key("content") || self.open.contains_key("tool_calls") {
            self.flush();
        }
        if !text.is_empty() {
            self.open.insert("reasoning".into(), text.into());
        }
    }

    fn call(&mut self, item: &Map<String, Value>) -> Result<(), String> {
        // Calls that were cut off have no result, and do not belong into a conversation.
        if item.get("status").and_then(Value::as_str) == Some("incomplete") {
            return Ok(());
        }
        let (id, name) = (text_of(item, "call_id")?, text_of(item, "name")?);
        let arguments = text_of(item, "arguments")?;
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let calls = self.open.entry("tool_calls").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(calls) = calls {
            calls.push(call);
        }
        Ok(())
    }

    /// Completes the assistant message.
    fn flush(&mut self) {
        let mut message = std::mem::take(&mut self.open);
        // Reasoning without a result is dropped.
        if message.contains_key("content") || message.contains_key("tool_calls") {
            message.insert("role".into(), "assistant".into());
            message.entry("content").or_insert(Value::Null);
            self.list.push(Value::Object(message));
        }
    }
}

/// Converts parts to the content of a chat message: one text if all are texts, which every template accepts.
fn content(parts: &[Value], field: &str) -> Result<Value, String> {
    let mut content = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let problem = |text: &str| format!("{field}[{index}]: {text}");
        let text = |name: &str| part.get(name).and_then(Value::as_str);
        let missing = |name: &str| problem(&format!("{name}: a text is expected"));
        content.push(match text("type") {
            Some("input_text" | "output_text" | "text") => {
                json!({"type": "text", "text": text("text").ok_or_else(|| missing("text"))?})
            }
            Some("refusal") => {
                json!({"type": "text", "text": text("refusal").ok_or_else(|| missing("refusal"))?})
            }
            Some("input_image") => {
                let url = text("image_url").ok_or_else(|| missing("image_url"))?;
                json!({"type": "image_url", "image_url": {"url": url}})
            }
            kind => {
                let kind = kind.map(shortened).unwrap_or_default();
                return Err(problem(&format!(
                    "the type '{kind}' is not supported; allowed are input_text, output_text, refusal and input_image"
                )));
            }
        });
    }
    let texts: Option<Vec<&str>> = content.iter().map(|part| part["text"].as_str()).collect();
    Ok(match texts {
        Some(texts) => texts.concat().into(),
        None => content.into(),
    })
}

fn text_of<'a>(item: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    item.get(name).and_then(Value::as_str).ok_or_else(|| format!("{name}: a text is expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_text_and_calls_are_one_message() {
        let items = items(
            json!([
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "input_text", "text": "We"}, {"type": "input_text", "text": "ather?"}]},
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Looking."}]},
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
                {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{\"x", "status": "incomplete"},
                {"type": "function_call_output", "call_id": "a", "output": "12"},
                {"role": "assistant", "content": "Warm."},
            ]),
            |prefix| format!("{prefix}1"),
        )
        .unwrap();
        assert_eq!(items[0]["id"], "msg_1");
        let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        assert_eq!(
            Value::Array(messages(&items).unwrap()),
            json!([
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": "Looking.", "reasoning": "Hm.", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "a", "content": "12"},
                {"role": "assistant", "content": "Warm."},
            ])
        );
    }

    #[test]
    fn bad_items_name_their_place() {
        for (input, param) in [
            (json!(5), "input"),
            (json!([]), "input"),
            (json!([{"role": "user", "content": "a"}, 5]), "input[1]"),
            (json!([{"type": "web_search_call"}]), "input[0]"),
            (json!([{"role": "user"}]), "input[0]"),
            (json!([{"role": "root", "content": "a"}]), "input[0]"),
            (json!([{"role": "user", "content": [{"type": "input_file"}]}]), "input[0]"),
            (json!([{"type": "function_call", "name": "f", "arguments": "{}"}]), "input[0]"),
            (json!([{"type": "function_call_output", "call_id": "a"}]), "input[0]"),
        ] {
            let error = items(input.clone(), str::to_owned).and_then(|items| messages(&items)).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param, "{input}");
        }
    }
}
