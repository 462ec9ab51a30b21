//! Texts to encode, and where test data lies.

use crate::random::Random;
use std::path::PathBuf;

/// The folder of the optional test data: `EXSA_TEST_DATA`, else `shared` beside the project; `None` where it
/// is absent.
pub fn test_data() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let folder = std::env::var_os("EXSA_TEST_DATA").map_or_else(beside, PathBuf::from);
    folder.join("models").is_dir().then_some(folder)
}

/// About `bytes` bytes of words made of syllables, with some capitals, numbers, punctuation and line ends,
/// the way prose has them; never fewer.
pub fn prose(bytes: usize, seed: u64) -> String {
    const ONSETS: &[&str] = &["b", "ch", "d", "f", "gr", "h", "l", "m", "n", "p", "r", "st", "t", "w", ""];
    const RIMES: &[&str] = &["a", "e", "ing", "o", "ou", "er", "at", "en", "is", "all", "ea"];
    let mut random = Random::new(seed);
    let mut text = String::with_capacity(bytes + 64);
    let mut begins = true;
    while text.len() < bytes {
        let start = text.len();
        if random.below(40) == 0 {
            text.push_str(&random.below(3000).to_string());
        }
        for _ in 0..=random.below(3) {
            text.push_str(ONSETS[random.below(ONSETS.len())]);
            text.push_str(RIMES[random.below(RIMES.len())]);
        }
        if begins {
            text[start..start + 1].make_ascii_uppercase();
        }
        begins = random.below(12) == 0;
        text.push_str(match (begins, random.below(8)) {
            (true, 0) => ".\n\n",
            (true, _) => ". ",
            (false, 0) => ", ",
            (false, _) => " ",
        });
    }
    text
}

/// `bytes` bytes without a space: the hardest text for a tokenizer that works word by word.
pub fn one_word(bytes: usize) -> String {
    "abcdefghijklmnopqrstuvwxyz".chars().cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_length_and_repeat_by_seed() {
        let text = prose(10_000, 1);
        assert!((10_000..10_100).contains(&text.len()));
        assert_eq!(text, prose(10_000, 1));
        assert_ne!(text, prose(10_000, 2));
        assert!(text.contains('\n') && text.contains(". ") && text.contains(|c: char| c.is_ascii_digit()));
        assert_eq!(one_word(100).len(), 100);
    }
}
