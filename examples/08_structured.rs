//! An answer that follows a JSON schema, deserialized into a Rust type.

use clap::Parser;
use exsa_core::constraint::Constraint;
use exsa_core::{Message, Request};
use exsa_examples::ModelArgs;
use serde::Deserialize;

/// The answer as a Rust type; its JSON schema is below. Fields are generated in this order.
#[derive(Debug, Deserialize)]
struct Animal {
    name: String,
    kind: Kind,
    legs: u8,
    likes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Frog,
    Dog,
    Bird,
}

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 12, "pattern": "^[A-Z][a-z]*$"},
        "kind": {"enum": ["frog", "dog", "bird"]},
        "legs": {"type": "integer", "minimum": 2, "maximum": 4},
        "likes": {"type": "array", "items": {"enum": ["sun", "rain", "games", "songs"]}, "minItems": 1, "maxItems": 3}
    },
    "required": ["name", "kind", "legs", "likes"],
    "additionalProperties": false
}"#;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The question
    #[arg(long, default_value = "Tell me about an animal.")]
    ask: String,
    /// Seed of the sampler
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;
    let request = Request::chat([Message::user(&args.ask)])
        .constraint(Constraint::json_schema(SCHEMA))
        .max_tokens(200)
        .seed(args.seed);
    // A schema that cannot be enforced is refused here.
    let answer = engine.submit(request)?.complete()?;
    println!("{}", answer.text);
    let animal: Animal = serde_json::from_str(&answer.text)?;
    println!(
        "{} is a {:?} with {} legs and likes {:?}.",
        animal.name, animal.kind, animal.legs, animal.likes
    );
    let (passes, tokens) = (engine.stats().steps, answer.usage.completion_tokens);
    println!("{tokens} tokens in {passes} passes: the schema forced the others.");
    Ok(())
}
