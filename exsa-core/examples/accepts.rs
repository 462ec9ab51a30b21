//! Reads lines of `{"schema" | "gbnf" | "lark": ..., "texts": [...]}` and writes, for each, either
//! `{"error": ...}` or `{"accepted": [...]}`: which texts the grammar allows as a whole. A text is a string,
//! or a list of token ids. With `"any_space": true`, white space of a schema's JSON is free.
//! `scripts/check-schemas` and `scripts/check-grammars` use it.

use exsa_core::constraint::{Allowed, Compiled, Compiler, Constraint, ConstraintError, JsonWhitespace};
use exsa_core::scripted::ByteTokenizer;
use serde_json::{Value, json};
use std::io::{BufRead, Write, stdin, stdout};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let compiler = Compiler::new(Arc::new(ByteTokenizer::new()));
    for line in stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let answer = match compiler.compile(&constraint(&case)) {
            Err(error) => json!({"error": error.to_string()}),
            Ok(compiled) => {
                let texts = case["texts"].as_array().map(Vec::as_slice).unwrap_or_default();
                let accepted = texts.iter().map(|text| accepts(&compiled, &tokens(text)));
                json!({"accepted": accepted.collect::<Result<Vec<_>, _>>()?})
            }
        };
        writeln!(stdout(), "{answer}")?;
    }
    Ok(())
}

fn constraint(case: &Value) -> Constraint {
    let source = |name: &str| case[name].as_str().unwrap_or_default();
    let whitespace = match case["any_space"] {
        Value::Bool(true) => JsonWhitespace::Any,
        _ => JsonWhitespace::Fixed,
    };
    match (case.get("schema"), case.get("gbnf")) {
        (Some(schema), _) => Constraint::json_schema(schema.to_string()).whitespace(whitespace),
        (None, Some(_)) => Constraint::gbnf(source("gbnf")),
        (None, None) => Constraint::lark(source("lark")),
    }
}

fn tokens(text: &Value) -> Vec<u32> {
    match text {
        Value::String(text) => text.bytes().map(u32::from).collect(),
        text => text.as_array().into_iter().flatten().filter_map(|id| id.as_u64()?.try_into().ok()).collect(),
    }
}

fn accepts(compiled: &Arc<Compiled>, tokens: &[u32]) -> Result<bool, ConstraintError> {
    let mut state = compiled.state()?;
    for &token in tokens {
        let allowed = match state.allowed() {
            Ok(Allowed::Forced(forced)) => forced == token,
            Ok(Allowed::Mask(mask)) => mask[token as usize / 64] >> (token % 64) & 1 == 1,
            Ok(_) => true,
            // Bytes that continue no text.
            Err(ConstraintError::NoToken) => false,
            Err(error) => return Err(error),
        };
        if !allowed {
            return Ok(false);
        }
        state.accept(token)?;
    }
    state.is_complete()
}
