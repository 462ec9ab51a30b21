//! Rust functions as tools.

use super::typed::schema_of;
use crate::chat::{Json, ToolCall};
use ::serde::de::DeserializeOwned;
use schemars::JsonSchema;
use std::fmt;
use std::sync::Arc;

/// Rust functions as tools, with the definitions that a request passes to the model.
///
/// ```
/// use exsa_core::chat::ToolCall;
/// use exsa_core::tools::Toolbox;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Weather {
///     /// Name of the city.
///     city: String,
/// }
///
/// let tools = Toolbox::new().function("get_weather", "Weather of a city", |arguments: Weather| {
///     if arguments.city.is_empty() { Err("no city") } else { Ok(format!("{}: sunny", arguments.city)) }
/// });
/// let call = ToolCall::new("get_weather", r#"{"city": "Bern"}"#);
/// assert_eq!(tools.call(&call).unwrap(), "Bern: sunny");
/// assert!(tools.call(&ToolCall::new("get_weather", r#"{"town": "Bern"}"#)).is_err());
/// ```
#[derive(Clone, Default)]
pub struct Toolbox {
    functions: Vec<Function>,
}

/// A function from the JSON text of the arguments to the result or an error.
type Body = dyn Fn(&str) -> Result<String, Failure> + Send + Sync;

#[derive(Clone)]
struct Function {
    name: String,
    definition: Json,
    body: Arc<Body>,
}

enum Failure {
    Arguments(String),
    Failed(String),
}

/// Error of a tool call. Its message is passed to the model as the result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// There is no such tool.
    #[error("there is no tool '{name}'; tools: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Names of the tools, separated by commas.
        known: String,
    },
    /// The arguments are invalid for the tool.
    #[error("arguments of {tool}: {problem}")]
    Arguments {
        /// The tool.
        tool: String,
        /// The problem and its position.
        problem: String,
    },
    /// The function returned an error.
    #[error("{tool} failed: {problem}")]
    Failed {
        /// The tool.
        tool: String,
        /// The error.
        problem: String,
    },
}

impl Toolbox {
    /// A toolbox without tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function whose arguments have the JSON schema of `A`, with documentation comments as
    /// descriptions. Replaces a function of the same name.
    #[must_use]
    pub fn function<A, R, E>(
        self,
        name: impl Into<String>,
        description: impl Into<String>,
        function: impl Fn(A) -> Result<R, E> + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema,
        R: Into<String>,
        E: fmt::Display,
    {
        let body = move |arguments: &str| {
            let arguments =
                serde_json::from_str(arguments).map_err(|error| Failure::Arguments(error.to_string()))?;
            function(arguments).map(Into::into).map_err(|error| Failure::Failed(error.to_string()))
        };
        self.add(name.into(), description.into(), schema_of::<A>(), Arc::new(body))
    }

    /// Adds a function that accepts any JSON object; `parameters` is the JSON schema passed to the model.
    #[must_use]
    pub fn json_function<R, E>(
        self,
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: Json,
        function: impl Fn(Json) -> Result<R, E> + Send + Sync + 'static,
    ) -> Self
    where
        R: Into<String>,
        E: fmt::Display,
    {
        let body = move |arguments: &str| match arguments.parse() {
            Ok(arguments @ Json::Object(_)) => {
                function(arguments).map(Into::into).map_err(|error| Failure::Failed(error.to_string()))
            }
            Ok(_) => Err(Failure::Arguments("a JSON object is expected".to_owned())),
            Err(error) => Err(Failure::Arguments(error.to_string())),
        };
        self.add(name.into(), description.into(), parameters, Arc::new(body))
    }

    fn add(mut self, name: String, description: String, parameters: Json, body: Arc<Body>) -> Self {
        let function = [
            ("name", Json::from(name.as_str())),
            ("description", Json::from(description)),
            ("parameters", parameters),
        ];
        let definition = [("type", Json::from("function")), ("function", function.into_iter().collect())];
        self.functions.retain(|function| function.name != name);
        self.functions.push(Function { name, definition: definition.into_iter().collect(), body });
        self
    }

    /// The definitions in OpenAI's format, for [`ChatOptions::tools`](crate::chat::ChatOptions::tools).
    pub fn definitions(&self) -> Vec<Json> {
        self.functions.iter().map(|function| function.definition.clone()).collect()
    }

    /// Calls a function.
    ///
    /// # Errors
    ///
    /// There is no such tool, the arguments are invalid, or the function returned an error.
    pub fn call(&self, call: &ToolCall) -> Result<String, ToolError> {
        let tool = || call.name.clone();
        let Some(function) = self.functions.iter().find(|function| function.name == call.name) else {
            let known: Vec<_> = self.functions.iter().map(|function| function.name.as_str()).collect();
            return Err(ToolError::Unknown { name: tool(), known: known.join(", ") });
        };
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        (function.body)(arguments).map_err(|failure| match failure {
            Failure::Arguments(problem) => ToolError::Arguments { tool: tool(), problem },
            Failure::Failed(problem) => ToolError::Failed { tool: tool(), problem },
        })
    }
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.functions.iter().map(|function| &function.name);
        f.debug_list().entries(names).finish()
    }
}
