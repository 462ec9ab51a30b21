//! The byte alphabet of GPT-2: every byte is written as one visible character, so that vocabularies and
//! merges are plain text. Printable bytes of Latin-1 stand for themselves, the other 68 for U+0100 and up, in
//! order.

/// Whether byte `b` is written as the character U+00b.
const fn is_printable(b: u8) -> bool {
    matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

const FIRST_OTHER: u32 = 0x100;

/// Character of each byte.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut others = FIRST_OTHER;
    let mut b = 0;
    while b < 256 {
        let code = if is_printable(b as u8) { b as u32 } else { others };
        if let Some(c) = char::from_u32(code) {
            chars[b] = c;
        }
        if !is_printable(b as u8) {
            others += 1;
        }
        b += 1;
    }
    chars
};

/// Bytes of the characters from [`FIRST_OTHER`] on.
const OTHERS: [u8; 68] = {
    let mut bytes = [0; 68];
    let mut b = 0;
    while b < 256 {
        if !is_printable(b as u8) {
            bytes[(CHARS[b] as u32 - FIRST_OTHER) as usize] = b as u8;
        }
        b += 1;
    }
    bytes
};

/// The character that `byte` is written as.
pub(super) fn char_of(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The byte that is written as `c`.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match u8::try_from(c) {
        Ok(b) => is_printable(b).then_some(b),
        Err(_) => OTHERS.get((c as u32).checked_sub(FIRST_OTHER)? as usize).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for b in 0..=255 {
            assert_eq!(byte_of(char_of(b)), Some(b), "{b:#x}");
        }
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!(
            (byte_of(' '), byte_of('\u{ad}'), byte_of('\u{144}'), byte_of('中')),
            (None, None, None, None)
        );
    }
}
