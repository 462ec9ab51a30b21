//! Request settings by their names in the JSON API.

use crate::error::CliError;
use exsa::{Message, Overflow, Prompt, Request, SamplingParams};
use serde_json::{Map, Value};

/// Settings that are not part of [`SamplingParams`].
const OTHERS: [&str; 17] = [
    "banned_strings",
    "context_shift",
    "enable_thinking",
    "grammar",
    "ignore_eos",
    "json_schema",
    "max_tokens",
    "parallel_tool_calls",
    "reasoning_budget",
    "reasoning_effort",
    "stop",
    "strict_tool_calls",
    "structured_outputs",
    "timeout",
    "tool_choice",
    "tool_format",
    "truncation",
];

/// Names and values of request settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings(Map<String, Value>);

impl Settings {
    /// Returns all setting names, sorted.
    pub(crate) fn names() -> Vec<String> {
        let sampling = serde_json::to_value(SamplingParams::default().seed(0));
        let sampling = sampling.ok().and_then(|value| value.as_object().cloned()).unwrap_or_default();
        let mut names: Vec<String> = sampling.keys().cloned().chain(OTHERS.map(str::to_owned)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Sets a value, given as JSON or else as plain text.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), CliError> {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        self.set_json(name, value)
    }

    /// Sets a value.
    pub(crate) fn set_json(&mut self, name: &str, value: Value) -> Result<(), CliError> {
        let names = Self::names();
        if !names.iter().any(|known| known == name) {
            return Err(CliError::Usage(format!(
                "unknown setting '{name}'; allowed are {}",
                names.join(", ")
            )));
        }
        let mut changed = self.0.clone();
        changed.insert(name.to_owned(), value);
        request(changed.clone()).map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
        self.0 = changed;
        Ok(())
    }

    /// Sets `NAME=VALUE`.
    pub(crate) fn set_pair(&mut self, pair: &str) -> Result<(), CliError> {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            CliError::Usage(format!("'{pair}' is not a setting; write NAME=VALUE, such as top_k=40"))
        })?;
        self.set(name.trim(), value.trim())
    }

    /// Creates a request with these settings.
    pub(crate) fn request(&self, prompt: Prompt) -> Result<Request, CliError> {
        let mut request = request(self.0.clone()).map_err(|error| CliError::Usage(error.to_string()))?;
        request.prompt = prompt;
        Ok(request)
    }

    /// The settings as JSON.
    pub(crate) fn json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// Reads settings from JSON, and validates each.
    pub(crate) fn from_json(values: Map<String, Value>) -> Result<Self, CliError> {
        let mut settings = Self::default();
        values.into_iter().try_for_each(|(name, value)| settings.set_json(&name, value))?;
        Ok(settings)
    }
}

fn request(mut fields: Map<String, Value>) -> Result<Request, serde_json::Error> {
    let truncates = fields.contains_key("truncation") || fields.contains_key("context_shift");
    fields.insert("messages".into(), serde_json::to_value([Message::user("")])?);
    let mut request: Request = serde_json::from_value(Value::Object(fields))?;
    if !truncates {
        // A chat that outgrows the context drops its oldest messages.
        request.overflow = Overflow::DropMessages;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_requests() {
        let mut settings = Settings::default();
        settings.set_pair("temperature=0.25").unwrap();
        settings.set("top_k", "3").unwrap();
        settings.set("stop", "END").unwrap();
        settings.set("seed", "7").unwrap();
        let request = settings.request(Prompt::Text("x".into())).unwrap();
        assert_eq!(request.sampling.temperature, 0.25);
        assert_eq!(request.sampling.top_k, Some(3));
        assert_eq!(request.sampling.seed, Some(7));
        assert_eq!(request.stop, ["END"]);
        assert!(matches!(request.prompt, Prompt::Text(text) if text == "x"));
    }

    #[test]
    fn unknown_names_and_wrong_values_are_refused() {
        let mut settings = Settings::default();
        let unknown = settings.set("temprature", "1").unwrap_err().to_string();
        assert!(unknown.contains("'temprature'") && unknown.contains("temperature"), "{unknown}");
        let wrong = settings.set("temperature", "warm").unwrap_err().to_string();
        assert!(wrong.starts_with("temperature: "), "{wrong}");
        assert!(settings.set_pair("temperature").is_err());
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn every_name_is_a_field_of_requests() {
        // A name that requests ignore would be accepted without effect.
        let nested = Value::Array(vec![Value::Array(vec![Value::Object(Map::new())])]);
        let wrong = [nested, Value::from(-1.5), Value::from("?"), Value::from(true)];
        for name in OTHERS {
            // Invalid schemas are only found later, when they are compiled.
            let is_read = |value: &Value| match request(Map::from_iter([(name.to_owned(), value.clone())])) {
                Ok(request) => request.constraint.is_some(),
                Err(_) => true,
            };
            assert!(wrong.iter().any(is_read), "{name} is ignored");
        }
    }
}
