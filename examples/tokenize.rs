//! Prints the token ids of a text on one line, for any GGUF, including vocabulary-only files.

use clap::Parser;
use exsa_core::gguf::Gguf;
use exsa_core::tokenizer::{self, EncodeOptions};
use exsa_examples::Failure;
use std::fs::{File, read_to_string};
use std::io::BufReader;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// A GGUF file
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// A file of UTF-8 text
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Add BOS if the model requires it, and recognise control tokens in the text
    #[arg(long)]
    special: bool,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let open = File::open(&args.model).map_err(|e| Failure::new(format!("{}: {e}", args.model.display())))?;
    let text =
        read_to_string(&args.file).map_err(|e| Failure::new(format!("{}: {e}", args.file.display())))?;
    let gguf = Gguf::read(&mut BufReader::new(open))?;
    let tokenizer = tokenizer::load(gguf.metadata())?;
    let mut ids = Vec::new();
    let roles = tokenizer.special();
    ids.extend(roles.bos.filter(|_| args.special && roles.add_bos));
    tokenizer.encode(&text, &EncodeOptions::default().parse_special(args.special), &mut ids);
    println!("{}", ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}
