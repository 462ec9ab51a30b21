//! Constraints in JSON: `response_format` of OpenAI, `structured_outputs` of vLLM and its older `guided_*`,
//! `json_schema` and `grammar` of llama-server. A constraint is written as `structured_outputs`.

use super::{
    Constraint, Grammar, GrammarStart, JsonSchema, JsonWhitespace, StructuralTag, StructuralTags, Trigger,
};
use crate::chat::Json;
use crate::token::TokenId;
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The fields of a request that set a constraint.
#[derive(Deserialize)]
struct Fields {
    response_format: Option<ResponseFormat>,
    structured_outputs: Option<StructuredOutputs>,
    guided_json: Option<SchemaField>,
    guided_regex: Option<String>,
    guided_choice: Option<Vec<String>>,
    guided_grammar: Option<String>,
    json_schema: Option<SchemaField>,
    grammar: Option<String>,
}

/// OpenAI's `response_format`, with the further types of llama-server and trtllm-serve.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject {
        /// llama-server's.
        schema: Option<Json>,
    },
    JsonSchema {
        json_schema: Option<NamedSchema>,
        /// llama-server's.
        schema: Option<Json>,
    },
    Regex {
        #[serde(alias = "pattern")]
        regex: String,
    },
    #[serde(alias = "ebnf")]
    Grammar {
        #[serde(alias = "ebnf")]
        grammar: String,
    },
    StructuralTag(TagsField),
}

#[derive(Deserialize)]
struct NamedSchema {
    schema: Option<Json>,
}

/// A schema as a value or as JSON text.
struct SchemaField(JsonSchema);

impl<'de> Deserialize<'de> for SchemaField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Json::deserialize(deserializer)? {
            Json::String(text) => JsonSchema::from(text),
            value => JsonSchema::from(value),
        }))
    }
}

/// vLLM's `structured_outputs`; `lark`, `gbnf`, `trigger`, `grammar_start` and `reasoning_end` are Exsa's.
#[derive(Deserialize)]
struct StructuredOutputs {
    json: Option<SchemaField>,
    #[serde(default)]
    json_object: Option<bool>,
    regex: Option<String>,
    choice: Option<Vec<String>>,
    grammar: Option<String>,
    lark: Option<String>,
    gbnf: Option<String>,
    structural_tag: Option<TagsText>,
    trigger: Option<TriggerField>,
    grammar_start: Option<StartField>,
    reasoning_end: Option<String>,
    /// vLLM's; white space is fixed by default.
    disable_any_whitespace: Option<bool>,
}

/// Structural tags as a value, or as JSON text, as in vLLM.
struct TagsText(TagsField);

impl<'de> Deserialize<'de> for TagsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::value::MapDeserializer;
        let value = match Json::deserialize(deserializer)? {
            Json::String(text) => text.parse().map_err(D::Error::custom)?,
            value => value,
        };
        let Json::Object(fields) = value else {
            return Err(D::Error::custom("structural_tag is not an object"));
        };
        let fields = fields.into_iter().map(|(name, value)| (name, JsonContent(value)));
        let fields = MapDeserializer::<_, D::Error>::new(fields);
        TagsField::deserialize(fields).map(Self)
    }
}

/// A value from which other types are deserialized.
struct JsonContent(Json);

impl<'de, E: serde::de::Error> serde::de::IntoDeserializer<'de, E> for JsonContent {
    type Deserializer = JsonDeserializer<E>;

    fn into_deserializer(self) -> Self::Deserializer {
        JsonDeserializer(self.0, std::marker::PhantomData)
    }
}

struct JsonDeserializer<E>(Json, std::marker::PhantomData<E>);

