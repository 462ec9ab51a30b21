//! Formats the subject of an X.509 certificate (RFC 5280) as text (RFC 4514).

use std::fmt::Write;

/// Constructed types and string types of DER.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const OBJECT_ID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const LATIN_STRINGS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// Returns the subject of a DER certificate, such as `CN=alice,O=Example`; empty if there is none or it is
/// malformed.
pub(super) fn of(certificate: &[u8]) -> String {
    read(certificate).unwrap_or_default()
}

fn read(certificate: &[u8]) -> Option<String> {
    let mut outer = Reader(certificate);
    let mut certificate = outer.inside(SEQUENCE)?;
    let mut fields = certificate.inside(SEQUENCE)?;
    if fields.peek() == Some(VERSION) {
        fields.next()?;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        fields.next()?;
    }
    name(fields.inside(SEQUENCE)?)
}

/// Formats a name, most specific part first.
fn name(mut parts: Reader<'_>) -> Option<String> {
    let mut texts = Vec::new();
    while !parts.0.is_empty() {
        let mut values = parts.inside(SET)?;
        let mut text = String::new();
        while !values.0.is_empty() {
            let mut attribute = values.inside(SEQUENCE)?;
            let (tag, id) = attribute.next()?;
            if tag != OBJECT_ID {
                return None;
            }
            let (tag, value) = attribute.next()?;
            if !text.is_empty() {
                text.push('+');
            }
            text.push_str(&attribute_name(id)?);
            text.push('=');
            push_escaped(&mut text, tag, value);
        }
        texts.push(text);
    }
    texts.reverse();
    Some(texts.join(","))
}

/// Returns the short name of an attribute, or its dotted number.
fn attribute_name(id: &[u8]) -> Option<String> {
    let short = match id {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        _ => return dotted(id),
    };
    Some(short.to_owned())
}

fn dotted(id: &[u8]) -> Option<String> {
    let (mut numbers, mut number) = (Vec::new(), 0_u64);
    for byte in id {
        number = number.checked_mul(128)? + u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let (first, rest) = numbers.split_first()?;
    let root = (first / 40).min(2);
    let mut text = format!("{root}.{}", first - root * 40);
    for number in rest {
        let _ = write!(text, ".{number}");
    }
    Some(text)
}

/// Appends a value with special characters escaped. Values that are not text are in hexadecimal.
fn push_escaped(out: &mut String, tag: u8, value: &[u8]) {
    let text = match tag {
        tag if LATIN_STRINGS.contains(&tag) => std::str::from_utf8(value).ok().map(str::to_owned),
        BMP_STRING => {
            let units: Vec<u16> =
                value.chunks_exact(2).filter_map(|two| two.try_into().ok().map(u16::from_be_bytes)).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    };
    let Some(text) = text else {
        out.push('#');
        push_hex(out, "", value);
        return;
    };
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=');
        let edge = c == ' ' && (i == 0 || i == last) || c == '#' && i == 0;
        if c.is_control() {
            let mut bytes = [0; 4];
            push_hex(out, "\\", c.encode_utf8(&mut bytes).as_bytes());
            continue;
        }
        if special || edge {
            out.push('\\');
        }
        out.push(c);
    }
}

fn push_hex(out: &mut String, prefix: &str, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{prefix}{byte:02x}");
    }
}

/// Iterates over DER elements.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Returns tag and content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (
                    digits.iter().try_fold(0_usize, |sum, digit| {
                        sum.checked_mul(256)?.checked_add(usize::from(*digit))
                    })?,
                    rest,
                )
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// Returns the content of the next element, which must have `tag`.
    fn inside(&mut self, tag: u8) -> Option<Self> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| Self(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, 0x82, (content.len() >> 8) as u8, content.len() as u8], content].concat()
    }

    fn certificate(parts: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
        let parts = parts.iter().flat_map(|(id, tag, value)| {
            let attribute = [element(OBJECT_ID, id), element(*tag, value)].concat();
            element(SET, &element(SEQUENCE, &attribute))
        });
        let subject = element(SEQUENCE, &parts.collect::<Vec<_>>());
        let skipped =
            [element(2, &[1]), element(SEQUENCE, &[]), element(SEQUENCE, &[]), element(SEQUENCE, &[])];
        let fields = [element(VERSION, &[2, 1, 2]), skipped.concat(), subject].concat();
        element(SEQUENCE, &element(SEQUENCE, &fields))
    }

    #[test]
    fn subjects_are_written_as_in_rfc_4514() {
        let parts: [(&[u8], u8, &[u8]); 4] = [
            (&[0x55, 4, 10], 0x0c, "Ärzte, GmbH".as_bytes()),
            (&[0x55, 4, 3], 0x13, b" alice=1 "),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 9, 1], 0x16, b"a@b.example\n"),
            (&[0x55, 4, 11], BMP_STRING, &[0, b'x', 0x20, 0xac]),
        ];
        let expected = "OU=x€,1.2.840.113549.1.9.1=a@b.example\\0a,CN=\\ alice\\=1\\ ,O=Ärzte\\, GmbH";
        assert_eq!(of(&certificate(&parts)), expected);
        assert_eq!(of(&certificate(&[(&[0x55, 4, 3], 2, &[7])])), "CN=#07");
        assert_eq!((of(&certificate(&[])), of(&[])), (String::new(), String::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<usize>()) {
            of(&bytes);
            let mut sound = certificate(&[(&[0x55, 4, 3], 0x0c, b"alice")]);
            let at = at % sound.len();
            sound.splice(at..(at + bytes.len()).min(sound.len()), bytes.drain(..));
            of(&sound);
        }
    }
}
