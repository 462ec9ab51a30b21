//! `exsa tokenize`: token ids of a text.

use crate::args::TokenizeArgs;
use crate::error::CliError;
use crate::model;
use exsa::core::tokenizer::{self, EncodeOptions};
use std::io::{Read, Write};

/// Runs the command.
pub(crate) fn tokenize(args: &TokenizeArgs) -> Result<(), CliError> {
    let gguf = model::header(&args.model)?;
    let failed = |error: &dyn std::fmt::Display| CliError::Other(format!("{}: {error}", args.model));
    let tokenizer = tokenizer::load(gguf.metadata()).map_err(|error| failed(&error))?;
    let text = match &args.text {
        Some(text) => text.clone(),
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    let mut ids = Vec::new();
    tokenizer.encode(&text, &EncodeOptions::default().parse_special(args.special), &mut ids);
    let mut out = std::io::stdout().lock();
    if args.count {
        return Ok(writeln!(out, "{}", ids.len())?);
    }
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&ids)?)?);
    }
    for id in ids {
        let mut piece = Vec::new();
        tokenizer.piece(id, &mut piece);
        let text = match tokenizer.token_text(id) {
            Some(text) if tokenizer.is_control(id) => text.to_owned(),
            _ => format!("{:?}", String::from_utf8_lossy(&piece)),
        };
        writeln!(out, "{id:>7}  {text}")?;
    }
    Ok(())
}
