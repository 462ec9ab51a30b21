//! Unicode properties that decide where text is cut: general category, white space, case, decomposition.
//!
//! The version is pinned (15.1), since the ids of a text must not change with the toolchain.

mod tables;

use std::sync::LazyLock;
use tables::{BASES, CLASS_RUNS};

/// Class of a character: a set of the properties below. Empty past the end of a text, and for characters that
/// are separators but not white space, or not assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// The class of no character.
    pub(super) const NONE: Self = Self(0);
    /// `\p{L}`.
    pub(super) const LETTER: Self = Self(1);
    /// `\p{N}`.
    pub(super) const NUMBER: Self = Self(2);
    /// `\p{M}`.
    pub(super) const MARK: Self = Self(4);
    /// `\p{P}`.
    pub(super) const PUNCTUATION: Self = Self(8);
    /// `\p{S}`.
    pub(super) const SYMBOL: Self = Self(16);
    /// `\p{C}`, unassigned characters apart.
    pub(super) const CONTROL: Self = Self(32);
    /// `\s`: the property White_Space. Such a character may be a control character as well.
    pub(super) const SPACE: Self = Self(64);

    /// The properties of both.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the character has at least one of `properties`.
    pub(super) const fn any(self, properties: Self) -> bool {
        self.0 & properties.0 != 0
    }

    /// The class of `c`.
    #[inline]
    pub(super) fn of(c: char) -> Self {
        let code = c as usize;
        let table = &*TABLE;
        let block = table.blocks.get(code >> BLOCK_BITS).copied().unwrap_or_default();
        Self(
            table
                .classes
                .get(usize::from(block) << BLOCK_BITS | code & BLOCK_MASK)
                .copied()
                .unwrap_or_default(),
        )
    }
}

/// Whether Python's `repr` writes a character as it is: it is assigned, and neither a control character nor a
/// separator other than the space.
#[cfg(feature = "chat-template")]
pub(crate) fn is_printable(c: char) -> bool {
    let class = Class::of(c);
    c == ' ' || class != Class::NONE && !class.any(Class::CONTROL.or(Class::SPACE))
}

const BLOCK_BITS: usize = 7;
const BLOCK_MASK: usize = (1 << BLOCK_BITS) - 1;

/// Classes of all characters in blocks of 128, equal blocks stored once.
struct ClassTable {
    /// Which block of `classes` holds the characters `i << BLOCK_BITS ..`.
    blocks: Vec<u16>,
    classes: Vec<u8>,
}

static TABLE: LazyLock<ClassTable> = LazyLock::new(|| {
    let mut flat = vec![0; char::MAX as usize + 1];
    let ends = CLASS_RUNS.iter().skip(1).map(|run| (run >> 8) as usize).chain([flat.len()]);
    for (run, end) in CLASS_RUNS.iter().zip(ends) {
        if let Some(classes) = flat.get_mut((run >> 8) as usize..end) {
            classes.fill((run & 0xff) as u8);
        }
    }
    let mut table = ClassTable { blocks: Vec::new(), classes: Vec::new() };
    let mut seen = std::collections::HashMap::new();
    for block in flat.chunks(1 << BLOCK_BITS) {
        let index = *seen.entry(block).or_insert_with(|| {
            table.classes.extend_from_slice(block);
            (table.classes.len() >> BLOCK_BITS) as u16 - 1
        });
        table.blocks.push(index);
    }
    table
});

/// The first character of the canonical decomposition of `c`: the letter without its accents, or the first
/// jamo of a Hangul syllable.
pub(super) fn base(c: char) -> char {
    const HANGUL_FIRST: u32 = 0xac00;
    const HANGUL_LAST: u32 = 0xd7a3;
    const LEADING_JAMO: u32 = 0x1100;
    const SYLLABLES_PER_LEADING: u32 = 21 * 28;
    let code = c as u32;
    let base = match code {
        0..0xc0 => return c,
        HANGUL_FIRST..=HANGUL_LAST => LEADING_JAMO + (code - HANGUL_FIRST) / SYLLABLES_PER_LEADING,
        _ => match BASES.binary_search_by_key(&code, |(from, _)| *from) {
            Ok(i) => BASES[i].1,
            Err(_) => return c,
        },
    };
    char::from_u32(base).unwrap_or(c)
}

/// `c` in lower case, by the mappings that keep one character one character.
pub(super) fn lowercase(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    // The standard library may know newer characters than the tables.
    if Class::of(c) == Class::NONE {
        return c;
    }
    c.to_lowercase().next().unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_characters_of_every_kind() {
        let cases = [
            ('a', Class::LETTER),
            ('Ж', Class::LETTER),
            ('中', Class::LETTER),
            ('7', Class::NUMBER),
            ('½', Class::NUMBER),
            ('\u{301}', Class::MARK),
            ('!', Class::PUNCTUATION),
            ('～', Class::SYMBOL),
            ('🦙', Class::SYMBOL),
            ('$', Class::SYMBOL),
            ('\0', Class::CONTROL),
            ('\u{200b}', Class::CONTROL),
            ('\n', Class::CONTROL.or(Class::SPACE)),
            (' ', Class::SPACE),
            ('\u{3000}', Class::SPACE),
            ('\u{378}', Class::NONE),
            (char::MAX, Class::NONE),
        ];
        for (c, class) in cases {
            assert_eq!(Class::of(c), class, "{c:?}");
        }
    }

    #[test]
    fn spaces_are_those_of_the_standard_library() {
        for c in '\0'..=char::MAX {
            assert_eq!(Class::of(c).any(Class::SPACE), c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn bases_and_lower_case() {
        for (c, expected) in
            [('a', 'a'), ('é', 'e'), ('Å', 'A'), ('ệ', 'e'), ('가', 'ᄀ'), ('힣', 'ᄒ'), ('ß', 'ß')]
        {
            assert_eq!(base(c), expected, "{c:?}");
        }
        for (c, expected) in [('A', 'a'), ('É', 'é'), ('İ', 'i'), ('ß', 'ß'), ('中', '中'), ('ᏸ', 'ᏸ')]
        {
            assert_eq!(lowercase(c), expected, "{c:?}");
        }
    }
}
