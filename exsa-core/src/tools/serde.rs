//! JSON of `tool_choice`, in the formats of OpenAI's API.

/// `"none"`, `"auto"`, `"required"`, or `{"type": "function", "function": {"name": …}}`.
pub(crate) mod choice {
    use crate::tools::ToolChoice;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "tool_choice is none, auto, required or the name of a function")]
    enum Choice {
        Mode(String),
        /// The form of the Chat Completions API.
        Function {
            #[serde(rename = "type", default = "function")]
            kind: String,
            function: Name,
        },
        /// The form of the Responses API.
        Named {
            #[serde(rename = "type", default = "function")]
            kind: String,
            name: String,
        },
    }

    #[derive(Serialize, Deserialize)]
    struct Name {
        name: String,
    }

    fn function() -> String {
        "function".to_owned()
    }

    pub(crate) fn serialize<S: Serializer>(choice: &ToolChoice, serializer: S) -> Result<S::Ok, S::Error> {
        match choice {
            ToolChoice::Auto => serializer.serialize_str("auto"),
            ToolChoice::None => serializer.serialize_str("none"),
            ToolChoice::Required => serializer.serialize_str("required"),
            ToolChoice::Named(name) => {
                Choice::Function { kind: function(), function: Name { name: name.clone() } }
                    .serialize(serializer)
            }
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ToolChoice, D::Error> {
        let (kind, name) = match Option::<Choice>::deserialize(deserializer)? {
            None => return Ok(ToolChoice::Auto),
            Some(Choice::Mode(mode)) => {
                return match mode.as_str() {
                    "auto" => Ok(ToolChoice::Auto),
                    "none" => Ok(ToolChoice::None),
                    "required" | "any" => Ok(ToolChoice::Required),
                    _ => Err(D::Error::custom(format!(
                        "tool_choice is '{mode}', but none, auto, required or a function is allowed"
                    ))),
                };
            }
            Some(Choice::Function { kind, function }) => (kind, function.name),
            Some(Choice::Named { kind, name }) => (kind, name),
        };
        if kind == "function" {
            Ok(ToolChoice::Named(name))
        } else {
            Err(D::Error::custom(format!("tool_choice has the type '{kind}', but only function is allowed")))
        }
    }
}
