//! Validates names from servers and users before they become parts of paths.

/// Maximum bytes of a path component.
const COMPONENT_BYTES_MAX: usize = 240;
/// Maximum bytes of a path within a repository.
const PATH_BYTES_MAX: usize = 1000;
/// Maximum folder depth of a file in a repository.
const DEPTH_MAX: usize = 8;

/// Validates the name of an owner or a repository.
///
/// # Errors
///
/// The problem, and the allowed values.
pub(crate) fn check_repo_part(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 96 || !name.chars().all(legal) {
        return Err(format!(
            "'{}' is no name of at most 96 letters, digits, '-', '_' and '.'",
            printable(name)
        ));
    }
    if name.starts_with(['.', '-'])
        || name.ends_with(['.', '-'])
        || name.contains("..")
        || name.contains("--")
    {
        return Err(format!("'{name}' begins or ends with '.' or '-', or has two in a row"));
    }
    Ok(())
}

/// Validates the path of a file in a repository, or a single name.
///
/// # Errors
///
/// The problem, and the allowed values.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let refused = |problem: &str| Err(format!("'{}' is no name of a file: {problem}", printable(path)));
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return refused("its length must be 1 to 1000 bytes");
    }
    if path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')) {
        return refused("control characters and \\ : * ? \" < > | are not allowed");
    }
    if path.split('/').count() > DEPTH_MAX {
        return refused("it lies too deep");
    }
    for part in path.split('/') {
        if part.is_empty() || part.len() > COMPONENT_BYTES_MAX {
            return refused("a component is empty or too long");
        }
        // Names of dots are parent folders, and Windows drops trailing dots and blanks.
        if part.ends_with(['.', ' ']) || part.starts_with(' ') {
            return refused("a component begins with a blank, or ends with a blank or '.'");
        }
    }
    Ok(())
}

/// Returns whether a text is a digest of `len` hexadecimal digits.
pub(crate) fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the text shortened and with control characters escaped, for messages.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

/// Percent-encodes a path in a URL, except unreserved characters and `/`.
pub(crate) fn percent_encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Percent-decodes a part of a URL; `None` if it is not UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_their_folder() {
        for path in ["a.gguf", "Q4_K_M/a-00001-of-00002.gguf", "a b.gguf", "ä.gguf", "..a", ".hidden"] {
            check_path(path).unwrap();
        }
        let long = "x".repeat(241);
        for path in [
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a/",
            "a\\..\\b",
            "C:a",
            "a\0",
            "a\n",
            "a.",
            "a ",
            "a/./b",
            "a/b/c/d/e/f/g/h/i",
            &long,
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn names_of_repositories() {
        for name in ["bartowski", "SmolLM2-135M_Instruct.v2"] {
            check_repo_part(name).unwrap();
        }
        for name in ["", "..", ".a", "a.", "a--b", "a/b", "a b", "a\u{e4}", &"x".repeat(97)] {
            assert!(check_repo_part(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn urls_encode_all_that_has_a_meaning_there() {
        assert_eq!(percent_encoded("a b/ä#?%.gguf"), "a%20b/%C3%A4%23%3F%25.gguf");
        assert_eq!(percent_decoded("a%20b%2Fc%").as_deref(), Some("a b/c%"));
        assert_eq!(percent_decoded("%ff"), None);
    }
}