impl<'de, E: serde::de::Error> Deserializer<'de> for JsonDeserializer<E> {
    type Error = E;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(value),
            Json::Int(value) => match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => visitor.visit_i64(value),
                (_, Ok(value)) => visitor.visit_u64(value),
                _ => visitor.visit_i128(value),
            },
            Json::Float(value) => visitor.visit_f64(value),
            Json::String(text) => visitor.visit_string(text),
            Json::Array(items) => {
                let items = items.into_iter().map(JsonContent);
                visitor.visit_seq(serde::de::value::SeqDeserializer::new(items))
            }
            Json::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, JsonContent(value)));
                visitor.visit_map(serde::de::value::MapDeserializer::new(fields))
            }
        }
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.0 {
            Json::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Structural tags: xgrammar's `format`, or the older `structures` and `triggers`.
#[derive(Deserialize)]
struct TagsField {
    format: Option<TagsFormat>,
    structures: Option<Vec<OldTag>>,
    triggers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TagsFormat {
    TriggeredTags {
        triggers: Vec<String>,
        tags: Vec<TagField>,
        #[serde(default)]
        at_least_one: bool,
        #[serde(default)]
        stop_after_first: bool,
    },
}

#[derive(Deserialize)]
struct OldTag {
    begin: String,
    schema: SchemaField,
    end: String,
}

#[derive(Serialize, Deserialize)]
struct TagField {
    begin: String,
    content: ContentField,
    end: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentField {
    JsonObject,
    JsonSchema {
        json_schema: Json,
    },
    Regex {
        pattern: String,
    },
    Grammar {
        grammar: String,
    },
    Choice {
        choices: Vec<String>,
    },
    Lark {
        grammar: String,
    },
    Gbnf {
        grammar: String,
    },
    /// xgrammar's name for a constant text.
    ConstString {
        value: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TriggerField {
    Texts(Vec<String>),
    Tokens(Vec<TokenId>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StartField {
    TriggerStart,
    TriggerEnd,
}

/// A grammar of unnamed syntax: GBNF has `::=`, Lark does not.
fn either(text: String) -> Grammar {
    if text.contains("::=") { Grammar::Gbnf(text) } else { Grammar::Lark(text) }
}

fn schema(value: Json) -> Grammar {
    Grammar::JsonSchema(value.into())
}

impl ResponseFormat {
    fn grammar<E: serde::de::Error>(self) -> Result<Option<Grammar>, E> {
        Ok(Some(match self {
            Self::Text => return Ok(None),
            Self::JsonObject { schema: None } => Grammar::JsonObject,
            Self::JsonObject { schema: Some(value) } => schema(value),
            Self::JsonSchema { json_schema, schema: beside } => {
                let value = json_schema.and_then(|named| named.schema).or(beside);
                schema(value.ok_or_else(|| E::custom("response_format json_schema has no schema"))?)
            }
            Self::Regex { regex } => Grammar::Regex(regex),
            Self::Grammar { grammar } => either(grammar),
            Self::StructuralTag(tags) => Grammar::StructuralTags(tags.tags()?),
        }))
    }
}

impl TagsField {
    fn tags<E: serde::de::Error>(self) -> Result<StructuralTags, E> {
        match (self.format, self.structures) {
            (Some(TagsFormat::TriggeredTags { triggers, tags, at_least_one, stop_after_first }), None) => {
                let tags =
                    tags.into_iter().map(|tag| StructuralTag::new(tag.begin, tag.content.into(), tag.end));
                Ok(StructuralTags { triggers, tags: tags.collect(), at_least_one, stop_after_first })
            }
            (None, Some(old)) => {
                let tags = old.into_iter();
                let tags =
                    tags.map(|tag| StructuralTag::new(tag.begin, Grammar::JsonSchema(tag.schema.0), tag.end));
                let (tags, triggers) = (tags.collect(), self.triggers.unwrap_or_default());
                Ok(StructuralTags { triggers, tags, ..StructuralTags::default() })
            }
            _ => Err(E::custom("structural_tag must have either format or structures")),
        }
    }
}

impl From<ContentField> for Grammar {
    fn from(content: ContentField) -> Self {
        match content {
            ContentField::JsonObject => Self::JsonObject,
            ContentField::JsonSchema { json_schema } => schema(json_schema),
            ContentField::Regex { pattern } => Self::Regex(pattern),
            ContentField::Grammar { grammar } => either(grammar),
            ContentField::Choice { choices } => Self::Choice(choices),
            ContentField::Lark { grammar } => Self::Lark(grammar),
            ContentField::Gbnf { grammar } => Self::Gbnf(grammar),
            ContentField::ConstString { value } => Self::Choice(vec![value]),
        }
    }
}

impl ContentField {
    fn of(grammar: &Grammar) -> Result<Self, &'static str> {
        Ok(match grammar.clone() {
            Grammar::JsonObject => Self::JsonObject,
            Grammar::JsonSchema(schema) => Self::JsonSchema { json_schema: value_of(&schema) },
            Grammar::Regex(pattern) => Self::Regex { pattern },
            Grammar::Choice(choices) => Self::Choice { choices },
            Grammar::Lark(grammar) => Self::Lark { grammar },
            Grammar::Gbnf(grammar) => Self::Gbnf { grammar },
            Grammar::StructuralTags(_) => return Err("structural tags inside a structural tag"),
        })
    }
}

/// A schema as a value; text that is not JSON stays text.
fn value_of(schema: &JsonSchema) -> Json {
    schema.json().unwrap_or_else(|_| Json::from(schema.as_str()))
}

impl StructuredOutputs {
    fn constraint<E: serde::de::Error>(self) -> Result<Option<Constraint>, E> {
        let tags = self.structural_tag.map(|tags| tags.0.tags().map(Grammar::StructuralTags)).transpose()?;
        let grammars = [
            self.json.map(|schema| Grammar::JsonSchema(schema.0)),
            self.json_object.unwrap_or(false).then_some(Grammar::JsonObject),
            self.regex.map(Grammar::Regex),
            self.choice.map(Grammar::Choice),
            self.grammar.map(either),
            self.lark.map(Grammar::Lark),
            self.gbnf.map(Grammar::Gbnf),
            tags,
        ];
        let Some(grammar) = only(grammars, "structured_outputs")? else { return Ok(None) };
        let mut constraint = Constraint::new(grammar);
        constraint.trigger = self.trigger.map(|trigger| match trigger {
            TriggerField::Texts(texts) => Trigger::Text(texts),
            TriggerField::Tokens(tokens) => Trigger::Token(tokens),
        });
        if let Some(StartField::TriggerEnd) = self.grammar_start {
            constraint.grammar_start = GrammarStart::TriggerEnd;
        }
        constraint.reasoning_end = self.reasoning_end;
        if self.disable_any_whitespace == Some(false) {
            constraint.whitespace = JsonWhitespace::Any;
        }
        Ok(Some(constraint))
    }
}

/// The only item that is set.
fn only<T, E: serde::de::Error>(
    items: impl IntoIterator<Item = Option<T>>,
    what: &str,
) -> Result<Option<T>, E> {
    let mut given = items.into_iter().flatten();
    match (given.next(), given.next()) {
        (first, None) => Ok(first),
        _ => Err(E::custom(format!("{what}: more than one constraint, but at most one is allowed"))),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Constraint>, D::Error> {
    let fields = Fields::deserialize(deserializer)?;
    let plain = [
        fields.response_format.map(ResponseFormat::grammar).transpose()?.flatten(),
        fields.guided_json.or(fields.json_schema).map(|schema| Grammar::JsonSchema(schema.0)),
        fields.guided_regex.map(Grammar::Regex),
        fields.guided_choice.map(Grammar::Choice),
        fields.guided_grammar.map(either),
        fields.grammar.filter(|grammar| !grammar.is_empty()).map(Grammar::Gbnf),
    ];
    let structured = fields.structured_outputs.map(StructuredOutputs::constraint).transpose()?.flatten();
    let plain = plain.into_iter().map(|grammar| grammar.map(Constraint::new));
    only(plain.chain([structured]), "request")
}

pub(crate) fn serialize<S: Serializer>(
    constraint: &Option<Constraint>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    if let Some(constraint) = constraint {
        map.serialize_entry("structured_outputs", &Written(constraint))?;
    }
    map.end()
}

/// A constraint as `structured_outputs`.
struct Written<'a>(&'a Constraint);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.0.grammar {
            Grammar::JsonObject => map.serialize_entry("json_object", &true)?,
            Grammar::JsonSchema(schema) => map.serialize_entry("json", &value_of(schema))?,
            Grammar::Regex(regex) => map.serialize_entry("regex", regex)?,
            Grammar::Choice(choices) => map.serialize_entry("choice", choices)?,
            Grammar::Lark(grammar) => map.serialize_entry("lark", grammar)?,
            Grammar::Gbnf(grammar) => map.serialize_entry("gbnf", grammar)?,
            Grammar::StructuralTags(tags) => map.serialize_entry("structural_tag", &WrittenTags(tags))?,
        }
        match &self.0.trigger {
            Some(Trigger::Text(texts)) => {
                map.serialize_entry("trigger", &TriggerField::Texts(texts.clone()))?
            }
            Some(Trigger::Token(tokens)) => {
                map.serialize_entry("trigger", &TriggerField::Tokens(tokens.clone()))?;
            }
            None => {}
        }
        if self.0.grammar_start == GrammarStart::TriggerEnd {
            map.serialize_entry("grammar_start", &StartField::TriggerEnd)?;
        }
        if let Some(end) = &self.0.reasoning_end {
            map.serialize_entry("reasoning_end", end)?;
        }
        if self.0.whitespace == JsonWhitespace::Any {
            map.serialize_entry("disable_any_whitespace", &false)?;
        }
        map.end()
    }
}

/// Structural tags in xgrammar's form.
struct WrittenTags<'a>(&'a StructuralTags);

impl Serialize for WrittenTags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Format<'a> {
            r#type: &'static str,
            triggers: &'a [String],
            tags: Vec<TagField>,
            at_least_one: bool,
            stop_after_first: bool,
        }
        let tag = |tag: &StructuralTag| {
            let content = ContentField::of(&tag.content).map_err(serde::ser::Error::custom)?;
            Ok(TagField { begin: tag.begin.clone(), content, end: tag.end.clone() })
        };
        let format = Format {
            r#type: "triggered_tags",
            triggers: &self.0.triggers,
            tags: self.0.tags.iter().map(tag).collect::<Result<_, S::Error>>()?,
            at_least_one: self.0.at_least_one,
            stop_after_first: self.0.stop_after_first,
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "structural_tag")?;
        map.serialize_entry("format", &format)?;
        map.end()
    }
}
