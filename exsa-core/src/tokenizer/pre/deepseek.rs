//! The DeepSeek models: sets of characters, and the last expression of V3.

use super::cursor::{At, look, run, spaces};
use super::{Class, Set};

/// The last of DeepSeek V3's expressions:
/// ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
/// ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``.
///
/// Gives the end of the match that starts at `at`; some characters, numbers among them, match nothing.
pub(super) fn v3_match_end(text: &str, at: usize) -> Option<usize> {
    match_end(text, at, true)
}

/// The same with `|[\r\n]|` in place of `[\r\n]*|\s*[\r\n]+|`: every newline stands alone.
pub(super) fn spark_match_end(text: &str, at: usize) -> Option<usize> {
    match_end(text, at, false)
}

fn match_end(text: &str, at: usize, join_newlines: bool) -> Option<usize> {
    const WORD: Class = Class::LETTER.or(Class::MARK);
    const SIGN: Class = Class::PUNCTUATION.or(Class::SYMBOL);
    let is_word = |c: At| c.class.any(WORD);
    let is_sign = |c: At| c.class.any(SIGN);
    let here = look(text, at);
    let next = at + here.len;
    if here.c.is_ascii_punctuation() {
        let end = run(text, next, |c| c.c.is_ascii_alphabetic());
        if end > next {
            return Some(end);
        }
    }
    let can_lead = here.is_none_of(SIGN.or(Class::LETTER)) && !here.is_newline();
    if can_lead && is_word(look(text, next)) || is_word(here) {
        return Some(run(text, next, is_word));
    }
    let start = if here.c == ' ' { next } else { at };
    if is_sign(look(text, start)) {
        let end = run(text, start, is_sign);
        return Some(if join_newlines { run(text, end, At::is_newline) } else { end });
    }
    if !join_newlines && here.is_newline() {
        return Some(next);
    }
    let spaces = spaces(text, at);
    let end =
        if join_newlines { spaces.to_newline_or_before_word(text, at) } else { spaces.before_word(text, at) };
    (end > at).then_some(end)
}

/// Letters that have a case, as DeepSeek LLM lists them.
pub(super) const CASED_LETTERS: Set = Set::Ranges(&[
    ('A', 'Z'),
    ('a', 'z'),
    ('\u{b5}', '\u{b5}'),
    ('\u{c0}', '\u{d6}'),
    ('\u{d8}', '\u{f6}'),
    ('\u{f8}', '\u{1ba}'),
    ('\u{1bc}', '\u{1bf}'),
    ('\u{1c4}', '\u{293}'),
    ('\u{295}', '\u{2af}'),
    ('\u{370}', '\u{373}'),
    ('\u{376}', '\u{377}'),
    ('\u{37b}', '\u{37d}'),
    ('\u{37f}', '\u{37f}'),
    ('\u{386}', '\u{386}'),
    ('\u{388}', '\u{38a}'),
    ('\u{38c}', '\u{38c}'),
    ('\u{38e}', '\u{3a1}'),
    ('\u{3a3}', '\u{3f5}'),
    ('\u{3f7}', '\u{481}'),
    ('\u{48a}', '\u{52f}'),
    ('\u{531}', '\u{556}'),
    ('\u{10a0}', '\u{10c5}'),
    ('\u{13a0}', '\u{13f5}'),
    ('\u{13f8}', '\u{13fd}'),
    ('\u{1c90}', '\u{1cba}'),
    ('\u{1cbd}', '\u{1cbf}'),
    ('\u{1d00}', '\u{1d2b}'),
    ('\u{1d6b}', '\u{1d77}'),
    ('\u{1d79}', '\u{1d9a}'),
    ('\u{1e00}', '\u{1f15}'),
    ('\u{1f18}', '\u{1f1d}'),
    ('\u{1f20}', '\u{1f45}'),
    ('\u{1f48}', '\u{1f4d}'),
    ('\u{1f50}', '\u{1f57}'),
    ('\u{1f59}', '\u{1f59}'),
    ('\u{1f5b}', '\u{1f5b}'),
    ('\u{1f5d}', '\u{1f5d}'),
    ('\u{1f5f}', '\u{1f7d}'),
    ('\u{1f80}', '\u{1fb4}'),
    ('\u{1fb6}', '\u{1fbc}'),
    ('\u{1fbe}', '\u{1fbe}'),
    ('\u{1fc2}', '\u{1fc4}'),
    ('\u{1fc6}', '\u{1fcc}'),
    ('\u{1fd0}', '\u{1fd3}'),
    ('\u{1fd6}', '\u{1fdb}'),
    ('\u{1fe0}', '\u{1fec}'),
    ('\u{1ff2}', '\u{1ff4}'),
    ('\u{1ff6}', '\u{1ffc}'),
    ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'),
    ('\u{210a}', '\u{2113}'),
    ('\u{2115}', '\u{2115}'),
    ('\u{2119}', '\u{211d}'),
    ('\u{2124}', '\u{2124}'),
    ('\u{2126}', '\u{2126}'),
    ('\u{2128}', '\u{2128}'),
    ('\u{212a}', '\u{212d}'),
    ('\u{212f}', '\u{2134}'),
    ('\u{2139}', '\u{2139}'),
    ('\u{213c}', '\u{213f}'),
    ('\u{2145}', '\u{2149}'),
    ('\u{214e}', '\u{214e}'),
    ('\u{2183}', '\u{2184}'),
    ('\u{2c00}', '\u{2c7b}'),
    ('\u{2c7e}', '\u{2ce4}'),
    ('\u{2ceb}', '\u{2cee}'),
    ('\u{2cf2}', '\u{2cf3}'),
    ('\u{a640}', '\u{a66d}'),
    ('\u{a680}', '\u{a69b}'),
    ('\u{a722}', '\u{a76f}'),
    ('\u{a771}', '\u{a787}'),
    ('\u{a78b}', '\u{a78e}'),
    ('\u{ab70}', '\u{abbf}'),
    ('\u{fb00}', '\u{fb06}'),
    ('\u{fb13}', '\u{fb17}'),
    ('\u{ff21}', '\u{ff3a}'),
    ('\u{ff41}', '\u{ff5a}'),
    ('\u{10400}', '\u{1044f}'),
    ('\u{104b0}', '\u{104d3}'),
    ('\u{104d8}', '\u{104fb}'),
    ('\u{10c80}', '\u{10cb2}'),
    ('\u{10cc0}', '\u{10cf2}'),
    ('\u{118a0}', '\u{118df}'),
    ('\u{1e900}', '\u{1e943}'),
]);

/// Punctuation, as DeepSeek LLM lists it; ASCII letters lie in its second range.
pub(super) const PUNCTUATION: Set = Set::Ranges(&[
    ('!', '/'),
    (':', '~'),
    ('\u{2018}', '\u{201f}'),
    ('\u{3000}', '\u{3002}'),
    ('\u{ff01}', '\u{ff0f}'),
    ('\u{ff1a}', '\u{ff5e}'),
]);

/// Scripts of East and South Asia, as DeepSeek LLM lists them.
pub(super) const ASIAN: Set = Set::Ranges(&[('\u{800}', '\u{9fa5}'), ('\u{ac00}', '\u{d7ff}')]);

/// Chinese characters and Japanese syllables, as DeepSeek V3 lists them.
pub(super) const CHINESE_JAPANESE: Set = Set::Ranges(&[('\u{3040}', '\u{30ff}'), ('\u{4e00}', '\u{9fa5}')]);
