//! Cutting text into words before byte-pair merges; no merge crosses a cut.
//!
//! Models describe the cuts by regular expressions, applied one after the other: each stage cuts the pieces
//! that the one before it left. Here every expression is a hand-written scanner of one pass over its piece.

mod cased;
mod chameleon;
mod cursor;
mod deepseek;
mod digits;
mod families;
mod gpt2;
mod kimi;
mod letters;
mod phrases;
mod runs;
mod scripts;

pub(super) use families::{Family, Writing, family, supported};

use super::unicode::Class;
use cased::Cased;
use letters::Letters;

/// One regular expression: cuts a piece of text into smaller ones, nothing lost.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Contractions, words, numbers, the rest: GPT-2's expression.
    Gpt2,
    /// Words with one leading character of any kind: the expression of Llama 3 and Qwen 2.
    Letters(Letters),
    /// Words cut where upper case follows lower case: the expression of Tekken and GPT-4o.
    Cased(Cased),
    /// The last of DeepSeek V3's expressions.
    DeepSeek3,
    /// The third of Spark 2.5's expressions: that of DeepSeek V3 with every newline apart.
    Spark,
    /// Kimi K2's expression: words without Chinese characters.
    Kimi,
    /// EXAONE MoE's expression: words of letters with single spaces between them are one piece.
    Phrases,
    /// `[…]+`: runs of the set, and runs of what is not in it.
    Runs(Set),
    /// `[…]+|[…]+`: runs of each set, and runs of what is in none.
    RunsOfEach(&'static [Set]),
    /// ` ?[^…]+`: runs of what is not in the set, with the space before them.
    SpacedRest(Set),
    /// `[…]`: every character of the set alone, and runs of what is not in it.
    Each(Set),
    /// `\s?[…]+`: runs of the set with the white-space character before them.
    SpacedRuns(Set),
    /// `\p{N}{1,3}`: numbers in groups of three from the left.
    NumbersByThree,
    /// `[0-9][0-9][0-9]`: ASCII digits in groups of exactly three from the left.
    AsciiDigitsByThree,
    /// Numbers in groups of three from the right; what stands before them belongs to the first group.
    NumbersFromRight,
    /// `(?=(\d{3})+(?!\d))`: cuts before each group of three ASCII digits, counted from the right.
    BeforeThousands,
    /// `\s+$`: the white space at the end of the piece.
    TrailingSpaces,
    /// `<sentinel:[0-9]+>`.
    Sentinels,
    /// `IMGIMG[A-I]{1,4}Z`.
    ImageMarks,
    /// `[\t\n]|    |  `: tabs, newlines, and spaces in fours and pairs.
    Indents,
}

/// A set of characters.
#[derive(Clone, Copy, Debug)]
enum Set {
    /// Characters of a class.
    Class(Class),
    /// Characters of a class, and those listed.
    ClassOr(Class, &'static str),
    /// Characters in any of the ranges, white space outside ASCII apart. Both ends are included, and the
    /// ranges ascend.
    Ranges(&'static [(char, char)]),
}

impl Set {
    fn contains(self, c: char, class: Class) -> bool {
        match self {
            Self::Class(wanted) => class.any(wanted),
            Self::ClassOr(wanted, others) => class.any(wanted) || others.contains(c),
            Self::Ranges(ranges) => {
                let after = ranges.partition_point(|(_, last)| *last < c);
                let in_range = ranges.get(after).is_some_and(|(first, _)| *first <= c);
                in_range && (c.is_ascii() || !class.any(Class::SPACE))
            }
        }
    }
}

impl Stage {
    /// Hands the pieces of `text` to `emit`, in order.
    fn cut<'t>(self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        match self {
            Self::Gpt2 => cursor::words(text, gpt2::word_end, emit),
            Self::Letters(letters) => cursor::words(text, |text, at| letters.word_end(text, at), emit),
            Self::Cased(cased) => cursor::words(text, |text, at| cased.word_end(text, at), emit),
            Self::DeepSeek3 => cursor::matches(text, deepseek::v3_match_end, emit),
            Self::Spark => cursor::matches(text, deepseek::spark_match_end, emit),
            Self::Kimi => cursor::words(text, kimi::word_end, emit),
            Self::Phrases => cursor::words(text, phrases::word_end, emit),
            Self::RunsOfEach(sets) => {
                let end = |text: &str, at| sets.iter().find_map(|set| runs::run_end(text, at, *set));
                cursor::matches(text, end, emit);
            }
            Self::SpacedRest(set) => {
                cursor::matches(text, |text, at| runs::spaced_rest_end(text, at, set), emit)
            }
            Self::NumbersFromRight => digits::from_right(text, emit),
            Self::BeforeThousands => digits::before_thousands(text, emit),
            Self::Sentinels => cursor::matches(text, chameleon::sentinel_end, emit),
            Self::ImageMarks => cursor::matches(text, chameleon::image_mark_end, emit),
            Self::Indents => cursor::matches(text, chameleon::indent_end, emit),
            Self::Runs(set) => cursor::matches(text, |text, at| runs::run_end(text, at, set), emit),
            Self::Each(set) => cursor::matches(text, |text, at| runs::one_end(text, at, set), emit),
            Self::SpacedRuns(set) => {
                cursor::matches(text, |text, at| runs::spaced_run_end(text, at, set), emit)
            }
            Self::NumbersByThree => cursor::matches(text, runs::up_to_three_numbers_end, emit),
            Self::AsciiDigitsByThree => cursor::matches(text, runs::three_digits_end, emit),
            Self::TrailingSpaces => runs::cut_trailing_spaces(text, emit),
        }
    }
}

/// Hands the words of `text` to `emit`, in order; together they are the text.
fn cut<'t>(stages: &[Stage], text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    match stages.split_first() {
        Some((stage, rest)) => stage.cut(text, &mut |piece| cut(rest, piece, emit)),
        None => emit(text),
    }
}

#[cfg(test)]
mod tests;
