//! Names, parameters and schemas of tools in OpenAI's form.

use crate::chat::Json;

/// A tool of a request: `{"type": "function", "function": {"name": …, "parameters": {…}}}`, or the inner
/// object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool<'a>(&'a Json);

impl<'a> Tool<'a> {
    pub(crate) fn new(tool: &'a Json) -> Self {
        Self(tool.get("function").unwrap_or(tool))
    }

    pub(crate) fn name(self) -> Option<&'a str> {
        self.0.get("name").and_then(Json::as_str)
    }

    /// The JSON schema of the arguments.
    pub(crate) fn schema(self) -> Option<&'a Json> {
        self.0.get("parameters").or_else(|| self.0.get("input_schema"))
    }
}

/// Types that a JSON schema allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types(u8);

impl Types {
    pub(crate) const STRING: Self = Self(1);
    const NUMBER: Self = Self(2);
    const INTEGER: Self = Self(4);
    const BOOLEAN: Self = Self(8);
    const NULL: Self = Self(16);
    const ARRAY: Self = Self(32);
    const OBJECT: Self = Self(64);

    /// The types of `schema`; none where it does not tell.
    pub(crate) fn of(schema: &Json) -> Self {
        let mut types = match schema.get("type") {
            Some(Json::String(name)) => Self::named(name),
            Some(Json::Array(names)) => names
                .iter()
                .filter_map(Json::as_str)
                .fold(Self::default(), |types, name| types.with(Self::named(name))),
            _ => Self::default(),
        };
        if types == Self::default() {
            for values in ["enum", "anyOf", "oneOf"] {
                for item in schema.get(values).and_then(Json::as_array).unwrap_or_default() {
                    types = types.with(if values == "enum" {
                        Self::of_value(item)
                    } else {
                        Self::of_shallow(item)
                    });
                }
            }
            if let Some(value) = schema.get("const") {
                types = types.with(Self::of_value(value));
            }
        }
        types
    }

    /// As [`of`](Self::of), without alternatives within alternatives.
    fn of_shallow(schema: &Json) -> Self {
        schema.get("type").and_then(Json::as_str).map(Self::named).unwrap_or_default()
    }

    fn named(name: &str) -> Self {
        match name {
            "string" => Self::STRING,
            "number" => Self::NUMBER,
            "integer" => Self::INTEGER,
            "boolean" => Self::BOOLEAN,
            "null" => Self::NULL,
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            _ => Self::default(),
        }
    }

    fn of_value(value: &Json) -> Self {
        match value {
            Json::Null => Self::NULL,
            Json::Bool(_) => Self::BOOLEAN,
            Json::Int(_) => Self::INTEGER,
            Json::Float(_) => Self::NUMBER,
            Json::String(_) => Self::STRING,
            Json::Array(_) => Self::ARRAY,
            Json::Object(_) => Self::OBJECT,
        }
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no type is known.
    pub(crate) fn is_unknown(self) -> bool {
        self.0 == 0
    }

    /// Whether `value` has one of the types.
    pub(crate) fn allow(self, value: &Json) -> bool {
        let integral = matches!(value, Json::Int(_)) && self.0 & Self::NUMBER.0 != 0;
        integral || self.0 & Self::of_value(value).0 != 0
    }
}

/// Parameters of the tools of a request, by tool.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToolTypes {
    tools: Vec<(String, Vec<(String, Types)>)>,
}

impl ToolTypes {
    pub(crate) fn new(tools: &[Json]) -> Self {
        let parameters = |tool: Tool<'_>| match tool.schema().and_then(|schema| schema.get("properties")) {
            Some(Json::Object(fields)) => {
                fields.iter().map(|(name, schema)| (name.clone(), Types::of(schema))).collect()
            }
            _ => Vec::new(),
        };
        let tools = tools.iter().map(Tool::new);
        Self { tools: tools.filter_map(|tool| Some((tool.name()?.to_owned(), parameters(tool)))).collect() }
    }

    /// Whether a name can be that of a tool: any, if the request lists none.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.tools.is_empty() || self.tools.iter().any(|(tool, _)| tool == name)
    }

    /// The types of a parameter.
    pub(crate) fn types(&self, tool: &str, parameter: &str) -> Types {
        let parameters = self.parameters(tool).iter().find(|(name, _)| name == parameter);
        parameters.map(|(_, types)| *types).unwrap_or_default()
    }

    /// The name of the parameter at a position.
    pub(crate) fn parameter(&self, tool: &str, position: usize) -> Option<&str> {
        self.parameters(tool).get(position).map(|(name, _)| name.as_str())
    }

    fn parameters(&self, tool: &str) -> &[(String, Types)] {
        self.tools
            .iter()
            .find(|(name, _)| name == tool)
            .map(|(_, parameters)| &**parameters)
            .unwrap_or_default()
    }
}
