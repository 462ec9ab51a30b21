//! Error messages in response bodies.

use serde_json::Value;

/// Maximum characters of a message.
const MESSAGE_CHARS_MAX: usize = 1000;

/// Extracts the message of an error body in any of the engines' formats, else returns the body itself.
pub(crate) fn error_message(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    let message = message(&value).unwrap_or_else(|| body.trim().to_owned());
    if message.is_empty() {
        "no message".to_owned()
    } else {
        message.chars().take(MESSAGE_CHARS_MAX).collect()
    }
}

fn message(value: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let error = &value["error"];
    text(&error["message"])
        .or_else(|| text(error))
        .or_else(|| text(&value["message"]))
        .or_else(|| text(&value["detail"]))
        // Python validators return a list of findings.
        .or_else(|| value["detail"].as_array().map(|list| list.iter().map(Value::to_string).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_engines() {
        for (body, message) in [
            (r#"{"error": {"message": "too long", "code": 400}}"#, "too long"),
            (r#"{"object": "error", "message": "bad field", "code": 400}"#, "bad field"),
            (r#"{"error": "no model"}"#, "no model"),
            (r#"{"detail": "Not Found"}"#, "Not Found"),
            (r#"{"detail": [{"loc": ["body"]}]}"#, r#"{"loc":["body"]}"#),
            ("<html>busy</html>\n", "<html>busy</html>"),
            ("", "no message"),
            ("null", "null"),
        ] {
            assert_eq!(error_message(body), message, "{body}");
        }
        assert_eq!(error_message(&"x".repeat(5000)).len(), MESSAGE_CHARS_MAX);
    }
}
