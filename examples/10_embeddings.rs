//! Semantic search: texts become vectors, and texts with similar meanings have similar vectors.
//!
//! A first search compares short vectors, of which an index of millions fits in memory; the whole vectors
//! then rank the best again. It needs an embedding model (`--model`) and, since the candle backend gives no
//! vectors yet, `--features llamacpp` and `--backend llamacpp`.

use clap::Parser;
use exsa_core::embed::Truncate;
use exsa_core::{EmbedRequest, Engine};
use exsa_examples::ModelArgs;

const TEXTS: [&str; 8] = [
    "The dog ran after the ball in the park.",
    "A cat slept on the warm bed all day.",
    "Mom made a big cake with sugar and milk.",
    "The puppy liked to play with its toy.",
    "It was raining, so the children stayed at home.",
    "Dad cooked soup for dinner.",
    "The sun was bright and the sky was blue.",
    "Tim read a book about ships and the sea.",
];

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to look for
    #[arg(long, default_value = "The little dog wanted to play with the ball.")]
    query: String,
    /// Dimensions of the truncated vectors (Matryoshka)
    #[arg(long, default_value_t = 64)]
    dimensions: usize,
    /// Number of texts to rerank
    #[arg(long, default_value_t = 4)]
    top: usize,
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let engine = args.model.start()?;

    println!("{}\n\nwith {} values:", args.query, args.dimensions);
    let found = rank(&engine, &args.query, &TEXTS, Some(args.dimensions))?;
    let best: Vec<&str> = found.into_iter().take(args.top).collect();
    println!("\nthe best {} reranked with full vectors:", args.top);
    rank(&engine, &args.query, &best, None)?;
    Ok(())
}

/// Ranks the texts by similarity to `query`.
fn rank<'a>(
    engine: &Engine,
    query: &str,
    texts: &[&'a str],
    dimensions: Option<usize>,
) -> exsa_examples::Result<Vec<&'a str>> {
    // One request: the engine computes as many texts per pass as fit.
    let inputs = [query].into_iter().chain(texts.iter().copied());
    let request = EmbedRequest::texts(inputs).truncate(Truncate::End).dimensions(dimensions);
    let vectors = engine.embed(request)?.wait()?.into_vectors()?;
    let (query, rest) = vectors.split_first().ok_or_else(|| exsa_examples::Failure::new("no vector"))?;
    // Vectors have length 1, so their dot product is the cosine similarity.
    let cosine = |vector: &Vec<f32>| query.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>();
    let mut ranked: Vec<_> = rest.iter().map(cosine).zip(texts.iter().copied()).collect();
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    ranked.iter().for_each(|(cosine, text)| println!("  {cosine:.3}  {text}"));
    Ok(ranked.into_iter().map(|(_, text)| text).collect())
}
