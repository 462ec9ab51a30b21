//! Scripts and punctuation that models list by code points, beside those of DeepSeek.

use super::Set;

/// Hangul, as Youtu lists it.
const HANGUL: Set = Set::Ranges(&[('\u{3131}', '\u{318e}'), ('\u{ac00}', '\u{d7a3}')]);

/// Chinese punctuation, as Youtu lists it.
const CHINESE_PUNCTUATION: Set = Set::Ranges(&[
    ('\u{2014}', '\u{2014}'),
    ('\u{2018}', '\u{2019}'),
    ('\u{201c}', '\u{201d}'),
    ('\u{2026}', '\u{2026}'),
    ('\u{3001}', '\u{303f}'),
    ('\u{fe30}', '\u{fe4f}'),
    ('\u{ff01}', '\u{ff01}'),
    ('\u{ff0c}', '\u{ff0c}'),
    ('\u{ff1a}', '\u{ff1b}'),
]);

const BOPOMOFO: Set = Set::Ranges(&[('\u{3105}', '\u{312f}')]);

/// The sets of which Youtu takes runs first.
pub(super) const YOUTU: &[Set] = &[HANGUL, CHINESE_PUNCTUATION, BOPOMOFO, super::deepseek::CHINESE_JAPANESE];

/// Scripts of East and South-East Asia, as AFMoE lists them. One of its ranges reaches from U+8C48 to U+FAFF.
pub(super) const AFMOE: Set = Set::Ranges(&[
    ('\u{e40}', '\u{eff}'),
    ('\u{1000}', '\u{109f}'),
    ('\u{1100}', '\u{11ff}'),
    ('\u{1780}', '\u{17ff}'),
    ('\u{2f00}', '\u{2fdf}'),
    ('\u{3040}', '\u{30ff}'),
    ('\u{3400}', '\u{4dbf}'),
    ('\u{4e00}', '\u{faff}'),
    ('\u{ff65}', '\u{ff9f}'),
]);

/// Characters that end a word in BLOOM's expression: white space and some punctuation.
pub(super) const BLOOM_ENDS: Set =
    Set::ClassOr(super::Class::SPACE, "(|.,!?)\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c}");
