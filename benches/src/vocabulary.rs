//! Small vocabularies, learnt from a text: what tokenizers are measured on where no published one is at hand.

use exsa_core::tokenizer::{RoleIds, TokenType, Tokenizer, TokenizerError, TokenizerModel, Vocabulary};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How byte-pair vocabularies write a space, and SentencePiece and WordPiece ones.
const BPE_SPACE: &str = "\u{120}";
const SPM_SPACE: &str = "\u{2581}";

/// Pairs of pieces that were joined, in order; a word's first piece begins with a space.
pub struct Learnt {
    alphabet: Vec<String>,
    merges: Vec<(String, String)>,
}

impl Learnt {
    /// Learns up to `merges` merges from the words of `text` (Sennrich et al., 2016). ASCII only.
    pub fn from_text(text: &str, merges: usize) -> Self {
        let mut counts = BTreeMap::<&str, usize>::new();
        for word in text.split_whitespace().filter(|word| word.is_ascii()) {
            *counts.entry(word).or_default() += 1;
        }
        let spell = |word: &str| -> Vec<String> {
            std::iter::once(' ').chain(word.chars()).map(String::from).collect()
        };
        let mut words: Vec<_> = counts.into_iter().map(|(word, count)| (spell(word), count)).collect();
        let mut learnt = Self {
            alphabet: (' '..='~').chain(['\n']).map(String::from).collect(),
            merges: Vec::with_capacity(merges),
        };
        while learnt.merges.len() < merges
            && let Some(pair) = most_frequent(&words)
        {
            for (pieces, _) in &mut words {
                join(pieces, &pair);
            }
            learnt.merges.push(pair);
        }
        learnt
    }

    /// A tokenizer of this kind that knows what was learnt.
    pub fn tokenizer(&self, model: TokenizerModel) -> Result<Arc<dyn Tokenizer>, TokenizerError> {
        match model {
            TokenizerModel::Bpe => self.bpe(),
            _ => self.scored(model),
        }
    }

    fn pieces(&self, space: &str) -> Vec<String> {
        let joined = self.merges.iter().map(|(left, right)| format!("{left}{right}"));
        self.alphabet.iter().cloned().chain(joined).map(|piece| piece.replace(' ', space)).collect()
    }

    fn bpe(&self) -> Result<Arc<dyn Tokenizer>, TokenizerError> {
        let mut tokens = self.pieces(BPE_SPACE);
        tokens.iter_mut().filter(|token| *token == "\n").for_each(|token| *token = "\u{10a}".into());
        tokens.dedup();
        let merge = |(left, right): &(String, String)| format!("{left}\u{0}{right}").replace(' ', BPE_SPACE);
        let merges: Vec<_> = self.merges.iter().map(|pair| merge(pair).replace('\u{0}', " ")).collect();
        Vocabulary {
            model: TokenizerModel::Bpe,
            pre: Some("gpt-2"),
            tokens: tokens.iter().map(String::as_str).collect(),
            merges: merges.iter().map(String::as_str).collect(),
            ..Vocabulary::default()
        }
        .build()
    }

    fn scored(&self, model: TokenizerModel) -> Result<Arc<dyn Tokenizer>, TokenizerError> {
        let special = ["<unk>", "<s>", "</s>"].map(String::from);
        let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
        let mut tokens: Vec<_> = special.into_iter().chain(bytes).collect();
        let mut types = vec![TokenType::Control; 3];
        types.resize(tokens.len(), TokenType::Byte);
        tokens.extend(self.pieces(SPM_SPACE));
        types.resize(tokens.len(), TokenType::Normal);
        let scores: Vec<_> = (0..tokens.len()).map(|rank| -(rank as f32)).collect();
        Vocabulary {
            model,
            tokens: tokens.iter().map(String::as_str).collect(),
            scores: if model == TokenizerModel::Spm { scores } else { Vec::new() },
            types,
            ids: RoleIds { unk: Some(0), bos: Some(1), eos: Some(2), sep: Some(2), ..RoleIds::default() },
            ..Vocabulary::default()
        }
        .build()
    }
}

/// The pair of neighbours that occurs most; the first in the alphabet among equals.
fn most_frequent(words: &[(Vec<String>, usize)]) -> Option<(String, String)> {
    let mut counts = BTreeMap::<(&str, &str), usize>::new();
    for (pieces, count) in words {
        for pair in pieces.windows(2) {
            *counts.entry((&pair[0], &pair[1])).or_default() += count;
        }
    }
    let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
    most.map(|((left, right), _)| (left.into(), right.into()))
}

fn join(pieces: &mut Vec<String>, (left, right): &(String, String)) {
    let mut joined = Vec::with_capacity(pieces.len());
    for piece in pieces.drain(..) {
        match joined.last_mut() {
            Some(last) if last == left && piece == *right => *last = format!("{left}{right}"),
            _ => joined.push(piece),
        }
    }
    *pieces = joined;
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::tokenizer::EncodeOptions;

    #[test]
    fn what_was_learnt_shortens_texts_of_each_kind_and_gives_them_back() {
        let text = "the cat and the hat and the bat sat there with the other cats";
        let learnt = Learnt::from_text(&text.repeat(3), 60);
        for model in [TokenizerModel::Spm, TokenizerModel::Bpe, TokenizerModel::Wpm] {
            let tokenizer = learnt.tokenizer(model).unwrap();
            let (mut ids, mut bytes) = (Vec::new(), Vec::new());
            tokenizer.encode(text, &EncodeOptions::default(), &mut ids);
            assert!(ids.len() < text.len() / 2, "{model:?}: {} tokens", ids.len());
            ids.iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
            assert_eq!(String::from_utf8(bytes).unwrap().trim_start(), text, "{model:?}");
        }
    }

    #[test]
    fn a_text_without_pairs_teaches_nothing() {
        assert!(Learnt::from_text("", 10).merges.is_empty());
        assert_eq!(Learnt::from_text("a", 10).merges, [(" ".to_owned(), "a".to_owned())]);
    }
}
