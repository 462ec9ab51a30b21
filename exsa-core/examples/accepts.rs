//! Reads lines of `{"schema": ..., "texts": [...]}` and writes, for each, either `{"error": ...}` or
//! `{"accepted": [...]}`: which texts the schema's grammar allows as a whole. `scripts/check-schemas` uses
//! it.

use exsa_core::constraint::{Allowed, Compiler, Constraint, ConstraintError};
use exsa_core::scripted::ByteTokenizer;
use serde_json::{Value, json};
use std::io::{BufRead, Write, stdin, stdout};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let compiler = Compiler::new(Arc::new(ByteTokenizer::new()));
    for line in stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let texts = case["texts"].as_array().cloned().unwrap_or_default();
        let accepted =
            texts.iter().map(|text| accepts(&compiler, &case["schema"], text.as_str().unwrap_or_default()));
        let answer = match compiler.compile(&Constraint::json_schema(case["schema"].to_string())) {
            Err(error) => json!({"error": error.to_string()}),
            Ok(_) => json!({"accepted": accepted.collect::<Result<Vec<_>, _>>()?}),
        };
        writeln!(stdout(), "{answer}")?;
    }
    Ok(())
}

fn accepts(compiler: &Compiler, schema: &Value, text: &str) -> Result<bool, ConstraintError> {
    let mut state = compiler.compile(&Constraint::json_schema(schema.to_string()))?.state()?;
    for byte in text.bytes() {
        let allowed = match state.allowed()? {
            Allowed::Forced(token) => token == u32::from(byte),
            Allowed::Mask(mask) => mask[usize::from(byte) / 64] >> (byte % 64) & 1 == 1,
            _ => true,
        };
        if !allowed {
            return Ok(false);
        }
        state.accept(byte.into())?;
    }
    state.is_complete()
}
