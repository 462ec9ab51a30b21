//! Model names in requests and configuration files.

/// Maximum bytes of a name.
const BYTES_MAX: usize = 128;

/// Names that are parts of paths below `/v1/models/`.
const RESERVED: [&str; 12] = [
    "adapters", "list", "active", "events", "load", "unload", "reload", "sleep", "wake", "cancel", "mode",
    "config",
];

/// Checks a model name: letters, digits and `._/-`, in parts that are neither empty nor `.` or `..`.
///
/// # Errors
///
/// The problem, and the allowed values.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a name is needed");
    }
    if name.len() > BYTES_MAX {
        return Err("the name is longer than 128 bytes");
    }
    if !name.bytes().all(is_allowed) {
        return Err("only letters, digits and '.', '_', '/', '-' are allowed");
    }
    if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err("parts between '/' must not be empty, '.' or '..'");
    }
    if RESERVED.contains(&name) {
        return Err("the name is that of a path below /v1/models/");
    }
    Ok(())
}

/// Returns a valid name close to `text`, such as a title in a file; `None` if no character is allowed.
pub(crate) fn from_text(text: &str) -> Option<String> {
    let mut name = String::new();
    for byte in text.bytes().take(BYTES_MAX) {
        if is_allowed(byte) && byte != b'/' {
            name.push(char::from(byte));
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_matches('-').to_owned();
    check(&name).is_ok().then_some(name)
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._/-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_their_alphabet_and_folder() {
        for name in ["a", "Qwen/Qwen3-0.6B.q8_0", "v1..2", "list/x"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b", "a\\b", "a\0", "é", "list", "%2e"]
        {
            assert!(check(name).is_err(), "{name}");
        }
        assert!(check(&"x".repeat(129)).is_err());
    }

    #[test]
    fn titles_become_names() {
        assert_eq!(from_text("SmolLM2 135M  Instruct").as_deref(), Some("SmolLM2-135M-Instruct"));
        assert_eq!(from_text("../etc/passwd").as_deref(), Some("..-etc-passwd"));
        for text in ["", "…", "..", "list"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
