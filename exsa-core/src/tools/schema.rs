//! Names, parameters and schemas of tools in OpenAI's format.

use crate::chat::Json;
use crate::constraint::reference;

/// Maximum nesting of references and alternatives that are searched for types.
const DEPTH_MAX: usize = 4;
/// Maximum schemas that are visited for the types of a parameter.
const VISITS_MAX: usize = 2000;

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

    /// The types of `schema`, a part of `root`; empty if unspecified.
    pub(crate) fn of(schema: &Json, root: &Json) -> Self {
        Self::within(schema, root, DEPTH_MAX, &mut { VISITS_MAX })
    }

    fn within(schema: &Json, root: &Json, depth: usize, visits: &mut usize) -> Self {
        let types = match schema.get("type") {
            Some(Json::String(name)) => Self::named(name),
            Some(Json::Array(names)) => names
                .iter()
                .filter_map(Json::as_str)
                .fold(Self::default(), |types, name| types.with(Self::named(name))),
            _ => Self::default(),
        };
        *visits = visits.saturating_sub(1);
        if !types.is_unknown() || depth == 0 || *visits == 0 {
            return types;
        }
        if let Some(value) = schema.get("const") {
            return Self::of_value(value);
        }
        let items = |keyword| schema.get(keyword).and_then(Json::as_array).filter(|items| !items.is_empty());
        if let Some(values) = items("enum") {
            return values.iter().fold(types, |types, value| types.with(Self::of_value(value)));
        }
        if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
            let target = reference::target(root, target);
            return target.map(|target| Self::within(target, root, depth - 1, visits)).unwrap_or_default();
        }
        if let Some(schemas) = items("anyOf").or_else(|| items("oneOf")) {
            let mut options = schemas.iter().map(|schema| Self::within(schema, root, depth - 1, visits));
            let any = |all: Self, one: Self| match one.is_unknown() {
                true => None,
                false => Some(all.with(one)),
            };
            return options.try_fold(types, any).unwrap_or_default();
        }
        let parts = items("allOf").unwrap_or_default().iter();
        let mut known = parts.map(|schema| Self::within(schema, root, depth - 1, visits));
        known.find(|types| !types.is_unknown()).unwrap_or_default()
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
        let parameters = |tool: Tool<'_>| {
            let root = tool.schema()?;
            let schema = match root.get("$ref").and_then(Json::as_str) {
                Some(reference) => reference::target(root, reference)?,
                None => root,
            };
            match schema.get("properties")? {
                Json::Object(fields) => {
                    let types = fields.iter().map(|(name, schema)| (name.clone(), Types::of(schema, root)));
                    Some(types.collect())
                }
                _ => None,
            }
        };
        let tools = tools.iter().map(Tool::new);
        Self {
            tools: tools
                .filter_map(|tool| Some((tool.name()?.to_owned(), parameters(tool).unwrap_or_default())))
                .collect(),
        }
    }

    /// Whether a name can be that of a tool: any name, if the request lists no tools.
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
