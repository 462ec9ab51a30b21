//! Answers as values of Rust types.

use crate::chat::Json;
use crate::constraint::Constraint;
use crate::request::Request;
use crate::stream::Completion;
use ::serde::de::DeserializeOwned;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

/// The text of an answer is not a value of the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a valid {type_name}: {problem}")]
pub struct AnswerError {
    /// Name of the Rust type.
    pub type_name: &'static str,
    /// The problem and its position.
    pub problem: String,
}

impl Completion {
    /// Parses the text of the answer as JSON.
    ///
    /// # Errors
    ///
    /// The text is not a JSON value of the type: it is not valid JSON, was cut off, or has other fields.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, AnswerError> {
        serde_json::from_str(self.text.trim()).map_err(|error| AnswerError {
            type_name: std::any::type_name::<T>(),
            problem: error.to_string(),
        })
    }
}

impl Request {
    /// Constrains the answer to the JSON schema of `T`, to be parsed by [`Completion::parse`]. Submitting the
    /// request needs the feature `constraints`.
    ///
    /// ```
    /// use exsa_core::Request;
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct City {
    ///     name: String,
    ///     inhabitants: u64,
    /// }
    ///
    /// let request = Request::text("The capital of Austria as JSON: ").answer_as::<City>();
    /// assert!(request.constraint.is_some());
    /// ```
    #[must_use]
    pub fn answer_as<T: DeserializeOwned + JsonSchema>(self) -> Self {
        self.constraint(Constraint::json_schema(schema_of::<T>()))
    }
}

/// The JSON schema of a type, without non-standard keywords.
pub(super) fn schema_of<T: JsonSchema>() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let text = serde_json::to_string(&schema).unwrap_or_default();
    let mut schema = text.parse().unwrap_or_default();
    clean(&mut schema, true);
    schema
}

/// Removes the formats of Rust's numbers, and the title of the root schema.
fn clean(schema: &mut Json, root: bool) {
    match schema {
        Json::Object(fields) => {
            fields.retain(|(name, value)| match (name.as_str(), value.as_str()) {
                ("format", Some(format)) => !is_number_format(format),
                ("title", Some(_)) => !root,
                _ => true,
            });
            fields.iter_mut().for_each(|(_, value)| clean(value, false));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| clean(item, false)),
        _ => {}
    }
}

fn is_number_format(format: &str) -> bool {
    let digits = format.trim_start_matches("uint").trim_start_matches("int");
    matches!(format, "float" | "double" | "uint" | "int")
        || digits.len() < format.len() && digits.chars().all(|c| c.is_ascii_digit())
}
