//! A custom sampling transform: no word of the story is longer than `--letters`. Its state is the length of
//! the unfinished word after each token, so that tokens can be rolled back.

use clap::Parser;
use exsa_core::Request;
use exsa_core::sampler::{Accepted, Candidates, SamplerContext, SamplingError};
use exsa_core::sampler::{Step, Transform, TransformFactory};
use exsa_examples::ModelArgs;
use std::sync::Arc;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Maximum letters per word
    #[arg(long, default_value_t = 4)]
    letters: usize,
}

/// Builds the transform of each answer.
#[derive(Debug)]
struct ShortWords(usize);

#[derive(Debug)]
struct WordLength {
    /// Bytes of each token.
    pieces: Vec<Vec<u8>>,
    /// For each length of the unfinished word, a bit mask of the tokens that keep every word short enough.
    masks: Vec<Vec<u64>>,
    /// Length of the unfinished word before the answer, then after each token.
    lengths: Vec<usize>,
}

impl TransformFactory for ShortWords {
    fn build(&self, context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        let tokenizer = context.tokenizer().ok_or_else(|| SamplingError::transform("needs a tokenizer"))?;
        let mut pieces = vec![Vec::new(); context.n_vocab()];
        (0..).zip(&mut pieces).for_each(|(id, piece)| tokenizer.piece(id, piece));
        let mut masks = vec![vec![0; pieces.len().div_ceil(64)]; self.0 + 1];
        for (length, mask) in masks.iter_mut().enumerate() {
            for (id, piece) in pieces.iter().enumerate() {
                mask[id / 64] |= u64::from(lengths(length, piece).all(|n| n <= self.0)) << (id % 64);
            }
        }
        Ok(Box::new(WordLength { pieces, masks, lengths: vec![0] }))
    }
}

/// Length of the word at each byte of `piece`, after `length` letters.
fn lengths(length: usize, piece: &[u8]) -> impl Iterator<Item = usize> + '_ {
    piece.iter().scan(length, |length, byte| {
        *length = if byte.is_ascii_alphabetic() { *length + 1 } else { 0 };
        Some(*length)
    })
}

impl Transform for WordLength {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        candidates.retain(&self.masks[self.lengths[self.lengths.len() - 1]]);
    }

    fn accept(&mut self, accepted: &Accepted) {
        let length = self.lengths[self.lengths.len() - 1];
        let new = lengths(length, &self.pieces[accepted.token as usize]).last().unwrap_or(length);
        self.lengths.push(new.min(self.masks.len() - 1));
    }

    fn rollback(&mut self, n: usize) {
        self.lengths.truncate(self.lengths.len() - n);
    }
}

fn main() -> exsa_examples::Result {
    let args = Args::parse();
    let request = Request::text("Once upon a time,").transform(Arc::new(ShortWords(args.letters)));
    let answer = args.model.start()?.submit(request.max_tokens(120))?.complete()?;
    println!("Once upon a time,{}", answer.text);
    Ok(())
}
