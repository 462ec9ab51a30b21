//! Translation of grammars for llguidance: to a JSON schema, or to its variant of Lark.

use super::environment::{Environment, Part};
use super::error::ConstraintError;
use super::grammar::{Grammar, JsonSchema};
use super::limits;
use super::tags::StructuralTags;
use super::{Constraint, JsonWhitespace, gbnf, lark, schema};
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};
use std::fmt::Write;

/// The kind of a grammar, for errors.
pub(super) fn kind(grammar: &Grammar) -> &'static str {
    match grammar {
        Grammar::JsonObject | Grammar::JsonSchema(_) => "JSON schema",
        Grammar::Regex(_) => "regex",
        Grammar::Choice(_) => "choice",
        Grammar::Lark(_) => "Lark grammar",
        Grammar::Gbnf(_) => "GBNF grammar",
        Grammar::StructuralTags(_) => "structural tags",
    }
}

/// The grammar in llguidance's form, after all checks that are possible without compiling it.
pub(super) fn translate(
    env: &Environment,
    constraint: &Constraint,
) -> Result<TopLevelGrammar, ConstraintError> {
    let (grammar, whitespace) = (&constraint.grammar, constraint.whitespace);
    Ok(TopLevelGrammar::from_grammar(match grammar {
        Grammar::JsonObject => GrammarWithLexer::from_json_schema(object(whitespace)),
        Grammar::JsonSchema(schema) => GrammarWithLexer::from_json_schema(checked(schema, whitespace)?),
        Grammar::Lark(source) if constraint.trusted => {
            within(kind(grammar), source.len())?;
            GrammarWithLexer::from_lark(source.clone())
        }
        grammar => GrammarWithLexer::from_lark(as_lark(env, grammar, whitespace)?),
    }))
}

/// The grammar as Lark.
fn as_lark(
    env: &Environment,
    grammar: &Grammar,
    whitespace: JsonWhitespace,
) -> Result<String, ConstraintError> {
    let kind = kind(grammar);
    match grammar {
        Grammar::JsonObject => Ok(format!("start: %json {}\n", object(whitespace))),
        Grammar::JsonSchema(schema) => Ok(format!("start: %json {}\n", checked(schema, whitespace)?)),
        Grammar::Regex(regex) => Ok(format!("start: /{}/\n", lark::regex(regex)?)),
        Grammar::Choice(choices) => choice(choices),
        Grammar::Lark(grammar) => {
            lark::check(grammar, kind)?;
            Ok(grammar.clone())
        }
        Grammar::Gbnf(grammar) => {
            within(kind, grammar.len())?;
            let ends = &env.tokenizer.special().end_of_generation;
            gbnf::to_lark(grammar, |text| env.control(text), ends)
        }
        Grammar::StructuralTags(tags) => structural_tags(env, tags, whitespace),
    }
}

fn within(grammar: &'static str, bytes: usize) -> Result<(), ConstraintError> {
    let max = limits::GRAMMAR_BYTES_MAX;
    if bytes <= max {
        Ok(())
    } else {
        Err(ConstraintError::Limit { grammar, limit: "bytes", max: max as u64 })
    }
}

fn object(whitespace: JsonWhitespace) -> Value {
    with_options(json!({"type": "object"}), whitespace)
}

fn checked(text: &JsonSchema, whitespace: JsonWhitespace) -> Result<Value, ConstraintError> {
    within("JSON schema", text.as_str().len())?;
    Ok(with_options(schema::check(text)?, whitespace))
}

/// A checked schema for `%json` in trusted Lark source.
#[cfg(feature = "tool-parsers")]
pub(crate) fn checked_json(schema: &crate::chat::Json) -> Result<String, ConstraintError> {
    Ok(checked(&JsonSchema::from(schema), JsonWhitespace::Fixed)?.to_string())
}

/// Adds the options of llguidance's JSON compiler to a checked schema.
fn with_options(mut schema: Value, whitespace: JsonWhitespace) -> Value {
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if let Value::Object(fields) = &mut schema {
        let options = match whitespace {
            JsonWhitespace::Fixed => {
                json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "})
            }
            JsonWhitespace::Any => json!({"whitespace_flexible": true}),
        };
        fields.insert("x-guidance".to_owned(), options);
    }
    schema
}

fn choice(choices: &[String]) -> Result<String, ConstraintError> {
    let grammar = "choice";
    let max = limits::CHOICES_MAX;
    if choices.len() > max {
        return Err(ConstraintError::Limit { grammar, limit: "choices", max: max as u64 });
    }
    within(grammar, choices.iter().map(String::len).sum())?;
    if choices.is_empty() || choices.iter().any(String::is_empty) {
        let problem = "a list of at least one text, none of them empty, is required".to_owned();
        return Err(ConstraintError::Invalid { grammar, problem });
    }
    let mut choices: Vec<&str> = choices.iter().map(String::as_str).collect();
    choices.sort_unstable();
    choices.dedup();
    let choices: Vec<String> = choices.into_iter().map(lark::quoted).collect();
    Ok(format!("start: CHOICE\nCHOICE: {}\n", choices.join(" | ")))
}

fn structural_tags(
    env: &Environment,
    tags: &StructuralTags,
    whitespace: JsonWhitespace,
) -> Result<String, ConstraintError> {
    let grammar = "structural tags";
    let invalid = |problem: String| ConstraintError::Invalid { grammar, problem };
    if tags.tags.is_empty() {
        return Err(invalid("at least one tag is required".to_owned()));
    }
    for (limit, len) in [("tags", tags.tags.len()), ("triggers", tags.triggers.len())] {
        if len > limits::TAGS_MAX {
            return Err(ConstraintError::Limit { grammar, limit, max: limits::TAGS_MAX as u64 });
        }
    }
    let mut source = String::new();
    let mut names = Vec::new();
    for (i, tag) in tags.tags.iter().enumerate() {
        if !tags.triggers.iter().any(|trigger| tag.begin.starts_with(trigger)) {
            return Err(invalid(format!(
                "the begin of tag {i}, {:?}, does not start with any trigger",
                tag.begin
            )));
        }
        if matches!(tag.content, Grammar::StructuralTags(_)) {
            return Err(invalid(format!("the content of tag {i} must not be structural tags")));
        }
        let content = as_lark(env, &tag.content, whitespace)?;
        let (begin, end) = (literal(env, &tag.begin), literal(env, &tag.end));
        // Writing to a string cannot fail.
        let _ = writeln!(source, "tag_{i}: {begin} content_{i} {end}");
        let _ = writeln!(source, "content_{i}: %lark {{\n{content}}}");
        names.push(format!("tag_{i}"));
        within(grammar, source.len())?;
    }
    Ok(format!("start: {}\n{source}", names.join(" | ")))
}

/// A literal that may contain control tokens, as Lark.
fn literal(env: &Environment, text: &str) -> String {
    let parts = env.parts(text).into_iter().map(|part| match part {
        Part::Text(text) => lark::quoted(text),
        Part::Control(id) => format!("<[{id}]>"),
    });
    parts.collect::<Vec<_>>().join(" ")
}
