//! `exsa embed`: embeddings of texts.

use crate::args::EmbedArgs;
use crate::error::CliError;
use crate::model;
use exsa::EmbedRequest;
use std::io::{BufRead, Write};

/// Texts per request.
const BATCH: usize = 64;

/// Runs the command.
pub(crate) fn embed(args: &EmbedArgs) -> Result<(), CliError> {
    let engine = model::load(&args.model, model::builder(&args.engine)?)?;
    let mut texts: Box<dyn Iterator<Item = std::io::Result<String>>> = match args.texts.is_empty() {
        true => Box::new(std::io::stdin().lock().lines()),
        false => Box::new(args.texts.iter().cloned().map(Ok)),
    };
    let mut out = std::io::stdout().lock();
    loop {
        let batch = texts.by_ref().take(BATCH).collect::<std::io::Result<Vec<_>>>()?;
        if batch.is_empty() {
            return Ok(());
        }
        let request = EmbedRequest::texts(batch).normalize(true).dimensions(args.dimensions);
        let output = engine.embed(request)?.wait().map_err(exsa::Error::from)?;
        for vector in output.into_vectors()? {
            writeln!(out, "{}", serde_json::to_string(&vector)?)?;
        }
        out.flush()?;
    }
}
